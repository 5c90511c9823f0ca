"""The tuners that PEFT registers, by type: what a suite may name as `peft:<type>`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class PeftType:
    """A tuner of PEFT, run through its own config class.

    Attributes:
        key: PEFT's name of the type, lower-case.
        size: the config's option that the suite's `rank` sets; None for a type without.
        quantized: whether it has code for bitsandbytes' layers, or touches no weight.
        allocates: whether PEFT wants a call after each optimizer step.
        refused: why it can't train a sequence classifier; empty if it can.
        defaults: options set unless the suite sets them.
    """

    key: str
    title: str
    summary: str
    source: str
    size: str | None = None
    quantized: bool = False
    allocates: bool = False
    refused: str = ""
    defaults: dict[str, Any] = field(default_factory=dict)


PEFT_TYPES: dict[str, PeftType] = {
    kind.key: kind
    for kind in (
        PeftType(
            "lora", "PEFT LoRA", "LoRA through the generic entry", "arXiv 2106.09685", "r", True
        ),
        PeftType(
            "vera", "VeRA", "shared random A and B, trained scales", "arXiv 2310.11454", "r", True
        ),
    )
}

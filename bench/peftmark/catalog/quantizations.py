"""How the frozen base weights may be stored, as plain data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Quantization:
    """How the frozen base weights are stored.

    Attributes:
        bits: bits a weight, without the block constants.
    """

    key: str
    title: str
    bits: int
    summary: str


QUANTIZATIONS: dict[str, Quantization] = {
    q.key: q
    for q in (
        Quantization("none", "none", 32, "base weights as loaded"),
        Quantization("nf4", "NF4", 4, "4-bit NormalFloat (bitsandbytes), QLoRA's data type"),
        Quantization("fp4", "FP4", 4, "4-bit float (bitsandbytes)"),
        Quantization("int8", "int8", 8, "LLM.int8() (bitsandbytes)"),
    )
}

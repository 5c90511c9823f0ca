"""How the frozen base weights may be stored, as plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from peftmark.catalog import absent

Family = Literal["none", "bitsandbytes-4bit", "bitsandbytes-8bit", "torchao-8bit", "quanto"]
"""What makes the weights: one back-end of `peftmark.lab.quantization` each. A plug-in's may be of a
family of its own."""

_AGAIN = "dequantised, added, quantised again"
_NO_MERGE = "nothing: PEFT can't merge into such weights"


@dataclass(frozen=True)
class Quantization:
    """How the frozen base weights are stored.

    Attributes:
        family: the back-end that makes the weights and reads them.
        bits: bits a weight, without the block constants.
        reload_tolerance: largest difference of a logit between a trained model and its saved files
            loaded again that is no fault.
        merged: what a merge leaves behind, in words.
        double: whether its block constants can be quantised too.
        optional: a package it needs that peftmark is also installed without; empty for none.
        module: what is imported of that package, where it isn't called as the package is.
        extra: the extra of peftmark's that installs it, where it isn't called as the package is.
        code: `module:name` of a plug-in's back-end; empty for peftmark's own.
    """

    key: str
    title: str
    family: Family | str
    bits: int
    summary: str
    reload_tolerance: float
    merged: str
    double: bool = False
    optional: str = ""
    module: str = ""
    extra: str = ""
    code: str = ""

    @property
    def imported(self) -> str:
        """What is imported of the optional package; empty for none."""
        return self.module or self.optional.replace("-", "_")

    @property
    def install(self) -> str:
        """What to install for it, as pip takes it; empty for nothing more than peftmark."""
        return f"peftmark[{self.extra or self.optional}]" if self.optional else ""

    def reload_tolerance_with(self, weights: str) -> float:
        """`reload_tolerance` on a base stored in some type: PEFT rounds some adapters to one of 16
        bits as it loads them, and a start taken out of such weights is rounded too."""
        return self.reload_tolerance if weights == "fp32" else max(self.reload_tolerance, 1e-3)


QUANTIZATIONS: dict[str, Quantization] = {
    q.key: q
    for q in (
        Quantization("none", "none", "none", 32, "base weights as loaded", 1e-4, "fp32 weights"),
        # PEFT rounds some adapters on a 4-bit base to bf16 as it loads them.
        Quantization(
            "nf4",
            "NF4",
            "bitsandbytes-4bit",
            4,
            "4-bit NormalFloat (bitsandbytes), QLoRA's data type",
            1e-3,
            f"NF4 weights: {_AGAIN}",
            double=True,
        ),
        Quantization(
            "fp4",
            "FP4",
            "bitsandbytes-4bit",
            4,
            "4-bit float (bitsandbytes)",
            1e-3,
            f"FP4 weights: {_AGAIN}",
            double=True,
        ),
        # Its layers round activations, where a difference in the last bit may become a step.
        Quantization(
            "int8",
            "int8",
            "bitsandbytes-8bit",
            8,
            "LLM.int8() (bitsandbytes)",
            0.2,
            f"int8 weights: {_AGAIN}",
        ),
        Quantization(
            "int8-torchao",
            "int8 (torchao)",
            "torchao-8bit",
            8,
            "8-bit weights with a scale a row, activations as they are (torchao)",
            1e-4,
            f"int8 weights (torchao): {_AGAIN}",
            optional="torchao",
        ),
        Quantization(
            "fp8-torchao",
            "FP8 (torchao)",
            "torchao-8bit",
            8,
            "8-bit floats (e4m3) with a scale a row, activations as they are (torchao)",
            1e-4,
            f"FP8 weights (torchao): {_AGAIN}",
            optional="torchao",
        ),
        Quantization(
            "int8-quanto",
            "int8 (quanto)",
            "quanto",
            8,
            "8-bit weights with a scale a row, activations as they are (quanto)",
            1e-4,
            _NO_MERGE,
            optional="optimum-quanto",
            module="optimum.quanto",
            extra="quanto",
        ),
        Quantization(
            "fp8-quanto",
            "FP8 (quanto)",
            "quanto",
            8,
            "8-bit floats (e4m3) with a scale a row, activations as they are (quanto)",
            1e-4,
            _NO_MERGE,
            optional="optimum-quanto",
            module="optimum.quanto",
            extra="quanto",
        ),
        Quantization(
            "int4-quanto",
            "int4 (quanto)",
            "quanto",
            4,
            "4-bit weights in groups of 128 with scale and shift, activations as they are (quanto)",
            1e-4,
            _NO_MERGE,
            optional="optimum-quanto",
            module="optimum.quanto",
            extra="quanto",
        ),
    )
}


def quantization_of(key: str) -> Quantization | None:
    """The quantization of a key: of the catalogue, or of a plug-in as stored rows have it."""
    return QUANTIZATIONS.get(key) or absent.seen("quantization", key)


def of_family(*families: Family) -> tuple[str, ...]:
    """The keys that some back-ends make, in the table's order."""
    return tuple(q.key for q in QUANTIZATIONS.values() if q.family in families)

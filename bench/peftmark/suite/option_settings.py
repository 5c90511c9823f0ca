"""What a method's options ask of the rest of a recipe, beyond what each may be by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from peftmark.catalog.methods import Cell, known_method
from peftmark.catalog.quantizations import QUANTIZATIONS
from peftmark.record.recipe import first_stage_steps


def option_setting_faults(
    cell: Cell, values: Mapping[str, Any], steps: int, eval_every: int
) -> Iterator[tuple[str, str]]:
    """(key, what is wrong) of options that this recipe leaves no room for.

    Args:
        values: of the recipe, options among them.
        steps: of the training.
        eval_every: steps between evaluations.
    """
    check = _CHECKS.get(cell.method)
    if check is not None:
        yield from check(cell, values, steps, eval_every)


def _option(cell: Cell, values: Mapping[str, Any], name: str) -> Any:
    return known_method(cell.method).option(values["options"], name)


def _unipelt(
    cell: Cell, values: Mapping[str, Any], steps: int, eval_every: int
) -> Iterator[tuple[str, str]]:
    if values["attention"] in ("eager", "flash"):
        yield (
            "attention",
            f"found {values['attention']}; a part of unipelt is prefixes of torch's fused "
            "attention; allowed: sdpa, or leave it out",
        )
    if _option(cell, values, "gates") != "network":
        return
    if values["early_stopping"] is not None:
        yield (
            "early_stopping",
            "gates: network have a temperature that falls until the last step: training would end "
            "half done; leave early_stopping out, or use gates: paper",
        )
    if (passes := values["gradient_accumulation"]) > 1:
        yield (
            "gradient_accumulation",
            f"found {passes}; gates: network take the entropy of a whole step's gates from its "
            "loss; allowed: 1, or gates: paper",
        )
    if (devices := values["devices"]) > 1:
        yield (
            "devices",
            f"found {devices}; gates: network are pruned by their means over all rows that passed, "
            "and each device sees a part of them; allowed: 1, or gates: paper",
        )


def _distilled(
    cell: Cell, values: Mapping[str, Any], steps: int, eval_every: int
) -> Iterator[tuple[str, str]]:
    if (passes := values["gradient_accumulation"]) > 1:
        yield (
            "gradient_accumulation",
            f"found {passes}; {cell.method} compares a whole step's logits with its teacher's; "
            "allowed: 1",
        )


def _two_stage(
    cell: Cell, values: Mapping[str, Any], steps: int, eval_every: int
) -> Iterator[tuple[str, str]]:
    base = QUANTIZATIONS[cell.quantization]
    if _option(cell, values, "second_quantization") == "none" and (
        base.family != "bitsandbytes-4bit"
    ):
        four_bit = [key for key, q in QUANTIZATIONS.items() if q.family == "bitsandbytes-4bit"]
        yield (
            "options.second_quantization",
            f"found none with quantization {cell.quantization}; a second stage without "
            f"quantization follows a first one on {' or '.join(four_bit)} alone; use same",
        )
    if _option(cell, values, "from") != "best":
        return
    if values["selection_rows"] == 0:
        yield (
            "options.from",
            "found best with selection_rows 0; the best evaluation is told by the score on these "
            "rows; use last, or cut selection rows",
        )
    if eval_every > (first := first_stage_steps(values["options"], steps)):
        yield (
            "options.from",
            f"found best with eval_every {eval_every}; the first stage has {first} steps and no "
            "evaluation in them; evaluate at least once in it, or use last",
        )


_CHECKS: Mapping[str, Callable[[Cell, Mapping[str, Any], int, int], Iterator[tuple[str, str]]]] = {
    "bitfit-distilled": _distilled,
    "unipelt": _unipelt,
    "two-stage": _two_stage,
}

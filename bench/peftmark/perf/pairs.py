"""Our step against a bare loop, for each cell in a process of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from peftmark.perf.figures import efficiency_figure, median_figure
from peftmark.perf.launch import ONE_THREAD, python
from peftmark.perf.step import CELLS

Say = Callable[[str], None]


def measure(folder: Path, pairs: int, steps: int, say: Say) -> dict[str, Any]:
    """All figures of this part, as plain data for JSON."""
    found = {}
    for cell in CELLS:
        ask = json.dumps({"cell": cell, "pairs": pairs, "steps": steps})
        answer = python("peftmark.perf.step", [ask], folder / f"step-{cell}.log", ONE_THREAD).answer
        found[cell] = answer
        say(f"step: {cell}: {pairs} pairs of {steps} steps, {answer['losses']} losses are equal")
    return summary(found)


def summary(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Figures as plain data.

    Args:
        found: cell -> what `peftmark.perf.step` printed.
    """
    ratios, shares = {}, {}
    for cell, pairs in found.items():
        bare: Sequence[float] = pairs["bare"]
        each = [ours / plain for ours, plain in zip(pairs["ours"], bare, strict=True)]
        ratios[cell] = {
            **median_figure(each).to_dict(),
            "steps_a_block": pairs["steps"],
            "first_ours": pairs["first_ours"],
            "losses_equal": pairs["losses"],
            "bare_step_seconds": median_figure([s / pairs["steps"] for s in bare]).to_dict(),
        }
        figure = efficiency_figure(pairs["flops"], sum(bare), 1, pairs["peaks"])
        shares[cell] = figure.to_dict()
    return {"step_ratio": ratios, "step_efficiency": shares}

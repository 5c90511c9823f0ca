"""Which cells of a profile are reported, where trials choose among them as among settings.

A cell is a method with a size in a place (its variant), so a profile with many of them and
`tuning.best` searches over methods, sizes and places together: every cell has trials of the same
steps on the selection rows, those with the best scores are trained with the reported seeds, which
no trial had, and scored on rows that no trial saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from peftmark.catalog.methods import Cell
from peftmark.catalog.metrics import sign_of
from peftmark.suite.trials import Choice

Choices = Mapping[tuple[Cell, str], Choice]


def left_out(choices: Choices, made: bool, best: int | None, reference: Cell) -> tuple[Cell, ...]:
    """The cells that are not reported, in the order of the trials; none without `best`. While
    trials are to be made so many as will be, the last ones.

    Args:
        choices: cell and task -> what its trials say. A cell without trials is always reported.
        made: whether all trials are.
        best: how many cells with trials are reported, beside the reference.
        reference: the cell that the others are compared with.
    """
    cells = tuple(dict.fromkeys(cell for cell, _ in choices))
    rivals = [cell for cell in cells if cell != reference]
    if best is None or not made:
        return tuple(rivals[best:]) if best is not None else ()
    scores = {cell: score_of(choices, cell) for cell in rivals}
    known = {cell: score for cell, score in scores.items() if score is not None}
    kept = sorted(known, key=lambda cell: -known[cell])[:best]  # of equals the first
    return tuple(cell for cell in rivals if cell not in kept)


def score_of(choices: Choices, cell: Cell) -> float | None:
    """A cell's mean over tasks of the metric that its chosen setting has on the selection rows,
    higher being better; None where trials of a task gave none."""
    found = []
    for (of, _), choice in choices.items():
        if of != cell:
            continue
        chosen = [one for one in choice.tried if one.setting == choice.chosen]
        score = next((s for one in chosen for s in (one.whole, one.score) if s is not None), None)
        if score is None:
            return None
        found.append(sign_of(choice.metric) * score)
    return fmean(found) if found else None

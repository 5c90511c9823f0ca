"""Below which score a cell is no choice, however cheap it is. Pure.

A frozen head is the cheapest way to train and would lead every list of costs. The floor keeps what
learned little out of headlines, fronts and picks of a picture; its figures stay in every table.
"""

from __future__ import annotations

import statistics

from peftmark.analysis.guess import beats
from peftmark.analysis.stats import sign, t_interval
from peftmark.analysis.table import ResultTable, gain, overall_score
from peftmark.catalog.methods import Cell
from peftmark.record.job import Record

SHARE = 0.5
"""Of the way from a constant guess to the best mean: an assumption, there is no source for it."""

LITTLE = "learned too little"
NOT_SHOWN = "not shown above a constant guess"
"""Why a cell is below the floor. The second says nothing of what it learned."""


def guess(table: ResultTable) -> float | None:
    """What a constant guess scores on the scale of the table, mean over its tasks; None if it isn't
    recorded for each of them."""
    if not table.scale.tasks:
        return None
    if table.scale.kind != "value":
        return 0.0  # shares and gains count from the guess
    means = []
    for task in table.scale.tasks:
        found = [v for s in table.of(task=task) if (v := s.value(_baseline)) is not None]
        if not found:
            return None
        means.append(statistics.fmean(found))
    return statistics.fmean(means)


def below_floor(table: ResultTable) -> frozenset[Cell]:
    """The cells of `why_below`."""
    return frozenset(why_below(table))


def why_below(table: ResultTable) -> dict[Cell, str]:
    """Cells with an overall score that is less than half of the way from the guess to the best
    mean, or that is not shown above the constant guess, each with which it is.

    Fails closed, but where seeds have no interval, one alone or all alike: there the mean decides.
    Without a recorded guess no cell is below the floor, as none can be told to be.
    """
    base = guess(table)
    scored = {c: s for c in table.cells if (s := overall_score(table, c)).by_seed}
    if base is None or not scored:
        return {}
    means = {c: statistics.fmean(s.values) for c, s in scored.items()}
    floor = base + SHARE * (max(means.values()) - base)
    low = {c: LITTLE for c, mean in means.items() if mean < floor or mean <= base}
    return low | {c: NOT_SHOWN for c in means if c not in low and not _above(table, c)}


def _above(table: ResultTable, cell: Cell) -> bool:
    """Whether a cell with a mean above the guess is taken to be above it over all tasks."""
    # Shares and gains are of the way from the guess already.
    score = overall_score(table, cell, gain if table.scale.kind == "value" else None)
    if not score.values or (found := sign(t_interval(score.values))) == "no interval":
        return True
    return found == "higher" or all(beats(table, cell, task) for task in table.scale.tasks)


def _baseline(record: Record) -> float | None:
    return record.outcome.baseline_value

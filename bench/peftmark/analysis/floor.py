"""Below which score a cell is no choice, however cheap it is. Pure.

A frozen head is the cheapest way to train and would lead every list of costs. The floor keeps what
learned little out of headlines, fronts and picks of a picture; its figures stay in every table.
"""

from __future__ import annotations

import statistics

from peftmark.analysis.stats import sign, t_interval
from peftmark.analysis.table import ResultTable, gain, overall_score
from peftmark.catalog.methods import Cell
from peftmark.record.job import Record

SHARE = 0.5
"""Of the way from a constant guess to the best mean: an assumption, there is no source for it."""


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
    """Cells with an overall score that is not shown above the constant guess, or less than half of
    the way from the guess to the best mean.

    Fails closed as `guess.beats` does, but for one seed, which has no interval: there the mean
    decides. Without a recorded guess no cell is below the floor, as none can be told to be.
    """
    base = guess(table)
    scored = {c: s for c in table.cells if (s := overall_score(table, c)).by_seed}
    if base is None or not scored:
        return frozenset()
    means = {c: statistics.fmean(s.values) for c, s in scored.items()}
    floor = base + SHARE * (max(means.values()) - base)
    return frozenset(c for c, mean in means.items() if mean < floor or not _above(table, c, base))


def _above(table: ResultTable, cell: Cell, base: float) -> bool:
    """Whether a cell is shown above the guess over all tasks."""
    # Shares and gains are of the way from the guess already.
    score = overall_score(table, cell, gain if table.scale.kind == "value" else None)
    if len(score.values) < 2:
        return statistics.fmean(overall_score(table, cell).values) > base
    return sign(t_interval(score.values)) == "higher"


def _baseline(record: Record) -> float | None:
    return record.outcome.baseline_value

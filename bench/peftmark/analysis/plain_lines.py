"""Cells that are not above a reference line that needs no fine-tuning, by the rows' own means."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from peftmark.analysis.table import ResultTable, Score, task_score
from peftmark.catalog.methods import Cell
from peftmark.catalog.metrics import sign_of


@dataclass(frozen=True)
class NotAbove:
    """A fine-tuned cell whose mean on a task isn't better than a line's.

    Attributes:
        line: the best such line on the task.
        metric: the task's primary metric.
        mine, theirs: its mean of the cell and of the line.
        seeds: seeds that both means are over; 0 where none is shared and each is over its own.
    """

    cell: Cell
    line: Cell
    task: str
    metric: str
    mine: float
    theirs: float
    seeds: int

    @property
    def short(self) -> float:
        """By how much the cell falls short, at least 0."""
        return abs(self.theirs - self.mine)


def not_above(table: ResultTable) -> tuple[NotAbove, ...]:
    """Every fine-tuned cell and task with a line that it isn't above, the shortest fall last.

    Lines are held against cells by their seeds where they share some. Of several lines that a cell
    isn't above, the one that it is furthest below is named.
    """
    lines = [c for c in table.cells if c.fits]
    found = []
    for task in table.tasks:
        for cell in (c for c in table.cells if c.trains):
            told = [one for line in lines if (one := _held(table, cell, line, task)) is not None]
            if told:
                found.append(max(told, key=lambda one: one.short))
    return tuple(sorted(found, key=lambda one: -one.short))


def _held(table: ResultTable, cell: Cell, line: Cell, task: str) -> NotAbove | None:
    """The cell against one line; None where it is above, or a side has no finished run."""
    mine, theirs = (task_score(table, one, task) for one in (cell, line))
    if not mine.by_seed or not theirs.by_seed:
        return None
    shared = sorted(dict(mine.by_seed).keys() & dict(theirs.by_seed).keys())
    a, b = _mean(mine, shared), _mean(theirs, shared)
    metric = table.example(task).metric
    above = sign_of(metric) * (a - b) > 0
    return None if above else NotAbove(cell, line, task, metric, a, b, len(shared))


def _mean(score: Score, seeds: list[int]) -> float:
    """The mean over some seeds; over all of them if there are none."""
    return statistics.fmean(v for seed, v in score.by_seed if seed in seeds or not seeds)

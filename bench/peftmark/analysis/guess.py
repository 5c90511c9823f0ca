"""Tasks on which no cell is shown to beat a constant guess: there is nothing to choose there. Pure.

A guess looks at no row, so a method that isn't above it has learned nothing that its score shows.
Fails closed: a mean above the guess isn't enough, and a guess that isn't recorded shows nothing.
Not shown is not the same as shown not to: no sentence says that nothing was learned.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from peftmark.analysis.above_guess import above_guess
from peftmark.analysis.stats import NEARLY_ZERO, Estimate, sign, t_interval
from peftmark.analysis.table import ResultTable, gain, task_score
from peftmark.catalog.methods import Cell
from peftmark.catalog.metrics import sign_of
from peftmark.record.job import Record

ALPHA = 0.025
"""Chance of a false alarm by rows, one-sided as the upper side of a 95 % interval has it."""


@dataclass(frozen=True)
class Unbeaten:
    """A task on which no cell that trains is shown to beat the constant guess.

    Attributes:
        metric: the task's primary metric.
        best: the cell with the best mean.
        score: that cell's score with its 95 % interval over seeds.
        guess: what the guess scores, mean over the best cell's runs; None if it isn't recorded.
        others: whether a cell that trains nothing, such as a bag of words, is shown to beat it.
    """

    task: str
    metric: str
    best: Cell
    score: Estimate
    guess: float | None
    others: bool = False

    @property
    def above(self) -> bool | None:
        """Whether the best mean is above the guess, which shows nothing; None if it's unknown."""
        return (
            None
            if self.guess is None
            else sign_of(self.metric) * (self.score.mean - self.guess) > NEARLY_ZERO
        )

    @property
    def alike(self) -> bool:
        """Whether the best cell has several seeds and all score the same."""
        return self.score.half_width is not None and self.score.half_width <= NEARLY_ZERO


def beats(table: ResultTable, cell: Cell, task: str) -> bool:
    """Whether a cell is shown to beat the constant guess on a task, in either of two ways.

    Its 95 % interval over seeds of score less guess lies above 0: so would other seeds. As in the
    trade and in recommendations, that isn't adjusted for the number of cells. Or each of its runs
    is above by its evaluation rows (`above_guess`), which one seed and seeds that are all alike can
    show too; there the chance of a false alarm is shared among the cells of the task.
    """
    key = cell, task
    if key not in table.beaten:
        values = task_score(table, cell, task, gain).values
        over_seeds = bool(values) and sign(t_interval(values)) == "higher"
        table.beaten[key] = over_seeds or _by_rows(table, cell, task)
    return table.beaten[key]


def _by_rows(table: ResultTable, cell: Cell, task: str) -> bool:
    """Whether each finished run of a cell is above the guess by its evaluation rows."""
    runs = [s.record for s in table.of(cell, task) if s.ok and s.record is not None]
    scored = sum(bool(task_score(table, c, task).by_seed) for c in table.cells)
    return bool(runs) and all(above_guess(run, ALPHA / max(1, scored)) for run in runs)


def unbeaten(table: ResultTable) -> tuple[Unbeaten, ...]:
    """The tasks where finished runs of cells that train show no gain over the guess.

    A task on which nothing that trains has finished isn't one of them: nothing is said of it yet.
    """
    trained = [cell for cell in table.cells if cell.trains]
    found = []
    for task in table.tasks:
        ran = [cell for cell in trained if task_score(table, cell, task).by_seed]
        if ran and not any(beats(table, cell, task) for cell in ran):
            found.append(_of(table, ran, task))
    return tuple(found)


def _of(table: ResultTable, ran: list[Cell], task: str) -> Unbeaten:
    metric = table.example(task).metric
    means = {cell: statistics.fmean(task_score(table, cell, task).values) for cell in ran}
    best = max(means, key=lambda cell: sign_of(metric) * means[cell])
    score = t_interval(task_score(table, best, task).values)
    guesses = task_score(table, best, task, _guess).values
    guess = statistics.fmean(guesses) if guesses else None
    others = any(beats(table, cell, task) for cell in table.cells if not cell.trains)
    return Unbeaten(task, metric, best, score, guess, others)


def _guess(record: Record) -> float | None:
    """What a constant guess scores on the rows of a run."""
    return record.outcome.baseline_value

"""Tasks on which no cell is shown to beat a constant guess: there is nothing to choose there. Pure.

A guess looks at no row, so a method that isn't above it has learned nothing that its score shows.
Fails closed: a mean above the guess isn't enough, and one seed, seeds that are all alike or a guess
that isn't recorded show nothing.
"""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from peftmark.analysis.stats import Estimate, sign, t_interval
from peftmark.analysis.table import ResultTable, gain, task_score
from peftmark.catalog.methods import Cell
from peftmark.catalog.metrics import sign_of
from peftmark.record.job import Record


@dataclass(frozen=True)
class Unbeaten:
    """A task on which no cell that trains is shown to beat the constant guess.

    Attributes:
        metric: the task's primary metric.
        best: the cell with the best mean.
        score: that cell's score with its 95 % interval over seeds.
        guess: what the guess scores, mean over the best cell's runs; None if it isn't recorded.
    """

    task: str
    metric: str
    best: Cell
    score: Estimate
    guess: float | None


def beats(table: ResultTable, cell: Cell, task: str) -> bool:
    """Whether a cell's 95 % interval over seeds of score less guess lies above 0.

    As in the trade and in recommendations, the interval isn't adjusted for the number of cells.
    """
    values = task_score(table, cell, task, gain).values
    return bool(values) and sign(t_interval(values)) == "higher"


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
    return Unbeaten(task, metric, best, score, statistics.fmean(guesses) if guesses else None)


def _guess(record: Record) -> float | None:
    """What a constant guess scores on the rows of a run."""
    return record.outcome.baseline_value

"""How much training the cells of a table saw on a task, and where that was not the same. Pure.

A score after other amounts of training is no score of a method alone: whoever shows one beside
another has to say the factor.
"""

from __future__ import annotations

import statistics

from peftmark.analysis.table import ResultTable, task_score
from peftmark.catalog.methods import Cell
from peftmark.record.job import Record

SAME = 0.01
"""Amounts within this share of each other count as the same: begun batches at the end of an epoch
differ by less, a longer run by more."""


def rows_seen(record: Record) -> float | None:
    """Training rows read, each as often as it was: steps taken times the rows of a step.

    A step's rows are the recipe's batch, in however many passes they are read (gradient
    accumulation).

    Returns:
        None where nothing trains by steps.
    """
    job = record.job
    if not job.cell.trains:
        return None
    taken = record.outcome.steps
    return float((job.recipe.steps if taken is None else taken) * job.recipe.batch_size)


def yardstick(table: ResultTable, task: str) -> Cell | None:
    """The cell whose rows the others' are multiples of: the reference, or where it has no finished
    run on the task the first that has; None without one."""
    order = [table.reference, *table.cells]
    return next((c for c in order if _seen(table, c, task) is not None), None)


def factor(table: ResultTable, cell: Cell, other: Cell, task: str) -> float | None:
    """How many times the rows of another cell a cell saw on a task; None where one trains nothing
    or has no finished run."""
    mine, theirs = _seen(table, cell, task), _seen(table, other, task)
    return None if mine is None or not theirs else mine / theirs


def unlike(table: ResultTable, cell: Cell, other: Cell) -> dict[str, float]:
    """Task -> the factor, of the tasks where two cells saw other amounts of training."""
    found = {task: factor(table, cell, other, task) for task in table.tasks}
    return {t: f for t, f in found.items() if f is not None and not _same(f)}


def unlike_yardstick(table: ResultTable, cell: Cell, task: str) -> float | None:
    """The factor to the yardstick of a task; None where the amount is the same or unknown."""
    base = yardstick(table, task)
    found = None if base is None else factor(table, cell, base, task)
    return None if found is None or _same(found) else found


def _same(ratio: float) -> bool:
    return 1 / (1 + SAME) <= ratio <= 1 + SAME


def _seen(table: ResultTable, cell: Cell, task: str) -> float | None:
    """Rows that a cell saw on a task, mean over its finished runs."""
    values = task_score(table, cell, task, rows_seen).values
    return statistics.fmean(values) if values else None

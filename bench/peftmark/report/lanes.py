"""One picture of who is better and where: every cell on every task, side by side."""

from __future__ import annotations

from dataclasses import replace

from peftmark.analysis.comparison import baseline_of
from peftmark.analysis.table import ResultTable, task_score
from peftmark.catalog.metrics import sign_of
from peftmark.render import words
from peftmark.render.chart_specs import Lanes, TaskLane
from peftmark.render.page import Figure, marks
from peftmark.report import cell_selection

MOST_LANES = 5
"""Tasks side by side in a picture."""


def axis(table: ResultTable, task: str) -> str:
    """A task's metric and its direction."""
    key = table.example(task).metric
    return f"{words.metric_title(key)}, {words.direction(key)}"


def figure(table: ResultTable) -> Figure:
    """Every cell on every task, side by side."""
    look, shown = marks(table.cells), cell_selection.picks(table)
    tasks = table.tasks[:MOST_LANES]
    found = tuple(
        TaskLane(
            task,
            axis(table, task),
            tuple(task_score(table, cell, task).estimate for cell in shown),
            baseline_of(table, task),
        )
        for task in tasks
    )
    note = (
        "Marker: mean. Line: 95\u00a0% t interval over seeds, not over evaluation rows. "
        "Dashes: a constant guess."
    )
    if len(tasks) < len(table.tasks):
        note += f" Drawn: {len(tasks)} of {len(table.tasks)} tasks; the table has all."
    note = f"{note} {cell_selection.left_out(table, len(shown), 'the table')}".strip()
    drawing = Lanes(tuple(look[cell] for cell in shown), found)
    phone = replace(drawing, narrow=True)
    return Figure("lanes", _led(table), drawing, note, wide=True, phone=phone)


def _led(table: ResultTable) -> str:
    """Which cell has the best mean on each task."""
    parts: dict[str, list[str]] = {}
    for task in table.tasks:
        sign = sign_of(table.example(task).metric)
        means = {
            c: sign * e.mean for c in table.cells if (e := task_score(table, c, task).estimate)
        }
        if means:
            best = max(means, key=lambda c: means[c])
            parts.setdefault(words.title(best), []).append(task)
    told = [f"{name} on {words.some(tasks, 3)}" for name, tasks in parts.items()]
    return f"Best mean: {words.some(told, 4)}; a mean alone is no verdict."

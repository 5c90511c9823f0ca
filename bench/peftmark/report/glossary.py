"""Every method, base format and task of a report in a line, with its paper."""

from __future__ import annotations

import re

from peftmark.analysis.table import ResultTable
from peftmark.catalog.method import Size
from peftmark.catalog.methods import Cell, known_method, method_of
from peftmark.catalog.quantizations import QUANTIZATIONS
from peftmark.core.shown import plural
from peftmark.record.job import Job
from peftmark.render import words
from peftmark.render.terms import Term

NUMBER: dict[Size, str] = {
    "rank": "; the number after r is its rank",
    "width": "; the number after w is its width",
    "tokens": "",
}
"""What a cell's name says of the method's size."""


def terms(table: ResultTable) -> tuple[Term, ...]:
    """The methods in the order of the cells, then base formats, then tasks; what the catalogue
    doesn't know, as of rows of another version, has no line."""
    cells: dict[str, list[Cell]] = {}
    for cell in table.cells:
        if method_of(cell.method) is not None:
            cells.setdefault(cell.method, []).append(cell)
    formats = dict.fromkeys(c.quantization for c in table.cells if c.quantization != "none")
    return (
        *(_method(key, found) for key, found in cells.items()),
        *(_format(key) for key in formats if key in QUANTIZATIONS),
        *(t for task in table.tasks if (t := _task(table.example(task))) is not None),
    )


def _method(key: str, cells: list[Cell]) -> Term:
    method = known_method(key)
    sized = any(cell.size is not None for cell in cells)
    number = NUMBER[method.size] if method.size and sized else ""
    source = "" if method.source == "reference" else method.source
    names = tuple(words.title(cell) for cell in cells)
    return Term(f"method-{_plain(key)}", method.title, f"{method.summary}{number}", source, names)


def _format(key: str) -> Term:
    known = QUANTIZATIONS[key]
    text = f"the base's frozen weights in {known.bits} bits: {known.summary}"
    return Term(f"format-{_plain(key)}", known.title, text, "", ())


def _task(job: Job) -> Term | None:
    task = job.known_task
    if task is None:
        return None
    text, source = task.summary, task.paper
    if task.own:
        classes = f" with {plural(len(task.labels), 'class', 'classes')}" if task.labels else ""
        text = (
            f"your own {task.kind}{classes}: {task.train_rows:,} rows to train on, "
            f"{task.eval_rows:,} to evaluate"
        )
    text += f"{' S' if text.endswith('?') else '; s'}cored by {words.metric_title(job.metric)}"
    title = job.task if task.own else task.title
    return Term(f"task-{_plain(job.task)}", title, text, source, (job.task,))


def _plain(key: str) -> str:
    return re.sub(r"[^A-Za-z0-9]", "-", key)

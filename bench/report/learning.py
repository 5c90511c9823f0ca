"""How fast each cell gets there: learning curves and steps to the target."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from bench.methods import Cell
from bench.report import gaps, picks, words
from bench.report.page import (
    Column,
    CurveLine,
    Curves,
    Entry,
    Figure,
    Figures,
    Grid,
    Mark,
    Paragraph,
    Section,
    marks,
)
from bench.report.quality import metric_of
from bench.table import Reach, ResultTable, reach


def section(table: ResultTable) -> Section:
    """Learning curves by task and the steps-to-target table."""
    lead = " ".join(_task_lead(table, task) for task in table.tasks)
    where = "the table of steps to the target"
    omitted = picks.left_out(table, len(picks.picks(table)), where)
    by_task = [_figures(table, i, task) for i, task in enumerate(table.tasks)]
    pictures = tuple(figure for panels in by_task for figure in panels)
    rows = by_task if len(pictures) > len(by_task) else [pictures]
    figures = (Figures(row) for row in rows if row)
    note = (Paragraph(omitted),) if omitted and pictures else ()
    return Section("learning", "How fast it gets there", lead, (*note, *figures, _steps(table)))


def _task_lead(table: ResultTable, task: str) -> str:
    target = table.example(task).target
    if target is None:
        return f"{task}: no target set."
    found = [reach(table, cell, task) for cell in table.cells]
    finished, reached = sum(r.finished for r in found), sum(r.reached for r in found)
    metric = words.metric_title(metric_of(table, task))
    runs = words.plural(finished, "finished run")
    return f"{task}: {reached} of {runs} reached {metric} {words.number(target)}."


def _figures(table: ResultTable, index: int, task: str) -> tuple[Figure, ...]:
    look = marks(table.cells)
    lines = {
        cell: line for cell in picks.picks(table) if (line := _line(table, cell, task, look[cell]))
    }
    key = metric_of(table, task)
    axis = f"{words.metric_title(key)}, {words.direction(key)}"
    target = table.example(task).target
    seen = [y for line in lines.values() for seed in line.seeds for _, y in seed]
    span = (min(seen, default=0.0), max(seen, default=1.0))
    figures = []
    for part, cells in enumerate(picks.panels(table, list(lines))):
        drawing = Curves(tuple(lines[c] for c in cells), axis, target, span)
        finding = _reached(table, task, cells)
        note = "Thick line: mean over seeds. Thin lines: seeds. Dashes: the target."
        figures.append(Figure(f"curves-{index}-{part}", finding, drawing, note, title=task))
    return tuple(figures)


def _reached(table: ResultTable, task: str, cells: Sequence[Cell]) -> str:
    there, never = [], []
    for cell in cells:
        found = reach(table, cell, task)
        if found.target is None or not found.finished:
            continue
        if found.median is None:
            never.append(words.title(cell))
        else:
            rate = f"{found.reached} of {found.finished}"
            there.append(f"{words.title(cell)} {rate} (median step {found.median:g})")
    parts = [f"Reached the target: {words.listing(there)}"] if there else []
    if never:
        start = "not reached by" if there else "Target not reached by"
        parts.append(f"{start} {words.listing(never)}")
    return "; ".join(parts) + "." if parts else "No target is set for this task."


def _line(table: ResultTable, cell: Cell, task: str, mark: Mark) -> CurveLine | None:
    curves = [
        tuple((p.step, p.metric) for p in s.record.outcome.curve if math.isfinite(p.metric))
        for s in table.of(cell, task)
        if s.record is not None and s.ok and s.record.outcome.curve
    ]
    if not curves:
        return None
    steps = set.intersection(*({step for step, _ in curve} for curve in curves))
    mean = tuple((s, statistics.fmean(dict(curve)[s] for curve in curves)) for s in sorted(steps))
    return CurveLine(mark, tuple(curves), mean)


def _steps(table: ResultTable) -> Grid:
    columns = [Column("cell")]
    for task in table.tasks:
        columns.append(Column(task, "median, lower is better", numeric=True))
        columns.append(Column("reached", f"{task}, finished runs", numeric=True))
    rows = []
    for cell in table.cells:
        entries = [e for task in table.tasks for e in _reach_entries(table, cell, task)]
        rows.append((Entry(words.title(cell)), *entries))
    return Grid(
        "Steps to the target",
        tuple(columns),
        tuple(rows),
        note="The median is over the runs that reached the target; a run that never did is not "
        "given a number. Steps are those of evaluated points.",
    )


def _reach_entries(table: ResultTable, cell: Cell, task: str) -> tuple[Entry, Entry]:
    found = reach(table, cell, task)
    slots = table.of(cell, task)
    if found.target is None and slots:
        return words.missing("no target set"), words.missing("no target set")
    if not found.finished:
        gap = gaps.gap(slots)
        return gap, gap
    lost = found.planned - found.finished
    rate = Entry(
        f"{found.reached} of {found.finished}",
        f"{lost} of {found.planned} planned not finished" if lost else "",
        "number",
        found.reached / found.finished,
    )
    return _median(found), rate


def _median(found: Reach) -> Entry:
    if found.median is None:
        return Entry("not reached", kind="missing")
    low, high = found.steps[0], found.steps[-1]
    note = "" if low == high else f"{low} to {high}"
    if found.reached < found.finished:
        note = f"{note}; reaching seeds only".removeprefix("; ")
    return Entry(f"{found.median:g}", note, "number", found.median)

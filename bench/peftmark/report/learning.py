"""How fast each cell gets there: learning curves, and the way to the target."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from peftmark.analysis.table import ResultTable
from peftmark.analysis.time_to_target import Reach, reach
from peftmark.catalog.methods import Cell
from peftmark.render import words
from peftmark.render.chart_specs import CurveLine, Curves, Mark, WaitLine, Waits
from peftmark.render.page import Column, Entry, Figure, Figures, Grid, Paragraph, Section, marks
from peftmark.report import cell_selection, missing
from peftmark.report.quality import metric_of

MOST_PANELS = 24
"""Pictures of curves that a page carries; beyond it each task has one."""


def section(table: ResultTable) -> Section:
    """Learning curves by task and the steps-to-target table, of the cells that train."""
    table = table.without([cell for cell in table.cells if not cell.trains])
    by_task = Paragraph(" ".join(_task_lead(table, task) for task in table.tasks))
    cells = cell_selection.picks(table)
    if len(table.tasks) * len(cell_selection.panels(table, cells)) > MOST_PANELS:
        cells = cell_selection.picks(table, cell_selection.MOST_LINES)
    omitted = cell_selection.left_out(table, len(cells), "the table of steps to the target")
    curves = _in_rows([_figures(table, cells, i, task) for i, task in enumerate(table.tasks)])
    waits = _in_rows([_waits(table, cells, i, task) for i, task in enumerate(table.tasks)])
    note = (Paragraph(omitted),) if omitted and curves else ()
    tables = (_steps(table), _seconds(table))
    blocks = (by_task, *note, *curves, *waits, *tables)
    return Section("learning", "How fast it gets there", _lead(table), blocks)


def _lead(table: ResultTable) -> str:
    """How many runs reached the target of their task."""
    found = [
        reach(table, cell, task)
        for task in table.tasks
        if table.example(task).target is not None
        for cell in table.cells
    ]
    if not found:
        return "No task has a target score, so there is no time to it."
    finished, reached = sum(r.finished for r in found), sum(r.reached for r in found)
    return (
        f"{reached} of {words.plural(finished, 'finished run')} reached the target of their task."
    )


def _in_rows(by_task: Sequence[tuple[Figure, ...]]) -> list[Figures]:
    """One row of pictures a task, or a single one where each task has one."""
    pictures = tuple(figure for panels in by_task for figure in panels)
    rows = by_task if len(pictures) > len(by_task) else [pictures]
    return [Figures(row) for row in rows if row]


def _task_lead(table: ResultTable, task: str) -> str:
    target = table.example(task).target
    if target is None:
        return f"{task}: no target set."
    found = [reach(table, cell, task) for cell in table.cells]
    finished, reached = sum(r.finished for r in found), sum(r.reached for r in found)
    key = metric_of(table, task)
    metric = words.metric_title(key)
    runs = words.plural(finished, "finished run")
    return f"{task}: {reached} of {runs} reached {metric} {words.score(key, target)}."


def _figures(
    table: ResultTable, cells: Sequence[Cell], index: int, task: str
) -> tuple[Figure, ...]:
    look = marks(table.cells)
    lines = {cell: line for cell in cells if (line := _line(table, cell, task, look[cell]))}
    key = metric_of(table, task)
    axis = f"{words.metric_title(key)}, {words.direction(key)}"
    target = table.example(task).target
    seen = [y for line in lines.values() for seed in line.seeds for _, y in seed]
    span = (min(seen, default=0.0), max(seen, default=1.0))
    figures = []
    for part, group in enumerate(cell_selection.panels(table, list(lines))):
        drawing = Curves(tuple(lines[c] for c in group), axis, target, span)
        finding = _reached(table, task, group)
        note = "Thick: mean over seeds. Thin: seeds. Dashes: the target."
        figures.append(Figure(f"curves-{index}-{part}", finding, drawing, note, title=task))
    return tuple(figures)


def _reached(table: ResultTable, task: str, cells: Sequence[Cell]) -> str:
    there, never = [], []
    for cell in cells:
        found = reach(table, cell, task)
        if found.target is None or not found.finished:
            continue
        if not found.reached:
            never.append(words.title(cell))
        else:
            rate = f"{found.reached} of {found.finished}"
            there.append(f"{words.title(cell)} {rate}")
    parts = [f"Reached the target: {words.listing(there)}"] if there else []
    if never:
        start = "not reached by" if there else "Target not reached by"
        parts.append(f"{start} {words.listing(never)}")
    return "; ".join(parts) + "." if parts else "No target is set for this task."


def _waits(table: ResultTable, cells: Sequence[Cell], index: int, task: str) -> tuple[Figure, ...]:
    """Kaplan-Meier curves of a task whose target some run reached."""
    look = marks(table.cells)
    found = {c: reach(table, c, task) for c in cells}
    known = {c: r for c, r in found.items() if r.target is not None and r.waits}
    if not any(r.reached for r in known.values()):
        return ()
    end = max(s.job.recipe.steps for s in table.of(task=task))
    figures = []
    for part, group in enumerate(cell_selection.panels(table, list(known))):
        lines = tuple(_wait_line(look[c], known[c]) for c in group)
        note = (
            "Kaplan-Meier: runs that end short of the target are counted until they end. Equal "
            "curves are set apart by a hair."
        )
        finding = _half(known.get(table.reference), table, {c: known[c] for c in group})
        figures.append(
            Figure(f"waits-{index}-{part}", finding, Waits(lines, end), note, title=task)
        )
    return tuple(figures)


def _wait_line(mark: Mark, found: Reach) -> WaitLine:
    points = tuple((p.time, p.share) for p in found.curve if p.reached)
    return WaitLine(mark, ((0.0, 1.0), *points), max(w.step for w in found.waits))


def _half(base: Reach | None, table: ResultTable, found: dict[Cell, Reach]) -> str:
    """By which step half of the runs are there, against the reference."""
    name = words.title(table.reference)
    if base is None or base.median is None:
        return f"Fewer than half of the runs of {name} reached the target."
    others = {c: r for c, r in found.items() if c != table.reference}
    parts = [
        f"{words.title(c)} {r.median:g} ({words.times(r.median / base.median)})"
        for c, r in others.items()
        if r.median is not None
    ]
    never = [words.title(c) for c, r in others.items() if r.median is None]
    text = f"Half of the runs of {name} are there by step {base.median:g}"
    text += f"; {', '.join(parts)}" if parts else ""
    return f"{text}; {words.listing(never)}: fewer than half." if never else f"{text}."


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
        note="Median: the step by which half of the runs are there (Kaplan-Meier). A run that ends "
        "short of the target counts as taking longer and is given no number. Steps are those of "
        "evaluated points. The ratio to the reference stands where both have a median.",
    )


def _seconds(table: ResultTable) -> Grid:
    columns = (
        Column("cell"),
        *(
            Column(task, "s of training, median, lower is better", numeric=True)
            for task in table.tasks
        ),
    )
    rows = []
    for cell in table.cells:
        found = [reach(table, cell, task) for task in table.tasks]
        entries = [
            _seconds_entry(table, cell, task, r) for task, r in zip(table.tasks, found, strict=True)
        ]
        rows.append((Entry(words.title(cell)), *entries))
    return Grid("Training time to the target", columns, tuple(rows), folded=True)


def _seconds_entry(table: ResultTable, cell: Cell, task: str, found: Reach) -> Entry:
    if found.seconds is not None:
        return Entry(words.short(found.seconds), kind="number", sort=found.seconds)
    if found.median is not None:
        return words.missing("no median of the runs on the main machine")
    return _reach_entries(table, cell, task)[0]


def _reach_entries(table: ResultTable, cell: Cell, task: str) -> tuple[Entry, Entry]:
    found = reach(table, cell, task)
    slots = table.of(cell, task)
    if found.target is None and slots:
        return words.missing("no target set"), words.missing("no target set")
    if not found.finished:
        gap = missing.gap(slots)
        return gap, gap
    lost = found.planned - found.finished
    rate = Entry(
        f"{found.reached} of {found.finished}",
        f"{lost} of {found.planned} planned not finished" if lost else "",
        "number",
        found.reached / found.finished,
    )
    base = None if cell == table.reference else reach(table, table.reference, task)
    return _median(found, base), rate


def _median(found: Reach, base: Reach | None) -> Entry:
    if found.median is None:
        return Entry("not reached" if not found.reached else "not by half", kind="missing")
    low, high = found.steps[0], found.steps[-1]
    parts = ["" if low == high else f"{low} to {high}"]
    if base is not None and base.median is not None:
        parts.append(words.times(found.median / base.median))
    return Entry(f"{found.median:g}", "; ".join(filter(None, parts)), "number", found.median)

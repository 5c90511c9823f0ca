"""Ranks and importance over training: by which step the ranks of a cell had moved."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from peftmark.analysis.table import ResultTable
from peftmark.catalog.methods import Cell
from peftmark.record.job import Record
from peftmark.record.recipe import first_stage_steps
from peftmark.render import words
from peftmark.render.chart_specs import RankPath
from peftmark.render.page import Column, Entry, Figure, Grid, marks
from peftmark.report.module_names import layer_name, layers_of, place

MOST_COLUMNS = 12
"""Layers up to which each has a column."""
MOST_POINTS = 24
"""Evaluated steps in a picture."""
QUARTERS = ((0.25, "a quarter"), (0.5, "half"), (0.75, "three quarters"))


@dataclass(frozen=True)
class History:
    """Runs of one cell that were evaluated at the same steps, under one schedule.

    Attributes:
        window: steps at which pruning starts and ends; None without a schedule.
    """

    tasks: tuple[str, ...]
    rows: tuple[Record, ...]
    steps: tuple[int, ...]
    window: tuple[int, int] | None


def groups(table: ResultTable, cell: Cell) -> list[History]:
    """The cell's runs whose ranks moved, tasks of one schedule and of the same steps together."""
    found: dict[tuple[tuple[int, ...], tuple[int, int] | None], list[Record]] = {}
    for row in finished(table, cell):
        steps = tuple(point.step for point in row.outcome.curve)
        lengths = {len(history) for history in row.outcome.rank_history.values()}
        if moved(row) and lengths == {len(steps)}:
            found.setdefault((steps, _window(row)), []).append(row)
    return [
        History(tuple(dict.fromkeys(r.job.task for r in rows)), tuple(rows), *key)
        for key, rows in found.items()
    ]


def moved(row: Record) -> bool:
    """Whether any module's rank changed while it had one."""
    histories = row.outcome.rank_history.values()
    return any(len({rank for rank in history if rank is not None}) > 1 for history in histories)


def finished(table: ResultTable, cell: Cell) -> list[Record]:
    """The cell's finished runs."""
    return [s.record for s in table.of(cell) if s.ok and s.record is not None]


def rank_text(value: float) -> str:
    """A rank: whole, or a mean with one decimal."""
    return f"{value:.0f}" if value == round(value) else f"{value:.1f}"


def _window(row: Record) -> tuple[int, int] | None:
    recipe = row.job.recipe
    if recipe.adalora is None:
        return None
    first = 0
    if "first_stage" in recipe.options:
        first = first_stage_steps(recipe.options, recipe.steps)
    return first + recipe.adalora.tinit, recipe.steps - recipe.adalora.tfinal


def _totals(row: Record) -> tuple[float, ...]:
    histories = row.outcome.rank_history.values()
    return tuple(float(sum(r or 0 for r in point)) for point in zip(*histories, strict=True))


def path(table: ResultTable, index: int, cell: Cell, history: History) -> Figure:
    """Total rank, and rank and importance of each layer, by step."""
    at = _points(len(history.steps))
    runs = [_totals(row) for row in history.rows]
    mean = [statistics.fmean(point) for point in zip(*runs, strict=True)]
    layers = layers_of(table.rows)
    ranks = _layer_ranks(history.rows)
    importance = _layer_importance(history.rows)
    drawing = RankPath(
        marks(table.cells)[cell],
        tuple(history.steps[i] for i in at),
        tuple(tuple(run[i] for i in at) for run in runs),
        tuple(mean[i] for i in at),
        tuple(map(layer_name, layers)),
        tuple(tuple(ranks.get(layer, {}).get(i) for i in at) for layer in layers),
        tuple(tuple(importance.get(layer, {}).get(i) for i in at) for layer in layers)
        if importance
        else (),
        history.window,
    )
    note = f"Thick line: mean of {words.plural(len(runs), 'run')}."
    if history.window:
        start, end = history.window
        note += f" Dashes: pruning starts after step {start:,} and ends at step {end:,}."
    if len(at) < len(history.steps):
        note += f" {len(at)} of {len(history.steps)} evaluated steps are drawn."
    title = f"{words.title(cell)} on {words.some(history.tasks)}"
    return Figure(f"ranks-over-{index}", _pruned(history.steps, mean), drawing, note, title=title)


def _points(n: int) -> list[int]:
    """At most `MOST_POINTS` evenly spread indices of n, the first and the last among them."""
    if n <= MOST_POINTS:
        return list(range(n))
    return sorted({round(i * (n - 1) / (MOST_POINTS - 1)) for i in range(MOST_POINTS)})


def _pruned(steps: Sequence[int], totals: Sequence[float]) -> str:
    """By which step how much of the pruning was done, of what evaluated steps show."""
    first, last = totals[0], totals[-1]
    if last >= first:
        return f"The total active rank goes from {rank_text(first)} to {rank_text(last)}."
    by: dict[int, str] = {}
    for share, name in QUARTERS:
        there = (
            s for s, t in zip(steps, totals, strict=True) if first - t >= share * (first - last)
        )
        by[next(there)] = name  # of two at the same step, the larger
    return (
        f"From {rank_text(first)} at step {steps[0]:,} to {rank_text(last)}: of the pruned ranks "
        f"{words.listing([f'{name} by step {step:,}' for step, name in by.items()])} of "
        f"{steps[-1]:,}."
    )


def _layer_ranks(rows: Sequence[Record]) -> dict[int, dict[int, float]]:
    """Layer -> index of a curve point -> sum of the layer's active ranks, mean over runs."""
    found: dict[int, Counter[int]] = {}
    for row in rows:
        for name, history in row.outcome.rank_history.items():
            counts = found.setdefault(place(name).layer, Counter())
            for i, rank in enumerate(history):
                if rank is not None:
                    counts[i] += rank
    return {k: {i: n / len(rows) for i, n in counts.items()} for k, counts in found.items()}


def _layer_importance(rows: Sequence[Record]) -> dict[int, dict[int, float]]:
    """Layer -> index of a curve point -> importance, mean over the layer's modules and runs."""
    found: dict[int, dict[int, list[float]]] = {}
    for row in rows:
        for name, history in row.outcome.importance_history.items():
            points = found.setdefault(place(name).layer, {})
            for i, value in enumerate(history):
                if value is not None:
                    points.setdefault(i, []).append(value)
    return {
        layer: {i: statistics.fmean(values) for i, values in points.items()}
        for layer, points in found.items()
    }


def grid(table: ResultTable, paths: Sequence[tuple[Cell, History]]) -> Grid:
    """One row a cell and evaluated step, one column a layer, importance in the small line; of many
    layers one row each, with their ranks at the end."""
    layers = layers_of(table.rows)
    if len(layers) > MOST_COLUMNS:
        return _at_the_end(layers, paths)
    rows = []
    for cell, history in paths:
        runs = [_totals(row) for row in history.rows]
        ranks, importance = _layer_ranks(history.rows), _layer_importance(history.rows)
        for i, step in enumerate(history.steps):
            total = statistics.fmean(run[i] for run in runs)
            entries = (
                _history_entry(ranks.get(n, {}).get(i), importance.get(n, {}).get(i))
                for n in layers
            )
            rows.append(
                (
                    Entry(words.title(cell), words.some(history.tasks)),
                    Entry(f"{step:,}", kind="number", sort=float(step)),
                    Entry(rank_text(total), kind="number", sort=total),
                    *entries,
                )
            )
    heads = (
        Column("cell"),
        Column("step", numeric=True),
        Column("total", "active rank", numeric=True),
    )
    return Grid(
        "Active rank over training by layer, mean over runs",
        (*heads, *(Column(layer_name(n), "layer", numeric=True) for n in layers)),
        tuple(rows),
        folded=True,
        note="The small line is the mean importance of the layer's modules, where the method "
        "has one.",
    )


def _at_the_end(layers: Sequence[int], paths: Sequence[tuple[Cell, History]]) -> Grid:
    found = [(_layer_ranks(h.rows), _layer_importance(h.rows), len(h.steps) - 1) for _, h in paths]
    rows = tuple(
        (
            Entry(layer_name(n), kind="number", sort=float(n)),
            *(
                _history_entry(ranks.get(n, {}).get(last), importance.get(n, {}).get(last))
                for ranks, importance, last in found
            ),
        )
        for n in layers
    )
    columns = (Column(words.title(cell), words.some(h.tasks), numeric=True) for cell, h in paths)
    return Grid(
        "Active rank at the end by layer, mean over runs",
        (Column("layer", numeric=True), *columns),
        rows,
        folded=True,
        note="The small line is the mean importance of the layer's modules, where the method "
        "has one. The ranks at every evaluated step are in the rows (rank_history).",
    )


def _history_entry(rank: float | None, importance: float | None) -> Entry:
    if rank is None:
        return Entry("–", "no adapter", "missing")
    return Entry(
        rank_text(rank), "" if importance is None else words.error(importance), "number", rank
    )

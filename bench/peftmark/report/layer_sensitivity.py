"""Sensitivity of layers, and which of them the methods that look at it adapted."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from peftmark.analysis.table import ResultTable
from peftmark.catalog.methods import Cell
from peftmark.record.job import Record
from peftmark.render import words
from peftmark.render.chart_specs import Lane, LayerBars
from peftmark.render.page import Column, Entry, Figure, Grid, marks
from peftmark.report.module_names import layer_name, layer_order, place
from peftmark.report.rank_history import rank_text

MOST_LANES = 5
NAMED = 3


@dataclass(frozen=True)
class Group:
    """Cells that found the same scores on a task.

    Attributes:
        rows: seed -> a row that has its scores.
    """

    rows: dict[int, Record]
    cells: list[Cell]


def bars(table: ResultTable, cells: Sequence[Cell]) -> tuple[Figure, ...]:
    """One picture for the cells of a task that found the same scores."""
    figures = []
    for index, task in enumerate(table.tasks):
        groups: list[Group] = []
        for cell in cells:
            rows = {row.job.seed: row for row in _rows(table, cell, task)}
            alike = (group for group in groups if _agree(group, rows))
            group = next(alike, None) or Group({}, [])
            group.rows.update(rows)
            group.cells.append(cell)
            if rows and group not in groups:
                groups.append(group)
        parts = [
            (group, group.cells[i : i + MOST_LANES])
            for group in groups
            for i in range(0, len(group.cells), MOST_LANES)
        ]
        for number, (group, some) in enumerate(parts):
            figures.append(_figure(table, f"layers-{index}-{number}", task, group, some))
    return tuple(figures)


def _agree(group: Group, rows: Mapping[int, Record]) -> bool:
    """Whether scores are the same, to four digits, for every seed that both have."""
    shared = group.rows.keys() & rows.keys()
    same = (_signature(group.rows[seed]) == _signature(rows[seed]) for seed in shared)
    return bool(shared) and all(same)


def _rows(table: ResultTable, cell: Cell, task: str) -> list[Record]:
    """Finished runs of a cell that have scores, by seed."""
    slots = table.of(cell, task)
    return [s.record for s in slots if s.ok and s.record and s.record.outcome.layer_scores]


def _signature(row: Record) -> tuple[object, ...]:
    scores = sorted(row.outcome.layer_scores.items())
    return tuple((name, f"{score:.4g}") for name, score in scores)


def _by_layer(rows: Sequence[Record]) -> dict[int, list[float]]:
    """Layer -> its score in each run."""
    found: dict[int, list[float]] = {}
    for row in rows:
        for name, score in row.outcome.layer_scores.items():
            found.setdefault(place(name).layer, []).append(score)
    return {layer: found[layer] for layer in layer_order(set(found)) if layer in found}


def _chosen(row: Record) -> dict[int, list[int]]:
    """Adapted layer -> final ranks of its modules."""
    found: dict[int, list[int]] = {}
    for name, history in row.outcome.rank_history.items():
        if history and history[-1]:
            found.setdefault(place(name).layer, []).append(history[-1])
    return found


def _adapted(rows: Sequence[Record], layers: Sequence[int]) -> list[tuple[int, float]]:
    """Of each layer: in how many runs it was adapted, and its modules' mean rank there."""
    chosen = [_chosen(row) for row in rows]
    found = []
    for layer in layers:
        ranks = [rank for run in chosen for rank in run.get(layer, [])]
        runs = sum(layer in run for run in chosen)
        found.append((runs, statistics.fmean(ranks) if ranks else 0.0))
    return found


def _lane(table: ResultTable, cell: Cell, rows: Sequence[Record], layers: Sequence[int]) -> Lane:
    """How often each layer was adapted; its rank where every layer always is."""
    adapted = _adapted(rows, layers)
    if all(runs == len(rows) for runs, _ in adapted):
        texts = tuple(f"r{rank_text(rank)}" for _, rank in adapted)
    else:
        texts = tuple(f"{runs}/{len(rows)}" if runs else "–" for runs, _ in adapted)
    return Lane(marks(table.cells)[cell], texts)


def _figure(
    table: ResultTable, name: str, task: str, group: Group, cells: Sequence[Cell]
) -> Figure:
    scores = _by_layer([group.rows[seed] for seed in sorted(group.rows)])
    layers = list(scores)
    drawing = LayerBars(
        tuple(map(layer_name, layers)),
        tuple(tuple(scores[layer]) for layer in layers),
        "score: gradient norm before training",
        tuple(_lane(table, cell, _rows(table, cell, task), layers) for cell in cells),
    )
    note = (
        "Bar: mean over seeds. Dots: seeds. At the right, what each cell made of it: 2/3 is a "
        "layer adapted in 2 of 3 seeds, r8 its mean rank where every layer is adapted. Layer 0 is "
        "next to the input."
    )
    return Figure(name, _finding(table, task, cells, scores), drawing, note, title=task)


def _finding(
    table: ResultTable, task: str, cells: Sequence[Cell], scores: dict[int, list[float]]
) -> str:
    means = {layer: statistics.fmean(values) for layer, values in scores.items()}
    order = sorted(means, key=lambda layer: -means[layer])
    top = words.listing([layer_name(layer) for layer in order[:NAMED]])
    text = f"Largest gradients in layers {top}"
    low = means[order[-1]]
    if low > 0:
        text += f"; the largest is {words.short(means[order[0]] / low)} times the smallest"
    always = []
    for cell in cells:
        rows = _rows(table, cell, task)
        adapted = _adapted(rows, list(scores))
        if all(runs == len(rows) for runs, _ in adapted):
            continue
        kept = [
            layer_name(layer)
            for layer, (runs, _) in zip(scores, adapted, strict=True)
            if runs == len(rows)
        ]
        where = f"layer{'s' * (len(kept) > 1)} {words.listing(kept)}" if kept else "no layer"
        always.append(f"{words.title(cell)} took {where} with every seed")
    return f"{text}. {'; '.join(always)}." if always else f"{text}."


def scores_grid(table: ResultTable, cells: Sequence[Cell]) -> Grid:
    """One row a cell, task and layer."""
    rows = []
    for cell in cells:
        for task in table.tasks:
            found = _rows(table, cell, task)
            scores = _by_layer(found)
            adapted = _adapted(found, list(scores))
            for (layer, values), (runs, rank) in zip(scores.items(), adapted, strict=True):
                mean = statistics.fmean(values)
                span = f"{words.error(min(values))} to {words.error(max(values))}"
                rows.append(
                    (
                        Entry(words.title(cell)),
                        Entry(task),
                        Entry(layer_name(layer), kind="number", sort=float(layer)),
                        Entry(words.error(mean), span if len(values) > 1 else "", "number", mean),
                        Entry(f"{runs} of {len(found)}", kind="number", sort=runs / len(found)),
                        Entry(rank_text(rank), kind="number", sort=rank)
                        if runs
                        else Entry("–", "no adapter", "missing"),
                    )
                )
    columns = (
        Column("cell"),
        Column("task"),
        Column("layer", "0 next to the input", numeric=True),
        Column("score", "gradient norm, mean over seeds", numeric=True),
        Column("adapted", "seeds", numeric=True),
        Column("rank", "mean over its modules", numeric=True),
    )
    return Grid("Sensitivity by layer", columns, tuple(rows), folded=True)

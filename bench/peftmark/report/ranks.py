"""Where the ranks went: by layer and module, over training, and by what layers were chosen."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence

from peftmark.analysis.table import ResultTable
from peftmark.catalog.methods import Cell
from peftmark.record.job import Record
from peftmark.render import words
from peftmark.render.chart_specs import RankMap
from peftmark.render.page import (
    Block,
    Column,
    Entry,
    Figure,
    Figures,
    Grid,
    Paragraph,
    Section,
    marks,
)
from peftmark.report import cell_selection, rank_history
from peftmark.report.layer_sensitivity import bars, scores_grid
from peftmark.report.module_names import Place, layer_name, layers_of, module_order, place
from peftmark.report.rank_history import finished, moved, rank_text

MOST_PICTURES = 8
"""Pictures of each kind."""


def is_needed(table: ResultTable) -> bool:
    """Whether any cell has ranks that differ or move, or looked at its layers first."""
    return any(_is_drawn(table, cell) or _scored(table, cell) for cell in table.cells)


def section(table: ResultTable) -> Section:
    """Final ranks, ranks and importance over steps, and the sensitivity of layers."""
    drawn = [cell for cell in table.cells if _is_drawn(table, cell)]
    blocks: list[Block] = []
    if drawn:
        maps = cell_selection.of(table, drawn, MOST_PICTURES)
        if omitted := _omitted(len(maps), len(drawn), "cells with such ranks"):
            blocks.append(Paragraph(f"{omitted} The tables below have all of them."))
        blocks.append(Figures(tuple(_map(table, i, cell) for i, cell in enumerate(maps))))
        blocks.append(_final_grid(table, drawn))
        paths = [(cell, group) for cell in drawn for group in rank_history.groups(table, cell)]
        kept = [(cell, group) for cell, group in paths if cell in maps][:MOST_PICTURES]
        if kept:
            if omitted := _omitted(len(kept), len(paths), "histories"):
                blocks.append(Paragraph(f"{omitted} The table of histories has all of them."))
            pictures = (rank_history.path(table, i, *found) for i, found in enumerate(kept))
            blocks.append(Figures(tuple(pictures)))
        if paths:
            blocks.append(rank_history.grid(table, paths))
    scored = [cell for cell in table.cells if _scored(table, cell)]
    if scored:
        figures = bars(table, scored)
        if omitted := _omitted(MOST_PICTURES, len(figures), "pictures of layer scores"):
            blocks.append(Paragraph(f"{omitted} The table of layer scores has all of them."))
        blocks += [Figures(figures[:MOST_PICTURES]), scores_grid(table, scored)]
    return Section("ranks", "Where the ranks went", _lead(table, drawn, scored), tuple(blocks))


def _omitted(shown: int, found: int, what: str) -> str:
    return f"Drawn: {shown} of {found} {what}." if shown < found else ""


def _scored(table: ResultTable, cell: Cell) -> bool:
    return any(row.outcome.layer_scores for row in finished(table, cell))


def final_ranks(row: Record) -> dict[Place, int]:
    """Active rank of every adapted module after the last step."""
    found: Counter[Place] = Counter()
    for name, by_point in row.outcome.rank_history.items():
        if by_point and by_point[-1] is not None:
            found[place(name)] += by_point[-1]
    return dict(found)


def _means(table: ResultTable, cell: Cell, task: str | None = None) -> dict[Place, float]:
    """Final rank by place, mean over runs; a run without an adapter there counts as 0."""
    rows = [final_ranks(row) for row in finished(table, cell) if task in (None, row.job.task)]
    rows = [row for row in rows if row]
    places = {p for row in rows for p in row}
    return {p: statistics.fmean(row.get(p, 0) for row in rows) for p in places}


def _is_drawn(table: ResultTable, cell: Cell) -> bool:
    """Whether the cell's ranks moved, or differ between the modules that it adapts."""
    return len(set(_means(table, cell).values())) > 1 or any(
        moved(row) for row in finished(table, cell)
    )


def _axes(table: ResultTable, means: Mapping[Place, float]) -> tuple[list[int], list[str]]:
    return layers_of(table.rows), module_order({p.module for p in means})


def _lead(table: ResultTable, drawn: Sequence[Cell], scored: Sequence[Cell]) -> str:
    """Which modules end with most and with least rank, over the cells that are drawn."""
    if not drawn:
        names = words.some([words.title(cell) for cell in scored])
        return f"No rank moved; {names} looked at the layers before training."
    extremes = {
        cell: found for cell in drawn if (found := _extremes(_by_module(_means(table, cell))))
    }
    moving = sum(any(moved(row) for row in finished(table, cell)) for cell in drawn)
    fixed = f" and differ from the start in {still}" if (still := len(drawn) - moving) else ""
    text = f"Ranks moved in training in {words.plural(moving, 'cell')}{fixed}."
    if not extremes:
        return text
    most, times = Counter(high for high, _ in extremes.values()).most_common(1)[0]
    least, often = Counter(low for _, low in extremes.values()).most_common(1)[0]
    if len(extremes) == 1:
        (name,) = map(words.title, extremes)
        return f"{text} {name} ends with most rank in {most}, least in {least}."
    n = len(extremes)
    return (
        f"{text} The highest mean rank: {most} in {times} of {n} cells; the lowest: {least} in "
        f"{often}."
    )


def _by_module(means: Mapping[Place, float]) -> dict[str, float]:
    """Mean rank over the layers that have the module adapted."""
    found: dict[str, list[float]] = {}
    for at, rank in means.items():
        found.setdefault(at.module, []).append(rank)
    return {module: statistics.fmean(found[module]) for module in module_order(set(found))}


def _by_layer(means: Mapping[Place, float]) -> dict[str, float]:
    """Sum of ranks in each layer."""
    found: Counter[int] = Counter()
    for at, rank in means.items():
        found[at.layer] += rank  # type: ignore[assignment]
    return {layer_name(layer): float(found[layer]) for layer in sorted(found)}


def _extremes(means: Mapping[str, float]) -> tuple[str, str] | None:
    """The names with the highest and the lowest figure; None if all are alike."""
    if len(set(means.values())) < 2:
        return None
    return max(means, key=lambda k: means[k]), min(means, key=lambda k: means[k])


# --- final ranks ---------------------------------------------------------------------------------


def _map(table: ResultTable, index: int, cell: Cell) -> Figure:
    means = _means(table, cell)
    layers, modules = _axes(table, means)
    ranks = tuple(tuple(means.get(Place(layer, m)) for m in modules) for layer in layers)
    drawing = RankMap(
        marks(table.cells)[cell], tuple(map(layer_name, layers)), tuple(modules), ranks
    )
    note = f"Final rank, mean over {_scope(table)}; rows: layers, input first."
    if any(rank is None for row in ranks for rank in row):
        note += " –: no adapter."
    title = words.title(cell)
    return Figure(f"ranks-{index}", _map_finding(means), drawing, note, title=title)


def _scope(table: ResultTable) -> str:
    return "seeds" if len(table.tasks) == 1 else f"seeds and {len(table.tasks)} tasks"


def _map_finding(means: Mapping[Place, float]) -> str:
    by_module, by_layer = _by_module(means), _by_layer(means)
    parts = []
    if found := _extremes(by_module):
        high, low = ((name, rank_text(by_module[name])) for name in found)
        parts.append(f"Most rank in {high[0]} ({high[1]} a layer), least in {low[0]} ({low[1]})")
    if found := _extremes(by_layer):
        high, low = ((name, rank_text(by_layer[name])) for name in found)
        start = "layer" if parts else "Layer"
        parts.append(f"{start} {high[0]} holds most ({high[1]} in all), {low[0]} least ({low[1]})")
    return "; ".join(parts) + "." if parts else "Every module ends with the same mean rank."


def _final_grid(table: ResultTable, cells: Sequence[Cell]) -> Grid:
    """One row a cell and layer, one column a module."""
    found = {cell: _means(table, cell) for cell in cells}
    by_task = {cell: [_means(table, cell, task) for task in table.tasks] for cell in cells}
    modules = module_order({p.module for means in found.values() for p in means})
    rows = tuple(
        (
            Entry(words.title(cell)),
            Entry(layer_name(layer), kind="number", sort=float(layer)),
            *(_final_entry(Place(layer, m), found[cell], by_task[cell]) for m in modules),
        )
        for cell in cells
        for layer in layers_of(table.rows)
    )
    heads = (Column("cell"), Column("layer", "0 next to the input", numeric=True))
    return Grid(
        f"Final rank by layer and module, mean over {_scope(table)}",
        (*heads, *(Column(m, numeric=True) for m in modules)),
        rows,
        folded=True,
        note="The small line has the lowest and the highest task. A seed in which the module has "
        "no adapter counts as 0. Cells with one rank everywhere that never moved are left out.",
    )


def _final_entry(
    at: Place, means: Mapping[Place, float], by_task: Sequence[Mapping[Place, float]]
) -> Entry:
    if at not in means:
        return Entry("–", "no adapter", "missing")
    tasks = [task.get(at, 0.0) for task in by_task if task]
    low, high = rank_text(min(tasks)), rank_text(max(tasks))
    note = f"{low} to {high} by task" if low != high else ""
    return Entry(rank_text(means[at]), note, "number", means[at])

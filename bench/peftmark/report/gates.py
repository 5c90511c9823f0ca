"""What gates let through at the end of training: by layer and part, of methods that have gates."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from peftmark.analysis.table import ResultTable
from peftmark.catalog.methods import Cell
from peftmark.record.job import Record
from peftmark.render import words
from peftmark.render.chart_specs import RankMap
from peftmark.render.page import Block, Column, Entry, Figure, Figures, Grid, Section, marks
from peftmark.report.module_names import layer_name, place
from peftmark.report.rank_history import finished

PARTS = {"adapter": "adapter", "prefix": "prefix", "lora": "LoRA"}
"""Part as rows name it -> as readers are told, in the order of columns; others come after."""

Key = tuple[int, str]
"""A layer and a part of it."""


def is_needed(table: ResultTable) -> bool:
    """Whether any row has gates."""
    return any(_gated(table, cell) for cell in table.cells)


def section(table: ResultTable) -> Section:
    """Gates at the end of training: a picture a cell, and all of them as a table."""
    cells = [cell for cell in table.cells if _gated(table, cell)]
    blocks: list[Block] = [
        Figures(tuple(_map(table, i, cell) for i, cell in enumerate(cells))),
        _grid(table, cells),
    ]
    return Section("gates", "What the gates let through", _lead(table, cells), tuple(blocks))


def _gated(table: ResultTable, cell: Cell) -> list[Record]:
    """The cell's finished runs that have gates; those of an older peftmark have none recorded."""
    return [row for row in finished(table, cell) if row.outcome.gate_history]


def _runs(rows: Sequence[Record]) -> dict[Key, list[float | None]]:
    """Layer and part -> its gate at the end of each run, None where the run took it out."""
    found: dict[Key, list[float | None]] = {}
    for row in rows:
        for name, history in row.outcome.gate_history.items():
            layer, _, part = name.rpartition(".")
            found.setdefault((place(layer).layer, part), []).append(history[-1])
    return found


def _means(rows: Sequence[Record]) -> dict[Key, float]:
    """Mean over the runs that have the part at the end; none where every run took it out."""
    runs = {key: [v for v in values if v is not None] for key, values in _runs(rows).items()}
    return {key: statistics.fmean(values) for key, values in runs.items() if values}


def _axes(rows: Sequence[Record]) -> tuple[list[int], list[str]]:
    keys = _runs(rows)
    parts = {part for _, part in keys}
    known = [part for part in PARTS if part in parts]
    return sorted({layer for layer, _ in keys}), [*known, *sorted(parts - PARTS.keys())]


def _title(part: str) -> str:
    return PARTS.get(part, part)


def _by_part(means: Mapping[Key, float], parts: Sequence[str]) -> dict[str, float]:
    """Mean gate over the layers, by part."""
    values = {part: [v for (_, p), v in means.items() if p == part] for part in parts}
    return {part: statistics.fmean(found) for part, found in values.items() if found}


def _taken_out(rows: Sequence[Record]) -> str:
    """Which parts runs took out, as the end of a sentence; empty if none."""
    counts = {
        part: sum(
            any(
                n.endswith(f".{part}") and h[-1] is None
                for n, h in row.outcome.gate_history.items()
            )
            for row in rows
        )
        for part in _axes(rows)[1]
    }
    said = [
        f"{_title(p)} in {n} of {words.plural(len(rows), 'run')}" for p, n in counts.items() if n
    ]
    return f"; taken out: {words.listing(said)}" if said else ""


def _finding(rows: Sequence[Record]) -> str:
    by_part = _by_part(_means(rows), _axes(rows)[1])
    out = _taken_out(rows)
    if not by_part:
        return f"No part was left{out}."
    most, least = (f(by_part, key=lambda p: by_part[p]) for f in (max, min))
    share = by_part[most] / sum(by_part.values())
    if most == least:
        return f"{_title(most)} is let through at {by_part[most]:.2f}{out}."
    return (
        f"{_title(most)} is let through most ({by_part[most]:.2f}, {share:.0%} of all gates), "
        f"{_title(least)} least ({by_part[least]:.2f}){out}."
    )


def _lead(table: ResultTable, cells: Sequence[Cell]) -> str:
    said = (f"{words.title(cell)}: {_finding(_gated(table, cell))}" for cell in cells)
    return " ".join(said)


def _map(table: ResultTable, index: int, cell: Cell) -> Figure:
    rows = _gated(table, cell)
    means, (layers, parts) = _means(rows), _axes(rows)
    gates = tuple(tuple(means.get((layer, part)) for part in parts) for layer in layers)
    mark = marks(table.cells)[cell]
    names = tuple(map(layer_name, layers))
    drawing = RankMap(mark, names, tuple(map(_title, parts)), gates, digits=2)
    note = (
        f"Gate from 0 to 1 at the last evaluation, mean over its rows and "
        f"{words.plural(len(rows), 'run')}; rows: layers, input first."
    )
    if any(gate is None for row in gates for gate in row):
        note += " –: taken out."
    return Figure(f"gates-{index}", _finding(rows), drawing, note, title=words.title(cell))


def _grid(table: ResultTable, cells: Sequence[Cell]) -> Grid:
    """One row a cell and layer, one column a part."""
    axes = [_axes(_gated(table, cell)) for cell in cells]
    parts = list(dict.fromkeys(part for _, found in axes for part in found))
    rows = []
    for cell, (layers, _) in zip(cells, axes, strict=True):
        runs = _runs(_gated(table, cell))
        for layer in layers:
            rows.append(
                (
                    Entry(words.title(cell)),
                    Entry(layer_name(layer), kind="number", sort=float(layer)),
                    *(_entry(runs.get((layer, part), [])) for part in parts),
                )
            )
    heads = (Column("cell"), Column("layer", "0 next to the input", numeric=True))
    return Grid(
        "Gates at the last evaluation by layer and part, mean over runs",
        (*heads, *(Column(_title(part), "gate", numeric=True) for part in parts)),
        tuple(rows),
        folded=True,
        note="Under a mean: the lowest and the highest run.",
    )


def _entry(runs: Sequence[float | None]) -> Entry:
    there = [value for value in runs if value is not None]
    if not there:
        return Entry("–", "taken out" if runs else "no such part", kind="missing")
    mean = statistics.fmean(there)
    note = f"{min(there):.2f} to {max(there):.2f}" if len(there) > 1 else ""
    if out := len(runs) - len(there):
        note = f"{note}, taken out in {out} of {len(runs)}".removeprefix(", ")
    return Entry(f"{mean:.2f}", note, kind="number", sort=mean)

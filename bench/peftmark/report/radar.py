"""At a glance: one radar a cell over the reference, on anchors that the suite fixes."""

from __future__ import annotations

import math
from dataclasses import replace

from peftmark.analysis.table import Ratio, ResultTable, overall_score, quality, ratio
from peftmark.catalog.methods import Cell
from peftmark.record.fields import title
from peftmark.record.job import RadarAxis, Record, ReportOptions
from peftmark.render import words
from peftmark.render.chart_specs import Mark, Radar, RadarPoint
from peftmark.render.page import Block, Column, Entry, Figure, Figures, Grid, Section, marks
from peftmark.report import cell_selection, lr_sensitivity, missing, score_entries, summary

READ = {
    "speed": "samples_per_second",
    "memory": "peak_memory_bytes",
    "parameters": "trainable_parameters",
}
"""Axes that are one figure of the rows, which also says why it is missing."""
TITLES = {
    "quality": ("quality", "share of the way from the baseline predictor to the best possible"),
    **{axis: (axis, f"{title(name)}, ratio to the reference") for axis, name in READ.items()},
    "steps_to_target": ("steps to target", "ratio to the reference, if every pair reached it"),
    "ease_of_use": ("ease of use", f"share of the learning rates {lr_sensitivity.NEAR}"),
}
ABSOLUTE = ("quality", "ease_of_use")
"""Axes that are no ratio to the reference."""
BELOW = "the table below"
FEWEST_AXES = 3
MOST_RADARS = 13
"""Cells with an outline, the reference among them."""


def section(table: ResultTable, options: ReportOptions) -> Section:
    """Radar small multiples and the same numbers in a table."""
    if not table.planned("tuning"):
        radar = {key: axis for key, axis in options.radar.items() if key != "ease_of_use"}
        options = replace(options, radar=radar)
    axes = tuple(options.radar)
    grid = Grid(
        "The numbers of the radar",
        (Column("cell"), *(_column(a, options.radar[a]) for a in axes)),
        tuple((Entry(words.title(c)), *(_entry(table, c, a) for a in axes)) for c in table.cells),
        note=_anchors(table, options),
    )
    pictures = _pictures(table, options) if len(axes) >= FEWEST_AXES else ()
    blocks: tuple[Block, ...] = (Figures(pictures, dense=True), grid) if pictures else (grid,)
    lead = (
        "Outward = better on every axis. The anchors are fixed in the suite, so no cell moves "
        "when another joins. Outlines show means without their uncertainty; the area means nothing."
    )
    if pictures:
        shown = len(cell_selection.picks(table, MOST_RADARS))
        lead = f"{lead} {cell_selection.left_out(table, shown, BELOW)}".strip()
    return Section("glance", "At a glance", lead, blocks)


def position(value: float, axis: RadarAxis) -> RadarPoint:
    """Where a value lies between the anchors, clipped to them.

    Args:
        value: the figure; positive on a log axis.
        axis: the anchors.
    """
    if axis.scale == "log":
        share = math.log(value / axis.worst) / math.log(axis.best / axis.worst)
    else:
        share = (value - axis.worst) / (axis.best - axis.worst)
    inside = min(1.0, max(0.0, share))
    return RadarPoint(inside, clipped=abs(inside - share) > 1e-9)


def points(table: ResultTable, cell: Cell, options: ReportOptions) -> tuple[RadarPoint, ...]:
    """A cell's outline; an unknown axis has no position."""
    found = []
    for key, axis in options.radar.items():
        value = axis_value(table, cell, key).value
        known = value is not None and (axis.scale == "linear" or value > 0)
        found.append(position(value, axis) if known and value is not None else RadarPoint(None))
    return tuple(found)


def axis_value(table: ResultTable, cell: Cell, key: str) -> Ratio:
    """A cell's figure on one axis, with the reason where it is unknown."""
    if key == "quality":
        score = overall_score(table, cell, quality)
        if score.estimate is None:
            lone = table.scale.kind == "gain"
            note = missing.no_quality(table) if lone else missing.overall_gap(table, cell).note
            return Ratio(None, 0, score.planned, note)
        return Ratio(score.estimate.mean, len(score.by_seed), score.planned)
    if key == "ease_of_use":
        return lr_sensitivity.ease(table, cell)
    if key == "memory":
        return summary.memory_ratio(table, cell)
    if key == "steps_to_target":
        return ratio(table, cell, _steps, every=True)
    if key == "speed":
        return ratio(table, cell, summary.speed)
    if key == "parameters":
        return ratio(table, cell, summary.trainable)
    return Ratio(None, 0, 0, "unknown axis")


def _steps(record: Record) -> float | None:
    return record.outcome.steps_to_target if record.outcome.target_reached else None


def _title(key: str) -> tuple[str, str]:
    return TITLES.get(key, (key, "unknown axis"))


def _column(key: str, axis: RadarAxis) -> Column:
    better = "higher" if axis.best > axis.worst else "lower"
    return Column(_title(key)[0], f"{better} is better", numeric=True)


def _entry(table: ResultTable, cell: Cell, key: str) -> Entry:
    found = axis_value(table, cell, key)
    if key in READ:
        return missing.ratio_entry(table, cell, found, READ[key])
    if key not in ABSOLUTE or found.value is None:
        return score_entries.ratio_entry(found)
    note = "" if found.pairs == found.planned else f"n = {found.pairs}/{found.planned} incomplete"
    return Entry(words.number(found.value), note, "number", found.value)


def _anchors(table: ResultTable, options: ReportOptions) -> str:
    parts = []
    for key, axis in options.radar.items():
        name, meaning = _title(key)
        unit = "" if key in ABSOLUTE else "×"
        parts.append(
            f"{name} ({meaning}): centre {axis.worst:g}{unit}, rim {axis.best:g}{unit}, "
            f"{axis.scale}"
        )
    text = "Anchors, outward = better. " + "; ".join(parts) + "."
    if "quality" in options.radar and table.scale.left_out and table.scale.tasks:
        text += (
            f" Quality leaves out {words.listing(table.scale.left_out)}, whose metric has no best "
            "possible value."
        )
    return text


def _pictures(table: ResultTable, options: ReportOptions) -> tuple[Figure, ...]:
    if table.reference not in table.cells:
        return ()
    look = marks(table.cells)
    base = points(table, table.reference, options)
    figures = []
    shown = [cell for cell in cell_selection.picks(table, MOST_RADARS) if cell != table.reference]
    for i, cell in enumerate(shown):
        outline = points(table, cell, options)
        if all(p.position is None for p in outline):
            continue
        finding = _finding(look[table.reference], outline, base, options)
        drawing = Radar(
            look[cell],
            tuple(_title(k)[0] for k in options.radar),
            outline,
            base,
            look[table.reference].label,
        )
        figures.append(Figure(f"radar-{i}", finding, drawing, title=words.title(cell)))
    return tuple(figures)


def _finding(
    reference: Mark,
    outline: tuple[RadarPoint, ...],
    base: tuple[RadarPoint, ...],
    options: ReportOptions,
) -> str:
    ahead, behind, unknown = [], [], []
    for key, mine, theirs in zip(options.radar, outline, base, strict=True):
        name = _title(key)[0]
        if mine.position is None or theirs.position is None:
            unknown.append(name)
        elif mine.position > theirs.position + 0.02:
            ahead.append(name)
        elif mine.position < theirs.position - 0.02:
            behind.append(name)
    parts = [f"outside in {words.listing(ahead)}"] if ahead else []
    parts += [f"inside in {words.listing(behind)}"] if behind else []
    parts += [f"{words.listing(unknown)} n/a"] if unknown else []
    return f"Against {reference.label} (grey): {'; '.join(parts) or 'the same outline'}."

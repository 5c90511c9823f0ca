"""At a glance: at most three outlines on anchors that the suite fixes, and every cell's values."""

from __future__ import annotations

import math
from dataclasses import replace

from peftmark.analysis.floor import below_floor
from peftmark.analysis.table import Ratio, ResultTable, overall_score, quality, ratio
from peftmark.catalog.methods import Cell
from peftmark.record.fields import title
from peftmark.record.job import RadarAxis, Record, ReportOptions
from peftmark.render import words
from peftmark.render.chart_specs import Outline, Radar, RadarPoint
from peftmark.render.page import Column, Entry, Fact, Figure, Grid, Paragraph, Section, marks
from peftmark.report import cell_selection, missing, score_entries, summary, tuning, tuning_pictures

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
    "ease_of_use": ("ease of use", f"share of the learning rates {tuning_pictures.NEAR}"),
}
ABSOLUTE = ("quality", "ease_of_use")
"""Axes that are no ratio to the reference."""
FEWEST_AXES = 3
MOST_BESIDE = 12
"""Rows of a table that stands open beside the picture."""
MOST_OFFERED = 40
"""Cells whose shapes a reader can pick."""
NEARLY = 0.02
"""Share of an axis within which outlines count as the same."""


def section(table: ResultTable, options: ReportOptions) -> Section:
    """One radar of at most three cells, and the numbers of all in a table beside it."""
    if not table.planned("tuning"):
        radar = {key: axis for key, axis in options.radar.items() if key != "ease_of_use"}
        options = replace(options, radar=radar)
    axes = tuple(options.radar)
    grid = Grid(
        "The numbers of the radar",
        (Column("cell"), *(Column(_title(axis)[0], numeric=True) for axis in axes)),
        tuple((Entry(words.title(c)), *(_entry(table, c, a) for a in axes)) for c in table.cells),
        folded=len(table.cells) > MOST_BESIDE,
    )
    picture = _picture(table, options) if len(axes) >= FEWEST_AXES else None
    lead = "Outward is better on every axis; shapes are of means, and their area means nothing."
    shown = (grid,) if picture is None else (picture, grid)
    anchors = Paragraph(_anchors(table, options))
    return Section("glance", "At a glance", lead, (anchors,), shown)


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
        return tuning.ease(table, cell)
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


def _entry(table: ResultTable, cell: Cell, key: str) -> Entry:
    found = axis_value(table, cell, key)
    if key in READ:
        return missing.ratio_entry(table, cell, found, READ[key])
    if key not in ABSOLUTE or found.value is None:
        fact = Fact(f"{key}, ratio to the reference", words.title(cell), found.value)
        return score_entries.claimed(score_entries.ratio_entry(found), fact)
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
    text += " They are fixed in the suite, so no cell moves when another joins."
    if "quality" in options.radar and table.scale.left_out and table.scale.tasks:
        text += (
            f" Quality leaves out {words.listing(table.scale.left_out)}, whose metric has no best "
            "possible value."
        )
    return text


def _picture(table: ResultTable, options: ReportOptions) -> Figure | None:
    """The reference, the cell with the highest mean and that with the least memory, of those above
    the quality floor, until the reader picks others; None where fewer than two have an outline."""
    look = marks(table.cells)
    offered = cell_selection.picks(table, MOST_OFFERED)
    every = (table.reference, *(c for c in table.cells if c != table.reference and c in offered))
    outlines = {c: points(table, c, options) for c in dict.fromkeys((*every, *_chosen(table)))}
    known = {c: o for c, o in outlines.items() if any(p.position is not None for p in o)}
    drawn = [c for c in _chosen(table) if c in known]
    if len(drawn) < 2 or table.reference not in known:
        return None
    base = known[table.reference]
    told = (
        f"{words.title(cell)}: {_finding(known[cell], base, options)}"
        for cell in drawn
        if cell != table.reference
    )
    places = list(known)
    drawing = Radar(
        tuple(_title(k)[0] for k in options.radar),
        tuple(Outline(look[cell], outline) for cell, outline in known.items()),
        tuple(places.index(cell) for cell in drawn),
    )
    finding = f"Against {words.title(table.reference)}: {'; '.join(told)}."
    note = "At first: the reference, the highest mean, the least memory."
    return Figure("radar", finding, drawing, note)


def _chosen(table: ResultTable) -> tuple[Cell, ...]:
    """At most three cells, each once."""
    floor = below_floor(table)
    able = [c for c in table.cells if c.trains and c not in floor and c != table.reference]
    means = {c: e.mean for c in able if (e := overall_score(table, c).estimate)}
    memory = {c: v for c in means if (v := summary.memory_ratio(table, c).value) is not None}
    best = [max(means, key=lambda c: means[c])] if means else []
    least = [c for c in sorted(memory, key=lambda c: memory[c]) if c not in best][:1]
    return (table.reference, *best, *least)


def _finding(
    outline: tuple[RadarPoint, ...], base: tuple[RadarPoint, ...], options: ReportOptions
) -> str:
    """In what an outline lies outside of the reference's, and in what inside."""
    ahead, behind, unknown = [], [], []
    for key, mine, theirs in zip(options.radar, outline, base, strict=True):
        name = _title(key)[0]
        if mine.position is None or theirs.position is None:
            unknown.append(name)
        elif mine.position > theirs.position + NEARLY:
            ahead.append(name)
        elif mine.position < theirs.position - NEARLY:
            behind.append(name)
    parts = [f"outside in {words.listing(ahead)}"] if ahead else []
    parts += [f"inside in {words.listing(behind)}"] if behind else []
    parts += [f"{words.listing(unknown)} n/a"] if unknown else []
    return ", ".join(parts) or "the same outline"

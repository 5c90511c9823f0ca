"""The axes of the radar and of the star table: a cell's figure on each, and where it lies."""

from __future__ import annotations

import math

from peftmark.analysis.table import Ratio, ResultTable, overall_score, quality, ratio
from peftmark.catalog.methods import Cell
from peftmark.record.fields import title
from peftmark.record.job import RadarAxis, Record, ReportOptions
from peftmark.render import words
from peftmark.render.chart_specs import RadarPoint
from peftmark.render.page import Column, Entry, Fact
from peftmark.report import energy, missing, score_entries, summary, tuning, tuning_pictures

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


def point(table: ResultTable, cell: Cell, key: str, axis: RadarAxis) -> RadarPoint:
    """Where a cell lies on one axis; no position where its figure is unknown."""
    value = axis_value(table, cell, key).value
    if value is None or (axis.scale == "log" and value <= 0):
        return RadarPoint(None)
    return position(value, axis)


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
    if key == "energy":
        return energy.energy_ratio(table, cell)
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


def named(table: ResultTable, key: str, options: ReportOptions) -> tuple[str, str]:
    """An axis's title, and what its values are."""
    if key == "energy":
        of = energy.basis(table, options.watts)
        return of.title, of.meaning
    return TITLES.get(key, (key, "unknown axis"))


def column(table: ResultTable, key: str, options: ReportOptions) -> Column:
    """The head of an axis's column: a stand-in's role is a line of its own."""
    if key == "energy":
        of = energy.basis(table, options.watts)
        return Column(of.name, of.role, numeric=True)
    return Column(named(table, key, options)[0], numeric=True)


def entry(table: ResultTable, cell: Cell, key: str, options: ReportOptions) -> Entry:
    """A cell's figure on one axis in a table, or why there is none."""
    found = axis_value(table, cell, key)
    if key == "energy":
        of = energy.basis(table, options.watts)
        shown = missing.ratio_entry(table, cell, found, of.field)
        known = found.value is not None
        return score_entries.with_note(shown, *(energy.remarks(table, cell, of) if known else ()))
    if key in READ:
        return missing.ratio_entry(table, cell, found, READ[key])
    if key not in ABSOLUTE or found.value is None:
        fact = Fact(f"{key}, ratio to the reference", words.title(cell), found.value)
        return score_entries.claimed(score_entries.ratio_entry(found), fact)
    note = "" if found.pairs == found.planned else f"n = {found.pairs}/{found.planned} incomplete"
    return Entry(words.number(found.value), note, "number", found.value)


def of_table(table: ResultTable, options: ReportOptions) -> dict[str, RadarAxis]:
    """The suite's axes; ease of use only where something was tuned."""
    tuned = bool(table.planned("tuning"))
    return {key: axis for key, axis in options.radar.items() if tuned or key != "ease_of_use"}

"""One to three stars a cell for quality, speed, memory, energy and ease of use, with the figures.

Stars are thirds of the way from an axis's worst anchor to its best, the radar's, so that no cell
gains or loses one when another joins. A score differs from seed to seed: cells that the verdicts
don't tell apart share their stars of quality, from the lowest to the highest of their thirds.
"""

from __future__ import annotations

from collections.abc import Mapping

from peftmark.advice import training_lines
from peftmark.analysis.comparison import shown_higher
from peftmark.analysis.table import ResultTable
from peftmark.catalog.methods import Cell
from peftmark.record.job import RadarAxis, ReportOptions
from peftmark.render import words
from peftmark.render.page import Column, Entry, Grid
from peftmark.report import axes, missing

AXES = ("quality", "speed", "memory", "energy", "ease_of_use")
"""Those that get stars, in the order of the columns."""
MOST = 3
STAR = "★"
MOST_OPEN = 12
"""Rows of a table that isn't folded."""

Span = tuple[int, int]
"""Fewest and most stars."""


def grid(table: ResultTable, options: ReportOptions) -> Grid | None:
    """The table; None where the suite has anchors for none of the axes."""
    known = {key: axis for key in AXES if (axis := options.radar.get(key)) is not None}
    if not known:
        return None
    columns = [Column("cell")]
    by_axis = []
    for key, axis in known.items():
        columns.append(axes.column(table, key, options))
        spans = {c: span for c in table.cells if (span := _third(table, c, key, axis))}
        by_axis.append(_shared(table, spans) if key == "quality" else spans)
    rows = tuple(
        (
            Entry(words.title(cell)),
            *(
                _entry(table, cell, key, options, spans.get(cell))
                for key, spans in zip(known, by_axis, strict=True)
            ),
        )
        for cell in table.cells
    )
    cuts = (
        f"{head.title} {_cuts(key, known[key])}"
        for key, head in zip(known, columns[1:], strict=True)
    )
    note = (
        "Stars hide how large a difference is: the figures beside them don't. They are thirds "
        f"between the radar's anchors. Two and three begin at: {'; '.join(cuts)}."
    )
    if "quality" in known:
        note += (
            " Cells that no verdict tells apart, directly or through others, share their stars of "
            "quality; other axes go by the mean."
        )
    shown = Grid("In stars", tuple(columns), rows, len(rows) > MOST_OPEN, note)
    return missing.fold_missing(shown, 1)


def stars_of(position: float) -> int:
    """One to three stars by the third that a position from 0 to 1 lies in; a cut is the upper's."""
    return min(MOST, 1 + int(MOST * position))


def text(span: Span) -> str:
    """Such as "★★", or "★ to ★★"."""
    return " to ".join(dict.fromkeys(STAR * count for count in span))


def _third(table: ResultTable, cell: Cell, key: str, axis: RadarAxis) -> Span | None:
    at = axes.point(table, cell, key, axis).position
    return None if at is None else (stars_of(at), stars_of(at))


def _shared(table: ResultTable, spans: Mapping[Cell, Span]) -> dict[Cell, Span]:
    """The same stars for all cells of a group that hang together by pairs not told apart."""
    left, found = list(spans), dict[Cell, Span]()
    while left:
        group = [left.pop(0)]
        for member in group:
            alike = [c for c in left if not _told_apart(table, member, c)]
            group += alike
            left = [c for c in left if c not in alike]
        every = [count for cell in group for count in spans[cell]]
        found |= dict.fromkeys(group, (min(every), max(every)))
    return found


def _told_apart(table: ResultTable, a: Cell, b: Cell) -> bool:
    """Whether one is shown to score higher and has no lower figure on the axis, which may weigh
    tasks otherwise than the verdicts."""
    mine, theirs = (axes.axis_value(table, cell, "quality").value for cell in (a, b))
    if mine is None or theirs is None:
        return False
    return (shown_higher(table, a, b) and mine >= theirs) or (
        shown_higher(table, b, a) and theirs >= mine
    )


def _cuts(key: str, axis: RadarAxis) -> str:
    """Where two stars begin, and three."""

    def at(share: float) -> float:
        if axis.scale == "log":
            return float(axis.worst * (axis.best / axis.worst) ** share)
        return axis.worst + share * (axis.best - axis.worst)

    shown = words.number if key in axes.ABSOLUTE else words.times
    return f"{shown(at(1 / MOST))} and {shown(at(2 / MOST))}"


def _entry(
    table: ResultTable, cell: Cell, key: str, options: ReportOptions, span: Span | None
) -> Entry:
    """Stars with the figure below them, or why there are none."""
    figure = axes.entry(table, cell, key, options)
    if span is None:
        known = figure.kind == "number"
        return words.missing(f"{figure.text} is not above 0") if known else figure
    saw = training_lines.saw(table, cell) if key == "quality" else ""
    note = "; ".join(filter(None, (figure.text, figure.note, saw)))
    return Entry(text(span), note, "stars", figure.sort, figure.fact)

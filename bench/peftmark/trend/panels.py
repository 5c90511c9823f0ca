"""Pictures of the trend: a cell on a task over the runs of the gate."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby

from peftmark.catalog.methods import Cell
from peftmark.render import words
from peftmark.render.chart_specs import History, HistoryLane, Mark
from peftmark.render.page import Block, Figure, Figures, Paragraph, marks
from peftmark.trend import wording
from peftmark.trend.series import Run, Series, Step, Strand

MOST_FIGURES = 24
"""Pictures of one section; what they leave out is in the table of all series."""
NARROWEST = 0.04
"""Least height of an axis as a share of the level, so that a flat line looks flat; where a step
must be large to count, twice that."""
NARROWEST_SCORE = 0.02


@dataclass(frozen=True)
class Panel:
    """What one picture shows: a cell on a task in comparable runs.

    Attributes:
        series: one a measure, those that have figures.
    """

    strand: Strand
    mark: Mark
    series: tuple[Series, ...]
    number: int

    @property
    def name(self) -> str:
        """Name of the picture's file, unique on the page."""
        first = self.series[0]
        plain = re.sub(r"[^a-z0-9]+", "-", f"{first.task}-{words.title(first.cell)}".lower())
        return f"trend-{self.number}-{plain.strip('-')}"


def all_panels(strands: Sequence[Strand]) -> list[Panel]:
    """What there is to draw, in the order of the series."""
    cells: dict[Cell, None] = {s.cell: None for strand in strands for s in strand.series}
    look = marks(tuple(cells))
    found: list[Panel] = []
    for strand in strands:
        for _, group in groupby(strand.series, key=lambda s: (s.task, s.metric, s.cell)):
            series = tuple(group)
            found.append(Panel(strand, look[series[0].cell], series, len(found) + 1))
    return found


def figures(panels: Sequence[Panel], strands: Sequence[Strand]) -> tuple[Block, ...]:
    """The first pictures, and how many are not drawn."""
    if not panels:
        return ()
    drawn = Figures(tuple(figure_of(p, strands) for p in panels[:MOST_FIGURES]))
    more = len(panels) - MOST_FIGURES
    if more <= 0:
        return (drawn,)
    return (drawn, Paragraph(f"{more} more are in the tables and not drawn."))


def figure_of(panel: Panel, strands: Sequence[Strand]) -> Figure:
    """A panel's picture, with what stepped in it."""
    told = [wording.sentence(s, step) for s in panel.series for step in s.steps]
    if told:
        text = "; ".join(told)
        text = text[0].upper() + text[1:] + "."
    elif any(s.searched for s in panel.series):
        text = f"No step in {words.plural(len(panel.series[0].points), 'run')}."
    else:
        text = f"{wording.too_short(panel.series[0])}."
    lanes = tuple(_lane(series) for series in panel.series)
    runs = tuple(_label(run) for run in panel.strand.runs)
    drawing = History(panel.mark, lanes, runs, _accepted(panel.strand))
    return Figure(panel.name, text, drawing, title=wording.name(panel.series[0], strands))


def _label(run: Run) -> str:
    day = wording.day(run.at)
    return f"{day}\n{wording.commit(run.commit, run.dirty)}" if run.commit else day


def _accepted(strand: Strand) -> tuple[tuple[float, bool], ...]:
    """Where accepted baselines lie: behind the last run that was finished by then."""
    found: dict[float, bool] = {}
    for accepted in strand.accepted:
        place = sum(run.at <= accepted.at for run in strand.runs) - 0.5
        found[place] = found.get(place, False) or accepted.pinned
    return tuple(sorted(found.items()))


def _lane(series: Series) -> HistoryLane:
    key = series.measure.key
    scale = wording.in_unit(key, 1.0)
    points = tuple(
        (i, replace(f, mean=f.mean * scale, half_width=f.half_width and f.half_width * scale))
        for i, _, f in series.points
    )
    unit = f", {wording.unit(key)}" if wording.unit(key) else ""
    title = f"{wording.measure_title(series)}{unit} {wording.direction(series)}"
    steps = tuple((step.index, _above(series, step)) for step in series.steps)
    levels = series.levels if series.searched else ()
    return HistoryLane(
        title=title + (", advisory" if series.measure.advisory else ""),
        points=points,
        levels=tuple((a, b, mean * scale) for a, b, mean in levels),
        steps=steps,
        gaps=series.gaps,
        alarms=tuple(i for i, p, _ in series.points if key == "score" and p.verdict == "worse"),
        span=_span(series, scale),
    )


def _above(series: Series, step: Step) -> str:
    key = series.measure.key
    levels = f"{wording.amount(key, step.low)} → {wording.amount(key, step.high)}"
    return f"{levels} {wording.at(step.after)}"


def _span(series: Series, scale: float) -> tuple[float, float]:
    """Room for all figures, and for intervals no longer than the figures' own spread."""
    means = [f.mean * scale for _, _, f in series.points]
    share = max(NARROWEST, 2 * series.measure.least)
    least = NARROWEST_SCORE if series.measure.key == "score" else share * abs(means[-1])
    spread = max(max(means) - min(means), least or 1.0)
    low = max(min(f.low for _, _, f in series.points) * scale, min(means) - spread)
    high = min(max(f.high for _, _, f in series.points) * scale, max(means) + spread)
    room = max((least - (high - low)) / 2, 0.08 * spread)
    return low - room, high + room

"""Draws cells as rows under several panels: costs beside scores, and one panel a task.

On a phone the panels stand below one another.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from peftmark.render import words
from peftmark.render.chart_specs import Lanes, Strip, StripRow, TaskLane
from peftmark.render.page import shorten
from peftmark.render.series import COLOURS
from peftmark.render.style import (
    ROW,
    gap_text,
    heading,
    interval,
    label,
    label_width,
    name_rows,
    new_canvas,
    panel,
    ticks_that_fit,
)
from peftmark.render.svg import INK, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

WIDE, PHONE = 1040, 358
LOW_ROW = 22
"""Pixels of a row on a phone."""
COLUMNS: tuple[tuple[str, Callable[[StripRow], float | None]], ...] = (
    ("peak memory ↓", lambda row: row.memory),
    ("speed ↑", lambda row: row.speed),
    ("trainable parameters ↓", lambda row: row.parameters),
)


def draw_strip(strip: Strip) -> Canvas:
    """Scores, then ratio bars of each cost."""
    labels = [label(row.mark) for row in strip.rows]
    if strip.narrow:
        canvas, panels = _stacked(labels, 1 + len(COLUMNS), 30, 32)
        _scores(panels[0], strip, labels)
        for axes, (title, read) in zip(panels[1:], COLUMNS, strict=True):
            _bars(axes, strip, title, read, labels)
        return canvas
    left, gap, first = label_width(labels), 26, 330
    canvas = new_canvas(WIDE, 62 + ROW * len(labels))
    rest = (WIDE - left - first - 4 * gap) // 3
    _scores(panel(canvas, left, 30, WIDE - left - first, 32), strip, labels)
    none = [""] * len(labels)
    for i, (title, read) in enumerate(COLUMNS):
        start = left + first + gap + i * (rest + gap)
        _bars(panel(canvas, start, 30, WIDE - start - rest, 32), strip, title, read, none)
    return canvas


def _stacked(labels: Sequence[str], n: int, below: int, above: int) -> tuple[Canvas, list[Axes]]:
    """Panels for a phone, from the top down."""
    height = below + above + LOW_ROW * len(labels)
    canvas = new_canvas(PHONE, height * n)
    left = min(label_width(labels), PHONE // 2)
    return canvas, [
        panel(canvas, left, height * (n - 1 - i) + below, 10, height * i + above) for i in range(n)
    ]


def _scores(axes: Axes, strip: Strip, labels: Sequence[str]) -> None:
    name_rows(axes, labels)
    for y, row in enumerate(strip.rows):
        interval(axes, y, row.mark, row.quality, 8)
        if row.quality is None:
            gap_text(axes, y, shorten(row.missing, 20 if strip.narrow else 46))
    axes.margins(x=0.08)
    axes.locator_params(axis="x", nbins=min(5, ticks_that_fit(axes)))
    heading(axes, strip.axis)


def _bars(
    axes: Axes,
    strip: Strip,
    title: str,
    read: Callable[[StripRow], float | None],
    labels: Sequence[str],
) -> None:
    """Ratio bars that grow from 1x on a log axis; left of it is less than the reference."""
    name_rows(axes, labels)
    values = [read(row) for row in strip.rows]
    logs = [math.log2(v) for v in values if v]
    low, high = min([*logs, -0.6]), max([*logs, 0.6])
    room = 0.42 * (high - low)
    axes.set_xlim(low - room, high + room)
    for y, (row, value) in enumerate(zip(strip.rows, values, strict=True)):
        if not value:
            axes.text(0.06 * room, y, words.MISSING, va="center", color=MUTED)
            continue
        end = math.log2(value)
        axes.barh(y, end, height=0.42, color=COLOURS[row.mark.series], zorder=2)
        side = "right" if end < 0 else "left"
        shift = -0.1 * room if end < 0 else 0.1 * room
        axes.text(end + shift, y, words.times(value), va="center", ha=side)
    axes.axvline(0, color=MUTED, linewidth=1, zorder=3)
    axes.set_xticks([0], [f"1× {strip.reference}"])
    axes.spines["bottom"].set_visible(False)
    heading(axes, title)


def draw_lanes(lanes: Lanes) -> Canvas:
    """One panel a task, all with the same rows; the first of a wide picture has their names."""
    labels = [label(mark) for mark in lanes.marks]
    n = max(1, len(lanes.lanes))
    if lanes.narrow:
        canvas, panels = _stacked(labels, n, 48, 40)
        for axes, lane in zip(panels, lanes.lanes, strict=False):
            _lane(axes, lanes, lane, labels)
        return canvas
    left, gap = label_width(labels), 28
    canvas = new_canvas(WIDE, 92 + ROW * len(labels))
    width = (WIDE - left - gap * n) // n
    for i, lane in enumerate(lanes.lanes):
        start = left + i * (width + gap)
        axes = panel(canvas, start, 48, WIDE - start - width, 40)
        _lane(axes, lanes, lane, labels if i == 0 else [""] * len(labels))
    return canvas


def _lane(axes: Axes, lanes: Lanes, lane: TaskLane, labels: Sequence[str]) -> None:
    name_rows(axes, labels)
    for y, (mark, estimate) in enumerate(zip(lanes.marks, lane.estimates, strict=True)):
        interval(axes, y, mark, estimate, 8)
        if estimate is None:
            gap_text(axes, y, words.MISSING)
    if lane.baseline is not None:
        style: Any = {"color": INK, "linewidth": 1, "linestyle": (0, (3, 3)), "zorder": 1}
        axes.axvline(lane.baseline, **style)
    axes.margins(x=0.08)
    axes.locator_params(axis="x", nbins=ticks_that_fit(axes))
    letters = max(12, int(axes.bbox.width) // 7)
    axes.set_xlabel(textwrap.fill(lane.axis, letters), labelpad=4)
    heading(axes, shorten(lane.title, letters))

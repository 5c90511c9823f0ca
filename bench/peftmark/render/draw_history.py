"""Draws a cell over the runs of the gate: a lane a measure, one axis of runs for all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftmark.render.chart_specs import History, HistoryLane
from peftmark.render.series import COLOURS
from peftmark.render.style import heading, marker, new_canvas, panel
from peftmark.render.svg import INK, LINE, MUTED, PAPER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

LEFT, RIGHT = 58, 36
TALL, LOW = 140, 64
"""Pixels of the first lane and of the others."""
HEAD, FOOT = 32, 44
MOST_TICKS = 4
CROWDED = 40
"""Runs from which on the points are small."""


def draw_history(history: History) -> Canvas:
    """Points and levels of every lane; steps as upright lines, accepted baselines dotted."""
    heights = [TALL, *[LOW] * (len(history.lanes) - 1)]
    height = sum(heights) + HEAD * len(heights) + FOOT
    canvas = new_canvas(history.width, height)
    top = 0
    for i, (lane, tall) in enumerate(zip(history.lanes, heights, strict=True)):
        top += HEAD
        axes = panel(canvas, LEFT, height - top - tall, RIGHT, top)
        _frame(axes, lane, history, last=i + 1 == len(heights))
        _accepted(axes, history, first=i == 0)
        _lane(axes, lane, history)
        top += tall
    return canvas


def _frame(axes: Axes, lane: HistoryLane, history: History, *, last: bool) -> None:
    runs = len(history.runs)
    axes.set_xlim(-0.6, max(runs, 2) - 0.4)
    axes.set_ylim(*lane.span)
    axes.locator_params(axis="y", nbins=5 if axes.bbox.height > LOW else 3)
    axes.ticklabel_format(axis="y", style="plain", useOffset=False)
    axes.grid(axis="y", color=LINE, linewidth=0.75)
    axes.set_axisbelow(True)
    heading(axes, lane.title)
    if lane.steps:
        axes.set_title(lane.steps[-1][1], loc="right", fontsize=12, color=INK, pad=8)
    if last:
        ticks = _ticks(runs)
        axes.set_xticks(ticks, [history.runs[i] for i in ticks])
    else:
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)


def _ticks(runs: int) -> list[int]:
    """Places with a label: the first, the last and some between, evenly spread."""
    parts = min(MOST_TICKS, runs) - 1
    return [round(i * (runs - 1) / parts) for i in range(parts + 1)] if parts > 0 else [0]


def _accepted(axes: Axes, history: History, *, first: bool) -> None:
    for place, pinned in history.accepted:
        axes.axvline(place, color=MUTED, linewidth=1, linestyle=(0, (1.5, 2.5)), zorder=1)
        if first:
            look: dict[str, Any] = {"marker": "s" if pinned else "v", "markersize": 6}
            across = axes.get_xaxis_transform()
            axes.plot([place], [1], color=MUTED, transform=across, clip_on=False, **look)


def _lane(axes: Axes, lane: HistoryLane, history: History) -> None:
    colour = COLOURS[history.mark.series]
    places = [place for place, _ in lane.points]
    size = 3.0 if len(history.runs) > CROWDED else 5.0
    for place, found in lane.points:
        if found.half_width is not None:
            axes.plot([place, place], [found.low, found.high], color=colour, linewidth=1, alpha=0.5)
    look = marker(history.mark) | {"linestyle": "none", "markersize": size, "zorder": 3}
    look |= {"markerfacecolor": PAPER} if look["fillstyle"] == "none" else {}
    axes.plot(places, [found.mean for _, found in lane.points], **look)
    for start, end, mean in lane.levels:
        axes.plot([start - 0.4, end + 0.4], [mean, mean], color=INK, linewidth=1.25, zorder=2)
    for place, _ in lane.steps:
        axes.axvline(place - 0.5, color=INK, linewidth=1.25, zorder=2)
    rings = [(place, found.mean) for place, found in lane.points if place in lane.alarms]
    _signs(axes, rings, marker="o", fillstyle="none", markersize=size + 6, color=INK)
    bottom = lane.span[0] + 0.06 * (lane.span[1] - lane.span[0])
    _signs(axes, [(p, bottom) for p in lane.gaps], marker="x", markersize=5, color=MUTED)


def _signs(axes: Axes, places: list[tuple[int, float]], **look: Any) -> None:
    if places:
        xs, ys = zip(*places, strict=True)
        axes.plot(xs, ys, linestyle="none", markeredgewidth=1, zorder=4, clip_on=False, **look)

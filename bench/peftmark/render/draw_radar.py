"""Draws a radar: rings, axes named outside the rim, outlines and their key.

Every outline that a reader may pick is there, those that nobody picked as hidden elements;
`peftmark.render.shapes` has the rules that show them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from peftmark.render.chart_specs import Outline, Radar
from peftmark.render.shapes import DASHES, KEY_LINE, element
from peftmark.render.style import marker, new_canvas, panel
from peftmark.render.svg import INK, LINE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

WIDTH, HEIGHT = 440, 396
SIDE, BOTTOM, TOP = 76, 100, 30
RINGS = (0.25, 0.5, 0.75, 1.0)
GAP = (math.nan, math.nan)


def draw_radar(radar: Radar) -> Canvas:
    """The first outline filled, the others as lines over it."""
    canvas = new_canvas(WIDTH, HEIGHT)
    axes = panel(canvas, SIDE, BOTTOM, SIDE, TOP)
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set_xlim(-1.05, 1.05)
    axes.set_ylim(-1.05, 1.05)
    n = len(radar.axes)
    for ring in RINGS:
        corners = [_spoke(i % n, n, ring) for i in range(n + 1)]
        axes.plot(*zip(*corners, strict=True), color=LINE, linewidth=1)
    for i, title in enumerate(radar.axes):
        _axis(axes, i, n, title, all(o.points[i].position is None for o in radar.outlines))
    keys = _key_panel(canvas)
    for i, outline in enumerate(radar.outlines):
        row = radar.drawn.index(i) if i in radar.drawn else None
        style = marker(outline.mark)
        _outline(axes, i, outline, style | {"linestyle": DASHES[row or 0]}, row is None)
        _key(keys, i, outline.mark.label, style | {"linestyle": DASHES[row or 0]}, row)
    return canvas


def _spoke(index: int, n: int, radius: float) -> tuple[float, float]:
    angle = math.pi / 2 - 2 * math.pi * index / n
    return radius * math.cos(angle), radius * math.sin(angle)


def _axis(axes: Axes, index: int, n: int, title: str, unknown: bool) -> None:
    x, y = _spoke(index, n, 1.0)
    axes.plot([0, x], [0, y], color=LINE, linewidth=1)
    side = "center" if abs(x) < 0.2 else "left" if x > 0 else "right"
    level = "center" if abs(y) < 0.9 else "bottom" if y > 0 else "top"
    text = title.replace(" to ", " to\n").replace(" (", "\n(") + ("\nn/a" if unknown else "")
    axes.text(1.1 * x, 1.1 * y, text, ha=side, va=level, color=INK)


def _outline(axes: Axes, place: int, outline: Outline, style: dict[str, Any], hidden: bool) -> None:
    """Sides between neighbours that are both known; the first is filled when all are. A tick across
    an axis says that the value lies beyond its anchors."""
    points, n = outline.points, len(outline.points)
    corners = [
        None if p.position is None else _spoke(i, n, p.position) for i, p in enumerate(points)
    ]
    sides: list[tuple[float, float]] = []
    for a, b in zip(corners, [*corners[1:], corners[0]], strict=True):
        if a is not None and b is not None:
            sides += [a, b, GAP]
    known = [c for c in corners if c is not None]
    if sides:
        (line,) = axes.plot(
            *zip(*sides, strict=True),
            color=style["color"],
            linewidth=2.0,
            linestyle=style["linestyle"],
        )
        line.set_gid(element("s", "line", place, hidden))
    if place == 0 and len(known) == n:
        (area,) = axes.fill(
            *zip(*known, strict=True), color=style["color"], alpha=0.12, linewidth=0
        )
        area.set_gid(element("s", "area", place, hidden))
    if known:
        dots = style | {"linestyle": "none", "markersize": 7, "clip_on": False}
        (found,) = axes.plot(*zip(*known, strict=True), **dots)
        found.set_gid(element("s", "dots", place, hidden))
    ticks: list[tuple[float, float]] = []
    for i, point in enumerate(points):
        if point.clipped and point.position is not None:
            x, y = _spoke(i, n, 1.0)
            cx, cy = _spoke(i, n, 1.05 if point.position > 0.5 else 0.05)
            ticks += [(cx + 0.09 * y, cy - 0.09 * x), (cx - 0.09 * y, cy + 0.09 * x), GAP]
    if ticks:
        (across,) = axes.plot(*zip(*ticks, strict=True), color=INK)
        across.set_gid(element("s", "tick", place, hidden))


def _key_panel(canvas: Canvas) -> Axes:
    """Three lines below the drawing."""
    axes = panel(canvas, 0, 0, 0, HEIGHT - KEY_LINE * len(DASHES))
    axes.set_axis_off()
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(len(DASHES) - 0.5, -0.5)
    return axes


def _key(axes: Axes, place: int, label: str, style: dict[str, Any], row: int | None) -> None:
    """The name of an outline on a row of its own; of one that is hidden, on the first."""
    y = row or 0
    (line,) = axes.plot([SIDE, SIDE + 18, SIDE + 36], [y] * 3, markevery=[1], **style)
    line.set_gid(element("k", "line", place, row is None))
    text = axes.text(SIDE + 46, y, label, va="center", color=INK)
    text.set_gid(element("k", "name", place, row is None))

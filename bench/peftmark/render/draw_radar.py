"""Draws a radar: rings, axes named outside the rim, a few outlines and their key."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from peftmark.render.chart_specs import Outline, Radar
from peftmark.render.style import looks, new_canvas, panel
from peftmark.render.svg import INK, LINE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

WIDTH, HEIGHT = 440, 380
SIDE, BOTTOM, TOP = 76, 84, 30
RINGS = (0.25, 0.5, 0.75, 1.0)
KEY_LINE = 20
"""Pixels of a line of the key."""


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
    styles = looks([outline.mark for outline in radar.outlines])
    for i, (outline, style) in enumerate(zip(radar.outlines, styles, strict=True)):
        _outline(axes, outline, style, fill=0.12 if i == 0 else 0.0)
    _key(canvas, radar.outlines, styles)
    return canvas


def _spoke(index: int, n: int, radius: float) -> tuple[float, float]:
    angle = math.pi / 2 - 2 * math.pi * index / n
    return radius * math.cos(angle), radius * math.sin(angle)


def _axis(axes: Axes, index: int, n: int, title: str, unknown: bool) -> None:
    x, y = _spoke(index, n, 1.0)
    axes.plot([0, x], [0, y], color=LINE, linewidth=1)
    side = "center" if abs(x) < 0.2 else "left" if x > 0 else "right"
    level = "center" if abs(y) < 0.9 else "bottom" if y > 0 else "top"
    text = title.replace(" to ", " to\n") + ("\nn/a" if unknown else "")
    axes.text(1.1 * x, 1.1 * y, text, ha=side, va=level, color=INK)


def _outline(axes: Axes, outline: Outline, style: dict[str, Any], fill: float) -> None:
    """Sides between neighbours that are both known; the fill only when all are. A tick across an
    axis says that the value lies beyond its anchors."""
    points, n = outline.points, len(outline.points)
    colour, dash = style["color"], style["linestyle"]
    corners = [
        None if p.position is None else _spoke(i, n, p.position) for i, p in enumerate(points)
    ]
    for a, b in zip(corners, [*corners[1:], corners[0]], strict=True):
        if a is not None and b is not None:
            axes.plot([a[0], b[0]], [a[1], b[1]], color=colour, linewidth=2.0, linestyle=dash)
    known = [c for c in corners if c is not None]
    if fill and len(known) == n:
        axes.fill(*zip(*known, strict=True), color=colour, alpha=fill, linewidth=0)
    if known:
        dots = style | {"linestyle": "none", "markersize": 7, "clip_on": False}
        axes.plot(*zip(*known, strict=True), **dots)
    for i, point in enumerate(points):
        if point.clipped and point.position is not None:
            x, y = _spoke(i, n, 1.0)
            cx, cy = _spoke(i, n, 1.05 if point.position > 0.5 else 0.05)
            axes.plot([cx + 0.09 * y, cx - 0.09 * y], [cy - 0.09 * x, cy + 0.09 * x], color=INK)


def _key(canvas: Canvas, outlines: Sequence[Outline], styles: Sequence[dict[str, Any]]) -> None:
    """The names below, a line each."""
    axes = panel(canvas, 0, 0, 0, HEIGHT - KEY_LINE * len(outlines))
    axes.set_axis_off()
    axes.set_xlim(0, WIDTH)
    axes.set_ylim(len(outlines) - 0.5, -0.5)
    for y, (outline, style) in enumerate(zip(outlines, styles, strict=True)):
        axes.plot([SIDE, SIDE + 18, SIDE + 36], [y] * 3, markevery=[1], **style)
        axes.text(SIDE + 46, y, outline.mark.label, va="center", color=INK)

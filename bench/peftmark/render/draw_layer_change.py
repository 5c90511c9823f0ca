"""Drawing of what training changed by layer: squares of weights, and figures before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftmark.render.draw_heatmaps import SQUARE, layer_ticks, rank_squares
from peftmark.render.layer_specs import BeforeAfter, LayerChange
from peftmark.render.page import shorten
from peftmark.render.series import COLOURS
from peftmark.render.style import new_canvas, panel
from peftmark.render.svg import INK, LINE, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

LEFT, TOP, BOTTOM = 58, 66, 30
LANE, GAP = 104, 22
"""Pixels of a lane, and before each."""


def draw_layer_change(drawn: LayerChange) -> Canvas:
    """Layers down; a hollow ring before training, a dot after it."""
    squares = 0 if drawn.squares is None else SQUARE[0] * len(drawn.squares.modules)
    height = TOP + SQUARE[1] * len(drawn.layers) + BOTTOM
    width = LEFT + squares + len(drawn.lanes) * (GAP + LANE) + 8
    canvas = new_canvas(width, height)
    if drawn.squares is not None:
        rank_squares(panel(canvas, LEFT, BOTTOM, width - LEFT - squares, TOP), drawn.squares)
    start = LEFT + squares
    for at, lane in enumerate(drawn.lanes):
        left = start + at * (GAP + LANE) + GAP
        axes = panel(canvas, left, BOTTOM, width - left - LANE, TOP)
        _lane(axes, lane, COLOURS[drawn.mark.series])
        layer_ticks(axes, drawn.layers if not squares and not at else [""] * len(drawn.layers))
    side = _key(canvas, width, height, COLOURS[drawn.mark.series])
    if squares:
        side.text(LEFT, 13, "change of the weights, percent", va="center")
    side.text(start + GAP, 13, "attention of a token", va="center")
    return canvas


def _lane(axes: Axes, lane: BeforeAfter, colour: str) -> None:
    axes.set_ylim(len(lane.pairs), 0)
    rows = [(at + 0.5, *pair) for at, pair in enumerate(lane.pairs) if pair is not None]
    across = axes.get_yaxis_transform()
    axes.hlines([y for y, _, _ in rows], 0, 1, color=LINE, linewidth=0.75, transform=across)
    for y, before, after in rows:
        axes.plot([before, after], [y, y], color=colour, linewidth=2.5, solid_capstyle="butt")
        axes.plot([before], [y], "o", markersize=7, fillstyle="none", color=INK)
        axes.plot([after], [y], "o", markersize=7, color=colour, markeredgewidth=0)
    axes.margins(x=0.12)
    axes.locator_params(axis="x", nbins=3)
    axes.tick_params(axis="x", labelsize=11)
    axes.set_title(shorten(lane.title, 17), loc="left", fontsize=11, color=MUTED, pad=8)


def _key(canvas: Canvas, width: int, height: int, colour: str) -> Axes:
    """What a ring and a dot are; returns axes in pixels over the whole drawing."""
    side = canvas.add_axes((0, 0, 1, 1))
    side.set_axis_off()
    side.set_xlim(0, width)
    side.set_ylim(height, 0)
    right = width - 8
    side.plot([right - 176], [13], "o", markersize=7, fillstyle="none", color=INK)
    side.text(right - 166, 13, "before training", va="center", fontsize=11)
    side.plot([right - 66], [13], "o", markersize=7, color=colour, markeredgewidth=0)
    side.text(right - 56, 13, "after it", va="center", fontsize=11)
    return side

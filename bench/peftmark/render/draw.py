"""Drawings to inline SVG with matplotlib: text stays text, colours follow the page's theme.

One unit of a figure is one CSS pixel.
"""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, assert_never

from peftmark.render import shapes, svg, words
from peftmark.render.chart_specs import (
    Curves,
    Dots,
    Drawing,
    History,
    Lanes,
    LayerBars,
    Radar,
    RankMap,
    RankPath,
    Scatter,
    Stack,
    Strip,
    Sweep,
    Waits,
)
from peftmark.render.draw_curves import draw_curves, draw_sweep, draw_waits
from peftmark.render.draw_heatmaps import draw_layer_bars, draw_rank_map, draw_rank_path
from peftmark.render.draw_history import draw_history
from peftmark.render.draw_lanes import draw_lanes, draw_strip
from peftmark.render.draw_layer_change import draw_layer_change
from peftmark.render.draw_pareto import draw_scatter
from peftmark.render.draw_radar import draw_radar
from peftmark.render.layer_specs import LayerChange
from peftmark.render.page import Figure
from peftmark.render.series import COLOURS
from peftmark.render.style import (
    ROW,
    STYLE,
    gap_text,
    interval,
    label,
    label_width,
    name_rows,
    new_canvas,
    panel,
    ticks_that_fit,
)
from peftmark.render.svg import INK, MUTED, PAPER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas


def render_all(figures: Iterable[Figure]) -> dict[str, str]:
    """Name -> picture, as one `<svg>` element for a page that defines the colour variables."""
    # Without a home it keeps its list of fonts for a moment, and says so at length.
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import matplotlib

    # Once for all: setting the style takes as long as drawing a small picture.
    with matplotlib.rc_context(), warnings.catch_warnings():
        # Text stays text: whatever the reader has for a character is drawn.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        return {figure.name: _render(figure) for figure in figures}


def render(figure: Figure) -> str:
    """One picture."""
    return render_all([figure])[figure.name]


def _render(figure: Figure) -> str:
    canvas = _draw(figure.drawing)
    buffer = io.StringIO()
    blank = {"Date": None, "Creator": None, "Format": None, "Type": None}
    canvas.savefig(buffer, format="svg", transparent=True, metadata=blank)
    width, height = canvas.get_size_inches() * 72
    text = svg.inline(
        buffer.getvalue(), figure.name, figure.finding, figure.note, round(width), round(height)
    )
    return shapes.hide(text) if isinstance(figure.drawing, Radar) else text


def _draw(drawing: Drawing) -> Canvas:
    match drawing:
        case Strip():
            return draw_strip(drawing)
        case Stack():
            return _stack(drawing)
        case Dots():
            return _dots(drawing)
        case Lanes():
            return draw_lanes(drawing)
        case Radar():
            return draw_radar(drawing)
        case Curves():
            return draw_curves(drawing)
        case Waits():
            return draw_waits(drawing)
        case Sweep():
            return draw_sweep(drawing)
        case RankMap():
            return draw_rank_map(drawing)
        case LayerChange():
            return draw_layer_change(drawing)
        case RankPath():
            return draw_rank_path(drawing)
        case Scatter():
            return draw_scatter(drawing)
        case LayerBars():
            return draw_layer_bars(drawing)
        case History():
            return draw_history(drawing)
        case _:
            assert_never(drawing)


# --- stacked bars ----------------------------------------------------------------------------


def _stack(stack: Stack) -> Canvas:
    """Bars in shades of ink, since a colour names a cell; the total stands at the end."""
    labels = [label(row.mark) for row in stack.rows]
    canvas = new_canvas(1040, 96 + ROW * len(labels))
    axes = panel(canvas, label_width(labels), 44, 72, 40)
    name_rows(axes, labels)
    shades = [0.85 - 0.72 * i / max(1, len(stack.parts) - 1) for i in range(len(stack.parts))]
    for y, row in enumerate(stack.rows):
        axes.barh(y, sum(row.sizes), height=0.5, color=PAPER, linewidth=0)
        start = 0.0
        for size, shade in zip(row.sizes, shades, strict=False):
            axes.barh(y, size, left=start, height=0.5, color=INK, alpha=shade, linewidth=0)
            start += size
        if row.sizes:
            axes.annotate(
                words.short(start),
                (start, y),
                xytext=(6, 0),
                textcoords="offset points",
                va="center",
            )
        else:
            gap_text(axes, y, row.missing)
    axes.set_xlim(left=0)
    axes.set_xlabel(stack.axis, labelpad=6)
    for name, shade in zip(stack.parts, shades, strict=True):
        axes.barh(0, 0, color=INK, alpha=shade, linewidth=0, label=name)
    axes.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1.0),
        ncols=len(stack.parts),
        frameon=False,
        handlelength=1,
        handleheight=1,
        borderaxespad=0.2,
        columnspacing=1.6,
    )
    return canvas


# --- dots a seed -----------------------------------------------------------------------------


def _dots(dots: Dots) -> Canvas:
    labels = [label(row.mark) for row in dots.rows]
    left, canvas = label_width(labels), new_canvas(dots.width, 66 + ROW * len(labels))
    far = _baseline_is_far(dots)
    axes = panel(canvas, left + (78 if far else 0), 44, 16, 22)
    side = panel(canvas, left, 44, dots.width - left - 64, 22) if far else axes
    name_rows(axes, [""] * len(labels) if far else labels)
    for y, row in enumerate(dots.rows):
        colour = COLOURS[row.mark.series]
        spread = [y + 0.27] * len(row.values)
        axes.plot(row.values, spread, "o", markersize=4.5, color=colour, markeredgewidth=0)
        interval(axes, y - 0.06, row.mark, row.estimate, 8)
        if row.estimate is None:
            gap_text(axes, y, row.missing)
    if dots.baseline is not None:
        _baseline(side, dots.baseline, dots.line)
    axes.margins(x=0.08)
    axes.locator_params(axis="x", nbins=ticks_that_fit(axes))
    axes.set_xlabel(dots.axis, labelpad=6)
    if far and dots.baseline is not None:
        _break(side, axes, labels, dots.baseline)
    return canvas


def _baseline(axes: Axes, value: float, text: str) -> None:
    axes.axvline(value, color=INK, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
    axes.annotate(
        text,
        (value, 1.0),
        xycoords=axes.get_xaxis_transform(),
        xytext=(0, 4),
        textcoords="offset points",
        ha="center",
        color=MUTED,
    )


def _baseline_is_far(dots: Dots) -> bool:
    """Whether one axis with the baseline on it would squeeze the scores into half its width."""
    ends = [e for row in dots.rows if row.estimate for e in (row.estimate.low, row.estimate.high)]
    seen = [*ends, *(v for row in dots.rows for v in row.values)]
    if dots.baseline is None or not seen or dots.baseline >= min(seen):
        return False
    return max(seen) - min(seen) < 0.5 * (max(seen) - dots.baseline)


def _break(side: Axes, axes: Axes, labels: Sequence[str], baseline: float) -> None:
    """The piece of the axis that holds the baseline, and the marks that say it is broken."""
    name_rows(side, labels)
    side.set_xlim(baseline - 1, baseline + 3)
    side.set_xticks([baseline], [words.number(baseline, 2)])
    for piece, x in ((side, 1.0), (axes, 0.0)):
        style: dict[str, Any] = {"marker": [(-1, -2), (1, 2)], "markersize": 9, "clip_on": False}
        piece.plot([x], [0], transform=piece.transAxes, color=MUTED, linestyle="none", **style)

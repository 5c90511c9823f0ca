"""Drawings to inline SVG with matplotlib: text stays text, colours follow the page's theme.

One unit of a figure is one CSS pixel.
"""

from __future__ import annotations

import io
import math
import textwrap
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, assert_never

from peftmark.analysis.stats import Estimate
from peftmark.render import svg, words
from peftmark.render.chart_specs import (
    Curves,
    DotRow,
    Dots,
    Drawing,
    History,
    Lanes,
    LayerBars,
    Mark,
    Radar,
    RankMap,
    RankPath,
    Scatter,
    Stack,
    Strip,
    StripRow,
    Sweep,
    Waits,
)
from peftmark.render.draw_curves import draw_curves, draw_sweep, draw_waits
from peftmark.render.draw_heatmaps import draw_layer_bars, draw_rank_map, draw_rank_path
from peftmark.render.draw_history import draw_history
from peftmark.render.draw_pareto import draw_scatter
from peftmark.render.draw_radar import draw_radar
from peftmark.render.page import Figure, shorten
from peftmark.render.series import COLOURS
from peftmark.render.style import (
    STYLE,
    heading,
    label,
    label_width,
    marker,
    new_canvas,
    panel,
    ticks_that_fit,
)
from peftmark.render.svg import INK, LINE, MUTED, PAPER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

ROW = 30


def render_all(figures: Iterable[Figure]) -> dict[str, str]:
    """Name -> picture, as one `<svg>` element for a page that defines the colour variables."""
    import matplotlib

    # Once for all: setting the style takes as long as drawing a small picture.
    with matplotlib.rc_context():
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
    return svg.inline(
        buffer.getvalue(), figure.name, figure.finding, figure.note, round(width), round(height)
    )


def _draw(drawing: Drawing) -> Canvas:
    match drawing:
        case Strip():
            return _strip(drawing)
        case Stack():
            return _stack(drawing)
        case Dots():
            return _dots(drawing)
        case Lanes():
            return _lanes(drawing)
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


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    """One labelled row a cell, the first on top, with hairlines."""
    n = len(labels)
    axes.set_ylim(n - 0.5, -0.5)
    axes.set_yticks(range(n), labels)
    axes.tick_params(axis="y", labelcolor=INK, pad=8)
    across = axes.get_yaxis_transform()
    axes.hlines(range(n), 0, 1, color=LINE, linewidth=0.75, zorder=0, transform=across)


def _estimate(axes: Axes, y: float, row: StripRow | DotRow, size: float) -> None:
    estimate = row.quality if isinstance(row, StripRow) else row.estimate
    _interval(axes, y, row.mark, estimate, size)


def _interval(axes: Axes, y: float, mark: Mark, estimate: Estimate | None, size: float) -> None:
    if estimate is None:
        return
    colour = COLOURS[mark.series]
    if estimate.half_width is not None:
        axes.plot([estimate.low, estimate.high], [y, y], color=colour, solid_capstyle="butt")
    axes.plot([estimate.mean], [y], markersize=size, linestyle="none", **marker(mark))


def _gap_text(axes: Axes, y: float, text: str) -> None:
    axes.text(
        0.02, y, text, transform=axes.get_yaxis_transform(), va="center", color=MUTED, fontsize=12
    )


# --- summary strip ---------------------------------------------------------------------------


def _strip(strip: Strip) -> Canvas:
    labels = [label(row.mark) for row in strip.rows]
    left, gap = label_width(labels), 26
    canvas = new_canvas(1040, 62 + ROW * len(labels))
    first = 330
    rest = (1040 - left - first - 4 * gap) // 3
    axes = panel(canvas, left, 30, 1040 - left - first, 32)
    _rows(axes, labels)
    for y, row in enumerate(strip.rows):
        _estimate(axes, y, row, 8)
        if row.quality is None:
            _gap_text(axes, y, shorten(row.missing, 46))
    axes.margins(x=0.08)
    axes.locator_params(axis="x", nbins=5)
    heading(axes, strip.axis)
    columns: tuple[tuple[str, Callable[[StripRow], float | None]], ...] = (
        ("peak memory ↓", lambda row: row.memory),
        ("speed ↑", lambda row: row.speed),
        ("trainable parameters ↓", lambda row: row.parameters),
    )
    for i, (title, read) in enumerate(columns):
        start = left + first + gap + i * (rest + gap)
        _bars(panel(canvas, start, 30, 1040 - start - rest, 32), strip, title, read)
    return canvas


def _bars(axes: Axes, strip: Strip, title: str, read: Callable[[StripRow], float | None]) -> None:
    """Ratio bars that grow from 1x on a log axis; left of it is less than the reference."""
    _rows(axes, [""] * len(strip.rows))
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


# --- stacked bars ----------------------------------------------------------------------------


def _stack(stack: Stack) -> Canvas:
    """Bars in shades of ink, since a colour names a cell; the total stands at the end."""
    labels = [label(row.mark) for row in stack.rows]
    canvas = new_canvas(1040, 96 + ROW * len(labels))
    axes = panel(canvas, label_width(labels), 44, 72, 40)
    _rows(axes, labels)
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
            _gap_text(axes, y, row.missing)
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
    left, canvas = label_width(labels), new_canvas(500, 66 + ROW * len(labels))
    far = _baseline_is_far(dots)
    axes = panel(canvas, left + (78 if far else 0), 44, 16, 22)
    side = panel(canvas, left, 44, 500 - left - 64, 22) if far else axes
    _rows(axes, [""] * len(labels) if far else labels)
    for y, row in enumerate(dots.rows):
        colour = COLOURS[row.mark.series]
        spread = [y + 0.27] * len(row.values)
        axes.plot(row.values, spread, "o", markersize=4.5, color=colour, markeredgewidth=0)
        _estimate(axes, y - 0.06, row, 8)
        if row.estimate is None:
            _gap_text(axes, y, row.missing)
    if dots.baseline is not None:
        _baseline(side, dots.baseline, dots.line)
    axes.margins(x=0.08)
    axes.locator_params(axis="x", nbins=ticks_that_fit(axes))
    axes.set_xlabel(dots.axis, labelpad=6)
    if far and dots.baseline is not None:
        _break(side, axes, labels, dots.baseline)
    return canvas


def _lanes(lanes: Lanes) -> Canvas:
    """One panel a task, all with the same rows; the first has their names."""
    labels = [label(mark) for mark in lanes.marks]
    left, gap, n = label_width(labels), 28, max(1, len(lanes.lanes))
    canvas = new_canvas(1040, 92 + ROW * len(labels))
    width = (1040 - left - gap * n) // n
    for i, lane in enumerate(lanes.lanes):
        start = left + i * (width + gap)
        axes = panel(canvas, start, 48, 1040 - start - width, 40)
        _rows(axes, labels if i == 0 else [""] * len(labels))
        for y, (mark, estimate) in enumerate(zip(lanes.marks, lane.estimates, strict=True)):
            _interval(axes, y, mark, estimate, 8)
            if estimate is None:
                _gap_text(axes, y, words.MISSING)
        if lane.baseline is not None:
            style: Any = {"color": INK, "linewidth": 1, "linestyle": (0, (3, 3)), "zorder": 1}
            axes.axvline(lane.baseline, **style)
        axes.margins(x=0.08)
        axes.locator_params(axis="x", nbins=ticks_that_fit(axes))
        axes.set_xlabel(textwrap.fill(lane.axis, max(12, width // 7)), labelpad=4)
        heading(axes, shorten(lane.title, max(8, width // 7)))
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
    _rows(side, labels)
    side.set_xlim(baseline - 1, baseline + 3)
    side.set_xticks([baseline], [words.number(baseline, 2)])
    for piece, x in ((side, 1.0), (axes, 0.0)):
        style: dict[str, Any] = {"marker": [(-1, -2), (1, 2)], "markersize": 9, "clip_on": False}
        piece.plot([x], [0], transform=piece.transAxes, color=MUTED, linestyle="none", **style)

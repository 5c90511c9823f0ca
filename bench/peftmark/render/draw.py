"""Drawings to inline SVG with matplotlib: text stays text, colours follow the page's theme.

One unit of a figure is one CSS pixel.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, assert_never

from peftmark.render import svg, words
from peftmark.render.chart_specs import (
    Curves,
    DotRow,
    Dots,
    Drawing,
    History,
    LayerBars,
    Radar,
    RadarPoint,
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
from peftmark.render.page import Figure, shorten
from peftmark.render.series import COLOURS
from peftmark.render.style import (
    DASHES,
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
        case Radar():
            return _radar(drawing)
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
    if estimate is None:
        return
    colour = COLOURS[row.mark.series]
    if estimate.half_width is not None:
        axes.plot([estimate.low, estimate.high], [y, y], color=colour, solid_capstyle="butt")
    axes.plot([estimate.mean], [y], markersize=size, linestyle="none", **marker(row.mark))


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
        _baseline(side, dots.baseline)
    axes.margins(x=0.08)
    axes.locator_params(axis="x", nbins=ticks_that_fit(axes))
    axes.set_xlabel(dots.axis, labelpad=6)
    if far and dots.baseline is not None:
        _break(side, axes, labels, dots.baseline)
    return canvas


def _baseline(axes: Axes, value: float) -> None:
    axes.axvline(value, color=INK, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
    axes.annotate(
        "baseline predictor",
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


# --- radar -----------------------------------------------------------------------------------


def _radar(radar: Radar) -> Canvas:
    canvas = new_canvas(312, 256)
    axes = panel(canvas, 56, 20, 56, 36)
    axes.set_axis_off()
    axes.set_aspect("equal")
    axes.set_xlim(-1.08, 1.08)
    axes.set_ylim(-1.08, 1.08)
    n = len(radar.axes)
    for ring in (0.25, 0.5, 0.75, 1.0):
        corners = [_spoke(i % n, n, ring) for i in range(n + 1)]
        axes.plot(*zip(*corners, strict=True), color=LINE, linewidth=1)
    for i, title in enumerate(radar.axes):
        _axis(axes, i, n, title, radar.points[i])
    _outline(axes, radar.reference, MUTED, 1.25, "-", 0.0)
    dash = DASHES[radar.mark.variant % len(DASHES)]
    _outline(axes, radar.points, COLOURS[radar.mark.series], 2.0, dash, 0.12)
    corners = [
        _spoke(i, n, p.position) for i, p in enumerate(radar.points) if p.position is not None
    ]
    style = marker(radar.mark) | {"markersize": 6, "linestyle": "none", "clip_on": False}
    axes.plot(*zip(*corners, strict=True), **style)
    return canvas


def _spoke(index: int, n: int, radius: float) -> tuple[float, float]:
    angle = math.pi / 2 - 2 * math.pi * index / n
    return radius * math.cos(angle), radius * math.sin(angle)


def _axis(axes: Axes, index: int, n: int, title: str, point: RadarPoint) -> None:
    x, y = _spoke(index, n, 1.0)
    axes.plot([0, x], [0, y], color=LINE, linewidth=1)
    side = "center" if abs(x) < 0.2 else "left" if x > 0 else "right"
    title = title.replace(" to ", " to\n") + ("\nn/a" if point.position is None else "")
    axes.text(1.12 * x, 1.12 * y, title, ha=side, va="center" if abs(y) < 0.9 else "bottom")
    if point.clipped and point.position is not None:
        cx, cy = _spoke(index, n, 1.05 if point.position > 0.5 else 0.05)
        axes.plot([cx + 0.09 * y, cx - 0.09 * y], [cy - 0.09 * x, cy + 0.09 * x], color=INK)


def _outline(
    axes: Axes,
    points: Sequence[RadarPoint],
    colour: str,
    width: float,
    dash: Any,
    fill: float,
) -> None:
    """Sides between neighbours that are both known; the fill only when all are."""
    n = len(points)
    corners = [
        None if p.position is None else _spoke(i, n, p.position) for i, p in enumerate(points)
    ]
    for a, b in zip(corners, [*corners[1:], corners[0]], strict=True):
        if a is not None and b is not None:
            axes.plot([a[0], b[0]], [a[1], b[1]], color=colour, linewidth=width, linestyle=dash)
    known = [c for c in corners if c is not None]
    if fill and len(known) == n:
        axes.fill(*zip(*known, strict=True), color=colour, alpha=fill, linewidth=0)

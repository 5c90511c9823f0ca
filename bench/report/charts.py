"""Drawings to inline SVG with matplotlib: text stays text, colours follow the page's theme.

One unit of a figure is one CSS pixel.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from bench.report import svg, words
from bench.report.page import (
    CurveLine,
    Curves,
    DotRow,
    Dots,
    Drawing,
    Figure,
    Mark,
    Radar,
    RadarPoint,
    Strip,
    StripRow,
    shorten,
)
from bench.report.svg import COLOURS, INK, LINE, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

MARKERS = {
    "lora": "o",
    "adalora": "^",
    "lora-nf4": "s",
    "adalora-nf4": "D",
    "full": "P",
    "head": "X",
    "other": "v",
}
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1.5, 1.5)), (0, (6, 2, 1.5, 2)))
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "peftmark",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 12,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 12,
    "axes.linewidth": 1,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "text.color": INK,
    "xtick.color": MUTED,
    "xtick.labelsize": 12,
    "ytick.color": MUTED,
    "ytick.labelsize": 12,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "lines.linewidth": 1.75,
    "lines.markersize": 8,
}
ROW = 30


def render(figure: Figure) -> str:
    """A picture as one `<svg>` element for a page that defines the colour variables."""
    import matplotlib

    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        canvas = _draw(figure.drawing)
        buffer = io.StringIO()
        blank = {"Date": None, "Creator": None, "Format": None, "Type": None}
        canvas.savefig(buffer, format="svg", transparent=True, metadata=blank)
        width, height = canvas.get_size_inches() * 72
    return svg.inline(buffer.getvalue(), figure.name, figure.finding, round(width), round(height))


def _draw(drawing: Drawing) -> Canvas:
    if isinstance(drawing, Strip):
        return _strip(drawing)
    if isinstance(drawing, Dots):
        return _dots(drawing)
    if isinstance(drawing, Curves):
        return _curves(drawing)
    return _radar(drawing)


def _canvas(width: int, height: int) -> Canvas:
    from matplotlib.figure import Figure as NewCanvas

    return NewCanvas(figsize=(width / 72, height / 72), dpi=72)


def _panel(canvas: Canvas, left: int, bottom: int, right: int, top: int) -> Axes:
    """Axes between margins given in pixels from the edges of the canvas."""
    width, height = canvas.get_size_inches() * 72
    box = (
        left / width,
        bottom / height,
        (width - left - right) / width,
        (height - top - bottom) / height,
    )
    return canvas.add_axes(box)


def _marker(mark: Mark) -> dict[str, Any]:
    """Marker arguments: the first rank is filled, the next hollow, then half-filled."""
    colour = COLOURS[mark.series]
    fills = ("full", "none", "left", "top")
    return {
        "marker": MARKERS[mark.series],
        "color": colour,
        "markeredgecolor": colour,
        "fillstyle": fills[mark.variant % len(fills)],
    }


def _rows(axes: Axes, labels: Sequence[str]) -> None:
    """One labelled row a cell, the first on top, with hairlines."""
    n = len(labels)
    axes.set_ylim(n - 0.5, -0.5)
    axes.set_yticks(range(n), labels)
    axes.tick_params(axis="y", labelcolor=INK, pad=8)
    for y in range(n):
        axes.axhline(y, color=LINE, linewidth=0.75, zorder=0)


def _estimate(axes: Axes, y: float, row: StripRow | DotRow, size: float) -> None:
    estimate = row.quality if isinstance(row, StripRow) else row.estimate
    if estimate is None:
        return
    colour = COLOURS[row.mark.series]
    if estimate.half_width is not None:
        axes.plot([estimate.low, estimate.high], [y, y], color=colour, solid_capstyle="butt")
    axes.plot([estimate.mean], [y], markersize=size, linestyle="none", **_marker(row.mark))


def _gap_text(axes: Axes, y: float, text: str) -> None:
    axes.text(
        0.02, y, text, transform=axes.get_yaxis_transform(), va="center", color=MUTED, fontsize=12
    )


def _label_width(labels: Sequence[str]) -> int:
    """Pixels for the longest label; 7.4 is a wide letter of the 12 px drawing font."""
    return max(64, 24 + round(7.4 * max((len(label) for label in labels), default=0)))


# --- summary strip ---------------------------------------------------------------------------


def _strip(strip: Strip) -> Canvas:
    labels = [row.mark.label for row in strip.rows]
    left, gap = _label_width(labels), 26
    canvas = _canvas(1040, 62 + ROW * len(labels))
    first = 330
    rest = (1040 - left - first - 4 * gap) // 3
    axes = _panel(canvas, left, 30, 1040 - left - first, 32)
    _rows(axes, labels)
    for y, row in enumerate(strip.rows):
        _estimate(axes, y, row, 8)
        if row.quality is None:
            _gap_text(axes, y, shorten(row.missing, 46))
    axes.margins(x=0.08)
    axes.locator_params(axis="x", nbins=5)
    _heading(axes, "score, mean over tasks")
    columns: tuple[tuple[str, Callable[[StripRow], float | None]], ...] = (
        ("peak memory ↓", lambda row: row.memory),
        ("speed ↑", lambda row: row.speed),
        ("trainable parameters ↓", lambda row: row.parameters),
    )
    for i, (title, read) in enumerate(columns):
        start = left + first + gap + i * (rest + gap)
        _bars(_panel(canvas, start, 30, 1040 - start - rest, 32), strip, title, read)
    return canvas


def _heading(axes: Axes, text: str) -> None:
    axes.set_title(text, loc="left", fontsize=12, color=MUTED, pad=8)


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
    _heading(axes, title)


# --- dots a seed -----------------------------------------------------------------------------


def _dots(dots: Dots) -> Canvas:
    labels = [row.mark.label for row in dots.rows]
    left, canvas = _label_width(labels), _canvas(500, 66 + ROW * len(labels))
    far = _baseline_is_far(dots)
    axes = _panel(canvas, left + (78 if far else 0), 44, 16, 22)
    side = _panel(canvas, left, 44, 500 - left - 64, 22) if far else axes
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
    axes.locator_params(axis="x", nbins=6)
    axes.set_xlabel(dots.axis, labelpad=6)
    if far and dots.baseline is not None:
        _break(side, axes, labels, dots.baseline)
    return canvas


def _baseline(axes: Axes, value: float) -> None:
    axes.axvline(value, color=INK, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
    place = axes.get_xaxis_transform()
    axes.text(value, 1.02, "baseline predictor", transform=place, color=MUTED, va="bottom")


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


# --- learning curves -------------------------------------------------------------------------


def _curves(curves: Curves) -> Canvas:
    labels = [line.mark.label for line in curves.lines]
    canvas = _canvas(500, 320)
    axes = _panel(canvas, 46, 44, _label_width(labels), 26)
    for line in curves.lines:
        _curve(axes, line)
    if curves.target is not None:
        axes.axhline(curves.target, color=INK, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
    low, high = curves.span if curves.target is None else _cover(curves.span, curves.target)
    room = 0.08 * (high - low) or 0.05
    axes.set_ylim(low - room, high + room)
    axes.margins(x=0.02)
    axes.locator_params(axis="both", nbins=6)
    axes.grid(axis="y", color=LINE, linewidth=0.75)
    axes.set_axisbelow(True)
    axes.set_xlabel("optimizer steps", labelpad=6)
    axes.set_title(curves.axis, loc="left", fontsize=12, color=MUTED, pad=10)
    _end_labels(axes, curves)
    return canvas


def _cover(span: tuple[float, float], value: float) -> tuple[float, float]:
    return min(span[0], value), max(span[1], value)


def _curve(axes: Axes, line: CurveLine) -> None:
    colour = COLOURS[line.mark.series]
    dash = DASHES[line.mark.variant % len(DASHES)]
    for seed in line.seeds:
        axes.plot(*_columns(seed), color=colour, linewidth=0.75, alpha=0.35, linestyle=dash)
    style = _marker(line.mark) | {"markersize": 5}
    axes.plot(*_columns(line.mean), linestyle=dash, **style)


def _columns(points: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _end_labels(axes: Axes, curves: Curves) -> None:
    """Names at the right edge, pushed apart to one line of text each."""
    ends = [(line.mean[-1][1], line.mark.label, COLOURS[line.mark.series]) for line in curves.lines]
    if curves.target is not None:
        ends.append((curves.target, "target", INK))
    low, high = axes.get_ylim()
    height = 250.0
    wanted = sorted(((y - low) / (high - low) * height, y, name, c) for y, name, c in ends)
    placed: list[float] = []
    for pixel, *_ in wanted:
        placed.append(max(pixel, placed[-1] + 15 if placed else pixel))
    over = max(0.0, placed[-1] - height) if placed else 0.0
    for i in range(len(placed) - 1, -1, -1):
        ceiling = placed[i + 1] - 15 if i + 1 < len(placed) else height
        placed[i] = min(placed[i], ceiling) if over else placed[i]
    for pixel, (_, y, name, colour) in zip(placed, wanted, strict=True):
        _leader(axes, (y - low) / (high - low), pixel / height, colour)
        axes.text(1.06, pixel / height, name, transform=axes.transAxes, va="center")


def _leader(axes: Axes, start: float, end: float, colour: str) -> None:
    axes.plot(
        [1.0, 1.05],
        [start, end],
        transform=axes.transAxes,
        color=colour,
        linewidth=1,
        clip_on=False,
    )


# --- radar -----------------------------------------------------------------------------------


def _radar(radar: Radar) -> Canvas:
    canvas = _canvas(312, 256)
    axes = _panel(canvas, 56, 20, 56, 36)
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
    style = _marker(radar.mark) | {"markersize": 6, "linestyle": "none", "clip_on": False}
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

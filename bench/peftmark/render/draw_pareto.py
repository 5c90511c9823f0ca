"""Draws score against a cost: points, whiskers both ways, names, the front."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from peftmark.render.chart_specs import Scatter, ScatterPoint
from peftmark.render.page import shorten
from peftmark.render.series import COLOURS
from peftmark.render.style import heading, label, marker, new_canvas, panel
from peftmark.render.svg import INK, LINE, MUTED, PAPER

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

LEFT, BOTTOM, RIGHT, TOP = 52, 46, 14, 30
LETTER, LINE_HEIGHT = 6.7, 14
"""Pixels of a letter and a line of the 12 px drawing font."""
MEAN_LETTER = 6.2
"""The same of a letter in a line of many."""
FAINT = 0.6
FOOT = 0.2
"""Share of the panel for what scores far below the others."""
FAR = 1.5
"""Spreads of the others below them from which on that has a foot of its own."""
BARE: Any = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.5, "alpha": 0.8}
"""What a name stands on, so that a line behind it is no bar to reading."""


Box = tuple[float, float, float, float]
"""Left, bottom, right, top in pixels of the panel."""


def draw_scatter(scatter: Scatter) -> Canvas:
    """Points in the look of their cells, those off the front faint; names where they fit."""
    canvas = new_canvas(*scatter.size)
    axes = panel(canvas, LEFT, BOTTOM, RIGHT, TOP)
    if scatter.is_log:
        axes.set_xscale("log")
    _limits(axes, scatter)
    axes.grid(axis="y", color=LINE, linewidth=0.75)
    axes.set_axisbelow(True)
    _ticks(axes, scatter)
    axes.set_xlabel(scatter.x_axis, labelpad=6)
    heading(axes, _that_fits(scatter.y_axis, scatter.size[0] - LEFT))
    _front(axes, scatter)
    _guess(axes, scatter)
    for point in sorted(scatter.points, key=lambda p: p.standing not in ("off", "below the floor")):
        _point(axes, point, scatter.unit)
    _names(axes, scatter)
    return canvas


def _that_fits(text: str, pixels: int) -> str:
    """What an axis is, with an arrow for its direction where the words would leave the picture."""
    most = int(pixels / MEAN_LETTER)
    if len(text) <= most:
        return text
    short = text.replace(", higher is better", " ↑").replace(", lower is better", " ↓")
    return shorten(short, most)


def _limits(axes: Axes, scatter: Scatter) -> None:
    """Room for every point and for whiskers no longer than the points' own spread."""
    near = [p for p in scatter.points if not p.below] or list(scatter.points)
    scores = [p.score.mean for p in near]
    spread = max(scores) - min(scores) or 0.02
    low = max(min(p.score.low for p in near), min(scores) - spread)
    high = min(max(p.score.high for p in near), max(scores) + spread)
    room = 0.1 * (high - low) or 0.01
    _heights(axes, scatter, low - room, high + room)
    costs = [p.cost / scatter.unit for p in near]
    ends = [e / scatter.unit for p in near for e in p.limits or ()]
    if scatter.is_log:
        left, right = math.log(min(costs)), math.log(max(costs))
        room = 0.12 * (right - left)
        axes.set_xlim(math.exp(left - room), math.exp(right + room))
        return
    wide = max(costs) - min(costs) or 0.1 * max(costs)
    left = max(min([*costs, *ends]), min(costs) - wide)
    right = min(max([*costs, *ends]), max(costs) + wide)
    room = 0.12 * (right - left) or 0.1 * right
    axes.set_xlim(left - room, right + room)


def _heights(axes: Axes, scatter: Scatter, low: float, high: float) -> None:
    """The axis of scores: what lies far below the others is drawn in, in a foot of its own."""
    from matplotlib.ticker import MaxNLocator, NullLocator

    below = [p.score.mean for p in scatter.points if p.below]
    lowest = min([*below, *([] if scatter.guess is None else [scatter.guess])], default=low)
    ticks = [t for t in MaxNLocator(5).tick_values(low, high) if low < t <= high]
    if lowest >= low - FAR * (high - low):
        axes.set_ylim(min(low, lowest - 0.05 * (high - lowest)), high)
        axes.locator_params(axis="y", nbins=6)
        return
    foot = lowest - 0.15 * (low - lowest)
    slope = FOOT / (1 - FOOT) * (high - low) / (low - foot)
    axes.set_yscale("function", functions=(_pressed(low, slope), _pressed(low, 1 / slope)))
    axes.set_ylim(foot, high)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_yticks(ticks, [tick(t) for t in ticks])
    axes.axhspan(foot, low, color=LINE, alpha=0.35, linewidth=0, zorder=0)


def _pressed(cut: float, slope: float) -> Callable[[Any], Any]:
    """Heights below a cut drawn in by a factor."""
    import numpy as np

    return lambda y: np.where(np.asarray(y) < cut, cut + (np.asarray(y) - cut) * slope, y)


def _guess(axes: Axes, scatter: Scatter) -> None:
    """The line of a constant guess with its score."""
    if scatter.guess is None:
        return
    axes.axhline(scatter.guess, color=INK, linewidth=1, linestyle=(0, (3, 3)), zorder=1)
    axes.annotate(
        f"constant guess {tick(scatter.guess)}",
        (1.0, scatter.guess),
        xycoords=axes.get_yaxis_transform(),
        xytext=(-4, 3),
        textcoords="offset points",
        ha="right",
        color=MUTED,
    )


def _ticks(axes: Axes, scatter: Scatter) -> None:
    """At most six ticks with plain numbers; on a log axis few steps of each power of ten."""
    from matplotlib.ticker import NullLocator

    if not scatter.is_log:
        axes.locator_params(axis="x", nbins=5)
        found = [t for t in axes.get_xticks() if axes.get_xlim()[0] <= t <= axes.get_xlim()[1]]
    else:
        low, high = axes.get_xlim()
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for steps in ((1, 1.5, 2, 3, 4, 5, 7), (1, 2, 3, 5), (1, 2, 5), (1, 3), (1,)):
            found = [s * 10.0**p for p in powers for s in steps if low <= s * 10.0**p <= high]
            if len(found) <= 6:
                break
    axes.set_xticks(found, [tick(t) for t in found])
    axes.xaxis.set_minor_locator(NullLocator())


def tick(value: float) -> str:
    """A short number for an axis, such as 0.5, 20, 300k or 20M."""
    for size, letter in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if value >= size:
            scaled = value / (1e3 if letter == "k" else size)
            return f"{scaled:.3g}{letter}"
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _front(axes: Axes, scatter: Scatter) -> None:
    """Steps through the points on the front: the score to be had for at most each cost."""
    corners = _corners(axes, scatter)
    if corners:
        xs, ys = zip(*corners, strict=True)
        axes.plot(xs, ys, color=MUTED, linewidth=1.25, zorder=1.5)


def _corners(axes: Axes, scatter: Scatter) -> list[tuple[float, float]]:
    """The steps' corners, to the right edge of the panel."""
    front = [p for p in scatter.points if p.standing == "on"]
    on = sorted((p.cost / scatter.unit, p.score.mean) for p in front)
    found: list[tuple[float, float]] = []
    for x, y in on:
        found += [(x, found[-1][1])] if found else []
        found.append((x, y))
    return [*found, (axes.get_xlim()[1], found[-1][1])] if found else []


def _across(axes: Axes, x: float) -> float:
    """Where a cost stands: at the edge if it lies beyond the axis, as one below the floor may."""
    left, right = axes.get_xlim()
    low, high = axes.transData.inverted().transform(
        [axes.transAxes.transform((share, 0.5)) for share in (0.025, 0.975)]
    )[:, 0]
    return float(low) if x < left else float(high) if x > right else x


def _point(axes: Axes, point: ScatterPoint, unit: float) -> None:
    off = point.standing == "off" or point.below
    colour = MUTED if point.below else COLOURS[point.mark.series]
    x, y = _across(axes, point.cost / unit), point.score.mean
    line: dict[str, Any] = {
        "color": colour,
        "linewidth": 1.25,
        "alpha": 0.45 if off else 0.75,
        "zorder": 2,
        "solid_capstyle": "butt",
    }
    if point.score.half_width is not None:
        axes.plot([x, x], [point.score.low, point.score.high], **line)
    if point.limits is not None and point.limits[0] < point.limits[1]:
        axes.plot([end / unit for end in point.limits], [y, y], **line)
    look = marker(point.mark) | {"linestyle": "none", "markersize": 7 if off else 9}
    if point.below:
        look |= {"color": MUTED, "markeredgecolor": MUTED}
        if x != point.cost / unit:
            look |= {"marker": "<" if x > point.cost / unit else ">", "fillstyle": "full"}
    if look["fillstyle"] == "none":
        look["markerfacecolor"] = PAPER
    if point.standing == "possibly on":
        ring: dict[str, Any] = {
            "marker": "o",
            "markersize": 16,
            "fillstyle": "none",
            "linestyle": "none",
        }
        axes.plot([x], [y], color=MUTED, markeredgewidth=0.9, zorder=2.5, **ring)
    axes.plot([x], [y], alpha=FAINT if off else 1.0, zorder=3, **look)


# --- names --------------------------------------------------------------------------------------


def _names(axes: Axes, scatter: Scatter) -> None:
    """Names beside their points, those of the front first; one that fits nowhere is left out.

    A name on the front that finds no place beside its point stands further off with a line.
    """
    width, height = scatter.size[0] - LEFT - RIGHT, scatter.size[1] - BOTTOM - TOP
    to_pixels = _pixels(axes, width, height)
    spots = [to_pixels(_across(axes, p.cost / scatter.unit), p.score.mean) for p in scatter.points]
    order = {"on": 0, "possibly on": 1, "below the floor": 2, "off": 3}
    ranked = sorted(
        range(len(spots)), key=lambda i: (order[scatter.points[i].standing], -spots[i][1], i)
    )
    taken: list[Box] = [(x - 8, y - 8, x + 8, y + 8) for x, y in spots]
    lines = [_whisker(to_pixels, p, scatter.unit) for p in scatter.points]
    steps = [to_pixels(x, y) for x, y in _corners(axes, scatter)]
    lines += [_line_box(a, b) for a, b in itertools.pairwise(steps)]
    foot = _foot(axes, to_pixels, width)
    for i in ranked:
        point, (x, y) = scatter.points[i], spots[i]
        text = label(point.mark)
        if _across(axes, point.cost / scatter.unit) != point.cost / scatter.unit:
            text = f"{text}, {tick(point.cost / scatter.unit)}"
        far = point.standing != "off" or point.below
        others = taken[:i] + taken[i + 1 :] + ([] if point.below else foot)
        place = _place(text, x, y, others, lines, (width, height), far)
        if place is None:
            continue
        box, away = place
        taken.append((box[0] - 4, box[1], box[2] + 4, box[3]))
        _name(axes, text, box, (x, y), away, width, height, point.standing == "off")


def _foot(
    axes: Axes, to_pixels: Callable[[float, float], tuple[float, float]], width: float
) -> list[Box]:
    """The part of the panel that is drawn in, where names of the others have no place."""
    if axes.get_yscale() != "function":
        return []
    (left, _), (low, high) = axes.get_xlim(), axes.get_ylim()
    top = to_pixels(left, low)[1] + FOOT * (to_pixels(left, high)[1] - to_pixels(left, low)[1])
    return [(0.0, 0.0, width, top)]


def _pixels(
    axes: Axes, width: float, height: float
) -> Callable[[float, float], tuple[float, float]]:
    (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
    log, pressed = axes.get_xscale() == "log", axes.yaxis.get_transform().transform
    bottom, top = (float(pressed([y])[0]) for y in (low, high))

    def to_pixels(x: float, y: float) -> tuple[float, float]:
        across = math.log(x / left) / math.log(right / left) if log else (x - left) / (right - left)
        return across * width, (float(pressed([y])[0]) - bottom) / (top - bottom) * height

    return to_pixels


def _whisker(
    to_pixels: Callable[[float, float], tuple[float, float]], p: ScatterPoint, unit: float
) -> Box:
    """The vertical whisker as a thin box."""
    x = p.cost / unit
    return _line_box(to_pixels(x, p.score.low), to_pixels(x, p.score.high))


def _line_box(a: tuple[float, float], b: tuple[float, float]) -> Box:
    """A level or upright line as a thin box."""
    return (
        min(a[0], b[0]) - 1.5,
        min(a[1], b[1]) - 1.5,
        max(a[0], b[0]) + 1.5,
        max(a[1], b[1]) + 1.5,
    )


def _place(
    text: str,
    x: float,
    y: float,
    taken: Sequence[Box],
    lines: Sequence[Box],
    size: tuple[float, float],
    far: bool,
) -> tuple[Box, bool] | None:
    """The first free box near a point, and whether it stands so far off that it needs a line."""
    rows = text.split("\n")
    w, h = LETTER * max(map(len, rows)), LINE_HEIGHT * len(rows)
    near = [
        (x + 11, y - h / 2),
        (x + 9, y + 5),
        (x + 9, y - h - 5),
        (x - 11 - w, y - h / 2),
        (x - 9 - w, y + 5),
        (x - 9 - w, y - h - 5),
        (x - w / 2, y + 12),
        (x - w / 2, y - h - 12),
        (x + 11, y + 9),
        (x + 11, y - h - 9),
        (x - 9 - w, y - h - 10),
        (x + 8 - w, y - h - 12),
        (x + 8 - w, y + 12),
    ]
    further = [
        (x + dx if dx > 0 else x + dx - w, y + dy - h / 2)
        for reach in (28, 44, 62, 84, 106, 130)
        for dx in (20, -20, 44, -44)
        for dy in (reach, -reach)
    ]
    # From the best to the last resort: over no line, over lines, with a leader over points.
    tries = [(near, True, False), (near, False, False)]
    if far:
        tries.insert(1, (further, True, False))
        tries += [(further, False, False), (further, False, True)]
    for corners, avoid, cross in tries:
        blocked = [*taken, *lines] if avoid else taken
        away = corners is further
        for left, bottom in corners:
            box = (left, bottom, left + w, bottom + h)
            inside = left >= 0 and bottom >= 0 and box[2] <= size[0] + 8 and box[3] <= size[1]
            if not inside or any(_overlap(box, other) for other in blocked):
                continue
            if not away or cross or not _crosses((x, y), box, taken):
                return box, away
    return None


def _crosses(spot: tuple[float, float], box: Box, taken: Sequence[Box]) -> bool:
    """Whether a line from a point to its name runs over another point or name."""
    end = (box[0] if box[0] > spot[0] else box[2], (box[1] + box[3]) / 2)
    steps = [i / 20 for i in range(1, 20)]
    dots = [(spot[0] + t * (end[0] - spot[0]), spot[1] + t * (end[1] - spot[1])) for t in steps]
    return any(_overlap((x - 1, y - 1, x + 1, y + 1), other) for x, y in dots for other in taken)


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _name(
    axes: Axes,
    text: str,
    box: Box,
    spot: tuple[float, float],
    away: bool,
    width: float,
    height: float,
    faint: bool,
) -> None:
    on_left = box[0] + box[2] < 2 * spot[0] - 2 and box[2] <= spot[0]
    x = box[2] if on_left else box[0]
    centred = not on_left and box[0] < spot[0] - 2
    x = (box[0] + box[2]) / 2 if centred else x
    side = "center" if centred else "right" if on_left else "left"
    middle = (box[1] + box[3]) / 2
    style: dict[str, Any] = {"transform": axes.transAxes, "zorder": 4}
    if away:
        ends = [(spot[0] / width, x / width), (spot[1] / height, middle / height)]
        axes.plot(*ends, color=MUTED, linewidth=0.75, **{**style, "zorder": 1.8})
    axes.text(
        x / width,
        middle / height,
        text,
        ha=side,
        va="center",
        fontsize=12,
        color=MUTED if faint else INK,
        bbox=BARE,
        **style,
    )

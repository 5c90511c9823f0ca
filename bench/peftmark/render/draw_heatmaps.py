"""Drawings of ranks: heat maps of layers, and bars of layers' scores."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from peftmark.render.chart_specs import LayerBars, RankMap, RankPath
from peftmark.render.page import shorten
from peftmark.render.series import COLOURS
from peftmark.render.style import heading, looks, new_canvas, panel
from peftmark.render.svg import INK, LINE, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

SHADES = 12
DARKEST = 0.5
"""Opacity of the highest value: ink stays legible on it in both themes."""
SQUARE = (61, 24)
STRIP_ROW = 13
LANE = 40

Square = tuple[float, float, float, float, float]


def draw_rank_map(ranks: RankMap) -> Canvas:
    """Layers down, modules across, the rank in each square."""
    width, height = SQUARE
    left, n, m = 58, len(ranks.layers), len(ranks.modules)
    canvas = new_canvas(left + width * m + 4, 44 + height * n + 6)
    axes = panel(canvas, left, 6, 4, 44)
    rank_squares(axes, ranks)
    return canvas


def rank_squares(axes: Axes, ranks: RankMap) -> None:
    """The same in a panel of its own."""
    width, height = SQUARE
    n, m = len(ranks.layers), len(ranks.modules)
    axes.set_xlim(0, m)
    axes.set_ylim(n, 0)
    axes.spines[:].set_visible(False)
    known = [rank for row in ranks.ranks for rank in row if rank is not None]
    top = max(known, default=1.0) or 1.0
    squares = [
        (x, y, 1.0, 1.0, rank / top)
        for y, row in enumerate(ranks.ranks)
        for x, rank in enumerate(row)
        if rank is not None
    ]
    _shade(axes, squares, COLOURS[ranks.mark.series], gap=(2 / width, 2 / height))
    digits = ranks.digits
    if digits is None:
        digits = 0 if all(rank == round(rank) for rank in known) else 1
    for y, row in enumerate(ranks.ranks):
        for x, rank in enumerate(row):
            text = "–" if rank is None else f"{rank:.{digits}f}"
            colour = MUTED if rank is None else INK
            axes.text(x + 0.5, y + 0.5, text, ha="center", va="center_baseline", color=colour)
    axes.set_xticks([i + 0.5 for i in range(m)], [_two_lines(name) for name in ranks.modules])
    axes.tick_params(axis="x", top=False, bottom=False, labeltop=True, labelbottom=False, pad=4)
    axes.tick_params(axis="x", labelsize=11)
    layer_ticks(axes, ranks.layers)


def _two_lines(name: str) -> str:
    short = name.replace("feed-forward", "feed-fwd").replace(", ", " ")
    first, _, second = short.partition(" ")
    return "\n".join(shorten(part, 9) for part in (first, second) if part)


def layer_ticks(axes: Axes, layers: Sequence[str]) -> None:
    """Name the rows of a panel."""
    axes.set_yticks([i + 0.5 for i in range(len(layers))], layers)
    axes.tick_params(axis="y", labelcolor=MUTED, pad=6)


def _shade(
    axes: Axes, squares: Iterable[Square], colour: str, gap: tuple[float, float] = (0.0, 0.0)
) -> None:
    """Rectangles (x, y, width, height, share of the darkest), one path for each of a few shades."""
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path

    by_shade: dict[int, list[Path]] = {}
    for x, y, width, height, share in squares:
        right, low = x + width - gap[0], y + height - gap[1]
        corners = [(x, y), (right, y), (right, low), (x, low), (x, y)]
        by_shade.setdefault(round(SHADES * share), []).append(Path(corners, closed=True))
    for shade, paths in sorted(by_shade.items()):
        alpha = 0.04 + (DARKEST - 0.04) * shade / SHADES
        patch = PathPatch(
            Path.make_compound_path(*paths), facecolor=colour, alpha=alpha, linewidth=0
        )
        axes.add_patch(patch)


def draw_rank_path(path: RankPath) -> Canvas:
    """Total rank by step, and below on the same axis rank and importance of each layer."""
    left, right, gap = 58, 26, 34
    strip = STRIP_ROW * len(path.layers)
    strips = 2 if path.importance else 1
    line, bottom = 110, 44
    height = 26 + line + strips * (gap + strip) + bottom
    canvas = new_canvas(500, height)
    colour = COLOURS[path.mark.series]
    below = bottom + strips * (gap + strip)
    axes = panel(canvas, left, below, right, 26)
    for run in path.runs:
        axes.plot(path.steps, run, color=colour, linewidth=0.75, alpha=0.35)
    axes.plot(path.steps, path.mean, color=colour, marker="o", markersize=4, clip_on=False)
    ends = [v for run in path.runs for v in run]
    low, high = min(ends), max(ends)
    room = 0.1 * (high - low) or 1.0
    axes.set_ylim(low - room, high + room)
    axes.locator_params(axis="y", nbins=4, integer=True)
    axes.grid(axis="y", color=LINE, linewidth=0.75)
    axes.set_axisbelow(True)
    heading(axes, "total active rank")
    panels = [axes]
    titles = ("active rank by layer", "importance by layer, against the step's highest")
    for i, values in enumerate((path.ranks, path.importance)[:strips]):
        place = bottom + (strips - 1 - i) * (gap + strip)
        axes = panel(canvas, left, place, right, height - place - strip)
        _strip(axes, path, values, colour, by_step=bool(i))
        heading(axes, titles[i])
        panels.append(axes)
    for axes in panels:
        axes.set_xlim(0, path.steps[-1])
        axes.locator_params(axis="x", nbins=6)
        for step in path.window or ():
            axes.axvline(step, color=INK, linewidth=1, linestyle=(0, (3, 3)), zorder=3)
    for axes in panels[:-1]:
        axes.tick_params(axis="x", labelbottom=False)
    panels[-1].set_xlabel("optimizer steps", labelpad=6)
    return canvas


def _strip(
    axes: Axes,
    path: RankPath,
    values: Sequence[Sequence[float | None]],
    colour: str,
    *,
    by_step: bool,
) -> None:
    """One row a layer; a square lies before the step at which it was read."""
    n = len(path.layers)
    axes.set_ylim(n, 0)
    axes.spines["bottom"].set_visible(False)
    columns = list(zip(*values, strict=True))
    tops = [max((v for v in column if v is not None), default=0.0) for column in columns]
    if not by_step:
        tops = [max(tops)] * len(tops)
    starts = [0, *path.steps[:-1]]
    squares = [
        (start, y, end - start, 1.0, value / top if top > 0 else 0.0)
        for start, end, column, top in zip(starts, path.steps, columns, tops, strict=True)
        for y, value in enumerate(column)
        if value is not None
    ]
    _shade(axes, squares, colour, gap=(0.004 * path.steps[-1], 0.12))
    every = max(1, -(-n // 12))
    axes.set_yticks(
        [i + 0.5 for i in range(0, n, every)], [path.layers[i] for i in range(0, n, every)]
    )
    axes.tick_params(axis="y", labelcolor=MUTED, pad=6, labelsize=11)


def draw_layer_bars(bars: LayerBars) -> Canvas:
    """Scores of layers, and lanes with what each cell made of them, keyed by marker."""
    n, lanes = len(bars.layers), bars.lanes
    key, row = 20 * len(lanes), 24
    height = 12 + key + 26 + row * n + 44
    canvas = new_canvas(500, height)
    right = 16 + LANE * len(lanes)
    axes = panel(canvas, 58, 44, right, 12 + key + 26)
    axes.set_ylim(n, 0)
    for y, values in enumerate(bars.scores):
        mean = statistics.fmean(values)
        axes.barh(y + 0.5, mean, height=0.62, color=INK, alpha=0.16, linewidth=0)
        axes.plot([mean, mean], [y + 0.19, y + 0.81], color=INK, linewidth=1.5)
        axes.plot(values, [y + 0.5] * len(values), "o", color=INK, markersize=4)
    axes.set_xlim(left=0)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(bars.axis, labelpad=6)
    layer_ticks(axes, bars.layers)
    side = canvas.add_axes((0, 0, 1, 1))
    side.set_axis_off()
    side.set_xlim(0, 500)
    side.set_ylim(height, 0)
    for i, (lane, style) in enumerate(zip(lanes, looks([a.mark for a in lanes]), strict=True)):
        shape = style | {"linestyle": "none", "markersize": 8}
        side.plot([64], [14 + 20 * i], **shape)
        side.text(78, 14 + 20 * i, shorten(lane.mark.label, 56), va="center")
        x = 500 - right + 16 + LANE * (i + 0.5) - 4
        side.plot([x], [12 + key + 12], **shape)
        for y, text in enumerate(lane.texts):
            colour = MUTED if text == "–" else INK
            place = 12 + key + 26 + row * (y + 0.5)
            side.text(x, place, text, ha="center", va="center", color=colour)
    return canvas

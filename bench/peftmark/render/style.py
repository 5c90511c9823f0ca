"""What all drawings share: the style, the look of a cell, panels in pixels, labels.

One unit of a figure is one CSS pixel.
"""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftmark.analysis.stats import Estimate
from peftmark.render.chart_specs import Mark
from peftmark.render.page import shorten
from peftmark.render.series import COLOURS, OTHER, SERIES
from peftmark.render.svg import INK, LINE, MUTED

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

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
LINE_LETTERS = 34
WRAPPED_LETTERS = 24
ROW = 30
"""Pixels of a row that stands for a cell."""
MOST_ALIKE = 3
"""Lines of one series in a picture that may share its colour."""


def new_canvas(width: int, height: int) -> Canvas:
    """An empty drawing of a size in pixels."""
    from matplotlib.figure import Figure as NewCanvas

    return NewCanvas(figsize=(width / 72, height / 72), dpi=72)


def panel(canvas: Canvas, left: int, bottom: int, right: int, top: int) -> Axes:
    """Axes between margins given in pixels from the edges of the canvas."""
    width, height = canvas.get_size_inches() * 72
    box = (
        left / width,
        bottom / height,
        (width - left - right) / width,
        (height - top - bottom) / height,
    )
    return canvas.add_axes(box)


def marker(mark: Mark) -> dict[str, Any]:
    """Marker arguments: the first rank is filled, the next hollow, then half-filled."""
    series = SERIES[mark.series]
    fills = ("full", "none", "left", "top")
    return {
        "marker": series.marker,
        "color": series.light,
        "markeredgecolor": series.light,
        "fillstyle": fills[mark.variant % len(fills)],
    }


def looks(marks: Sequence[Mark]) -> list[dict[str, Any]]:
    """Line styles that tell the lines of one picture apart.

    A series keeps its colour, and up to three lines of it differ in dash and fill; of more, only
    the first keeps the colour and the others take colours that are free in this picture.
    """
    crowd = Counter(mark.series for mark in marks)
    free = iter(s.light for s in SERIES.values() if s.key not in crowd and not s.grey)
    seen: Counter[str] = Counter()
    found = []
    for mark in marks:
        place = seen[mark.series]
        seen[mark.series] += 1
        style = marker(replace(mark, variant=place)) | {"linestyle": DASHES[place % len(DASHES)]}
        if place and crowd[mark.series] > MOST_ALIKE:
            taken = next(free, COLOURS[OTHER])
            style |= {"color": taken, "markeredgecolor": taken}
        found.append(style)
    return found


def ticks_that_fit(axes: Axes) -> int:
    """Intervals at most on the x axis, so that labels such as 0.825 do not touch."""
    return max(2, min(6, int(axes.bbox.width // 44)))


def heading(axes: Axes, text: str) -> None:
    """A quiet title at the left above a panel."""
    axes.set_title(text, loc="left", fontsize=12, color=MUTED, pad=8)


def label(mark: Mark) -> str:
    """A cell's name in a drawing, on two lines if it has a variant or is long."""
    parts = mark.label.split(", ", 1)
    if len(parts) == 1:
        parts = textwrap.wrap(parts[0], WRAPPED_LETTERS, max_lines=2, placeholder="…")
    return "\n".join(shorten(part, LINE_LETTERS) for part in parts)


def label_width(labels: Sequence[str]) -> int:
    """Pixels for the longest label; 7.4 is a wide letter of the 12 px drawing font."""
    lines = [line for text in labels for line in text.split("\n")]
    return max(64, 24 + round(7.4 * max(map(len, lines), default=0)))


def name_rows(axes: Axes, labels: Sequence[str]) -> None:
    """One labelled row a cell, the first on top, with hairlines."""
    n = len(labels)
    axes.set_ylim(n - 0.5, -0.5)
    axes.set_yticks(range(n), labels)
    axes.tick_params(axis="y", labelcolor=INK, pad=8)
    across = axes.get_yaxis_transform()
    axes.hlines(range(n), 0, 1, color=LINE, linewidth=0.75, zorder=0, transform=across)


def interval(axes: Axes, y: float, mark: Mark, estimate: Estimate | None, size: float) -> None:
    """A cell's mean with its interval; nothing where there is none."""
    if estimate is None:
        return
    colour = COLOURS[mark.series]
    if estimate.half_width is not None:
        axes.plot([estimate.low, estimate.high], [y, y], color=colour, solid_capstyle="butt")
    axes.plot([estimate.mean], [y], markersize=size, linestyle="none", **marker(mark))


def gap_text(axes: Axes, y: float, text: str) -> None:
    """Why a row has no figure."""
    axes.text(
        0.02, y, text, transform=axes.get_yaxis_transform(), va="center", color=MUTED, fontsize=12
    )

"""What all drawings share: the style, the look of a cell, panels in pixels, labels.

One unit of a figure is one CSS pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bench.report.page import Mark, shorten
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
LINE_LETTERS = 28


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
    colour = COLOURS[mark.series]
    fills = ("full", "none", "left", "top")
    return {
        "marker": MARKERS[mark.series],
        "color": colour,
        "markeredgecolor": colour,
        "fillstyle": fills[mark.variant % len(fills)],
    }


def heading(axes: Axes, text: str) -> None:
    """A quiet title at the left above a panel."""
    axes.set_title(text, loc="left", fontsize=12, color=MUTED, pad=8)


def label(mark: Mark) -> str:
    """A cell's name in a drawing; its variant goes to a second line."""
    return "\n".join(shorten(part, LINE_LETTERS) for part in mark.label.split(", ", 1))


def label_width(labels: Sequence[str]) -> int:
    """Pixels for the longest label; 7.4 is a wide letter of the 12 px drawing font."""
    lines = [line for text in labels for line in text.split("\n")]
    return max(64, 24 + round(7.4 * max(map(len, lines), default=0)))

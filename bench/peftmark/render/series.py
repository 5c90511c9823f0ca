"""How methods look: one table of the series that share a colour and a marker.

Pictures, the page's style sheet and pictures that stand alone take their colours from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from peftmark.catalog.methods import Cell, method_of


@dataclass(frozen=True)
class Series:
    """Cells that look alike: a family of methods, or one reference.

    Attributes:
        light, dark: colour on a light and on a dark page. The light one stands for the series in a
            drawing, so no two are the same.
        marker: sign of a point, as matplotlib names it.
        grey: whether the colour is a grey, which is no other line's to borrow.
    """

    key: str
    light: str
    dark: str
    marker: str
    grey: bool = False


OTHER = "other"
"""The series of a cell that has none."""

SERIES: Mapping[str, Series] = {
    s.key: s
    for s in (
        Series("lora", "#0072b2", "#4aa3df", "o"),
        Series("adalora", "#d55e00", "#f0813a", "^"),
        Series("lora-nf4", "#009e73", "#2fbf91", "s"),
        Series("adalora-nf4", "#cc79a7", "#dd9cc0", "D"),
        Series("full", "#3a3a3b", "#d5d5d6", "P", grey=True),
        Series("head", "#6e6e6f", "#a0a0a1", "X", grey=True),
        Series("base", "#7c7c7d", "#b9b9ba", ">", grey=True),
        Series("bag-of-words", "#50505a", "#c3c3cc", "8", grey=True),
        Series("embeddings", "#5f5a50", "#d0cbc0", "H", grey=True),
        Series(OTHER, "#8a8a8b", "#8f8f90", "<", grey=True),
        Series("adapter", "#a67c00", "#d9b23c", "p"),
        Series("selective", "#6b7f01", "#b3c74a", "d"),
        Series("prompt", "#7b52ab", "#b795e0", "h"),
        Series("mixed", "#b0305c", "#ec7ba0", "*"),
        Series("peft", "#7a4b2a", "#c9966b", "v"),
    )
}
"""Every series by its key: a family of `peftmark.catalog.method`, or the key of a reference."""


def series_of(cell: Cell) -> str:
    """The series of a cell; on any quantised base LoRA and AdaLoRA look as on nf4."""
    method = method_of(cell.method)
    if method is None:
        return OTHER
    key = method.key if method.family == "reference" else method.family
    if key in ("lora", "adalora") and cell.quantization != "none":
        key = f"{key}-nf4"
    return key if key in SERIES else OTHER


COLOURS: Mapping[str, str] = {s.key: s.light for s in SERIES.values()}
"""Series -> the colour that stands for it in a drawing."""


def light_rules() -> list[str]:
    """The CSS variables of a light page, one a series."""
    return [f"--c-{s.key}: {s.light};" for s in SERIES.values()]


def dark_rules() -> list[str]:
    """The CSS variables of a dark page, one a series."""
    return [f"--c-{s.key}: {s.dark};" for s in SERIES.values()]

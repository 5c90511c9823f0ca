"""What a picture of change by layer shows, as plain data; one of `peftmark.render.chart_specs`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peftmark.render.chart_specs import Mark, RankMap


@dataclass(frozen=True)
class BeforeAfter:
    """A figure by layer, before and after training; None for a layer that has none."""

    title: str
    pairs: tuple[tuple[float, float] | None, ...]


@dataclass(frozen=True)
class LayerChange:
    """What training changed, by layer.

    Attributes:
        layers: names of the rows, from the input up.
        squares: change of the weights over the same layers; None where it isn't known.
        lanes: figures beside it.
    """

    mark: Mark
    layers: tuple[str, ...]
    squares: RankMap | None
    lanes: tuple[BeforeAfter, ...]

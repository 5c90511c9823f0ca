"""A published rule for LoRA ranks by layer, from task, rows, model and memory. Pure arithmetic.

The rule is that of an article on mixing LoRA and AdaLoRA by layer, which gives no measurement for
it. It is retold here so that its numbers can be proposed as what they are, and held against rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from peftmark.catalog.task import TaskKind

Made = Literal["classification", "generation", "sequence to sequence"]
MANY, FEW = 10_000, 1_000
"""Training rows above and below which the rule moves the ranks."""


class Ranks(NamedTuple):
    """Ranks of the lower, middle and upper layers; the article has AdaLoRA in the middle."""

    low: int
    middle: int
    high: int


_START: dict[Made, tuple[float, float, float]] = {
    "classification": (4.0, 8.0, 8.0),
    "sequence to sequence": (6.0, 12.0, 16.0),
    "generation": (8.0, 16.0, 24.0),
}
_MOST_ROWS = (24.0, 36.0, 72.0)
_LEAST = (2.0, 4.0, 4.0)
_MOST_SCALE = (2.0, 2.5, 3.0)


def made(kind: TaskKind) -> Made:
    """What the rule calls a kind of task: text is generated, or a label is chosen."""
    return "generation" if kind in ("instruction", "language") else "classification"


def ranks(
    made: Made, rows: int | None, parameters: float | None, gigabytes: float | None = None
) -> Ranks:
    """The rule's ranks.

    It starts from 4, 8, 8 (more where text is generated), goes up by half above 10,000 training
    rows and down by half below 1,000, grows with the root of a model's billions of parameters above
    one, and is cut to what memory holds. It counts 0.04 MB a rank for each billion of parameters,
    so that no GPU is small enough to cut anything for a model that it holds.

    Args:
        rows: training rows; None if not known, which moves nothing.
        parameters: of the model; None likewise.
        gigabytes: memory; None likewise.
    """
    found = list(_START[made])
    if rows is not None and rows > MANY:
        found = [min(1.5 * r, most) for r, most in zip(found, _MOST_ROWS, strict=True)]
    elif rows is not None and rows < FEW:
        found = [max(0.5 * r, least) for r, least in zip(found, _LEAST, strict=True)]
    if parameters is not None and parameters > 1e9:
        root = (parameters / 1e9) ** 0.5
        found = _whole([r * min(root, most) for r, most in zip(found, _MOST_SCALE, strict=True)])
    if gigabytes is not None and parameters:
        # The article counts parameters in units of 1e8 and memory a rank as 0.004 of that, in MB.
        most = gigabytes * 1000 / (parameters / 1e8 * 4e-3)
        if (total := sum(found)) > most:
            found = _whole([r * most / total for r in found])
    return Ranks(*(int(max(r, least)) for r, least in zip(found, _LEAST, strict=True)))


def _whole(values: Sequence[float]) -> list[float]:
    return [float(int(v)) for v in values]

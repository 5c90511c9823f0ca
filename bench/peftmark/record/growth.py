"""How a norm that was measured at every evaluation grew: what training acts on, and what a stored
row is read by. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Value:
    """One value of a series.

    Attributes:
        step: optimizer steps by then.
        value: None where it can't be told, which ends what lasts.
        weight: how many epochs or evaluations it stands for.
    """

    step: int
    value: float | None
    weight: float = 1.0


def growths(
    steps: Sequence[int], norms: Sequence[float | None], apart: int | None = None
) -> list[Value]:
    """The norm over the one before.

    Args:
        steps: optimizer steps of each evaluation.
        norms: the norm there, None where there is none.
        apart: steps between two norms that are held together, such as those of an epoch: after
            the first evaluation at or past that many, the next at least as far from it. Further
            apart, the growth is that of so many steps on average. None for every evaluation.
    """
    kept: list[tuple[int, float | None]] = []
    last = 0
    for step, norm in zip(steps, norms, strict=True):
        if apart is None or step - last >= apart:
            kept.append((step, norm))
            last = step
    found = []
    for (before, small), (now, large) in itertools.pairwise(kept):
        weight = 1.0 if apart is None else (now - before) / apart
        found.append(Value(now, _rate(small, large, weight), weight))
    return found


def _rate(before: float | None, after: float | None, weight: float) -> float | None:
    """Growth a unit of weight; None where a norm is missing, no number, or zero before."""
    if before is None or after is None or not 0 < before < math.inf or not math.isfinite(after):
        return None
    return float((after / before) ** (1 / weight))


def sustained(values: Sequence[Value], lasting: float) -> Value | None:
    """The highest level that values kept for so long without a gap, and the step by which; None
    if none lasted.

    Args:
        lasting: evaluations or epochs, by the values' weights.
    """
    best: Value | None = None
    for start in range(len(values)):
        weight, lowest = 0.0, math.inf
        for value in values[start:]:
            if value.value is None:
                break
            weight, lowest = weight + value.weight, min(lowest, value.value)
            if weight >= lasting - 1e-9:
                if best is None or best.value is None or lowest > best.value:
                    best = Value(value.step, lowest, weight)
                break
    return best

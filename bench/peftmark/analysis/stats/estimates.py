"""A mean with its uncertainty, and what its interval shows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from scipy.special import stdtrit

Sign = Literal["higher", "lower", "undecided", "no interval"]

NEARLY_ZERO = 1e-12
"""Below this a difference or a spread is rounding: 0.3 − 0.2 and 0.2 − 0.1 differ by 3e-17."""

Limits = tuple[float, float]
"""Lowest and highest value that something can have; infinite where there is none."""


@dataclass(frozen=True)
class Estimate:
    """A mean with its uncertainty.

    Attributes:
        mean: arithmetic mean of the values.
        half_width: half the width of the confidence interval; None below two values. Student's
            interval knows no limits, so with few values it may reach beyond them.
        n: number of values.
        limits: what the true mean lies within whatever the values are; None where nothing is known.
    """

    mean: float
    half_width: float | None
    n: int
    limits: Limits | None = field(default=None, compare=False)

    @property
    def low(self) -> float:
        """Lower end of the interval within the limits, the mean itself without an interval."""
        end = self.mean - (self.half_width or 0.0)
        return end if self.limits is None else max(end, self.limits[0])

    @property
    def high(self) -> float:
        """Upper end of the interval within the limits, the mean itself without an interval."""
        end = self.mean + (self.half_width or 0.0)
        return end if self.limits is None else min(end, self.limits[1])

    @property
    def cut(self) -> bool:
        """Whether the interval would reach beyond the limits."""
        half = self.half_width or 0.0
        return (self.low, self.high) != (self.mean - half, self.mean + half)

    @property
    def says_nothing(self) -> bool:
        """Whether the interval holds everything there can be."""
        return self.half_width is not None and (self.low, self.high) == self.limits

    def within(self, limits: Limits | None) -> Estimate:
        """The same with limits."""
        return replace(self, limits=limits)


def check_values(values: Sequence[float]) -> None:
    """Refuse what has no mean.

    Raises:
        ValueError: no values, or one that isn't finite.
    """
    if not len(values):
        raise ValueError("an interval needs at least one value")
    if not all(math.isfinite(v) for v in values):
        raise ValueError(f"an interval needs finite values, got {list(values)}")


def t_interval(values: Sequence[float], level: float = 0.95) -> Estimate:
    """Mean and half-width of Student's t interval: t(level, n-1) * s / sqrt(n).

    Args:
        values: at least one finite number; independent draws, such as one value a seed.
        level: confidence level of the two-sided interval.
    """
    check_values(values)
    n = len(values)
    mean = statistics.fmean(values)
    if n < 2:
        return Estimate(mean, None, n)
    quantile = float(stdtrit(n - 1, 0.5 + level / 2))
    # statistics.stdev works in fractions, ten times slower; a report has many thousands of these.
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    return Estimate(mean, quantile * spread / math.sqrt(n), n)


def prediction_interval(values: Sequence[float], level: float = 0.95) -> Estimate:
    """Where one further value lies: mean of n values, and half-width t(level, n-1) * s *
    sqrt(1 + 1/n), of Student's t and their standard deviation s.

    It is exact where the values and the further one are independent draws of one normal
    distribution (G. J. Hahn and W. Q. Meeker, Statistical Intervals, Wiley 1991, chapter 4).

    Args:
        values: at least one finite number, such as one value a seed.
        level: probability that the further value lies inside.
    """
    mean = t_interval(values, level)
    if mean.half_width is None:
        return mean
    # That of the mean is t * s * sqrt(1/n).
    return replace(mean, half_width=mean.half_width * math.sqrt(mean.n + 1))


def sign(difference: Estimate) -> Sign:
    """What an interval of a difference shows: which side of zero it lies on, if either.

    A zero-width interval (all values equal, common with few rows or seeds) says nothing about
    spread, so it counts as no interval unless the difference itself is zero.
    """
    if difference.half_width is None:
        return "no interval"
    if difference.half_width <= NEARLY_ZERO and abs(difference.mean) > NEARLY_ZERO:
        return "no interval"
    if abs(difference.mean) <= difference.half_width:
        return "undecided"
    return "higher" if difference.mean > 0 else "lower"


def geometric_mean(values: Sequence[float]) -> float:
    """Exponential of the mean logarithm: the right average of ratios.

    Args:
        values: at least one positive finite number.
    """
    if not values or not all(v > 0 and math.isfinite(v) for v in values):
        raise ValueError(f"a geometric mean needs positive finite values, got {list(values)}")
    return math.exp(statistics.fmean(math.log(v) for v in values))

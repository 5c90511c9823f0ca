"""How much more one thing varies over seeds than another, from pairs of the same seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from peftmark.analysis.stats.estimates import NEARLY_ZERO, check_values

FEWEST_FOR_SPREAD = 4
"""Seeds below which an interval says nothing: at three it has one degree of freedom, and a factor
of 25 either way."""


@dataclass(frozen=True)
class SpreadRatio:
    """A ratio of two standard deviations with the ends of its interval, all positive."""

    ratio: float
    low: float
    high: float


def spread_ratio(
    first: Sequence[float], second: Sequence[float], level: float = 0.95
) -> SpreadRatio | None:
    """Standard deviation of the first values over that of the second, with its interval.

    The interval is Pitman's and Morgan's (Biometrika 31, 1939): with variances s² and t², r the
    correlation of the pairs and q the quantile of Student's law of n - 2 degrees of freedom, that
    of the ratio of variances is s²/t² (K ± √(K² - 1)), K = 1 + 2 (1 - r²) q² / (n - 2). It holds
    for pairs of a normal law however the two go together, which runs of one seed may; of values
    with heavy tails it is too narrow.

    Args:
        first, second: a value a seed, in the same order of seeds, all finite.
        level: confidence level of the two-sided interval.

    Returns:
        None below `FEWEST_FOR_SPREAD` seeds, and where one of the two doesn't vary.

    Raises:
        ValueError: lists of different lengths, empty ones or a number that isn't finite.
    """
    check_values(first)
    check_values(second)
    n = len(first)
    if n != len(second):
        raise ValueError(f"pairs of {n} and {len(second)} values")
    if n < FEWEST_FOR_SPREAD:
        return None
    x, y = ([v - math.fsum(values) / n for v in values] for values in (first, second))
    of_first, of_second = math.fsum(v * v for v in x), math.fsum(v * v for v in y)
    largest = max(1.0, *(abs(v) for v in (*first, *second)))
    if min(of_first, of_second) <= n * (NEARLY_ZERO * largest) ** 2:
        return None
    ratio = of_first / of_second
    shared = math.fsum(a * b for a, b in zip(x, y, strict=True)) ** 2 / (of_first * of_second)
    quantile = float(stdtrit(n - 2, 0.5 + level / 2))
    k = 1 + 2 * (1 - min(1.0, shared)) * quantile**2 / (n - 2)
    wide = k + math.sqrt(k * k - 1)
    return SpreadRatio(math.sqrt(ratio), math.sqrt(ratio / wide), math.sqrt(ratio * wide))

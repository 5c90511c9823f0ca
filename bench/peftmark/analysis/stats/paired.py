"""Paired differences, seed by seed, over one or several tasks: intervals, tests, power.

A comparison of two methods is a list of differences for each task. Seeds are drawn, tasks are
given: an interval holds for these tasks and other seeds, never for other tasks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import nctdtr, stdtr, stdtrit

from peftmark.analysis.stats.estimates import NEARLY_ZERO, Estimate, Limits, check_values

DRAWS = 20_000


@dataclass(frozen=True)
class Comparison:
    """Mean paired difference over tasks, from one value a seed: the mean over its tasks.

    Attributes:
        estimate: mean with its t interval.
        p: two-sided p of "no difference"; None without a usable spread.
        se: standard error of the mean; None likewise.
        df: its degrees of freedom, n - 1; None likewise.
        n: number of seeds.
    """

    estimate: Estimate
    p: float | None
    se: float | None
    df: float | None
    n: int

    def within(self, limits: Limits | None) -> Comparison:
        """The same with limits of the true difference."""
        return replace(self, estimate=self.estimate.within(limits))


def compare(tasks: Sequence[Sequence[float]], level: float = 0.95) -> Comparison:
    """Test and interval of the mean difference over tasks that weigh the same.

    The tasks' differences are averaged within each seed, and the seeds' means give a paired t test
    (Student, 1908). Runs of one seed share their random numbers over tasks, so tasks are not taken
    as independent draws: a sum of the tasks' variances would be too small where they go together
    (docs/statistics.md). Without any spread there is no interval, unless all differences are zero:
    then mean and half-width are 0 and p is 1.

    Args:
        tasks: paired differences of each task by seed, all finite; the same seeds, in the same
            order, for each task.
        level: confidence level of the two-sided interval.

    Raises:
        ValueError: no tasks, an empty one, lists of different lengths or a number that isn't
            finite.
    """
    if not tasks:
        raise ValueError("a comparison needs at least one task")
    for differences in tasks:
        check_values(differences)
    if len({len(differences) for differences in tasks}) > 1:
        raise ValueError(f"tasks with other seeds than one another: {[len(d) for d in tasks]}")
    values = [math.fsum(seed) / len(tasks) for seed in zip(*tasks, strict=True)]
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return Comparison(Estimate(mean, None, n), None, None, None, n)
    largest = max(abs(v) for differences in tasks for v in differences)
    if largest <= NEARLY_ZERO:
        return Comparison(Estimate(0.0, 0.0, n), 1.0, None, None, n)
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1))
    if spread <= NEARLY_ZERO * max(1.0, largest):
        return Comparison(Estimate(mean, None, n), None, None, None, n)
    se, df = spread / math.sqrt(n), n - 1
    half_width = float(stdtrit(df, 0.5 + level / 2)) * se
    p = min(1.0, 2 * float(stdtr(df, -abs(mean) / se)))
    return Comparison(Estimate(mean, half_width, n), p, se, df, n)


def one_sided(p: float, that_way: bool) -> float:
    """p of "nothing goes that way", from the two-sided p of a statistic that is symmetric.

    Args:
        that_way: whether what was seen goes that way.
    """
    return p / 2 if that_way else 1 - p / 2


def bound(c: Comparison, level: float = 0.95) -> tuple[float, float] | None:
    """Interval of a comparison at any level.

    Returns:
        (low, high); None without a standard error.
    """
    if c.se is None or c.df is None:
        return None
    half_width = float(stdtrit(c.df, 0.5 + level / 2)) * c.se
    return c.estimate.mean - half_width, c.estimate.mean + half_width


def equivalent(c: Comparison, margin: float, alpha: float = 0.05) -> bool:
    """Whether two one-sided tests at `alpha` show a difference smaller than the margin.

    The same as: the interval of level 1 − 2 alpha lies within ±margin (Schuirmann, 1987). False
    without a standard error, also where all differences are zero: without a spread nothing is
    known about other seeds.

    Raises:
        ValueError: a margin that isn't positive.
    """
    if not margin > 0:
        raise ValueError(f"an equivalence margin must be positive, got {margin}")
    interval = bound(c, 1 - 2 * alpha)
    return interval is not None and -margin < interval[0] and interval[1] < margin


def minimum_detectable_effect(
    c: Comparison, alpha: float = 0.05, power: float = 0.8
) -> float | None:
    """Smallest true difference that a two-sided test with this spread would mostly find.

    Args:
        power: share of repetitions that find it.

    Returns:
        A positive number in the unit of the difference; None without a standard error.
    """
    if c.se is None or c.df is None:
        return None
    df = c.df
    return c.se * _root(lambda shift: _power(shift, df, alpha) - power)


def seeds_to_decide(
    c: Comparison,
    effect: float | None = None,
    alpha: float = 0.05,
    power: float = 0.8,
    most: int = 1000,
) -> int | None:
    """Smallest number of seeds at which a two-sided test would mostly find an effect.

    The spread of the seeds' means stays as it was seen. With few seeds it and the effect seen are
    themselves rough, so this is an order of magnitude.

    Args:
        effect: true mean difference to find; None for the one seen.

    Returns:
        None without a standard error or a non-zero effect, and beyond `most` seeds.
    """
    if c.se is None:
        return None
    wanted = abs(c.estimate.mean if effect is None else effect)
    spread = c.se * math.sqrt(c.n)

    def found(seeds: int) -> bool:
        return _power(wanted * math.sqrt(seeds) / spread, seeds - 1, alpha) >= power

    if most < 2 or not found(most):
        return None
    low, high = 1, most  # too few, enough
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if found(middle) else (middle, high)
    return high


def chance_to_tell(
    c: Comparison, seeds: int, told: Callable[[NDArray[np.float64], NDArray[np.float64]], Any]
) -> float | None:
    """How often a test after more seeds would tell, if those are like the ones seen.

    The seeds that were seen stay; further ones are drawn from a normal law with the mean and spread
    that were seen, which with few seeds are rough. Drawn 20,000 times from a fixed seed, so the
    same comparison has the same chance, to about 0.4 points.

    Args:
        seeds: that there are in the end, more than were seen.
        told: from the means over all seeds and their standard errors, each of shape (draws,), to
            whether the test tells.

    Returns:
        None without a standard error other than 0, and without further seeds.
    """
    more = seeds - c.n
    if not c.se or more < 1:
        return None
    spread, mean = c.se * math.sqrt(c.n), c.estimate.mean
    drawn = np.random.default_rng(0).normal(mean, spread, (DRAWS, more))
    new = drawn.mean(axis=1)
    squares = (c.n - 1) * spread**2 + ((drawn - new[:, None]) ** 2).sum(axis=1)
    squares += c.n * more / seeds * (new - mean) ** 2
    means = (c.n * mean + more * new) / seeds
    errors = np.sqrt(squares / (seeds - 1) / seeds)
    return float(np.mean(told(means, errors)))


def _power(shift: float, df: float, alpha: float) -> float:
    """How often a two-sided t test finds a true difference of `shift` > 0 standard errors.

    Findings with the wrong sign don't count: less than 1e-4 of them at any power worth having.
    """
    return 1 - float(nctdtr(df, shift, stdtrit(df, 1 - alpha / 2)))


def _root(rising: Callable[[float], float]) -> float:
    """Where a rising function crosses zero on the positive side, by bisection."""
    low, high = 0.0, 1.0
    while rising(high) < 0:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return high

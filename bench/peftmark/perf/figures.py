"""Figures with their intervals, and the arithmetic between measured times and figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from peftmark.analysis.stats import t_interval


@dataclass(frozen=True)
class Figure:
    """A measured number.

    Attributes:
        value: the number; None where nothing was measured.
        low, high: ends of its interval; None without one.
        n: what it rests on: pairs, rounds, jobs or readings.
        how: what the interval is, or why there is no number.
    """

    value: float | None
    low: float | None
    high: float | None
    n: int
    how: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def missing(reason: str) -> Figure:
    """A figure that was not measured."""
    return Figure(None, None, None, 0, reason)


def median_figure(values: Sequence[float]) -> Figure:
    """Median with its exact 95 % interval by order statistics, which needs 6 values."""
    from scipy import stats

    test: Any = stats.quantile_test(list(values), p=0.5)
    interval = test.confidence_interval(0.95)
    ends = (float(interval.low), float(interval.high))
    known = all(math.isfinite(end) for end in ends)
    return Figure(
        value=float(np.median(values)),
        low=ends[0] if known else None,
        high=ends[1] if known else None,
        n=len(values),
        how="median of pairs, exact 95 % interval by order statistics"
        if known
        else "median of pairs; too few for an interval",
    )


def ratio_figure(ratios: Sequence[float]) -> Figure:
    """Geometric mean of one ratio a round, with Student's t interval on the logarithms."""
    found = t_interval([math.log(ratio) for ratio in ratios])
    known = found.half_width is not None
    return Figure(
        value=math.exp(found.mean),
        low=math.exp(found.low) if known else None,
        high=math.exp(found.high) if known else None,
        n=found.n,
        how="geometric mean over rounds, 95 % t interval on logarithms"
        if known
        else "one round; no interval",
    )


def range_figure(readings: Sequence[float]) -> Figure:
    """Median of readings, with the lowest and the highest: a range, not a confidence interval."""
    return Figure(
        value=float(np.median(readings)),
        low=min(readings),
        high=max(readings),
        n=len(readings),
        how="median of readings, lowest to highest",
    )


def efficiency_figure(flops: float, seconds: float, cores: int, peaks: Sequence[float]) -> Figure:
    """Share of the machine's rate: flops / (cores * peak * seconds).

    Args:
        peaks: readings of one core's rate. The interval is their range carried through: operations
            are counted and the wall time is one, so that the peak alone is uncertain.
    """
    shares = [flops / (cores * peak * seconds) for peak in peaks]
    middle = flops / (cores * float(np.median(peaks)) * seconds)
    how = "at the median peak; from the highest to the lowest reading of the peak"
    return Figure(middle, min(shares), max(shares), len(peaks), how)


def difference_figure(one: Sequence[float], other: Sequence[float]) -> Figure:
    """Mean of `one` less mean of `other`, with Welch's 95 % t interval, which needs two of each."""
    value = float(np.mean(one) - np.mean(other))
    n = len(one) + len(other)
    if min(len(one), len(other)) < 2 or len(set(one)) == len(set(other)) == 1:
        return Figure(value, None, None, n, "too few values for an interval")
    from scipy import stats

    test: Any = stats.ttest_ind(one, other, equal_var=False)
    interval = test.confidence_interval(0.95)
    how = "mean difference, Welch's 95 % t interval"
    return Figure(value, float(interval.low), float(interval.high), n, how)


def extrapolate(seconds: float, marks: Sequence[tuple[int, float]], steps: int) -> float:
    """Wall seconds of a whole job from those of one that stopped early.

    Linear: an interval between two evaluations, the second included, costs what it cost on average
    after the first one. Start-up and the first steps are in `seconds` once.

    Args:
        seconds: wall seconds of the stopped job, start and end of its process included.
        marks: (step, seconds since any fixed moment) at the end of each evaluation.
        steps: steps of the whole job.

    Raises:
        ValueError: fewer than two evaluations, which leave no interval to go by.
    """
    (first, start), (last, end) = marks[0], marks[-1]
    if last == steps:
        return seconds
    if len(marks) < 2 or last <= first:
        raise ValueError(f"two evaluations are needed to extrapolate, found {len(marks)}")
    return seconds + (end - start) / (last - first) * (steps - last)

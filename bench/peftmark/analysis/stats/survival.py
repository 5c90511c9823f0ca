"""Time until a target is reached, where some runs end before they reach it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import ndtri


@dataclass(frozen=True)
class KmPoint:
    """One step of a Kaplan-Meier curve.

    Attributes:
        time: when at least one run reached the target or ended without.
        at_risk: runs that had not reached it and not ended before.
        reached: runs that reached it at this time.
        share: estimated share of runs that are not there yet, after this time.
        low, high: ends of its 95 % interval; None where it isn't defined (share 0 or 1).
    """

    time: float
    at_risk: int
    reached: int
    share: float
    low: float | None
    high: float | None


def kaplan_meier(times: Sequence[float], reached: Sequence[bool]) -> tuple[KmPoint, ...]:
    """Share of runs not yet at a target, by time (Kaplan and Meier, JASA 53, 1958).

    A run that ended without reaching it counts as at risk up to and at its last time. Intervals
    are Greenwood's on the log-log scale, which stays within 0 and 1.

    Args:
        times: when each run reached the target, or its last time if it did not.
        reached: which it was.

    Returns:
        A point for each distinct time, in order; none without runs.

    Raises:
        ValueError: lists of different lengths, a time that isn't finite or is negative.
    """
    if len(times) != len(reached):
        raise ValueError(f"{len(times)} times cannot go with {len(reached)} outcomes")
    if not all(math.isfinite(t) and t >= 0 for t in times):
        raise ValueError(f"times to a target must be finite and not negative, got {list(times)}")
    points = []
    share, greenwood = 1.0, 0.0
    for time in sorted(set(times)):
        at_risk = sum(t >= time for t in times)
        events = sum(t == time and there for t, there in zip(times, reached, strict=True))
        share *= (at_risk - events) / at_risk
        if events < at_risk:
            greenwood += events / (at_risk * (at_risk - events))
        points.append(KmPoint(time, at_risk, events, share, *_interval(share, greenwood)))
    return tuple(points)


def _interval(share: float, greenwood: float) -> tuple[float, float] | tuple[None, None]:
    """95 % interval of a share on the log-log scale."""
    if not 0 < share < 1:
        return None, None
    shift = float(ndtri(0.975)) * math.sqrt(greenwood) / abs(math.log(share))
    return share ** math.exp(shift), share ** math.exp(-shift)


def median(points: Sequence[KmPoint]) -> float | None:
    """First time at which at most half are not there yet; None if it never comes to that."""
    return next((point.time for point in points if point.share <= 0.5 + 1e-12), None)

"""Pareto fronts of points that are only known within limits. Pure.

A point has a score for every task and seed (higher is better) and a cost for the same (lower is
better). Two points are compared at the seeds that both have on every task.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.stats import Comparison, compare, geometric_mean, sign, t_interval

Values = Mapping[str, Mapping[int, float]]
"""Task -> seed -> value."""

Standing = Literal["on", "possibly on", "off"]


@dataclass(frozen=True)
class Point:
    """Scores and costs of one candidate, for the same tasks and seeds.

    Attributes:
        exact: whether the costs are counts, which no clock or scheduler disturbs.
    """

    scores: Values
    costs: Values
    exact: bool = False

    @property
    def quality(self) -> float:
        """Mean over tasks of the mean score over seeds."""
        return statistics.fmean(statistics.fmean(v.values()) for v in self.scores.values())

    @property
    def cost(self) -> float:
        """Geometric mean over tasks of the geometric mean cost over seeds."""
        return geometric_mean([geometric_mean(list(v.values())) for v in self.costs.values()])

    @property
    def cost_range(self) -> tuple[float, float] | None:
        """95 % t interval of the cost, on the logarithm, over the seeds that all tasks share.

        Returns:
            (low, high); the cost itself twice where it is exact; None below two seeds.
        """
        if self.exact:
            return self.cost, self.cost
        seeds = sorted(set.intersection(*(set(v) for v in self.costs.values())))
        logs = [statistics.fmean(math.log(v[seed]) for v in self.costs.values()) for seed in seeds]
        estimate = t_interval(logs) if len(logs) > 1 else None
        return (math.exp(estimate.low), math.exp(estimate.high)) if estimate else None


@dataclass(frozen=True)
class Place:
    """Where a point stands.

    Attributes:
        by: the point that puts it off the front: the best of those that are shown to; None if
            it isn't off.
    """

    standing: Standing
    by: int | None = None


@dataclass(frozen=True)
class Reign:
    """A point that nobody beats below a cost.

    Attributes:
        point: the point.
        beaten: the cheaper points, all of them shown to score lower.
        below: the cost at which the first point begins that isn't shown to score lower; None if
            every other point is.
    """

    point: int
    beaten: tuple[int, ...]
    below: float | None


def paired(a: Values, b: Values, of: Callable[[float, float], float]) -> Comparison | None:
    """Comparison of two points at the seeds that both have on every task.

    Args:
        of: one number from a pair, such as the difference.

    Returns:
        None where the tasks differ or there is no such seed.
    """
    if set(a) != set(b) or not a:
        return None
    seeds = sorted(set.intersection(*(set(values) for t in a for values in (a[t], b[t]))))
    return compare([[of(a[t][s], b[t][s]) for s in seeds] for t in a]) if seeds else None


def gain(a: Values, b: Values) -> Comparison | None:
    """Scores of `a` less those of `b`."""
    return paired(a, b, lambda x, y: x - y)


def log_ratio(a: Values, b: Values) -> Comparison | None:
    """Logarithm of costs of `a` over those of `b`."""
    return paired(a, b, lambda x, y: math.log(x / y))


def scores_more(a: Point, b: Point) -> bool:
    """Whether `a` is shown to score higher: the interval of the paired difference excludes 0."""
    found = gain(a.scores, b.scores)
    return found is not None and sign(found.estimate) == "higher"


def costs_no_more(a: Point, b: Point) -> bool:
    """Whether `a` is shown to cost no more.

    Exact costs: on every task at every shared seed. Others: the interval of the paired log ratio
    does not reach above 0.
    """
    if a.exact and b.exact:
        found = paired(a.costs, b.costs, lambda x, y: float(x > y))
        return found is not None and found.estimate.mean == 0
    found = log_ratio(a.costs, b.costs)
    return found is not None and found.estimate.half_width is not None and found.estimate.high <= 0


def standings(points: Sequence[Point]) -> tuple[Place, ...]:
    """The place of every point.

    off: some other point is shown to cost no more and is shown to score higher. on: no other
    point is, by the plain means, as good in both and better in one. possibly on: the rest. The
    intervals of the many pairs are not adjusted for one another.
    """
    return tuple(_place(points, i) for i in range(len(points)))


def _place(points: Sequence[Point], i: int) -> Place:
    point = points[i]
    ahead = [p for j, p in enumerate(points) if j != i and _ahead(p, point)]
    if not ahead:
        return Place("on")
    beaten = [
        j
        for j, other in enumerate(points)
        if j != i and costs_no_more(other, point) and scores_more(other, point)
    ]
    if beaten:
        return Place("off", max(beaten, key=lambda j: (points[j].quality, -j)))
    return Place("possibly on")


def _ahead(a: Point, b: Point) -> bool:
    """Whether the means alone put `a` before `b`."""
    same_cost = math.isclose(a.cost, b.cost, rel_tol=1e-9)
    same_quality = math.isclose(a.quality, b.quality, rel_tol=0, abs_tol=1e-12)
    if not (same_cost or a.cost < b.cost) or not (same_quality or a.quality > b.quality):
        return False
    return not (same_cost and same_quality)


def reigns(points: Sequence[Point]) -> tuple[Reign, ...]:
    """Points that are shown to beat all that costs less than their first worthy rival.

    A rival is worthy unless it is shown to score lower. Costs are taken at the unfavourable ends
    of their intervals: the point's upper end must lie below the lower end of every worthy rival.

    Returns:
        Those that beat most first, of equals the cheaper.
    """
    found = [r for i in range(len(points)) if (r := _reign(points, i)) is not None]
    return tuple(sorted(found, key=lambda r: (-len(r.beaten), points[r.point].cost)))


def _reign(points: Sequence[Point], i: int) -> Reign | None:
    point = points[i]
    others = [j for j in range(len(points)) if j != i]
    lower = [j for j in others if scores_more(point, points[j])]
    mine = point.cost_range
    starts = [points[j].cost_range for j in others if j not in lower]
    if not lower or mine is None:
        return None
    if not starts:
        return Reign(i, tuple(lower), None)
    if any(r is None for r in starts):
        return None
    below = min(r[0] for r in starts if r is not None)
    cheap = tuple(j for j in lower if points[j].cost < below)
    return Reign(i, cheap, below) if cheap and mine[1] < below * (1 - 1e-9) else None

"""Pareto fronts of points that are only known within limits. Pure.

A point has a score for every task and seed (higher is better) and a cost for the same (lower is
better). Two points are compared at the seeds that both have on every task.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from peftmark.analysis.stats import (
    Comparison,
    Estimate,
    compare,
    geometric_mean,
    sign,
    t_interval,
)

Values = Mapping[str, Mapping[int, float]]
"""Task -> seed -> value."""

Standing = Literal["on", "possibly on", "off", "below the floor"]
"""A place in a trade; what is below the quality floor (`analysis.floor`) is on no front."""


Beats = Callable[[int, int], bool]
"""Whether one point, by its number, is shown to score higher than another."""


@dataclass(frozen=True)
class Point:
    """Scores and costs of one candidate, for the same tasks and seeds.

    Attributes:
        exact: whether the costs are counts, which no clock or scheduler disturbs.
    """

    scores: Values
    costs: Values
    exact: bool = False

    @cached_property
    def quality(self) -> float:
        """Mean over tasks of the mean score over seeds."""
        return statistics.fmean(statistics.fmean(v.values()) for v in self.scores.values())

    @cached_property
    def cost(self) -> float:
        """Geometric mean over tasks of the geometric mean cost over seeds."""
        return geometric_mean([geometric_mean(list(v.values())) for v in self.costs.values()])

    @cached_property
    def cost_range(self) -> tuple[float, float] | None:
        """95 % t interval of the cost, on the logarithm, over the seeds that all tasks share.

        Returns:
            (low, high); the cost itself twice where it is exact; None below two seeds.
        """
        if self.exact:
            return self.cost, self.cost
        logs = list(self.seed_logs.values())
        estimate = t_interval(logs) if len(logs) > 1 else None
        return (math.exp(estimate.low), math.exp(estimate.high)) if estimate else None

    @cached_property
    def seed_scores(self) -> dict[int, float]:
        """Mean score over tasks of each seed that all tasks have."""
        return _seed_means(self.scores, float)

    @cached_property
    def seed_logs(self) -> dict[int, float]:
        """Mean logarithm of the cost over tasks of each seed that all tasks have."""
        return _seed_means(self.costs, math.log)


def _seed_means(values: Values, of: Callable[[float], float]) -> dict[int, float]:
    seeds = sorted(set.intersection(*(set(v) for v in values.values())))
    return {seed: statistics.fmean(of(v[seed]) for v in values.values()) for seed in seeds}


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
    if a.scores.keys() != b.scores.keys():
        return False
    found = _difference(a.seed_scores, b.seed_scores)
    return found is not None and sign(found) == "higher"


def _difference(a: Mapping[int, float], b: Mapping[int, float]) -> Estimate | None:
    """Mean paired difference of seed means: the same as `paired`, made for many pairs."""
    values = [a[seed] - b[seed] for seed in a if seed in b]
    return t_interval(values) if values else None


def costs_no_more(a: Point, b: Point) -> bool:
    """Whether `a` is shown to cost no more.

    Exact costs: on every task at every shared seed. Others: the interval of the paired log ratio
    does not reach above 0.
    """
    if a.costs.keys() != b.costs.keys():
        return False
    seeds = [seed for seed in a.seed_logs if seed in b.seed_logs]
    if a.exact and b.exact:
        pairs = ((a.costs[task][seed], b.costs[task][seed]) for task in a.costs for seed in seeds)
        return bool(seeds) and all(x <= y for x, y in pairs)
    found = _difference(a.seed_logs, b.seed_logs)
    return found is not None and found.half_width is not None and found.high <= 0


def standings(points: Sequence[Point], beats: Beats | None = None) -> tuple[Place, ...]:
    """The place of every point.

    Args:
        beats: whether one point, by its number, is shown to score higher than another; without
            it, by the plain interval of their difference alone.

    on: no other point is, by the plain means, as good in both and better in one. off: some such
    point is shown to cost no more and is shown to score higher. possibly on: the rest.
    """
    shown = beats or (lambda a, b: scores_more(points[a], points[b]))
    return tuple(_place(points, i, shown) for i in range(len(points)))


def _place(points: Sequence[Point], i: int, beats: Beats) -> Place:
    point = points[i]
    ahead = [j for j, other in enumerate(points) if j != i and _ahead(other, point)]
    if not ahead:
        return Place("on")
    ahead.sort(key=lambda j: (-points[j].quality, j))
    shown = (j for j in ahead if costs_no_more(points[j], point) and beats(j, i))
    by = next(shown, None)
    return Place("possibly on") if by is None else Place("off", by)


def _ahead(a: Point, b: Point) -> bool:
    """Whether the means alone put `a` before `b`."""
    same_cost = math.isclose(a.cost, b.cost, rel_tol=1e-9)
    same_quality = math.isclose(a.quality, b.quality, rel_tol=0, abs_tol=1e-12)
    if not (same_cost or a.cost < b.cost) or not (same_quality or a.quality > b.quality):
        return False
    return not (same_cost and same_quality)


def reigns(points: Sequence[Point], beats: Beats | None = None) -> tuple[Reign, ...]:
    """Points that are shown to beat all that costs less than their first worthy rival.

    A rival is worthy unless it is shown to score lower. Costs are taken at the unfavourable ends
    of their intervals: the point's upper end must lie below the lower end of every worthy rival.

    Returns:
        Those that beat most first, of equals the cheaper.
    """
    # Below a point that the means alone put before it, none reigns.
    first = [
        i
        for i, point in enumerate(points)
        if not any(_ahead(p, point) for j, p in enumerate(points) if j != i)
    ]
    shown = beats or (lambda a, b: scores_more(points[a], points[b]))
    found = [r for i in first if (r := _reign(points, i, shown)) is not None]
    return tuple(sorted(found, key=lambda r: (-len(r.beaten), points[r.point].cost)))


def _reign(points: Sequence[Point], i: int, beats: Beats) -> Reign | None:
    point = points[i]
    others = [j for j in range(len(points)) if j != i]
    lower = [j for j in others if beats(i, j)]
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

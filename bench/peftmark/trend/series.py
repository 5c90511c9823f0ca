"""From points of gate runs to series that may be compared, each with its steps."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

from peftmark.analysis.order import shown_order
from peftmark.analysis.scale import limits_of
from peftmark.analysis.stats import Estimate, t_interval
from peftmark.catalog.methods import Cell
from peftmark.catalog.metrics import metric_of
from peftmark.record.fields import figure as figure_of
from peftmark.record.fields import title
from peftmark.storage.gate_history import Accepted, Point
from peftmark.trend import changepoints as steps

SUSPECTS = ("bitsandbytes", "peft", "torch", "transformers")
"""Packages to name first where several changed."""

Key = Literal["score", "loss", "memory", "time"]


@dataclass(frozen=True)
class Measure:
    """One of the figures that are followed.

    Attributes:
        column: the field of the rows that it comes from.
        shown: the unit it is shown in; empty for plain numbers.
        least: smallest step that counts, as a share of the level before it.
        exact: share of a level that is its rounding, the least noise to reckon with.
        advisory: whether a step hints at the machine as much as at the code.
    """

    key: Key
    column: str
    shown: str
    least: float
    exact: float
    advisory: bool = False

    @property
    def title(self) -> str:
        """Its name in a sentence."""
        return title(self.column)

    @property
    def unit(self) -> str | None:
        """The unit of its figures as stored; None for scores and plain numbers."""
        return None if self.key == "score" else figure_of(self.column).unit or None

    @property
    def better(self) -> str | None:
        """Which way is better; the metric says it of a score."""
        return figure_of(self.column).better


MEASURES: tuple[Measure, ...] = (
    Measure("score", "metric_value", "", 0.0, 1e-4),
    Measure("loss", "loss", "", 0.05, 0.005),
    Measure("memory", "peak_memory_bytes", "MiB", 0.01, 0.001),
    Measure("time", "step_seconds_p50", "ms", 0.1, 0.01, advisory=True),
)


class Group(NamedTuple):
    """What runs must share to be compared."""

    suite_version: int
    protocol: int
    profile: str
    machine: str


@dataclass(frozen=True)
class Run:
    """One run of the gate, for the axis: what most of its points say."""

    at: str
    run: str
    commit: str | None
    dirty: bool | None
    versions: dict[str, str]
    code: int
    verdicts: Counter[str]


@dataclass(frozen=True)
class Step:
    """A change of level.

    Attributes:
        index: place of the first run after it, among the group's runs.
        before: the last point before it that has a figure.
        after: the first point after it.
        low: mean level of the stretch before it.
        high: mean level of the stretch after it.
        worse: whether the change is for the worse; None where nobody here knows the metric.
        accepted: the first baseline accepted since, before the series' next step; None if none.
    """

    index: int
    before: Point
    after: Point
    low: float
    high: float
    worse: bool | None
    accepted: Accepted | None = None

    @property
    def size(self) -> float:
        """Level after it less level before it."""
        return self.high - self.low

    @property
    def share(self) -> float | None:
        """The size as a share of the level before it; None from zero."""
        return self.size / abs(self.low) if self.low else None

    @property
    def changed(self) -> dict[str, tuple[str | None, str | None]]:
        """Package -> version before and after, of those that changed between the two runs."""
        old, new = self.before.versions, self.after.versions
        names = sorted(old.keys() | new.keys(), key=lambda n: (n not in SUSPECTS, n))
        return {n: (old.get(n), new.get(n)) for n in names if old.get(n) != new.get(n)}


@dataclass(frozen=True)
class Series:
    """One measure of one cell on one task, in comparable runs.

    Attributes:
        points: (place among the group's runs, point, figure) where there is a figure.
        gaps: places of runs that looked at the cell and have no figure.
    """

    group: Group
    task: str
    metric: str
    cell: Cell
    measure: Measure
    points: tuple[tuple[int, Point, Estimate], ...]
    gaps: tuple[int, ...]
    steps: tuple[Step, ...]

    @property
    def searched(self) -> bool:
        """Whether it is long enough for a search."""
        return len(self.points) >= steps.FEWEST_RUNS

    @cached_property
    def levels(self) -> tuple[tuple[int, int, float], ...]:
        """(place of the first run, of the last, mean) of each stretch between steps."""
        values = [figure.mean for _, _, figure in self.points]
        places = [place for place, _, _ in self.points]
        starts = {step.index for step in self.steps}
        cuts = [i for i, place in enumerate(places) if place in starts]
        return tuple((places[a], places[b - 1], m) for a, b, m in steps.levels(values, cuts))


@dataclass(frozen=True)
class Strand:
    """The comparable runs of a suite, in order, and what was seen in them.

    Attributes:
        accepted: baselines of the same machine class.
        series: by task, cell and measure; those without any figure are left out.
    """

    group: Group
    runs: tuple[Run, ...]
    accepted: tuple[Accepted, ...]
    series: tuple[Series, ...]


def strands(points: Sequence[Point], accepted: Sequence[Accepted]) -> list[Strand]:
    """The runs that may be compared, latest first, with every series and its steps.

    A run that looked at the same rows as another one (the gate was run twice on them, say against
    another baseline) is no new evidence and counts once.
    """
    groups: dict[Group, list[Point]] = {}
    for point in sorted(points, key=lambda p: (p.at, p.run)):
        group = Group(point.suite_version, point.protocol, point.profile, point.machine)
        groups.setdefault(group, []).append(point)
    order = sorted(groups, key=lambda g: (groups[g][-1].at, g), reverse=True)
    return [_strand(group, groups[group], accepted) for group in order]


def _strand(group: Group, points: list[Point], accepted: Sequence[Accepted]) -> Strand:
    last = {point.at: point.run for point in points}
    kept = [point for point in points if last[point.at] == point.run]
    place = {at: i for i, at in enumerate(last)}
    mine = sorted((a for a in accepted if a.machine == group.machine), key=lambda a: a.at)
    by_cell: dict[tuple[str, str, Cell], list[tuple[int, Point]]] = {}
    for point in kept:
        key = (point.task, point.metric, point.cell)
        by_cell.setdefault(key, []).append((place[point.at], point))
    series = [
        _series(group, key, seen, measure, mine)
        for key, seen in sorted(by_cell.items(), key=lambda item: _order(item[0]))
        for measure in MEASURES
    ]
    runs = tuple(_run([p for p in kept if p.at == at]) for at in last)
    return Strand(group, runs, tuple(mine), tuple(s for s in series if s.points))


def _order(key: tuple[str, str, Cell]) -> tuple[object, ...]:
    """By task, then cells as every page lists them."""
    task, metric, cell = key
    return task, metric, *shown_order(cell)


def _run(points: Sequence[Point]) -> Run:
    facts = Counter((p.commit, p.dirty, tuple(sorted(p.versions.items()))) for p in points)
    commit, dirty, versions = facts.most_common(1)[0][0]
    first = points[0]
    verdicts = Counter(p.verdict for p in points)
    return Run(first.at, first.run, commit, dirty, dict(versions), first.code, verdicts)


def _series(
    group: Group,
    key: tuple[str, str, Cell],
    seen: list[tuple[int, Point]],
    measure: Measure,
    accepted: Sequence[Accepted],
) -> Series:
    task, metric, cell = key
    found = [(place, point, figure(point, measure.key)) for place, point in _anew(seen)]
    points = tuple((i, p, f) for i, p, f in found if f is not None)
    gaps = tuple(i for i, _, f in found if f is None)
    changes = _steps(points, metric, measure, accepted)
    return Series(group, task, metric, cell, measure, points, gaps, changes)


def _anew(seen: Sequence[tuple[int, Point]]) -> list[tuple[int, Point]]:
    """Without points whose rows an earlier gate has seen, while others were run again beside them.

    No two runs take the same time to the last digit, so the same figures are the same rows.
    """
    kept: list[tuple[int, Point]] = []
    last = None
    for place, point in seen:
        facts = (point.values, point.memory_bytes, point.loss, point.step_seconds)
        if point.step_seconds is None or facts != last:
            kept.append((place, point))
        last = facts
    return kept


def figure(point: Point, key: Key) -> Estimate | None:
    """A point's figure: the score with its t interval over seeds, the others as they are."""
    if key == "score":
        values = [v for _, v in point.values if math.isfinite(v)]
        return t_interval(values).within(limits_of(point.metric)) if values else None
    value = {"loss": point.loss, "memory": point.memory_bytes, "time": point.step_seconds}[key]
    return None if value is None or not math.isfinite(value) else Estimate(float(value), None, 1)


def better_side(measure: Measure, metric: str) -> str | None:
    """Which way a measure is better; None of a score in a metric that nobody here knows."""
    if measure.key != "score":
        return measure.better
    known = metric_of(metric)
    return None if known is None else known.direction


def _steps(
    points: Sequence[tuple[int, Point, Estimate]],
    metric: str,
    measure: Measure,
    accepted: Sequence[Accepted],
) -> tuple[Step, ...]:
    if not points:
        return ()
    values = [found.mean for _, _, found in points]
    by_seed, floor = None, measure.exact * abs(statistics.median(values))
    if measure.key == "score":
        by_seed = [{s: v for s, v in p.values if math.isfinite(v)} for _, p, _ in points]
        floor = max(measure.exact, steps.spread(by_seed))
    cuts = steps.find(values, floor=floor or 1e-12, least=measure.least, by_seed=by_seed)
    means = [mean for _, _, mean in steps.levels(values, cuts)]
    ends = [*(points[cut][1].at for cut in cuts[1:]), "~"]
    better = better_side(measure, metric)
    return tuple(
        Step(
            index=points[cut][0],
            before=points[cut - 1][1],
            after=points[cut][1],
            low=low,
            high=high,
            worse=None if better is None else (high < low) == (better == "higher"),
            accepted=next((a for a in accepted if points[cut][1].at <= a.at < end), None),
        )
        for cut, low, high, end in zip(cuts, means, means[1:], ends, strict=False)
    )

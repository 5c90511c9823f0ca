"""What a value of a metric is worth, and on which scale values of several tasks are averaged. Pure.

Overall scores are better the higher they are, whatever the metrics. Single tasks keep the values
and the direction of their metric.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from peftmark.catalog.metrics import metric_of, metric_title, sign_of

if TYPE_CHECKING:  # a run looks at points too, and need not load scipy for them
    from peftmark.analysis.stats import Limits

POINT = 0.01
"""One point of a metric whose unit every task shares: of a share, of a correlation, or in nats."""

MEAN = "mean over tasks"
SHARE = "share of the way from a constant predictor to a perfect one"
SHARED_UNITS = ("", "nats", "perplexity")

Kind = Literal["value", "share", "gain"]


@dataclass(frozen=True)
class Scale:
    """What the tasks of a table are averaged on.

    Attributes:
        kind: value: the metrics as they are, all of them with the same limits and better the
            higher; share: how far each is from a constant predictor to a perfect one; gain: by how
            much each is better than a constant predictor, in the unit of their one metric, which
            has no best possible value.
        tasks: tasks that enter the mean.
        left_out: the others, whose metrics have no best possible value.
        metric: the metric that gains are in; empty for the other kinds.
        limits: what an overall score lies within; None where nothing bounds it.
    """

    kind: Kind
    tasks: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    metric: str = ""
    limits: Limits | None = None

    @property
    def text(self) -> str:
        """What an overall score is, in words."""
        if self.kind == "value":
            return MEAN
        if self.kind == "share":
            return f"{MEAN} of the {SHARE}"
        return f"{MEAN} of the {self.gain}"

    @property
    def gain(self) -> str:
        """What a gain is, in words."""
        name = metric_title(self.metric) if self.metric else "several metrics"
        return f"gain over a constant predictor, in {name}"

    @property
    def in_points(self) -> bool:
        """Whether 0.01 of an overall score is a point."""
        return self.kind != "gain"

    @property
    def why_none(self) -> str:
        """Why there is no overall score at all; empty where there may be one."""
        if self.tasks:
            return ""
        return "metrics without a best possible value have no common scale"


def scale_of(metrics: Mapping[str, str]) -> Scale:
    """The scale of some tasks.

    Args:
        metrics: task -> its primary metric.
    """
    tasks = tuple(metrics)
    if all(bounded(m) and sign_of(m) > 0 for m in metrics.values()):
        return Scale("value", tasks, limits=_mean_limits(list(metrics.values())))
    known = tuple(t for t in tasks if has_best(metrics[t]))
    left = tuple(t for t in tasks if t not in known)
    if known:
        return Scale("share", known, left, limits=(-math.inf, 1.0))
    different = set(metrics.values())
    if len(different) == 1:
        return Scale("gain", tasks, metric=different.pop())
    return Scale("gain", (), left)


def limits_of(metric: str) -> Limits | None:
    """Lowest and highest value of a metric; None where neither is known."""
    known = metric_of(metric)
    if known is None or not (math.isfinite(known.low) or math.isfinite(known.high)):
        return None
    return known.low, known.high


def of_difference(limits: Limits | None) -> Limits | None:
    """What the difference of two values within the same limits lies within."""
    if limits is None or not all(map(math.isfinite, limits)):
        return None
    return limits[0] - limits[1], limits[1] - limits[0]


def _mean_limits(metrics: Sequence[str]) -> Limits | None:
    """What a mean of values of some metrics lies within; None where one is unknown."""
    known = [found for metric in metrics if (found := limits_of(metric)) is not None]
    if not known or len(known) < len(metrics):
        return None
    lows, highs = zip(*known, strict=True)
    return math.fsum(lows) / len(lows), math.fsum(highs) / len(highs)


def share(metric: str, value: float | None, baseline: float | None) -> float | None:
    """A metric's value as a share of the way from a baseline to the best possible.

    Returns:
        1 for the best, 0 for the baseline, below 0 for less; None where something isn't known.
    """
    way = span(metric, baseline)
    return None if value is None or baseline is None or way is None else (value - baseline) / way


def gain(metric: str, value: float | None, baseline: float | None) -> float | None:
    """By how much a metric's value is better than a baseline, in its own unit; None if unknown."""
    return None if value is None or baseline is None else sign_of(metric) * (value - baseline)


def span(metric: str, baseline: float | None) -> float | None:
    """The way from a baseline to the best possible value; None if there is none or it's unknown."""
    known = metric_of(metric)
    if known is None or baseline is None:
        return None
    best = known.best
    return best - baseline if math.isfinite(best) and best != baseline else None


def bounded(metric: str) -> bool:
    """Whether a metric has a lowest and a highest value; unknown ones are taken to."""
    known = metric_of(metric)
    return known is None or (math.isfinite(known.low) and math.isfinite(known.high))


def has_best(metric: str) -> bool:
    """Whether a metric has a best possible value; unknown ones are taken to."""
    known = metric_of(metric)
    return known is None or math.isfinite(known.best)


def shares_unit(metric: str) -> bool:
    """Whether a metric's values are in the same unit on every task; those of unknown ones are."""
    known = metric_of(metric)
    return known is None or known.unit in SHARED_UNITS


def is_share(metric: str) -> bool:
    """Whether a metric is a share or a correlation, so that its points mean something."""
    known = metric_of(metric)
    return known is None or not known.unit


def point(metric: str, baseline: float | None) -> float | None:
    """What counts as a point of a metric on one task, in the metric's unit.

    Returns:
        0.01 where all tasks share the unit; of a unit that is the task's own a hundredth of the
        way from the baseline to the best possible value; None where neither means anything.
    """
    if shares_unit(metric):
        return POINT
    way = span(metric, baseline)
    return None if way is None else POINT * abs(way)


def point_text(metric: str) -> str:
    """A point of a metric on one task, in words."""
    known = metric_of(metric)
    unit = known.unit if known is not None else ""
    if unit in SHARED_UNITS:
        return f"{POINT:g} {unit}".strip()
    return f"{POINT:g} of the way from a constant predictor to a perfect one"

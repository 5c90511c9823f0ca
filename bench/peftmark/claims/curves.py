"""What a run's course says: how restless its training loss is, and AdaLoRA's importance."""

from __future__ import annotations

import math
from itertools import pairwise

from peftmark.record.job import Record

FEWEST_POINTS = 6
"""Evaluations below which a variance about the course is a guess: of six there are four second
differences."""

ALARM = 0.5
"""Standard deviation of a module's importance over its mean, above which it is said to be unsafe
to prune (an article on AdaLoRA, QLoRA and LoRA)."""


def curve_variance(record: Record) -> float | str:
    """Variance of the training loss about the course of its curve, in squares of its unit.

    Each point is a mean over the steps since the evaluation before it. Of noise about a course that
    is straight over three points the second differences have six times the variance (von Neumann
    et al., Annals of Mathematical Statistics 12, 1941, for first ones), so a sixth of their mean
    square is it. Penalties are no part of the loss.

    Returns:
        A positive number, or why the row has none.
    """
    curve = record.outcome.curve
    if len(curve) < FEWEST_POINTS:
        return f"the run has {len(curve)} evaluations, fewer than {FEWEST_POINTS}"
    if len({later.step - earlier.step for earlier, later in pairwise(curve)}) > 1:
        return "its evaluations are not equally far apart"
    losses = [point.loss for point in curve]
    if not all(map(math.isfinite, losses)):
        return "its loss is not finite at every evaluation"
    bends = [a - 2 * b + c for a, b, c in zip(losses, losses[1:], losses[2:], strict=False)]
    found = math.fsum(bend * bend for bend in bends) / (6 * len(bends))
    return found if found > 0 else "its loss lies on a straight line"


def importance_alarms(record: Record) -> float | str:
    """Share of AdaLoRA's modules whose importance has, over the evaluations that know it, a
    standard deviation of more than half of its mean.

    Returns:
        The share, from 0 to 1, or why the row has none.
    """
    histories = record.outcome.importance_history
    if not histories:
        return "the method scores no importance"
    known = [[v for v in values if v is not None] for values in histories.values()]
    fewest = min(map(len, known))
    if fewest < FEWEST_POINTS:
        return f"a module's importance is known at {fewest} evaluations, below {FEWEST_POINTS}"
    return sum(_variation(values) > ALARM for values in known) / len(known)


def _variation(values: list[float]) -> float:
    """Standard deviation over the mean; infinite where the mean is not positive."""
    mean = math.fsum(values) / len(values)
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return spread / mean if mean > 0 else math.inf

"""Whether a row that somebody published comes out again: pure functions of rows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from peftmark.analysis.stats.estimates import NEARLY_ZERO, Estimate, prediction_interval
from peftmark.analysis.validity import SAME_BITS, first_difference, made_elsewhere
from peftmark.record.columns import NOT_RECORDED
from peftmark.record.job import Record
from peftmark.record.outcome import CurvePoint, Outcome

Verdict = Literal["identical", "within", "differs", "undecided", "not run"]

BITS = (*SAME_BITS, "predictions", "final_weights_hash")
"""Fields of the outcome that must be the same on one kind of machine; with them the curve."""
FEWEST_SEEDS = 3
"""Published runs of other seeds below which nothing is said of one more."""


@dataclass(frozen=True)
class Reproduced:
    """What came of a published row whose job was run again.

    Attributes:
        published: the row.
        again: the row of its job made here; None if there is none.
        detail: the first difference with both values, or why there is no verdict; empty for
            "identical" and "within".
        elsewhere: what beside the job decides bits and differs from where the row was made, a
            clause each; empty where the bits must be the same. Threads are part of the job.
        interval: of one further seed, where the bits need not be the same.
        left_out: fields that are not compared, since the row is older than they are.
    """

    verdict: Verdict
    published: Record
    again: Record | None = None
    detail: str = ""
    elsewhere: tuple[str, ...] = ()
    interval: Estimate | None = None
    left_out: tuple[str, ...] = ()


def sample(rows: Sequence[Record], count: int) -> list[Record]:
    """Some rows to run again: of cells and tasks that are not among them yet first, and of those
    the one that took least time; the same rows give the same sample.

    Args:
        rows: finished rows. Repeats of a job are never drawn, trials only where there is nothing
            else.
        count: how many at most.
    """
    reported = [row for row in rows if row.job.purpose == "report"]
    left = reported or [row for row in rows if row.job.purpose == "tuning"]
    chosen: list[Record] = []
    while left and len(chosen) < count:
        best = min(left, key=_worth(chosen))
        chosen.append(best)
        left = [row for row in left if row is not best]
    return chosen


def _worth(chosen: Sequence[Record]) -> Callable[[Record], tuple[int, int, float, str]]:
    """What orders rows beside those that are chosen: new cells on new tasks first, then by time."""
    seen = [(row.job.model, row.job.cell, row.job.task) for row in chosen]
    cells, tasks = Counter(place[:2] for place in seen), Counter(place[2] for place in seen)
    both = Counter(seen)

    def order(row: Record) -> tuple[int, int, float, str]:
        job = row.job
        cell = job.model, job.cell
        known = cells[cell] + tasks[job.task]
        return both[*cell, job.task], known, row.wall_seconds, job.job_id

    return order


def other_seeds(row: Record, rows: Sequence[Record]) -> list[Record]:
    """The finished rows of the same job but for its seed, a row a seed."""
    found = {
        other.job.seed: other
        for other in rows
        if other.ok
        and other.job.seed != row.job.seed
        and replace(other.job, seed=row.job.seed) == row.job
    }
    return [found[seed] for seed in sorted(found)]


def held(published: Record, again: Record | None, others: Sequence[Record]) -> Reproduced:
    """Hold what came of a job here against its published row.

    Rows of the same bits are "identical", wherever they were made. On one kind of machine with the
    same versions of libraries the bits must be the same, and others are "differs". Elsewhere the
    score must lie in the interval of one further seed (`prediction_interval`): "within", or else
    "differs". A job that didn't end well is "not run".

    Args:
        published: a finished row.
        again: the last row of its job made here.
        others: published rows of the job's other seeds (`other_seeds`).
    """
    if again is None:
        return Reproduced("not run", published, detail="it was not run")
    if not again.ok:
        reason = again.outcome.status_reason.splitlines()
        why = f": {reason[0]}" if reason else ""
        return Reproduced("not run", published, again, f"it ended as {again.outcome.status}{why}")
    elsewhere = tuple(made_elsewhere(published.environment, again.environment))
    left_out = unrecorded(published)
    known = replace(again, outcome=_as_far_as(published.outcome, again.outcome, left_out))
    difference = first_difference(published, known, BITS)
    found = Reproduced("identical", published, again, "", elsewhere, None, left_out)
    if not difference:
        return found
    if not elsewhere:
        return replace(found, verdict="differs", detail=difference)
    return _in_interval(found, published.outcome, again.outcome, others)


def unrecorded(row: Record) -> tuple[str, ...]:
    """The fields among `BITS` that the peftmark that made a row didn't record."""
    reasons = row.outcome.null_reasons
    return tuple(name for name in BITS if reasons.get(name, "").startswith(NOT_RECORDED))


def _as_far_as(published: Outcome, again: Outcome, left_out: Sequence[str]) -> Outcome:
    """An outcome with no more in it than an older one knew: neither fields nor entries of them,
    such as a metric that a task has got since."""
    values: dict[str, Any] = {name: getattr(published, name) for name in left_out}
    for name in BITS:
        old, new = getattr(published, name), getattr(again, name)
        if name not in left_out and isinstance(old, dict) and isinstance(new, dict):
            values[name] = {key: value for key, value in new.items() if key in old}
    unknown: dict[str, Any] = {
        field.name: None
        for field in fields(CurvePoint)
        if published.curve and all(getattr(p, field.name) is None for p in published.curve)
    }
    curve = tuple(replace(point, **unknown) for point in again.curve)
    return replace(again, **values, curve=curve)


def _in_interval(
    found: Reproduced, published: Outcome, again: Outcome, others: Sequence[Record]
) -> Reproduced:
    """What is made of other bits where they need not be the same."""
    score = again.metric_value
    known = [row.outcome.metric_value for row in others]
    scores = [value for value in known if value is not None and math.isfinite(value)]
    if score is None or not math.isfinite(score):
        return replace(found, verdict="differs", detail="it has no score here")
    if len(scores) < FEWEST_SEEDS:
        why = (
            f"other bits, as may be there, and {len(scores)} published runs of other seeds; an "
            f"interval needs {FEWEST_SEEDS}"
        )
        return replace(found, verdict="undecided", detail=why)
    interval = prediction_interval(scores)
    found = replace(found, interval=interval)
    if interval.half_width is None or interval.half_width <= NEARLY_ZERO:
        if abs(score - interval.mean) <= NEARLY_ZERO:
            return replace(found, verdict="within")
        why = "the other seeds all have one score, which says nothing of how far scores spread"
        return replace(found, verdict="undecided", detail=why)
    if interval.low <= score <= interval.high:
        return replace(found, verdict="within")
    why = f"the score lies {'below' if score < interval.low else 'above'} the interval"
    return replace(found, verdict="differs", detail=why)

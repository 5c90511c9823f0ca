"""What the alarms of `peftmark.catalog.alarms` say of stored rows, and how often they are false.
Pure: raw values in, verdicts out, none of which is stored."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from peftmark.analysis.scale import point
from peftmark.analysis.validity import behind, with_other_seeds
from peftmark.catalog.alarms import ALARMS, Alarm
from peftmark.catalog.metrics import sign_of
from peftmark.record.fields_watch import BELOW, THROUGHOUT
from peftmark.record.growth import Value, growths, sustained
from peftmark.record.job import Record
from peftmark.record.outcome import CurvePoint

FEWEST_MEANS = 3
"""Evaluations from which a variation over training is one."""


@dataclass(frozen=True)
class Reading:
    """What one alarm says of one run.

    Attributes:
        value: the most alarming value that lasted long enough; None where it can't be told.
        step: by which it had lasted.
        where: module or pair of parts it is of; empty for the whole run.
        reason: why there is no value; empty where there is one.
    """

    alarm: Alarm
    value: float | None
    step: int | None = None
    where: str = ""
    reason: str = ""

    @property
    def raised(self) -> bool | None:
        """Whether it is an alarm; None where that isn't measured."""
        if self.value is None:
            return None
        beyond = self.value - self.alarm.threshold
        return beyond > 0 if self.alarm.side == "above" else beyond < 0

    @property
    def text(self) -> str:
        """The value and where it was, or why there is none."""
        if self.value is None:
            return f"not measured: {self.reason}"
        where = f", {self.where}" if self.where else ""
        return f"{self.alarm.shown(self.value)} by step {self.step}{where}"


Series = Mapping[str, Sequence[Value]]
"""Module, pair of parts or nothing -> its figure, as far as it is known."""


def read(record: Record) -> tuple[Reading, ...]:
    """Every alarm of a finished run, in the table's order."""
    return tuple(_reading(record, alarm) for alarm in ALARMS.values())


def _reading(record: Record, alarm: Alarm) -> Reading:
    if not record.ok:
        return Reading(alarm, None, reason=f"the job ended as {record.outcome.status}")
    if not record.outcome.curve:
        return Reading(alarm, None, reason="no point of a curve is on record")
    series = FIGURES[alarm.key](record)
    if isinstance(series, str):
        return Reading(alarm, None, reason=series)
    sign = 1.0 if alarm.side == "above" else -1.0
    best: tuple[float, int, str] | None = None
    for where, values in series.items():
        known = [
            Value(v.step, None if v.value is None else sign * v.value, v.weight) for v in values
        ]
        found = sustained(known, alarm.lasting)
        if (
            found is not None
            and found.value is not None
            and (best is None or found.value > best[0])
        ):
            best = (found.value, found.step, where)
    if best is None:
        what = f"{alarm.lasting} {alarm.each}s in a row" if alarm.lasting > 1 else "a value"
        return Reading(alarm, None, reason=f"the run has not {what} of it")
    return Reading(alarm, sign * best[0], best[1], best[2])


# --- figures ------------------------------------------------------------------------------------


def _stored(record: Record, column: str) -> Mapping[str, Sequence[float | None]] | str:
    """A column of series, or why it is empty."""
    found: Mapping[str, Sequence[float | None]] = getattr(record.outcome, column)
    if found:
        return found
    why = record.outcome.null_reasons.get(column, "")
    return why or "the row holds none"


def _steps(record: Record) -> list[int]:
    return [p.step for p in record.outcome.curve]


def _norm_growth(apart: Callable[[Record], int | None]) -> Callable[[Record], Series | str]:
    def figure(record: Record) -> Series | str:
        norms = _stored(record, "norm_history")
        if isinstance(norms, str):
            return norms
        steps = _steps(record)
        return {name: growths(steps, values, apart(record)) for name, values in norms.items()}

    return figure


def _epoch(record: Record) -> int:
    """Steps of an epoch over the training rows that were used."""
    rows = record.outcome.train_rows or 0
    return max(1, math.ceil(rows / record.job.recipe.batch_size))


def _every_value(column: str) -> Callable[[Record], Series | str]:
    def figure(record: Record) -> Series | str:
        stored = _stored(record, column)
        if isinstance(stored, str):
            return stored
        steps = _steps(record)
        return {
            name: [Value(step, value) for step, value in zip(steps, values, strict=True)]
            for name, values in stored.items()
        }

    return figure


def _importance_drift(record: Record) -> Series | str:
    stored = _stored(record, "importance_history")
    if isinstance(stored, str):
        return stored if stored != "the row holds none" else "the method scores no importance"
    found: dict[str, Sequence[Value]] = {}
    for name, values in stored.items():
        known = [
            (step, value)
            for step, value in zip(_steps(record), values, strict=True)
            if value is not None
        ]
        # After the last pruning the last score is repeated.
        while len(known) > 1 and known[-1][1] == known[-2][1]:
            known.pop()
        scores = [value for _, value in known]
        if len(scores) >= FEWEST_MEANS and (mean := statistics.fmean(scores)):
            found[name] = [Value(known[-1][0], statistics.stdev(scores) / mean)]
    return found


def _gap(record: Record) -> Series | str:
    """Points below the best score so far, where the loss is below that at the best."""
    metric, curve = record.job.metric, record.outcome.curve
    worth, sign = point(metric, record.outcome.baseline_value), sign_of(metric)
    if worth is None:
        return "a point of the metric is not known"
    selected = all(p.selection_metric is not None for p in curve)
    best: tuple[float, float] | None = None
    values = []
    for p in curve:
        score = sign * ((p.selection_metric if selected else p.metric) or 0.0)
        if best is None or score > best[0]:
            best = (score, p.loss)
        lost = (best[0] - score) / worth if p.loss < best[1] else 0.0
        values.append(Value(p.step, lost))
    return {"": values[1:]}


def _saw_tooth(record: Record) -> Series | str:
    return {"": swings(record.outcome.curve)}


def swings(curve: Sequence[CurvePoint]) -> list[Value]:
    """Each change of the loss over the opposite one before it; 0 where it went on the same way."""
    changes = [after.loss - before.loss for before, after in pairwise(curve)]
    values = []
    for p, (before, now) in zip(curve[2:], pairwise(changes), strict=True):
        turned = before * now < 0
        values.append(Value(p.step, abs(now / before) if turned else 0.0))
    return values


def _last_share(name: str) -> Callable[[Record], Series | str]:
    def figure(record: Record) -> Series | str:
        shares = _stored(record, "gradient_shares")
        if isinstance(shares, str):
            return shares
        last = shares[name][-1]
        if last is None:
            return "the last step has none (an overflow, or too many parameters to follow)"
        return {"": [Value(_steps(record)[-1], last)]}

    return figure


FIGURES: Mapping[str, Callable[[Record], Series | str]] = {
    "norm-growth": _norm_growth(_epoch),
    "norm-growth-evaluations": _norm_growth(lambda record: None),
    "importance-parts": _every_value("importance_variation"),
    "importance-drift": _importance_drift,
    "gap": _gap,
    "saw-tooth": _saw_tooth,
    "conflict": _every_value("part_cosines"),
    "vanishing-end": _last_share(BELOW[1e-6]),
    "vanishing-throughout": _last_share(THROUGHOUT),
}
"""Key of an alarm -> its figure in a finished run, or why there is none."""


# --- how often they are false -------------------------------------------------------------------


@dataclass(frozen=True)
class Count:
    """How an alarm stands to how runs ended, over the reported runs that trained.

    A run ended badly if it fell behind its cell's other seeds
    (`peftmark.analysis.validity.behind`); one without another seed can't be told.

    Attributes:
        measured: runs that have the figure.
        unmeasured: reason -> runs that don't.
        right: raised, and the run fell behind.
        false: raised, and it didn't.
        untold: raised, and there is no other seed to say.
        missed: not raised, and the run fell behind.
    """

    alarm: Alarm
    measured: int
    unmeasured: Mapping[str, int]
    right: int
    false: int
    untold: int
    missed: int

    @property
    def raised(self) -> int:
        """Runs that raised it."""
        return self.right + self.false + self.untold

    @property
    def verdict(self) -> str:
        """What the counts say of the alarm, in words."""
        if not self.measured:
            return "not judged: no run has the figure"
        told = self.right + self.false
        missed = f"; missed {self.missed}" if self.missed else ""
        if not self.raised:
            return f"never raised{missed}"
        if not told:
            return f"can't be told: no other seed of the {self.untold} that raised it{missed}"
        if self.false > self.right:
            return f"mostly false: {self.false} of {told}{missed}"
        return f"{self.right} of {told} right{missed}"


def count(records: Iterable[Record]) -> tuple[Count, ...]:
    """Every alarm counted over the finished, reported runs that trained by steps."""
    rows = [
        r
        for r in records
        if r.ok and r.job.purpose == "report" and r.job.cell.trains and r.outcome.steps != 0
    ]
    judged = {id(row) for row, _ in with_other_seeds(rows)}
    bad = {flag.job.job_id for flag in behind(rows)}
    readings = [(row, read(row)) for row in rows]
    return tuple(
        _count(alarm, [(row, every[i]) for row, every in readings], judged, bad)
        for i, alarm in enumerate(ALARMS.values())
    )


def together(runs: Sequence[Sequence[Count]]) -> tuple[Count, ...]:
    """The counts of several runs, each of which was held to its own seeds alone."""
    return tuple(
        Count(
            same[0].alarm,
            measured=sum(one.measured for one in same),
            unmeasured=sum((Counter(one.unmeasured) for one in same), Counter()),
            right=sum(one.right for one in same),
            false=sum(one.false for one in same),
            untold=sum(one.untold for one in same),
            missed=sum(one.missed for one in same),
        )
        for same in zip(*runs, strict=True)
    )


def _count(
    alarm: Alarm, readings: Sequence[tuple[Record, Reading]], judged: set[int], bad: set[str]
) -> Count:
    ends: Counter[str] = Counter()
    for row, reading in readings:
        fell = row.job.job_id in bad
        if reading.raised is None:
            continue
        if reading.raised:
            known = id(row) in judged
            ends["right" if fell else "false" if known else "untold"] += 1
        elif fell:
            ends["missed"] += 1
    return Count(
        alarm,
        measured=sum(reading.raised is not None for _, reading in readings),
        unmeasured=Counter(r.reason for _, r in readings if r.raised is None),
        right=ends["right"],
        false=ends["false"],
        untold=ends["untold"],
        missed=ends["missed"],
    )

"""The figures of a row that claims may speak of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from peftmark.claims.curves import curve_variance, importance_alarms
from peftmark.claims.rank_moves import moves_beyond_schedule, rank_moves
from peftmark.record.fields import figure
from peftmark.record.job import Record

Kind = Literal["score", "loss", "share", "count", "time", "steps"]


@dataclass(frozen=True)
class Measure:
    """A figure of a row that claims may speak of.

    Attributes:
        key: the field of `peftmark.record.outcome.Outcome`, or the name of a figure made from
            several.
        better: which way is better, for orders.
        kind: score; loss; share; count (the same again in every run of a job, so it needs no
            interval); time (and what follows from it); steps, which a run may never reach.
        same: settings of the recipe that must be equal for two cells to be compared by it.
        derived: makes the figure from a row, or says why it can't; None where it is a field.
    """

    key: str
    title: str
    better: Literal["higher", "lower"]
    kind: Kind
    same: tuple[str, ...] = ()
    derived: Callable[[Record], float | str] | None = None

    @property
    def of_training(self) -> bool:
        """Whether it grows with the rows that a run trained on, so that cells need equally many."""
        return self.kind in ("score", "loss", "share")

    def value(self, record: Record) -> float | None:
        """The figure of a row; None where the row lacks it."""
        if self.derived is not None:
            found = self.derived(record)
            return None if isinstance(found, str) else found
        value: float | None = getattr(record.outcome, self.key)
        return value

    def reason(self, record: Record) -> str:
        """Why a row lacks the figure; empty if nobody knows."""
        if self.derived is not None:
            found = self.derived(record)
            return found if isinstance(found, str) else ""
        return record.null_reason(self.key)


_LOAD = (
    "batch_size",
    "max_length",
    "precision",
    "weights",
    "gradient_checkpointing",
    "gradient_accumulation",
)
_SCORING = ("max_length", "precision")


def _of(key: str, kind: Kind, same: tuple[str, ...] = ()) -> Measure:
    """The measure of a field, named and directed as the field is."""
    field = figure(key)
    if field.better is None:
        raise ValueError(f"a claim orders cells by `{key}`, so its field must say which is better")
    return Measure(key, field.title, field.better, kind, same)


def score_given_back(record: Record) -> float | str:
    """The best score of an evaluation less the last, in units of the metric: 0 where the last is
    the best. Noise alone makes it larger, so it says something against another cell only."""
    best, last = record.outcome.best_metric_value, record.outcome.metric_value
    if best is None or last is None:
        return "the run has no score"
    return abs(best - last)


MEASURES: dict[str, Measure] = {
    m.key: m
    for m in (
        _of("metric_value", "score"),
        _of("loss", "loss"),
        _of("samples_per_second", "time", _LOAD),
        _of("step_seconds_p50", "time", _LOAD),
        _of("peak_memory_bytes", "count", _LOAD),
        _of("trainable_parameters", "count"),
        _of("adapter_parameters", "count"),
        _of("adapter_bytes", "count"),
        _of("saved_adapter_bytes", "count"),
        _of("flops_per_step", "count", _LOAD),
        _of("unrelated_perplexity_before", "count", ("precision",)),
        _of("steps_to_target", "steps", ("batch_size", "eval_every")),
        _of("latency_p50_seconds", "time", _SCORING),
        _of("merged_latency_p50_seconds", "time", _SCORING),
        _of("latency_1_row_seconds", "time", _SCORING),
        _of("latency_4_rows_seconds", "time", _SCORING),
        _of("latency_8_rows_seconds", "time", _SCORING),
        Measure(
            "rank_moves_20_to_60",
            "share of rank changes between 20 and 60 % of the steps",
            "higher",
            "share",
            ("eval_every",),
            rank_moves,
        ),
        Measure(
            "rank_moves_beyond_schedule",
            "share of rank changes between 20 and 60 % of the steps, less the schedule's own",
            "higher",
            "share",
            ("eval_every",),
            moves_beyond_schedule,
        ),
        Measure(
            "score_given_back",
            "score lost since the best evaluation",
            "lower",
            "share",
            ("eval_every",),
            score_given_back,
        ),
        Measure(
            "curve_variance",
            "variance of the training loss about its course",
            "lower",
            "share",
            ("batch_size", "eval_every"),
            curve_variance,
        ),
        Measure(
            "importance_alarms",
            "share of modules whose importance varies by more than half of its mean",
            "lower",
            "share",
            ("eval_every",),
            importance_alarms,
        ),
    )
}

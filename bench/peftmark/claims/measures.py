"""The figures of a row that claims may speak of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from peftmark.claims.rank_moves import rank_moves
from peftmark.record.job import Record


@dataclass(frozen=True)
class Measure:
    """A figure of a row that claims may speak of.

    Attributes:
        key: the field of `peftmark.record.outcome.Outcome`, or the name of a figure made from
            several.
        better: which way is better, for orders.
        kind: score; share; count (the same again in every run of a job, so it needs no interval);
            time (and what follows from it); steps, which a run may never reach.
        same: settings of the recipe that must be equal for two cells to be compared by it.
        derived: makes the figure from a row, or says why it can't; None where it is a field.
    """

    key: str
    title: str
    better: Literal["higher", "lower"]
    kind: Literal["score", "share", "count", "time", "steps"]
    same: tuple[str, ...] = ()
    derived: Callable[[Record], float | str] | None = None

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


_LOAD = ("batch_size", "max_length", "precision", "gradient_checkpointing")

MEASURES: dict[str, Measure] = {
    m.key: m
    for m in (
        Measure("metric_value", "score", "higher", "score"),
        Measure("samples_per_second", "training rows a second", "higher", "time", _LOAD),
        Measure("step_seconds_p50", "step time", "lower", "time", _LOAD),
        Measure("peak_memory_bytes", "peak memory", "lower", "count", _LOAD),
        Measure("trainable_parameters", "trainable parameters", "lower", "count"),
        Measure("adapter_parameters", "adapter parameters", "lower", "count"),
        Measure("adapter_bytes", "adapter on disk", "lower", "count"),
        Measure(
            "steps_to_target", "steps to the target", "lower", "steps", ("batch_size", "eval_every")
        ),
        Measure("latency_p50_seconds", "latency", "lower", "time", ("max_length", "precision")),
        Measure(
            "merged_latency_p50_seconds", "latency, merged", "lower", "time",
            ("max_length", "precision"),
        ),
        Measure(
            "rank_moves_20_to_60", "share of rank changes between 20 and 60 % of the steps",
            "higher", "share", ("eval_every",), rank_moves,
        ),
    )
}  # fmt: skip

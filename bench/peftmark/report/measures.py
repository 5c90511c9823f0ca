"""The cost figures a report shows: where each is read, in which unit, and what stands beside it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from peftmark.advice.money import TITLE, money
from peftmark.analysis.table import ResultTable
from peftmark.catalog.methods import Cell
from peftmark.core.amounts import Price
from peftmark.record.fields import LIVE_PARTS, figure, side, title
from peftmark.record.fields_batch_latency import BATCH_LATENCY, MERGED_BATCH_LATENCY
from peftmark.record.job import Record
from peftmark.render import words
from peftmark.render.page import Column, Entry
from peftmark.report import missing

MEMORY_SOURCES = {
    "live_bytes": "live tensor bytes in the probe steps",
    "torch_allocated_bytes": "torch's CUDA allocator in the training steps",
}


@dataclass(frozen=True)
class Measure:
    """One cost column: how a report shows a measured figure.

    Attributes:
        name: field of `Outcome`, or of `Record` for NVML's readings.
        note: what a reader must know beside unit and direction.
        shown: the unit it is shown in; empty for the usual one of its stored unit.
        head: a shorter title, where the caption of the table says the rest.
        beside: fields in the same unit for the small line below the figure.
        label: what that line starts with.
    """

    name: str
    note: str = ""
    shown: str = ""
    head: str = ""
    beside: tuple[str, ...] = ()
    label: str = ""

    @property
    def title(self) -> str:
        """The column's title."""
        return self.head or figure(self.name).title

    @property
    def unit(self) -> str:
        """The unit it is shown in; empty for plain numbers."""
        return self.shown or words.SHOWN_IN.get(figure(self.name).unit, "")

    @property
    def scale(self) -> float:
        """What a raw value is divided by."""
        return words.SCALES.get(self.unit, 1.0)

    @property
    def hint(self) -> str:
        """Unit, note and direction."""
        return ", ".join(filter(None, (self.unit, self.note, side(self.name))))

    @property
    def column(self) -> Column:
        """The column's head."""
        return Column(self.title, self.hint, numeric=True)

    def field(self, record: Record) -> str:
        """The field that holds the figure in a row."""
        return self.name

    def read(self, record: Record) -> float | None:
        """The raw value of a row."""
        return raw(record, self.field(record))

    def pick(self, values: Sequence[float]) -> float:
        """One figure for several seeds: their mean."""
        return statistics.fmean(values)

    def text(self, value: float) -> str:
        """A raw value in the column's unit."""
        if figure(self.name).unit == "parameters":
            return words.number(value, 0)
        return words.short(value / self.scale)

    def notes(self, records: Sequence[Record]) -> Iterable[str]:
        """Parts of the small line below the figure."""
        by_field = ([v for r in records if (v := raw(r, n)) is not None] for n in self.beside)
        texts = [self.text(self.pick(found)) for found in by_field if found]
        return [f"{self.label} {' to '.join(texts)}".strip()] if texts else []


def raw(record: Record, name: str) -> float | None:
    """A numeric field of a row."""
    owner = record if name.startswith("nvml_") else record.outcome
    value: float | None = getattr(owner, name)
    return value


class Energy(Measure):
    """Energy of the GPU where a job had one, else of the CPU packages."""

    def field(self, record: Record) -> str:
        """The counter that belongs to the job's device."""
        return "energy_cpu_joules" if record.job.device == "cpu" else "energy_gpu_joules"

    def notes(self, records: Sequence[Record]) -> Iterable[str]:
        """What weakens the figures."""
        return dict.fromkeys(flag for r in records for flag in r.outcome.energy_flags)


UNPRICED = Price(1.0, "")


@dataclass(frozen=True)
class Money(Measure):
    """The price of a run, at the price of an hour."""

    hour: Price = UNPRICED

    @property
    def hint(self) -> str:
        """Currency, what is paid for, and direction."""
        return f"{self.shown}, {self.note}, lower is better"

    def read(self, record: Record) -> float | None:
        """The price of a row's run."""
        return money(self.hour).read(record)

    def text(self, value: float) -> str:
        """Without the currency, which the head says."""
        return money(self.hour).text(value).partition(" ")[0]


class LargestError(Measure):
    """A numerical error: the largest over the seeds."""

    def pick(self, values: Sequence[float]) -> float:
        """The largest."""
        return max(values)

    def text(self, value: float) -> str:
        """Two significant digits."""
        return words.error(value)


class PeakMemory(Measure):
    """The headline memory figure, with what measured it where a cell's rows differ in that."""

    def notes(self, records: Sequence[Record]) -> Iterable[str]:
        """The meters, if there are several."""
        found = memory_sources(records)
        return [words.listing(found)] if len(found) > 1 else []


def memory_sources(records: Iterable[Record]) -> list[str]:
    """What measured the headline memory figure of finished rows, in words."""
    known = (r.outcome for r in records if r.ok and r.outcome.peak_memory_bytes is not None)
    found = (outcome.peak_memory_source or "source not recorded" for outcome in known)
    return sorted({MEMORY_SOURCES.get(source, source) for source in found})


ENERGY = Energy("energy_cpu_joules", "timed steps", head="energy")
STEP_TIME = Measure(
    "step_seconds_p50",
    "median (p10 to p90)",
    shown="ms",
    beside=("step_seconds_p10", "step_seconds_p90"),
)
TOKENS = Measure("tokens_per_second")
FLOPS = Measure("flops_per_step")
PEAK = PeakMemory("peak_memory_bytes")
TRAINABLE = Measure("trainable_parameters", "at their peak, with head")
ADAPTER = Measure("adapter_parameters", "trainable without head")
ON_DISK = Measure("adapter_bytes", shown="KiB")

RELATIVE = (STEP_TIME, TOKENS, FLOPS, PEAK, TRAINABLE, ADAPTER, ON_DISK)
TIME = (
    STEP_TIME,
    TOKENS,
    FLOPS,
    Measure("mfu"),
    Measure("train_seconds", "timed steps"),
    Measure("cpu_seconds", "user and system"),
    ENERGY,
)
_PARTS = {
    "weights": "of the base",
    "quantization": "of quantization",
    "adapter": "adapter and head",
    "optimizer": "of the optimizer",
    "activations": "kept for the backward pass",
}
"""Part of the live peak -> what stands below the head of its column."""
LIVE = (
    Measure("live_bytes", "all parts", head="peak"),
    *(Measure(p.column, _PARTS.get(p.key, ""), head=p.head) for p in LIVE_PARTS),
)
METERS = (
    Measure("live_bytes", "exact, probe steps"),
    Measure("predicted_live_bytes", "without a run"),
    Measure(
        "vmhwm_train_bytes",
        "VmHWM, libraries included",
        beside=("rss_before_train_bytes",),
        label="before",
    ),
    Measure("vmhwm_bytes", "VmHWM, loading and evaluation too"),
    Measure("torch_allocated_bytes", "training steps"),
    Measure("torch_reserved_bytes", "allocator's cache too"),
    Measure("nvml_process_bytes", "whole life, sampled"),
    Measure("nvml_device_bytes", "over idle, sampled"),
)
PARAMETERS = (
    TRAINABLE,
    ADAPTER,
    Measure("active_parameters", "trainable left at the end"),
    Measure("saved_parameters", "in the files"),
    Measure("head_parameters", "part of the trainable ones"),
    Measure("total_parameters", "of the model with adapter"),
)
_BATCH = "median a batch"
_LARGEST = "largest difference of a logit or log-likelihood"
DEPLOYMENT = (
    ON_DISK,
    Measure(
        "latency_p50_seconds", _BATCH, shown="ms", beside=("latency_p95_seconds",), label="p95"
    ),
    Measure(
        "merged_latency_p50_seconds",
        _BATCH,
        shown="ms",
        beside=("merged_latency_p95_seconds",),
        label="p95",
    ),
    LargestError("merge_max_error", _LARGEST),
    LargestError("reload_max_error", _LARGEST),
)
LATENCY_BY_ROWS = tuple(
    Measure(name, shown="ms") for name in (*BATCH_LATENCY.values(), *MERGED_BATCH_LATENCY.values())
)


def price_of_a_run(hour: Price) -> Money:
    """The column of the price of a run."""
    return Money("phase_seconds", "loading to saving", hour.currency, TITLE, hour=hour)


def ratio_column(name: str) -> Column:
    """The head of a column of ratios to the reference."""
    return Column(title(name), ", ".join(filter(None, ("ratio", side(name)))), numeric=True)


def entry(table: ResultTable, cell: Cell, task: str | None, measure: Measure) -> Entry:
    """The entry of a cell on a task or on all of them, with the reason where it has no figure."""
    slots = table.of(cell, task)
    values = [v for s in slots if (v := s.value(measure.read)) is not None]
    finished = [s.record for s in slots if s.ok and s.record is not None]
    if not values:
        return missing.gap(slots, measure.field(finished[0]) if finished else measure.name)
    notes = list(measure.notes(finished))
    if len(values) < len(slots):
        notes.append(f"n = {len(values)}/{len(slots)}")
    value = measure.pick(values)
    return Entry(measure.text(value), "; ".join(notes), "number", value)

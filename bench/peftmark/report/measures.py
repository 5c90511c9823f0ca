"""The cost figures a report shows: where each is read, in which unit, and what stands beside it."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from peftmark.analysis.table import ResultTable
from peftmark.catalog.methods import Cell
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
    """One cost column.

    Attributes:
        name: field of `Outcome`, or of `Record` for NVML's readings.
        hint: unit and direction.
        scale: what a raw value is divided by.
        digits: decimals; None for three significant digits.
        beside: fields in the same unit for the small line below the figure.
        label: what that line starts with.
    """

    name: str
    title: str
    hint: str
    scale: float = 1.0
    digits: int | None = None
    beside: tuple[str, ...] = ()
    label: str = ""

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
        scaled = value / self.scale
        return words.short(scaled) if self.digits is None else words.number(scaled, self.digits)

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
    """Energy of the device on CUDA, of the CPU packages elsewhere."""

    def field(self, record: Record) -> str:
        """The counter that belongs to the job's device."""
        return "energy_gpu_joules" if record.job.device == "cuda" else "energy_cpu_joules"

    def notes(self, records: Sequence[Record]) -> Iterable[str]:
        """What weakens the figures."""
        return dict.fromkeys(flag for r in records for flag in r.outcome.energy_flags)


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


STEP_TIME = Measure(
    "step_seconds_p50",
    "step time",
    "ms, median (p10 to p90), lower is better",
    1e-3,
    beside=("step_seconds_p10", "step_seconds_p90"),
)
TOKENS = Measure("tokens_per_second", "tokens a second", "higher is better")
FLOPS = Measure("flops_per_step", "work a step", "GFLOP", 1e9)
PEAK = PeakMemory("peak_memory_bytes", "peak memory", "MiB, lower is better", words.MIB)
TRAINABLE = Measure("trainable_parameters", "trainable", "at their peak, with head", digits=0)
ADAPTER = Measure("adapter_parameters", "adapter", "trainable without head", digits=0)
ON_DISK = Measure("adapter_bytes", "on disk", "KiB, lower is better", 1024)

RELATIVE = (STEP_TIME, TOKENS, FLOPS, PEAK, TRAINABLE, ADAPTER, ON_DISK)
TIME = (
    STEP_TIME,
    TOKENS,
    FLOPS,
    Measure("mfu", "mfu", "%, higher is better", 0.01),
    Measure("train_seconds", "training", "s, timed steps"),
    Measure("cpu_seconds", "CPU time", "s, user and system"),
    Energy("energy_cpu_joules", "energy", "J, timed steps"),
)
LIVE = (
    Measure("live_bytes", "peak", "MiB, all parts", words.MIB),
    Measure("live_weight_bytes", "weights", "frozen base", words.MIB),
    Measure("live_quantization_bytes", "constants", "of quantization", words.MIB),
    Measure("live_adapter_bytes", "adapter", "and head", words.MIB),
    Measure("live_gradient_bytes", "gradients", "", words.MIB),
    Measure("live_optimizer_bytes", "optimizer", "its states", words.MIB),
    Measure("live_activation_bytes", "activations", "kept for the backward pass", words.MIB),
    Measure("live_temporary_bytes", "temporaries", "", words.MIB),
)
METERS = (
    Measure("live_bytes", "live tensors", "MiB, exact, probe steps", words.MIB),
    Measure("predicted_live_bytes", "predicted", "MiB, without a run", words.MIB),
    Measure(
        "vmhwm_train_bytes",
        "VmHWM, training",
        "MiB, resident, libraries included",
        words.MIB,
        beside=("rss_before_train_bytes",),
        label="before",
    ),
    Measure("vmhwm_bytes", "VmHWM, whole life", "MiB, loading and evaluation too", words.MIB),
    Measure("torch_allocated_bytes", "torch allocated", "MiB, training steps", words.MIB),
    Measure("torch_reserved_bytes", "torch reserved", "MiB, allocator's cache too", words.MIB),
    Measure("nvml_process_bytes", "NVML process", "MiB, whole life, sampled", words.MIB),
    Measure("nvml_device_bytes", "NVML device", "MiB over idle, sampled", words.MIB),
)
PARAMETERS = (
    TRAINABLE,
    ADAPTER,
    Measure("active_parameters", "active", "trainable left at the end", digits=0),
    Measure("saved_parameters", "saved", "in the files", digits=0),
    Measure("head_parameters", "head", "its part of trainable", digits=0),
    Measure("total_parameters", "total", "of the model with adapter", digits=0),
)
DEPLOYMENT = (
    ON_DISK,
    Measure(
        "latency_p50_seconds",
        "latency",
        "ms a batch, median",
        1e-3,
        beside=("latency_p95_seconds",),
        label="p95",
    ),
    Measure(
        "merged_latency_p50_seconds",
        "latency, merged",
        "ms a batch, median",
        1e-3,
        beside=("merged_latency_p95_seconds",),
        label="p95",
    ),
    LargestError(
        "merge_max_error", "merge error", "largest difference of a logit or log-likelihood"
    ),
    LargestError(
        "reload_max_error", "reload error", "largest difference of a logit or log-likelihood"
    ),
)


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

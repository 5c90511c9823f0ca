"""What each cell costs: time, memory, parameters and bytes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.record import Record
from bench.report import gaps, headline, words
from bench.report.page import Column, Entry, Grid, Section
from bench.table import Cell, Ratio, ResultTable, ratio, task_score


@dataclass(frozen=True)
class Cost:
    """One cost column.

    Attributes:
        name: field of `Outcome` it reads.
        hint: unit and direction.
        scale: what a raw value is divided by.
        digits: decimals; None for three significant digits.
    """

    name: str
    title: str
    hint: str
    scale: float = 1.0
    digits: int | None = None

    def read(self, record: Record) -> float | None:
        """The raw value of a row."""
        value: float | None = getattr(record.outcome, self.name)
        return value

    def text(self, value: float) -> str:
        """A mean value in the column's unit."""
        scaled = value / self.scale
        return words.short(scaled) if self.digits is None else words.number(scaled, self.digits)


@dataclass(frozen=True)
class AdapterCost(Cost):
    """Trainable parameters without the head."""

    def read(self, record: Record) -> float | None:
        """Trainable parameters less the head's."""
        outcome = record.outcome
        if outcome.trainable_parameters is None or outcome.head_parameters is None:
            return None
        return outcome.trainable_parameters - outcome.head_parameters


COSTS = (
    Cost("train_seconds", "training", "s, lower is better"),
    Cost("samples_per_second", "rows a second", "1/s, higher is better"),
    Cost("tokens_per_second", "tokens a second", "1/s without padding, higher is better"),
    Cost("peak_memory_bytes", "peak memory", "MiB, lower is better", words.MIB),
    Cost("trainable_parameters", "trainable", "parameters with head", digits=0),
    AdapterCost("trainable_parameters", "adapter", "parameters without head", digits=0),
    Cost("active_parameters", "active", "parameters after pruning", digits=0),
    Cost("total_parameters", "total", "parameters of the model", digits=0),
    Cost("adapter_bytes", "on disk", "KiB, lower is better", 1024),
)
RELATIVE = tuple(c for c in COSTS if c.name != "total_parameters")


def section(table: ResultTable) -> Section:
    """Absolute costs by task and costs relative to the reference."""
    lead = headline.cost_finding(table)
    return Section("costs", "What it costs", lead, (_relative(table), _absolute(table)))


def _absolute(table: ResultTable) -> Grid:
    columns = (
        Column("cell"),
        Column("task"),
        *(Column(c.title, c.hint, numeric=True) for c in COSTS),
    )
    rows = tuple(
        (Entry(words.title(cell)), Entry(task), *(_cost(table, cell, task, c) for c in COSTS))
        for task in table.tasks
        for cell in table.cells
    )
    return Grid("Costs by task, mean over seeds", columns, rows, note=_sources(table))


def _cost(table: ResultTable, cell: Cell, task: str, cost: Cost) -> Entry:
    slots = table.of(cell, task)
    score = task_score(table, cell, task, cost.read)
    finished = [s.record for s in slots if s.ok and s.record is not None]
    if score.estimate is None:
        return (
            words.missing(words.null_reason(finished, cost.name)) if finished else gaps.gap(slots)
        )
    notes = [] if score.complete else [f"n = {len(score.by_seed)}/{score.planned}"]
    if cost.name == "peak_memory_bytes" and len(_meters(table)) > 1:
        notes.append(words.listing(sorted({_source(r) for r in finished})))
    return Entry(cost.text(score.estimate.mean), "; ".join(notes), "number", score.estimate.mean)


def _source(record: Record) -> str:
    return record.outcome.peak_memory_source or "source not recorded"


def _meters(table: ResultTable) -> list[str]:
    return sorted({_source(r) for r in table.rows if r.ok})


def _sources(table: ResultTable) -> str:
    meters = _meters(table)
    peak = f"Peak memory measured by {meters[0]}. " if len(meters) == 1 else ""
    if meters and all(meter.startswith("VmHWM") for meter in meters):
        peak += (
            "That is the process over its whole life, libraries and evaluation included, so what "
            "4-bit weights save is a small part of it here. "
        )
    device = [r.nvml_peak_memory_bytes for r in table.rows if r.nvml_peak_memory_bytes is not None]
    if not device:
        return f"{peak}Device memory by NVML: n/a (no NVIDIA device, or not recorded)."
    low, high = (words.short(v / words.MIB) for v in (min(device), max(device)))
    return f"{peak}Device memory over idle, sampled by NVML: {low} to {high} MiB."


def _relative(table: ResultTable) -> Grid:
    reference = words.title(table.reference)
    columns = (
        Column("cell"),
        *(Column(c.title, c.hint.split(", ")[-1], numeric=True) for c in RELATIVE),
    )
    rows = tuple(
        (Entry(words.title(cell)), *(words.ratio_entry(_ratio(table, cell, c)) for c in RELATIVE))
        for cell in table.cells
    )
    return Grid(
        f"Costs relative to {reference}",
        columns,
        rows,
        note="Ratio on the same task and seed, averaged geometrically. Where a run failed, its "
        "pair is missing and the count says so.",
    )


def _ratio(table: ResultTable, cell: Cell, cost: Cost) -> Ratio:
    same: Callable[[Record], object] | None = None
    if cost.name == "peak_memory_bytes":
        same = _source
    return ratio(table, cell, cost.read, same=same)

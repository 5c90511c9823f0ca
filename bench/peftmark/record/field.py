"""What a measured figure is, as a type, and the parts of the live peak."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Literal

Phase = Literal[
    "plan",
    "data",
    "loading",
    "building",
    "training",
    "evaluation",
    "saving",
    "deployment",
    "probe",
    "prediction",
    "whole job",
]
PHASES: dict[Phase, str] = {
    "plan": "known before anything runs",
    "data": "rows are cut, drawn and batched",
    "loading": "the base is loaded",
    "building": "the method is put on it",
    "training": "training steps, evaluation excluded",
    "evaluation": "scoring during and after training",
    "saving": "what was trained is written",
    "deployment": "the saved files in a fresh base",
    "probe": "a few steps on a copy built again",
    "prediction": "steps on tensors without values",
    "whole job": "from the worker's start to its end",
}
"""When a figure is measured, in the order of a job: what differs first may explain the rest."""

Section = Literal[
    "Quality",
    "Validity",
    "Time",
    "Memory",
    "Energy",
    "Work",
    "Parameters",
    "Deployment",
    "Provenance",
]


OF_MACHINE = {
    "clock",
    "CPU clock",
    "CUDA events",
    "supervisor's clock",
    "the meters",
    "calibration",
    "NVML",
    "NVML's energy counter",
    "RAPL",
    "VmHWM",
    "VmRSS",
    "torch's CUDA allocator",
}
"""Meters that say something of the machine and its load, and not of the code alone."""


@dataclass(frozen=True)
class Field:
    """One measured figure: what every page, table and verdict says of it.

    Attributes:
        key: the column, and the attribute of `peftmark.record.outcome.Outcome`.
        type: name of the column's Arrow type.
        title: its one name, without an article, as it stands in the middle of a sentence.
        phase: when it is measured.
        meter: what measures it, in a few words.
        kind: how good a run is; what it costs; a number that describes it; any other fact.
        section: the part of docs/columns.md that explains it.
        summary: what it is, in one line.
        unit: of the stored value, in full; empty for none.
        better: the better side; of a score that of most metrics (`peftmark.catalog.metrics` has
            that of each); None where neither is.
        deterministic: two runs of one job must give the same value
            (`peftmark.analysis.validity`); of the curve all but its times.
        exact: the code alone decides it, whatever the machine and its load: the gate holds it equal
            (`peftmark.gate.run_lines`).
        null: when it is null; empty for never.
    """

    key: str
    type: str
    title: str
    _: KW_ONLY
    phase: Phase
    meter: str
    kind: Literal["quality", "cost", "count", "fact"]
    section: Section
    summary: str
    unit: str = ""
    better: Literal["lower", "higher"] | None = None
    deterministic: bool = False
    exact: bool = False
    null: str = "job ended early"

    @property
    def pooled(self) -> bool:
        """Whether figures of several machines may stand in one mean: none that a clock, an
        allocator, the system or a power meter gave. Of a curve all but its times may."""
        return self.type == "curve" or not OF_MACHINE & set(self.meter.split(", "))


@dataclass(frozen=True)
class LivePart:
    """One part of the peak of live tensors.

    Attributes:
        key: what `peftmark.lab.memory.live_tensors.LiveBytes` and predictions call it.
        column: the field that stores it.
        title: its name in a sentence.
        head: its name above a narrow column.
    """

    key: str
    column: str
    title: str
    head: str


LIVE_PARTS: tuple[LivePart, ...] = (
    LivePart("weights", "live_weight_bytes", "frozen weights", "weights"),
    LivePart("quantization", "live_quantization_bytes", "quantization constants", "constants"),
    LivePart("adapter", "live_adapter_bytes", "trained weights", "trained"),
    LivePart("gradients", "live_gradient_bytes", "gradients", "gradients"),
    LivePart("optimizer", "live_optimizer_bytes", "optimizer states", "states"),
    LivePart("activations", "live_activation_bytes", "activations", "activations"),
    LivePart("temporaries", "live_temporary_bytes", "temporaries", "temporaries"),
)
"""The parts in the order of every table and picture; they add up to `live_bytes`."""

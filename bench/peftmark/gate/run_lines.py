"""What is compared: one line a cell, task and seed, from a results folder or a baseline file.

A line keeps raw values, never means, and of a row only what a comparison needs. Its configuration
is the job's without what may differ between two runs of one procedure.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from peftmark.catalog.methods import Cell
from peftmark.catalog.quantizations import quantization_of
from peftmark.machine.environment import NUMERIC
from peftmark.record.fields import by_phase
from peftmark.record.job import Environment, Job, Record, source_key
from peftmark.record.machine_kind import Scalar, kind_of
from peftmark.record.outcome import Outcome

Key = tuple[Cell, str, int]
"""Cell, task and seed: what pairs two lines."""

ELSEWHERE = (
    "suite",
    "profile",
    "model",
    "task",
    "method",
    "rank",
    "quantization",
    "variant",
    "seed",
    "purpose",
    "device",
    "threads",
    "plugins",
)
"""Fields of a job that are not in a line's configuration: they name it, or say where it ran, or
what code made it, as the environment does."""

COUNTS = tuple(f.key for f in by_phase() if f.exact and f.type != "json")
"""Fields of an outcome that the code alone decides, whatever the machine and its load, in the order
of a job; `AS_TEXT` joins them as text, and the facts of the first step one by one."""

AS_TEXT = ("base_format", "class_rows")
"""Exact fields of several counts that are compared as one text."""

FIRST_STEP = "first_step."
"""What a fact of the first step begins with among the counts."""

MEMORY = ("torch_allocated_bytes", "torch_reserved_bytes", "vmhwm_train_bytes")
"""Peaks that an allocator or the system saw; they vary a little from run to run."""


ERRORS = ("merge_max_error", "reload_max_error")
"""What loading or merging the saved files changes; null where nothing is saved or merged."""


@dataclass(frozen=True)
class Round:
    """The times of one ok attempt.

    Attributes:
        started_at: UTC, ISO 8601.
        finished_at: the same.
        step_seconds: 10th percentile of the timed steps, which other work on the machine disturbs
            least; None if nothing was timed.
    """

    started_at: str
    finished_at: str
    step_seconds: float | None


@dataclass(frozen=True)
class Line:
    """One run as a comparison sees it.

    Attributes:
        status: how it ended, and `status_reason` why; what follows is null or empty unless "ok".
        device, threads: where it ran.
        config: dotted name -> value: everything that was asked for.
        environment: versions, sources, commit and machine.
        bits: hash over all scores, losses and weights; two runs of one procedure by one code on
            one kind of machine share it.
        metric: name of the primary metric.
        value: the primary metric after the last step.
        eval_every: steps between two evaluations.
        steps_to_target: null if it was not reached, or if there is no target.
        counts: `COUNTS`, `AS_TEXT` and the facts of the first step.
        class_hits: class -> [evaluation rows of it that are predicted right, its rows]; empty for
            what is no classification.
        memory: `MEMORY`, in bytes.
        errors: `ERRORS`, differences of a logit.
        step_seconds: median of the timed steps.
        rounds: every ok attempt in the order they were made.
    """

    cell: Cell
    task: str
    seed: int
    status: str
    status_reason: str
    device: str
    threads: int
    config: Mapping[str, Scalar]
    environment: Environment
    finished_at: str
    metric: str
    value: float | None = None
    baseline_value: float | None = None
    loss: float | None = None
    collapsed: bool | None = None
    has_target: bool = False
    steps_to_target: int | None = None
    eval_every: int = 1
    bits: str = ""
    initial: str = ""
    counts: Mapping[str, Scalar] = field(default_factory=dict)
    class_hits: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    memory: Mapping[str, int | None] = field(default_factory=dict)
    errors: Mapping[str, float | None] = field(default_factory=dict)
    step_seconds: float | None = None
    rounds: tuple[Round, ...] = ()

    @property
    def key(self) -> Key:
        """What pairs it."""
        return self.cell, self.task, self.seed

    @property
    def ok(self) -> bool:
        """Whether the run finished and is valid."""
        return self.status == "ok"

    @property
    def peak(self) -> int | None:
        """The headline peak of memory: live tensor bytes on a CPU, torch's peak on a GPU."""
        on_cpu = self.device == "cpu"
        value = self.counts.get("live_bytes") if on_cpu else self.memory.get(MEMORY[0])
        return value if isinstance(value, int) else None

    @property
    def numeric(self) -> dict[str, Scalar]:
        """What decides the bits beside the configuration: code, versions and kind of machine."""
        made = self.environment
        base = quantization_of(self.cell.quantization)
        optional = [base.optional] if base is not None and base.optional else []
        names = (*NUMERIC, *optional)
        facts: dict[str, Scalar] = {name: made.versions.get(name) for name in names}
        facts |= {source_key(name): digest for name, digest in made.sources.items()}
        facts |= {"device": self.device, "threads": self.threads}
        return facts | self.machine

    @property
    def machine(self) -> dict[str, Scalar]:
        """The kind of machine: what decides bits, and with the same load also times."""
        return kind_of(self.environment)


def line_of(record: Record, rounds: tuple[Round, ...] = ()) -> Line:
    """The line of a stored row."""
    job, outcome = record.job, record.outcome
    line = Line(
        cell=job.cell,
        task=job.task,
        seed=job.seed,
        status=outcome.status,
        status_reason=" ".join(outcome.status_reason.split())[:200],
        device=job.device,
        threads=job.threads,
        config=config_of(job),
        environment=record.environment,
        finished_at=record.finished_at,
        metric=job.metric,
    )
    if not record.ok:
        return line
    return replace(
        line,
        value=_finite(outcome.metric_value),
        baseline_value=_finite(outcome.baseline_value),
        loss=_finite(outcome.loss),
        collapsed=outcome.collapsed,
        has_target=job.target is not None,
        steps_to_target=outcome.steps_to_target,
        eval_every=job.recipe.eval_every,
        bits=_bits(outcome),
        initial=(outcome.initial_weights_hash or "")[:16],
        counts=_counts(outcome),
        class_hits=class_hits(record),
        memory={name: getattr(outcome, name) for name in MEMORY},
        errors={name: _finite(getattr(outcome, name)) for name in ERRORS},
        step_seconds=_finite(outcome.step_seconds_p50),
        rounds=rounds or (round_of(record),),
    )


def _finite(value: float | None) -> float | None:
    """A number, or None for what is none."""
    return value if value is not None and math.isfinite(value) else None


def round_of(record: Record) -> Round:
    """The times of one attempt."""
    return Round(record.started_at, record.finished_at, record.outcome.step_seconds_p10)


def config_of(job: Job) -> dict[str, Scalar]:
    """Everything that was asked for, as dotted name -> value."""
    asked = json.loads(job.to_json())
    return dict(sorted(_flat({k: v for k, v in asked.items() if k not in ELSEWHERE})))


def _flat(value: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Scalar]]:
    for name, item in value.items():
        at = f"{path}{name}"
        if isinstance(item, dict):
            yield from _flat(item, f"{at}.")
        elif isinstance(item, list):
            yield at, json.dumps(item)
        else:
            yield at, item


def _bits(outcome: Outcome) -> str:
    """First 16 hex digits of a SHA-256 over scores, losses, norms, ranks and weights."""
    points = [{k: v for k, v in vars(p).items() if k != "seconds"} for p in outcome.curve]
    seen = [
        points,
        outcome.metrics,
        outcome.initial_weights_hash,
        outcome.final_weights_hash,
        outcome.batch_order_hash,
        outcome.rank_history,
    ]
    return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()[:16]


def _counts(outcome: Outcome) -> dict[str, Scalar]:
    found: dict[str, Scalar] = {name: getattr(outcome, name) for name in COUNTS}
    counts = {n: _finite(v) if isinstance(v, float) else v for n, v in found.items()}
    counts["batch_order_hash"] = (outcome.batch_order_hash or "")[:16] or None
    for name in AS_TEXT:
        several: dict[str, int] = getattr(outcome, name)
        counts[name] = "; ".join(f"{key}: {n:,}" for key, n in several.items()) or None
    return counts | {f"{FIRST_STEP}{name}": v for name, v in outcome.first_step.items()}


def class_hits(record: Record) -> dict[str, tuple[int, int]]:
    """Class -> evaluation rows of it that are predicted right, and its rows: recall as counts."""
    outcome = record.outcome
    shown = (len(outcome.predictions), len(outcome.references))
    if not outcome.class_rows or set(shown) != {outcome.eval_rows}:  # several labels are no class
        return {}
    found: dict[str, list[int]] = {}
    for said, wanted in zip(outcome.predictions, outcome.references, strict=True):
        hits = found.setdefault(str(int(wanted)), [0, 0])
        hits[0] += said == wanted
        hits[1] += 1
    return {name: (right, rows) for name, (right, rows) in sorted(found.items())}


def changed(before: Mapping[str, Scalar], after: Mapping[str, Scalar]) -> tuple[str, ...]:
    """The names whose values differ, and those that only one side has."""
    names = dict.fromkeys([*before, *after])
    absent = object()
    return tuple(n for n in names if before.get(n, absent) != after.get(n, absent))

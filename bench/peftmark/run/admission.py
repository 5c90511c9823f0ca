"""What jobs need before anything is known of them: to place them, and to refuse what can't fit.

A job that has run tells what it took. For the others a rough bound, far above what a step takes,
says whether memory could matter at all; only then are steps predicted (`peftmark.memory.forecast`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from peftmark.catalog.architectures import OF_MODELS, sizes_of
from peftmark.executors.contract import needs_of
from peftmark.machine.gpus import room
from peftmark.memory.forecast import Forecast, forecasts, request
from peftmark.record.job import Job, Record

PROCESS_BYTES = 620_000_000
"""Resident memory of a worker on a CPU before its first step (`rss_before_train_bytes` of the rows
in docs/example: 604 to 616 MB, their small model included)."""

SHORTEST = 8
"""Tokens of a batch below which no task's longest rows are: what doesn't fit then, never will."""

_ROUNDING = 4
"""How far a process may exceed its tensors on a CPU: freed memory that the C library keeps."""


@dataclass(frozen=True)
class Foreseen:
    """What was found out before the first job starts.

    Attributes:
        needs: `needs_of(job)` -> bytes of memory that such a job takes at least.
        refused: `needs_of(job)` -> why it can't run here, and what would change that.
    """

    needs: dict[str, int] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def needs_seen(records: Iterable[Record]) -> dict[str, int]:
    """Memory that earlier jobs took, by what decides it."""
    found: dict[str, int] = {}
    for record in records:
        taken = record.outcome.vmhwm_bytes
        if taken is not None:
            key = needs_of(record.job)
            found[key] = max(found.get(key, 0), taken)
    return found


def foresee(
    jobs: Iterable[Job],
    known: Mapping[str, int],
    at_once: int,
    memory: int | None,
    cache: Path | None,
    shapes: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
) -> Foreseen:
    """What jobs will need on this machine.

    Args:
        known: `needs_of(job)` -> bytes, from earlier runs.
        at_once: jobs that share the memory.
        memory: bytes of the machine, or of its largest GPU for jobs on one; None if not known.
        shapes: configurations of the user's own models, by model.
    """
    found = Foreseen()
    every = {**OF_MODELS, **shapes}
    unknown = {
        needs_of(job): job for job in jobs if needs_of(job) not in known and job.model in every
    }
    if memory is None or all(
        rough_bytes(job, every[job.model]) * at_once <= memory for job in unknown.values()
    ):
        return found
    told = predicted(unknown, cache, every)
    too_large = {}
    for key, one in told.items():
        if not one.reason:
            found.needs[key] = _needed(unknown[key], one)
            if found.needs[key] > memory:
                too_large[key] = unknown[key]
    shortest = predicted(too_large, cache, every, SHORTEST, memory)
    for key, one in shortest.items():
        if not one.reason and _needed(too_large[key], one) > memory:
            found.refused[key] = _refusal(too_large[key], one, memory)
    return found


def rough_bytes(job: Job, shape: Mapping[str, Any] | None = None) -> float:
    """More than a job can take: every weight trained, and 80 numbers kept for each of a layer's
    outputs, in fp32; infinity for a configuration that doesn't tell its sizes."""
    sizes = sizes_of(OF_MODELS[job.model] if shape is None else shape)
    if sizes is None:
        return math.inf
    layers, width, heads = sizes
    tokens = job.recipe.batch_size * job.recipe.max_length
    kept = layers * tokens * (80 * width + 12 * heads * job.recipe.max_length)
    tensors = 24 * job.model_facts.parameters + 4 * kept
    return tensors if job.device == "cuda" else _ROUNDING * tensors + PROCESS_BYTES


def predicted(
    jobs: Mapping[str, Job],
    cache: Path | None,
    shapes: Mapping[str, Mapping[str, Any]],
    tokens: int | None = None,
    memory: int | None = None,
) -> dict[str, Forecast]:
    """The steps of jobs, each under the key of its job.

    Args:
        shapes: configuration of every model.
        tokens: of a row, at most; None for the recipe's own.
        memory: bytes to look for what fits into, with shorter rows; None not to look.
    """
    asked = []
    for job in jobs.values():
        one = request(job, job.task_facts, shapes[job.model])
        if tokens is not None and memory is not None:
            one = replace(one, tokens=min(tokens, one.tokens), room=_room(job, memory))
        asked.append(one)
    return dict(zip(jobs, forecasts(asked, cache), strict=True))


def _room(job: Job, memory: int) -> int:
    return room(memory) if job.device == "cuda" else max(0, memory - PROCESS_BYTES)


def _needed(job: Job, told: Forecast) -> int:
    """Bytes of the device, at least."""
    return told.allocated if job.device == "cuda" else told.total + PROCESS_BYTES


def _refusal(job: Job, told: Forecast, memory: int) -> str:
    gib = 2**30
    left = _room(job, memory)
    where = "GPU" if job.device == "cuda" else "machine"
    helps = [f"{name} ({n / gib:.1f} GiB)" for name, n in told.changes.items() if n <= left]
    if told.largest_rows:
        helps.append(f"a batch of {told.largest_rows} at most")
    advice = f"it would fit with {' or '.join(helps)}" if helps else "no single change makes it fit"
    return (
        f"a step's tensors take {told.allocated / gib:.1f} GiB even with rows of {SHORTEST} "
        f"tokens, as predicted, and the {where} has {memory / gib:.1f} GiB; {advice}"
    )

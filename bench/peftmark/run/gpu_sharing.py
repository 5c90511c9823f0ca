"""What jobs that share a GPU take of its memory, and which of them are timed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftmark.catalog.architectures import OF_MODELS
from peftmark.executors.contract import needs_of
from peftmark.executors.slots import device_bytes
from peftmark.machine.gpus import ALLOCATOR_SHARE, CONTEXT_BYTES, WORKSPACE_BYTES
from peftmark.memory.forecast import Forecast
from peftmark.record.job import Job, Record
from peftmark.run.admission import predicted
from peftmark.run.own_models import shapes_of

if TYPE_CHECKING:
    from peftmark.run.runner import Plan


def of_order(plan: Plan, jobs: Sequence[Job]) -> dict[str, Any]:
    """The fields of an order (`executors.contract.Order`) that are about shared GPUs."""
    return {"on_device": on_device(plan, jobs), "untimed": untimed(plan, jobs)}


def on_device(plan: Plan, jobs: Sequence[Job]) -> dict[str, int]:
    """What the jobs take of a GPU, as `gpu_needs` tells it; nothing where none is shared."""
    if not any(slot.shared for slot in plan.slots):
        return {}
    records = plan.contents.records.values()
    return gpu_needs(jobs, records, plan.places.cache, shapes_of(plan.own_files))


def gpu_needs(
    jobs: Iterable[Job],
    records: Iterable[Record],
    cache: Path | None,
    shapes: Mapping[str, Mapping[str, Any]],
) -> dict[str, int]:
    """`needs_of(job)` -> bytes of a GPU that such a job's process takes: what its step is predicted
    to, or what earlier jobs took where that is more. One that can't be predicted and never ran is
    missing.

    Args:
        cache: of predictions.
        shapes: configurations of the user's own models, by model.
    """
    every = {**OF_MODELS, **shapes}
    kinds = {needs_of(job): job for job in jobs if job.model in every}
    told = predicted(kinds, cache, every)
    found = {key: process_bytes(one) for key, one in told.items() if not one.reason}
    for record in records:
        taken = device_bytes(record.nvml_process_bytes, record.outcome)
        if taken is not None:
            key = needs_of(record.job)
            found[key] = max(found.get(key, 0), taken)
    return found


def process_bytes(told: Forecast) -> int:
    """Bytes of a GPU that a process takes whose step is predicted: tensors in the allocator's
    blocks, what the driver may page out, workspaces, and a CUDA context."""
    tensors = told.allocated + told.paged
    return round(tensors * (1 + ALLOCATOR_SHARE)) + WORKSPACE_BYTES + CONTEXT_BYTES


def untimed(plan: Plan, jobs: Sequence[Job]) -> frozenset[str]:
    """Jobs that the profile wants no timed stretch of, where they share a GPU."""
    profile = plan.suite.profiles[plan.profile]
    if profile.timed_seeds == "all":
        return frozenset()
    return frozenset(job.job_id for job in jobs if job.seed != profile.seeds[0])

"""From a suite to jobs, and from jobs and earlier records to what would run and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from bench.catalog import MODELS
from bench.data import expected_fingerprint
from bench.environment import changed_versions
from bench.errors import UserError
from bench.record import Job, Recipe, Record
from bench.schema import Profile
from bench.suite import Suite, resolve_recipe, task_of
from bench.tasks import TASKS

THREADS = 1
"""Torch threads of a worker. Their number changes bits, and contending threads slow down."""


@dataclass(frozen=True)
class Facts:
    """What decides which profile is chosen.

    Attributes:
        gpus: CUDA devices seen by NVML.
        data: whether rows can be had (a mirror, or a hub that answers), and how it's known.
    """

    gpus: int
    data: bool
    data_reason: str


@dataclass(frozen=True)
class Planned:
    """A job with the decision about it.

    Attributes:
        reason: why, in words: "new", "ok in attempt 1", "attempt 1 crashed: ...".
    """

    job: Job
    action: Literal["run", "done"]
    reason: str


def choose_profile(suite: Suite, wanted: str | None, facts: Facts) -> tuple[str, str]:
    """The profile to use and why: the wanted one, or the first whose needs are met.

    Raises:
        UserError: unknown profile, or none fits this machine.
    """
    if wanted is not None:
        if wanted not in suite.profiles:
            known = ", ".join(suite.profiles)
            raise UserError(
                f"suite {suite.name} has no profile {wanted!r}", f"Its profiles: {known}."
            )
        return wanted, "as asked"
    reasons = []
    for name, profile in suite.profiles.items():
        met, why = _needs_met(profile, facts)
        reasons.append(f"{name}: {why}")
        if met:
            return name, "; ".join(reasons)
    raise UserError(
        f"no profile of suite {suite.name} fits this machine ({'; '.join(reasons)})",
        "Name one with --profile (make: PROFILE=...).",
    )


def _needs_met(profile: Profile, facts: Facts) -> tuple[bool, str]:
    if profile.needs == "gpu":
        if not facts.gpus:
            return False, "no CUDA device"
        return facts.data, f"{facts.gpus} CUDA devices, {facts.data_reason}"
    if profile.needs == "data":
        return facts.data, facts.data_reason
    return True, "runs anywhere"


def expand(suite: Suite, profile_name: str, device: Literal["cpu", "cuda"]) -> list[Job]:
    """Every job of a profile: seeds outermost, so that a run cut short has whole comparisons."""
    profile = suite.profiles[profile_name]
    model = MODELS[profile.model]
    resolved: dict[tuple[str, str, int | None, str], Recipe] = {}
    cells = []
    for entry in suite.methods(profile_name):
        for method, rank, quantization in entry.cells():
            cells.append((method, rank, quantization))
            for task in profile.tasks:
                recipe = resolve_recipe(
                    suite.file, profile, entry, rank, quantization, task, _no_fault
                )
                if recipe is not None:
                    resolved[task, method, rank, quantization] = recipe
    return [
        Job(
            suite=suite.name,
            suite_version=suite.version,
            profile=profile_name,
            model=model.key,
            model_identity=model.weights_sha256,
            task=task,
            task_version=TASKS[task].version,
            data_fingerprint=expected_fingerprint(task_of(profile, task)),
            metric=TASKS[task].metric,
            target=profile.tasks[task].target,
            method=method,
            rank=rank,
            quantization=quantization,
            seed=seed,
            device=device,
            threads=THREADS,
            recipe=resolved[task, method, rank, quantization],
        )
        for seed in profile.seeds
        for task in profile.tasks
        for method, rank, quantization in cells
    ]


def _no_fault(where: str, what: str) -> None:
    raise AssertionError(f"a checked suite has no faults, yet {where}: {what}")


def decide(
    jobs: Sequence[Job], records: Mapping[str, Record], versions: Mapping[str, str], again: bool
) -> list[Planned]:
    """What would run: jobs without an `ok` record made with these library versions.

    Args:
        jobs: all jobs of the profile.
        records: job id -> the record that counts (last ok attempt, else last attempt).
        versions: installed package versions.
        again: run finished jobs too.
    """
    return [_decide(job, records.get(job.job_id), versions, again) for job in jobs]


def _decide(job: Job, record: Record | None, versions: Mapping[str, str], again: bool) -> Planned:
    if record is None:
        return Planned(job, "run", "new")
    if not record.ok:
        reason = record.outcome.status_reason.splitlines()
        detail = f": {reason[0]}" if reason else ""
        status = record.outcome.status
        return Planned(job, "run", f"attempt {record.attempt} {status}{detail}")
    changed = changed_versions(record.environment.versions, versions)
    if changed:
        return Planned(job, "run", f"made with other versions: {changed}")
    if again:
        return Planned(job, "run", f"ok in attempt {record.attempt}, run again as asked")
    return Planned(job, "done", f"ok in attempt {record.attempt}")

"""From a suite to jobs, and from jobs and earlier records to what would run and why."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from peftmark.catalog.absent import Kind
from peftmark.catalog.methods import Cell, known_method
from peftmark.catalog.models import Model
from peftmark.catalog.prompts import prompt_of
from peftmark.catalog.task import Task, expected_fingerprint
from peftmark.core.errors import Exit, UserError
from peftmark.machine.environment import changed_versions
from peftmark.record.job import Device, Job, Record
from peftmark.record.own import carried
from peftmark.record.own_model import carried_model
from peftmark.record.plugin import note, used
from peftmark.record.recipe import Causal
from peftmark.suite.added_seeds import with_looks
from peftmark.suite.checks import new_tokens
from peftmark.suite.equal_tuning import rates_text, tuned
from peftmark.suite.load import Suite
from peftmark.suite.recipes import cells, resolve_recipe
from peftmark.suite.schema import Profile
from peftmark.suite.search import left_out
from peftmark.suite.trials import Choice

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
        reason: why, in words: "new", "ok in attempt 1", "attempt 1 crashed: ...", or what of the
            configuration a row in its place was made with.
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
    if profile.long:
        return False, "long, so only by name"
    if profile.needs in ("gpu", "device"):
        if not facts.gpus:
            return False, "no CUDA device"
        if profile.needs == "device":
            return True, f"{facts.gpus} CUDA devices"
        return facts.data, f"{facts.gpus} CUDA devices, {facts.data_reason}"
    if profile.needs == "data":
        return facts.data, facts.data_reason
    return True, "runs anywhere"


@dataclass(frozen=True)
class Expanded:
    """The jobs of a profile as far as they are known.

    Attributes:
        jobs: in running order: trials, reported jobs, the repeat.
        waits: stand-ins for the jobs that are not among them yet, since trials that choose their
            settings are still to be made: later trials, and reported jobs, with settings that may
            not be theirs.
        choices: what the trials say so far.
        left_out: cells that the profile's search does not go on with, by their trials.
    """

    jobs: list[Job]
    waits: list[Job]
    choices: dict[tuple[Cell, str], Choice]
    left_out: tuple[Cell, ...] = ()

    @property
    def waiting(self) -> int:
        """Number of jobs that are not known yet."""
        return len(self.waits)

    def untuned(self, job: Job) -> bool:
        """Whether the job should have been tuned, but no trial of its cell and task finished."""
        choice = self.choices.get((job.cell, job.task))
        return job.purpose != "tuning" and choice is not None and choice.chosen is None


def expand(
    suite: Suite,
    profile_name: str,
    device: Device,
    records: Mapping[str, Record] | None = None,
) -> Expanded:
    """Every job of a profile: seeds outermost, so that a run cut short has whole comparisons.

    Args:
        records: job id -> the record that counts; the trials among them choose learning rates.
    """
    for job in _in_time(profile_name, records or {}):
        note(job.plugins, newest=True)
    profile = suite.profiles[profile_name]
    base = _base_jobs(suite, profile_name, device)
    trials = tuned(suite, profile_name, base, records or {})
    best = profile.tuning.best if profile.tuning is not None else None
    behind = left_out(trials.choices, trials.made, best, suite.report.reference)
    base = [job for job in base if job.cell not in behind]
    reported = [replace(job, seed=seed) for seed in profile.seeds for job in base]
    wanted = [*reported, replace(_repeated(base), seed=profile.seeds[0], purpose="repeat")]
    jobs, waits = list(trials.trials), list(trials.later)
    for job in wanted:
        recipe = trials.recipes.get((job.cell, job.task), job.recipe)
        if recipe is None:
            waits.append(job)
        else:
            jobs.append(replace(job, recipe=recipe))
    return Expanded(jobs, waits, trials.choices, behind if trials.made else ())


def as_recorded(suite: Suite, profile_name: str, records: Mapping[str, Record]) -> Expanded:
    """The jobs of a profile on the device that made most of the rows, not on this machine's, and
    with the user's own models and tasks as the newest rows have them, or as the suite knows them.

    Raises:
        UserError: such a model or task has no row, and its files were not read.
    """
    models = {**suite.models, **recorded_models(suite, profile_name, records)}
    _all_recorded(suite, profile_name, "model", suite.own_models(profile_name), models)
    suite = suite.with_models(models)
    if own := suite.own_tasks(profile_name):
        known = {**suite.own, **recorded_tasks(suite, profile_name, records)}
        _all_recorded(suite, profile_name, "task", own, known)
        suite = suite.with_tasks(known)
    devices = sorted({r.job.device for r in records.values()}) or ["cpu"]
    plans = [expand(suite, profile_name, device, records) for device in devices]
    best = max(plans, key=lambda plan: sum(job.job_id in records for job in plan.jobs))
    return replace(best, jobs=list(with_looks(best.jobs, records, profile_name)))


def _all_recorded(
    suite: Suite, profile: str, what: str, wanted: Sequence[str], known: Mapping[str, object]
) -> None:
    if missing := [name for name in wanted if name not in known]:
        raise UserError(
            f"there is no row of {what} {', '.join(missing)} in profile {profile}",
            f"Run it first: peftmark run {suite.name} --profile {profile}.",
            code=Exit.INCOMPLETE,
        )


def recorded_models(suite: Suite, profile: str, records: Mapping[str, Record]) -> dict[str, Model]:
    """The suite's own models as their newest rows have them."""
    jobs = _in_time(profile, records)
    return {
        job.model: job.model_facts
        for job in jobs
        if job.own_model is not None and job.model in suite.file.models
    }


def recorded_tasks(suite: Suite, profile: str, records: Mapping[str, Record]) -> dict[str, Task]:
    """The suite's own tasks as their newest rows have them."""
    jobs = _in_time(profile, records)
    return {
        job.task: job.task_facts
        for job in jobs
        if job.own is not None and job.task in suite.file.tasks
    }


def _in_time(profile: str, records: Mapping[str, Record]) -> list[Job]:
    """The jobs of a profile's rows, the newest last."""
    in_time = sorted(records.values(), key=lambda r: (r.finished_at, r.job.job_id))
    return [record.job for record in in_time if record.job.profile == profile]


def _base_jobs(suite: Suite, profile_name: str, device: Device) -> list[Job]:
    """One job a task and cell, with the first seed."""
    profile = suite.profiles[profile_name]
    return [
        Job(
            suite=suite.name,
            suite_version=suite.version,
            profile=profile_name,
            model=model.key,
            model_identity=model.identity,
            task=task.key,
            task_version=task.version,
            data_fingerprint=expected_fingerprint(task),
            metric=task.metric,
            target=profile.tasks[task.key].target,
            method=cell.method,
            size=cell.size,
            quantization=cell.quantization,
            variant=cell.variant,
            seed=profile.seeds[0],
            device=device,
            threads=THREADS,
            recipe=resolve_recipe(suite.file, profile, entry, cell, task),
            causal=_causal(suite, profile, task) if model.causal else None,
            own=carried(task),
            own_model=carried_model(model),
            plugins=used(_names(suite, cell, task, model)),
            scale=profile.scale or "reduced",
            rates=rates_text(profile),
        )
        for task in map(suite.task, profile.tasks)
        for entry in suite.methods(profile_name)
        for model in [suite.model(profile.model_of(entry))]
        for cell in cells(entry, profile)
    ]


def _names(suite: Suite, cell: Cell, task: Task, model: Model) -> Iterator[tuple[Kind, str]]:
    """What a job names that may be a plug-in's."""
    yield "method", cell.method
    yield "quantization", cell.quantization
    for key in (task.metric, *task.also):
        yield "metric", key
    own: tuple[tuple[Kind, str], ...] = (("task", task.key), ("model", model.key))
    yield from (name for name in own if name in suite.plugged)


def _causal(suite: Suite, profile: Profile, task: Task) -> Causal:
    """How the profile asks a causal language model."""
    assert profile.unrelated is not None
    unrelated = expected_fingerprint(suite.task(profile.unrelated))
    prompt = prompt_of(task)
    return Causal(
        prompt=prompt.identity if prompt is not None else "",
        new_tokens=new_tokens(profile, task),
        unrelated=f"{profile.unrelated}:{unrelated}",
    )


def _repeated(base: Sequence[Job]) -> Job:
    """The job to run twice: of the cell with most moving parts, on the cheapest task."""

    def parts(at: int) -> tuple[bool, bool, int, int]:
        method = known_method(base[at].method)
        return method.family != "reference", method.trains, len(method.hooks), at

    most = base[max(range(len(base)), key=parts)]
    of_cell = [job for job in base if job.cell == most.cell]
    return min(of_cell, key=lambda job: job.recipe.steps * job.recipe.batch_size)


def of_versions(records: Mapping[str, Record], versions: Mapping[str, str]) -> dict[str, Record]:
    """The records made with these library versions."""
    return {
        job_id: record
        for job_id, record in records.items()
        if not changed_versions(record.environment.software, versions)
    }


def decide(
    jobs: Sequence[Job], records: Mapping[str, Record], versions: Mapping[str, str], again: bool
) -> list[Planned]:
    """What would run: jobs without an `ok` record made with these library versions.

    Args:
        jobs: all jobs of the profile.
        records: job id -> the record that counts (last ok attempt, else last attempt).
        versions: installed package versions, and hashes (`peftmark.machine.environment.software`).
        again: run finished jobs too.
    """
    in_time = sorted(records.values(), key=lambda r: (r.finished_at, r.job.job_id))
    planned = {job.job_id for job in jobs}
    before = {_place(old.job): old for old in in_time if old.job.job_id not in planned}
    decided = []
    for job in jobs:
        record = records.get(job.job_id)
        if record is None:
            decided.append(Planned(job, "run", _why_new(job, before.get(_place(job)))))
        else:
            decided.append(_decide(job, record, versions, again))
    return decided


def _place(job: Job) -> tuple[Any, ...]:
    """What a job measures, whatever its configuration; of a trial its learning rate as well."""
    rate = job.recipe.learning_rate if job.purpose == "tuning" else None
    where = (job.profile, job.purpose, job.model, job.device, job.task)
    return (*where, job.cell, job.seed, rate)


def _why_new(job: Job, before: Record | None) -> str:
    """Why a job without a row is to run, where a row of an older configuration is in its place."""
    if before is None:
        return "new"
    old, new = (_flat(json.loads(one.to_json())) for one in (before.job, job))
    changed = [
        f"{name} {json.dumps(old.get(name))} -> {json.dumps(new.get(name))}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]
    more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
    what = ", ".join(changed[:3]) + more or f"as schema {before.schema} wrote it"
    return f"new: {before.job.job_id} is of an older configuration ({what})"


def _flat(config: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """A configuration by dotted names."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        deeper = isinstance(value, dict) and value
        found |= _flat(value, f"{before}{name}.") if deeper else {f"{before}{name}": value}
    return found


def _decide(job: Job, record: Record, versions: Mapping[str, str], again: bool) -> Planned:
    status = record.outcome.status
    if not record.settled:
        reason = record.outcome.status_reason.splitlines()
        detail = f": {reason[0]}" if reason else ""
        return Planned(job, "run", f"attempt {record.attempt} {status}{detail}")
    changed = changed_versions(record.environment.software, versions)
    if changed:
        return Planned(job, "run", f"made with other versions: {changed}")
    if again:
        return Planned(job, "run", f"{status} in attempt {record.attempt}, run again as asked")
    return Planned(job, "done", f"{status} in attempt {record.attempt}")

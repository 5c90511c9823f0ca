"""What the jobs of a plan will take: memory by component, operations, parameters and time.

Memory is that of a step on a batch whose longest row has the recipe's greatest length, the most
there can be. Time is told from rows that this machine has measured, and from nothing else.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from peftmark.catalog.architectures import LANGUAGE_MODELS, OF_MODELS
from peftmark.core.errors import AssetError, UserError
from peftmark.machine.environment import machine
from peftmark.machine.gpus import Device, room
from peftmark.memory.forecast import Forecast, Request, forecasts, request
from peftmark.own.model import read_config
from peftmark.record.job import Job, Record

UNKNOWN = "its architecture is told by its files alone; give its config.json as --model"


@dataclass(frozen=True)
class Outlook:
    """What a cell takes on a task.

    Attributes:
        job: one of its jobs.
        fits: whether its tensors fit the device; None if no device was named or nothing could be
            predicted.
        seconds: of a job's training steps; None if no row tells.
        basis: what the seconds are told from, or why there are none.
    """

    job: Job
    forecast: Forecast
    fits: bool | None
    seconds: float | None
    basis: str


def outlooks(
    jobs: Iterable[Job],
    records: Mapping[str, Record],
    cache: Path | None,
    device: Device | None = None,
    model: str | None = None,
    shapes: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    heard: Callable[[int, int], None] = lambda done, total: None,
) -> list[Outlook]:
    """An outlook for every cell and task of the jobs that enter comparisons.

    Args:
        records: job id -> the record that counts.
        device: the GPU to plan for; None for the device that the jobs are for.
        model: an architecture by name, `config.json`, folder or `hub:owner/name`, in place of the
            jobs' own.
        shapes: configurations of the user's own models, by model.
        heard: told how many of how many steps are predicted.

    Raises:
        UserError: an architecture that isn't known or can't be read.
    """
    found: dict[tuple[Any, str], Job] = {}
    for job in jobs:
        if job.purpose == "report":
            found.setdefault((job.cell, job.task), job)
    left = room(device.memory_bytes) if device else None
    shape = config_of(model) if model is not None else None
    every = {**OF_MODELS, **shapes}
    asked = [_request(job, shape or every.get(job.model), left) for job in found.values()]
    told = forecasts([one for one in asked if one is not None], cache, heard=heard)
    answers = iter(told)
    told = [Forecast(reason=UNKNOWN) if one is None else next(answers) for one in asked]
    # Rows of another model, or measured elsewhere than on the device, say nothing of time.
    rows = [] if device or model else _rows(records.values())
    return [
        Outlook(job, one, _fits(one, left), *_time(job, one, rows, found.values(), told))
        for job, one in zip(found.values(), told, strict=True)
    ]


def _request(job: Job, shape: Mapping[str, Any] | None, left: int | None) -> Request | None:
    """What to ask for a job; None for an architecture that only its files tell."""
    if shape is None:
        return None
    wanted = job if left is None else replace(job, device="cuda")
    return request(wanted, job.task_facts, shape, left)


def config_of(name: str) -> Mapping[str, Any]:
    """An architecture by its name, or from a `config.json`: that file, the folder of a model, or
    `hub:owner/name` (its newest commit, or the one after an @).

    Raises:
        UserError: it isn't known, or the file can't be read.
    """
    known = OF_MODELS | LANGUAGE_MODELS
    if name in known:
        return known[name]
    path = Path(name).expanduser()
    if name.startswith("hub:"):
        from peftmark.own.model_hub import hub_config

        path = hub_config(name.removeprefix("hub:"))
    elif path.is_dir():
        path = path / "config.json"
    elif path.suffix != ".json":
        raise UserError(
            f"model {name!r} is neither an architecture that peftmark knows nor a config.json",
            f"Known: {', '.join(known)}; or give a model's folder or config.json, or "
            "hub:owner/name.",
        )
    try:
        config = read_config(path)
    except AssetError as error:
        raise UserError(
            f"{name} is no configuration of a model ({error.what})",
            "Give the config.json that lies beside a model's weights; it names a model_type.",
        ) from error
    shape: Mapping[str, Any] = config
    return shape


def _fits(one: Forecast, left: int | None) -> bool | None:
    return None if left is None or one.reason else one.allocated <= left


def _rows(records: Iterable[Record]) -> list[Record]:
    """Rows measured on this machine, with the time of a step."""
    here = machine()
    return [
        record
        for record in records
        if record.ok and record.outcome.step_seconds_p50 and record.environment.machine == here
    ]


def _time(
    job: Job,
    forecast: Forecast,
    rows: Sequence[Record],
    jobs: Iterable[Job],
    told: Sequence[Forecast],
) -> tuple[float | None, str]:
    """Seconds of a job's steps, and what they are told from."""
    same = [row for row in rows if (row.job.cell, row.job.task) == (job.cell, job.task)]
    steps = job.recipe.steps
    if same:
        seconds = statistics.median(row.outcome.step_seconds_p50 or 0.0 for row in same)
        return steps * seconds, f"{_count(same)} of this cell and task"
    work = {(other.cell, other.task): one.flops for other, one in zip(jobs, told, strict=True)}
    # Steps of the other cells on this task, by what they compute more or less.
    others = [
        (row.outcome.step_seconds_p50 or 0.0) * forecast.flops / work[row.job.cell, row.job.task]
        for row in rows
        if row.job.task == job.task
        and row.job.recipe.precision == job.recipe.precision
        and row.job.recipe.weights == job.recipe.weights
        and work.get((row.job.cell, row.job.task))
    ]
    if not others or not forecast.flops:
        return None, "no row of this machine and task"
    seconds = statistics.median(others)
    return steps * seconds, f"{_count(others)} of other cells on this task, by operations"


def _count(rows: Sequence[Any]) -> str:
    return "one row" if len(rows) == 1 else f"{len(rows)} rows"

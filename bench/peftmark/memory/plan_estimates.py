"""What the jobs of a plan will take: memory by component, operations and parameters.

Memory is that of a step on a batch whose longest row has the recipe's greatest length, the most
there can be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from peftmark.catalog.architectures import LANGUAGE_MODELS, OF_MODELS
from peftmark.core.errors import AssetError, UserError
from peftmark.machine.accelerators import kind_of
from peftmark.machine.gpus import Device, room
from peftmark.memory.forecast import Forecast, Request, forecasts, request
from peftmark.own.model import read_config
from peftmark.record.job import Job

UNKNOWN = "its architecture is told by its files alone; give its config.json as --model"


@dataclass(frozen=True)
class Outlook:
    """What a cell takes on a task.

    Attributes:
        job: one of its jobs.
        fits: whether its tensors fit the device; None if no device was named or nothing could be
            predicted.
    """

    job: Job
    forecast: Forecast
    fits: bool | None


def outlooks(
    jobs: Iterable[Job],
    cache: Path | None,
    device: Device | None = None,
    model: str | None = None,
    shapes: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    heard: Callable[[int, int], None] = lambda done, total: None,
) -> list[Outlook]:
    """An outlook for every cell and task of the jobs that enter comparisons.

    Args:
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
    told = [
        Forecast(reason=_unknown(job, left)) if one is None else next(answers)
        for job, one in zip(found.values(), asked, strict=True)
    ]
    return [
        Outlook(job, one, _fits(one, left)) for job, one in zip(found.values(), told, strict=True)
    ]


def _request(job: Job, shape: Mapping[str, Any] | None, left: int | None) -> Request | None:
    """What to ask for a job; None for an architecture that only its files tell, and on a device of
    which nothing is predicted."""
    if shape is None or _unpredicted(job, left):
        return None
    wanted = job if left is None else replace(job, device="cuda")
    return request(wanted, job.task_facts, shape, left)


def _unpredicted(job: Job, left: int | None) -> str:
    """Why nothing is predicted of a job's device; empty if it is, or another was asked about."""
    return kind_of(job.device).unpredicted if left is None and job.device != "cpu" else ""


def _unknown(job: Job, left: int | None) -> str:
    return _unpredicted(job, left) or UNKNOWN


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


def ways_to_fit(told: Forecast, left: int, text: Callable[[int], str]) -> list[str]:
    """Single changes that would make a step fit, each with what it then takes where that is known.

    Args:
        left: bytes that a device has for tensors.
        text: of a number of bytes.
    """
    ways = [f"{name} ({text(size)})" for name, size in told.changes.items() if size <= left]
    if told.largest_rows:
        rows = told.largest_rows
        ways.append(f"a batch of {rows:,} row{'' if rows == 1 else 's'} at most")
    if told.largest_tokens:
        ways.append(f"rows of {told.largest_tokens:,} tokens at most")
    return ways


def _fits(one: Forecast, left: int | None) -> bool | None:
    return None if left is None or one.reason else one.allocated <= left

"""Jobs whose rows may be longer than their model has positions for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from peftmark.catalog.architectures import OF_MODELS
from peftmark.catalog.methods import cell_title, method_of
from peftmark.catalog.peft_types import peft_type
from peftmark.catalog.positions import positions_of
from peftmark.core.errors import SuiteError
from peftmark.record.job import Job

MOST_FAULTS = 5


def check_positions(jobs: Iterable[Job], shapes: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What to tell of jobs whose rows may be longer than their model was trained on.

    Args:
        shapes: model of the user's own -> its configuration, where it was read.

    Raises:
        SuiteError: rows may be longer than the model has positions for, on the catalogue's models
            and on the user's own.
    """
    reach = {name: positions_of(config) for name, config in {**OF_MODELS, **shapes}.items()}
    faults: dict[str, None] = {}
    notes: dict[str, None] = {}
    least: dict[str, int] = {}
    for job in jobs:
        found = reach.get(job.model)
        virtual, length = virtual_tokens(job), job.recipe.max_length
        if found is None or length + virtual <= found.most:
            continue
        if not found.fixed:
            notes[
                f"{job.task}: max_length {length} is beyond the {found.most} positions that model "
                f"{job.model} was trained on; longer rows run, and may be read badly"
            ] = None
            continue
        room = found.most - virtual
        beside = f" beside {virtual} virtual tokens of {_title(job)}" if virtual else ""
        faults[
            f"tasks.{job.task}: max_length is {length}{beside}; model {job.model} has "
            f"{found.most} positions, so at most {max(0, room)}"
        ] = None
        least[job.model] = min(room, least.get(job.model, room))
    if faults:
        raise _fault(list(faults), least)
    return list(notes)


def _fault(faults: list[str], least: Mapping[str, int]) -> SuiteError:
    more = f"\n... and {len(faults) - MOST_FAULTS} more" if len(faults) > MOST_FAULTS else ""
    what = "rows may be longer than their model has positions for\n"
    limits = " and ".join(f"{room} for {model}" for model, room in least.items() if room > 0)
    lower = f"Set max_length to at most {limits}, or t" if limits else "T"
    return SuiteError(
        what + "\n".join(f"  {fault}" for fault in faults[:MOST_FAULTS]) + more,
        f"{lower}ake fewer virtual tokens or a model with more positions.",
    )


def _title(job: Job) -> str:
    return cell_title(job.method, None, "none")


def virtual_tokens(job: Job) -> int:
    """Positions that a job's method takes before the text; 0 where their number isn't known."""
    method = method_of(job.method)
    kind = peft_type(job.method.removeprefix("peft:")) if job.method.startswith("peft:") else None
    if kind is not None and kind.where == "input" and kind.size == "num_virtual_tokens":
        given = job.size if job.size is not None else job.recipe.options.get(kind.size)
        return given if isinstance(given, int) else 0
    prompt = method is not None and method.family == "prompt"
    return job.size or 0 if prompt else 0

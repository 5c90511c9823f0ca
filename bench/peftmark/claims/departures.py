"""Where what was run is not what a claim's source states: model, tasks, recipe, cells, limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from peftmark.claims.judging import Part
from peftmark.claims.ledger import Claim
from peftmark.claims.stated import recipe_departures
from peftmark.record.job import Job
from peftmark.render import words

NOT_STATED = "not stated"


def is_stated_model(claim: Claim, job: Job) -> bool:
    """Whether the claim is about the model; one of the user's own may be called alike."""
    return job.own_model is None and job.model in claim.setting.models


def jobs_of(parts: Sequence[Part], jobs: Sequence[Job]) -> list[Job]:
    """The jobs of a profile that parts of a claim compare, run or not."""
    wanted = {
        (cell, task)
        for part in parts
        if part.test is not None
        for cell in part.test.cells
        for task in part.tasks
    }
    return [job for job in jobs if job.purpose == "report" and (job.cell, job.task) in wanted]


def departures(claim: Claim, parts: Sequence[Part], tested: Sequence[Job]) -> tuple[str, ...]:
    """Every way in which a verdict is on something else than the source says, in words.

    Args:
        parts: those that rows of the profile test, or all where there are no rows.
        tested: the jobs they compare; empty where there are no rows.
    """
    told = [*_of_jobs(claim, tested)] if tested else []
    told += [part.test.differs for part in parts if part.test is not None and part.test.differs]
    told += [claim.reading] if claim.reading else []
    return tuple(dict.fromkeys(told))


def _of_jobs(claim: Claim, jobs: Sequence[Job]) -> Iterator[str]:
    setting = claim.setting
    others = dict.fromkeys(j.model_name for j in jobs if not is_stated_model(claim, j))
    if others:
        yield _beside("model", list(others), setting.model)
    tasks = list(dict.fromkeys(job.task for job in jobs))
    if set(tasks) != set(setting.task_names):
        yield _beside("tasks", tasks, setting.tasks)
    yield from recipe_departures(setting.recipe, jobs)
    if not setting.recipe.given:
        yield "the source gives no recipe"


def _beside(what: str, found: Sequence[str], stated: str) -> str:
    told = "which the source does not state" if stated == NOT_STATED else f"stated {stated}"
    return f"{what} {words.listing(found)}, {told}"

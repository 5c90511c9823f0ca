"""Where what was run is not what a claim's source states: model, tasks, recipe, cells, limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from peftmark.claims.ledger import Claim
from peftmark.claims.part import Part
from peftmark.claims.stated import StatedRecipe, recipe_departures
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


def recipe_of(claim: Claim, part: Part) -> StatedRecipe:
    """What the source of a part gives of the recipe."""
    own = part.test.recipe if part.test is not None else None
    return claim.setting.recipe if own is None else own


def another_recipe(claim: Claim, parts: Sequence[Part], jobs: Sequence[Job]) -> list[str]:
    """Where recipes of the jobs that parts compare are not the stated ones, in words."""
    by_recipe: dict[StatedRecipe, list[Part]] = {}
    for part in parts:
        by_recipe.setdefault(recipe_of(claim, part), []).append(part)
    return [
        text
        for recipe, of_it in by_recipe.items()
        for text in recipe_departures(recipe, jobs_of(of_it, jobs))
    ]


def departures(claim: Claim, parts: Sequence[Part], jobs: Sequence[Job] = ()) -> tuple[str, ...]:
    """Every way in which a verdict is on something else than the source says, in words.

    Args:
        parts: those that rows of the profile test, or all where there are no rows.
        jobs: the profile's; none where there are no rows.
    """
    tested = jobs_of(parts, jobs)
    told = [*_of_setting(claim, tested)] if tested else []
    told += another_recipe(claim, parts, jobs)
    if tested and not any(recipe_of(claim, part).given for part in parts):
        told.append("the source gives no recipe")
    told += [part.test.differs for part in parts if part.test is not None and part.test.differs]
    told += [claim.reading] if claim.reading else []
    return tuple(dict.fromkeys(told))


def _of_setting(claim: Claim, jobs: Sequence[Job]) -> Iterator[str]:
    setting = claim.setting
    others = dict.fromkeys(j.model_name for j in jobs if not is_stated_model(claim, j))
    if others:
        yield _beside("model", list(others), setting.model)
    tasks = list(dict.fromkeys(job.task for job in jobs))
    if set(tasks) != set(setting.task_names):
        yield _beside("tasks", tasks, setting.tasks)


def _beside(what: str, found: Sequence[str], stated: str) -> str:
    told = "which the source does not state" if stated == NOT_STATED else f"stated {stated}"
    return f"{what} {words.listing(found)}, {told}"

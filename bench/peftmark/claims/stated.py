"""The recipe that a claim's source gives, and where a job's is another."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any

from pydantic import Field

from peftmark.core.strict import Strict
from peftmark.record.job import Job
from peftmark.record.recipe import Optimizer, Precision
from peftmark.suite.schema import Count
from peftmark.suite.schema_runs import Positive


class StatedRecipe(Strict):
    """What a source gives of the recipe, by the names of a suite; what it leaves out is None.

    Attributes:
        train_rows: number of training rows, all of which are used.
    """

    learning_rate: Positive | None = None
    batch_size: Count | None = None
    epochs: Positive | None = None
    steps: Count | None = None
    max_length: Annotated[int, Field(ge=8)] | None = None
    precision: Precision | None = None
    optimizer: Optimizer | None = None
    train_rows: Count | None = None

    @property
    def given(self) -> dict[str, Any]:
        """Setting -> what the source says."""
        return {k: v for k, v in self.model_dump().items() if v is not None}


def trained_rows(job: Job) -> int | None:
    """Distinct training rows of a job; None if its task is in the catalogue no more."""
    recipe, task = job.recipe, job.known_task
    if recipe.train_rows is not None:
        return recipe.train_rows
    return None if task is None else task.train_rows - recipe.selection_rows


def _epochs(job: Job) -> float | None:
    """Passes over the training rows, a begun batch at each one's end counted as a whole one."""
    rows = trained_rows(job)
    if rows is None:
        return None
    return job.recipe.steps / math.ceil(rows / job.recipe.batch_size)


_OF_JOB: Mapping[str, Callable[[Job], float | str | None]] = {
    "epochs": _epochs,
    "train_rows": trained_rows,
}

SAME = 0.05
"""Largest difference of epochs and rows, as a share of the stated ones, that is passed over: rows
kept back for the choice of a step, and numbers that a source rounds."""


def recipe_departures(stated: StatedRecipe, jobs: Iterable[Job]) -> list[str]:
    """Where the recipes of jobs differ from the stated one, in words."""
    jobs = list(jobs)
    told = []
    for name, value in stated.given.items():
        read = _OF_JOB.get(name, lambda job, name=name: getattr(job.recipe, name))
        found = {read(job) for job in jobs}
        if any(not _same(name, one, value) for one in found):
            told.append(f"{name.replace('_', ' ')} {_values(found)}, stated {_text(value)}")
    return told


def _same(name: str, found: float | str | None, value: float | str) -> bool:
    if name in _OF_JOB and isinstance(found, int | float) and isinstance(value, int | float):
        return abs(found - value) <= SAME * value
    return found == value


def _values(found: set[float | str | None]) -> str:
    """The values, from the lowest to the highest where there are several numbers."""
    numbers = sorted(one for one in found if isinstance(one, int | float))
    words = sorted(one for one in found if isinstance(one, str))
    unknown = ["unknown"] if None in found else []
    ends = list(dict.fromkeys(_text(one) for one in (numbers[:1] + numbers[-1:])))
    return " and ".join(filter(None, (" to ".join(ends), *words, *unknown)))


def _text(value: float | str) -> str:
    """A value as a suite writes it: 5e-4, 12, 3.3."""
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    if 0 < abs(value) < 0.01:
        mantissa, exponent = f"{value:.2e}".split("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    return f"{value if abs(value) < 1 else round(value, 1):g}"

"""What the jobs of a plan will take on this machine, before any has run."""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from peftmark.catalog.architectures import OF_MODELS
from peftmark.catalog.methods import Cell, known_method
from peftmark.duration.jobs import START, Costs, Shapes, Step, phases
from peftmark.duration.shapes import NOT_YET, longest_shapes, shapes_of
from peftmark.machine.environment import machine
from peftmark.memory.forecast import Request, forecasts, request
from peftmark.record.job import Job, Record
from peftmark.sources.assets import Places

SHORT = 16
"""Tokens of the shorter of the two batches that every length is told from."""

NO_CONFIG = "its architecture is told by its files alone"
UNCALIBRATED = "this machine is not calibrated"

Key = tuple[Cell, str, str]
"""Cell, task and purpose, which share a prediction; trials of one length alone."""
TRIAL = "tuning"


@dataclass(frozen=True)
class Estimate:
    """Seconds of a job of a cell on a task.

    Attributes:
        phases: phase -> seconds, predicted; empty where nothing could be.
        reason: why not.
        measured: median seconds of jobs of the same cell and task that have run here.
        correction: what predictions have to be multiplied by, as such jobs of the cell on other
            tasks say, or of other cells; 1 if none has run.
        at_most: why rows were taken to be as long as the recipe lets them; empty if they are known.
    """

    phases: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    measured: float | None = None
    correction: float = 1.0
    at_most: str = ""

    @property
    def predicted(self) -> float | None:
        """The whole job, from the work of its steps alone; None where that isn't known."""
        return sum(self.phases.values()) if self.phases else None

    @property
    def seconds(self) -> float | None:
        """The whole job, as far as anybody can say; None if nobody can."""
        if self.measured is not None:
            return self.measured
        return None if self.predicted is None else self.correction * self.predicted


def key_of(job: Job) -> Key:
    """What jobs that share a prediction have in common."""
    purpose = f"{TRIAL}:{job.recipe.steps}" if job.purpose == TRIAL else "report"
    return job.cell, job.task, purpose


def estimates(
    jobs: Iterable[Job],
    costs: Costs | None,
    places: Places,
    configs: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    heard: Callable[[int, int], None] = lambda done, total: None,
    only_kept: bool = False,
) -> dict[Key, Estimate]:
    """An estimate for every cell, task and purpose; of a line that needs no training only what it
    takes to start and to read the rows.

    Args:
        costs: of operations on the device; None if nobody knows them.
        places: where rows are; nothing is fetched.
        configs: configurations of the user's own models, by model.
        heard: told how many of how many steps are predicted.
        only_kept: start no process; what the cache doesn't hold has a reason instead.
    """
    one_each: dict[Key, Job] = {}
    for job in jobs:
        one_each.setdefault(key_of(job), job)
    if costs is None:
        return {key: Estimate(reason=UNCALIBRATED) for key in one_each}
    left = {key: job for key, job in one_each.items() if job.device == costs.device}
    where = "the CPU" if costs.device == "cpu" else "a GPU"
    found = {
        key: Estimate(reason=f"the rates are those of {where}")
        for key in one_each.keys() - left.keys()
    }
    every, shapes = {**OF_MODELS, **configs}, dict[Key, Shapes]()
    told = shapes_of(list(left.values()), places, only_kept=only_kept)
    for (key, job), shape in zip(left.items(), told, strict=True):
        if job.model not in every or shape.reason == NOT_YET:
            found[key] = Estimate(reason=shape.reason or NO_CONFIG)
        elif known_method(job.method).fits:
            start = START[costs.device] + shape.read_seconds
            found[key] = Estimate({"start": start}, at_most=shape.reason)
        else:
            shapes[key] = shape
    asked = {
        key: request(left[key], left[key].task_facts, every[left[key].model])
        for key in shapes
        if known_method(left[key].method).trains
    }
    steps = _steps(asked, costs, places.cache, heard, only_kept)
    for key, shape in shapes.items():
        found[key] = _of_job(left[key], shape, _step_of(key, left, steps))
    return found


_Told = tuple[Step, int] | str
"""A step and the parameters of the model, or why there is none."""


def _steps(
    asked: Mapping[Key, Request],
    costs: Costs,
    cache: Path | None,
    heard: Callable[[int, int], None],
    only_kept: bool,
) -> dict[Key, _Told]:
    """The step that each asks for, told from steps at a few lengths."""
    several = {
        key: [replace(one, tokens=n) for n in _lengths(one.tokens)] for key, one in asked.items()
    }
    wanted = [one for lengths in several.values() for one in lengths]
    told = iter(forecasts(wanted, cache, heard=heard, only_kept=only_kept))
    found: dict[Key, _Told] = {}
    for key, lengths in several.items():
        answers = [next(told) for _ in lengths]
        work = {one.tokens: answer.work for one, answer in zip(lengths, answers, strict=True)}
        step = Step(lengths[0].rows, work, costs), answers[-1].parameters
        found[key] = next((one.reason for one in answers if one.reason), step)
    return found


def _step_of(key: Key, jobs: Mapping[Key, Job], steps: Mapping[Key, _Told]) -> _Told:
    """The step of a job; of one that takes its base as it is that of another on the same base and
    task, whose passes that train nothing are the same."""
    if key in steps:
        return steps[key]
    job = jobs[key]
    alike = (
        told
        for other, told in steps.items()
        if (jobs[other].model, jobs[other].task) == (job.model, job.task)
    )
    return next(
        (told for told in alike if not isinstance(told, str)),
        "no method beside it that trains the same base is predicted",
    )


def _of_job(job: Job, shapes: Shapes, told: _Told) -> Estimate:
    if isinstance(told, str):
        return Estimate(reason=told)
    step, parameters = told
    known = longest_shapes(job) if shapes.reason else shapes
    return Estimate(phases(job, step, known, parameters), at_most=shapes.reason)


def corrected(found: Mapping[Key, Estimate], records: Iterable[Record]) -> dict[Key, Estimate]:
    """Estimates with what jobs took that have run on this machine: each tells of its own cell and
    task, and of how far predictions of the cell's other tasks are off."""
    here, walls = machine(), dict[Key, list[float]]()
    for record in records:
        # Beside others on a GPU a job takes longer, and nobody knows by how much.
        crowded = (record.outcome.jobs_on_gpu or 1) > 1
        if record.ok and record.environment.machine == here and not crowded:
            walls.setdefault(key_of(record.job), []).append(record.wall_seconds)
    measured = {key: statistics.median(seconds) for key, seconds in walls.items()}
    ratios = {
        key: measured[key] / one.predicted
        for key, one in found.items()
        if key in measured and one.predicted
    }
    made = {}
    for key, one in found.items():
        of_cell = [ratio for other, ratio in ratios.items() if other[0] == key[0]]
        told = of_cell or list(ratios.values())
        correction = statistics.median(told) if told else 1.0
        made[key] = replace(one, measured=measured.get(key), correction=correction)
    return made


def _lengths(most: int) -> list[int]:
    """Batch lengths that every other is told from."""
    return sorted({min(SHORT, most), *([most // 4] if most > 256 else []), most})


@dataclass(frozen=True)
class Ended:
    """A job that ended: what it shares a prediction with, what it was predicted to take, and what
    it took."""

    key: Key
    predicted: float
    took: float


def remaining(waiting: Mapping[Key, Sequence[float]], ended: Sequence[Ended]) -> float:
    """Seconds of jobs that are left, one after the other.

    A job takes what jobs of its cell and task took here; else its prediction, multiplied by how far
    off those of the cell were, or else those of all cells.

    Args:
        waiting: predictions of the jobs that are left.
        ended: jobs of the same run.
    """
    took: dict[Key, list[float]] = {}
    ratios: dict[Cell, list[float]] = {}
    for one in ended:
        took.setdefault(one.key, []).append(one.took)
        if one.predicted > 0:
            ratios.setdefault(one.key[0], []).append(one.took / one.predicted)
    every = [ratio for of_cell in ratios.values() for ratio in of_cell]
    overall = statistics.median(every) if every else 1.0
    total = 0.0
    for key, predictions in waiting.items():
        if key in took:
            total += len(predictions) * statistics.median(took[key])
        else:
            of_cell = ratios.get(key[0])
            total += sum(predictions) * (statistics.median(of_cell) if of_cell else overall)
    return total


def wall_seconds(seconds: Sequence[float], at_once: int) -> float:
    """Seconds until jobs have ended that begin in this order, so many at once."""
    free = [0.0] * max(1, at_once)
    for one in seconds:
        heapq.heapreplace(free, free[0] + one)
    return max(free)

"""What the jobs of a plan will take on this machine, before any has run."""

from __future__ import annotations

import heapq
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from peftmark.catalog.architectures import OF_MODELS
from peftmark.catalog.methods import Cell, known_method
from peftmark.duration.jobs import START, Step, phases
from peftmark.duration.rates import Rates
from peftmark.duration.shapes import shapes_of
from peftmark.machine.environment import machine
from peftmark.memory.forecast import Request, forecasts, request
from peftmark.record.job import Job, Record
from peftmark.sources.assets import Places

SHORT = 16
"""Tokens of the shorter of the two batches that every length is told from."""

UNCALIBRATED = "this machine is not calibrated"

Key = tuple[Cell, str, str]
"""Cell, task and purpose, which share a prediction."""


@dataclass(frozen=True)
class Estimate:
    """Seconds of a job of a cell on a task.

    Attributes:
        phases: phase -> seconds, predicted; empty where nothing could be.
        reason: why not.
        measured: median seconds of jobs of the same cell and task that have run here.
        correction: what predictions have to be multiplied by, as such jobs of the cell on other
            tasks say, or of other cells; 1 if none has run.
    """

    phases: dict[str, float] = field(default_factory=dict)
    reason: str = ""
    measured: float | None = None
    correction: float = 1.0

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
    return job.cell, job.task, job.purpose.replace("repeat", "report")


def estimates(
    jobs: Iterable[Job],
    rates: Rates | None,
    places: Places,
    configs: Mapping[str, Mapping[str, Any]] = MappingProxyType({}),
    heard: Callable[[int, int], None] = lambda done, total: None,
) -> dict[Key, Estimate]:
    """An estimate for every cell, task and purpose; of a line that needs no training only what it
    takes to start and to read the rows.

    Args:
        rates: of this machine; None if it isn't calibrated.
        places: where rows are; nothing is fetched.
        configs: configurations of the user's own models, by model.
        heard: told how many of how many steps are predicted.
    """
    one_each: dict[Key, Job] = {}
    for job in jobs:
        one_each.setdefault(key_of(job), job)
    if rates is None:
        return {key: Estimate(reason=UNCALIBRATED) for key in one_each}
    found = {key: Estimate(reason=why) for key, job in one_each.items() if (why := _refused(job))}
    left = {key: job for key, job in one_each.items() if key not in found}
    shapes = shapes_of(list(left.values()), places)
    every = {**OF_MODELS, **configs}
    asked: dict[Key, list[Request]] = {}
    for (key, job), shape in zip(left.items(), shapes, strict=True):
        config = every.get(job.model)
        if config is None or shape.reason:
            why = shape.reason or "its architecture is told by its files alone"
            found[key] = Estimate(reason=why)
            continue
        if known_method(job.method).fits:
            found[key] = Estimate({"start": START + shape.read_seconds})
            continue
        whole = request(job, job.task_facts, config)
        asked[key] = [replace(whole, tokens=n) for n in _lengths(whole.tokens)]
    told = iter(
        forecasts([one for two in asked.values() for one in two], places.cache, heard=heard)
    )
    of_shape = dict(zip(left, shapes, strict=True))
    for key, several in asked.items():
        answers = [next(told) for _ in several]
        why = next((one.reason for one in answers if one.reason), "")
        if why:
            found[key] = Estimate(reason=why)
            continue
        work = {one.tokens: answer.work for one, answer in zip(several, answers, strict=True)}
        step = Step(several[0].rows, work, rates)
        found[key] = Estimate(phases(left[key], step, of_shape[key], answers[-1].parameters))
    return found


def corrected(found: Mapping[Key, Estimate], records: Iterable[Record]) -> dict[Key, Estimate]:
    """Estimates with what jobs took that have run on this machine: each tells of its own cell and
    task, and of how far predictions of the cell's other tasks are off."""
    here, walls = machine(), dict[Key, list[float]]()
    for record in records:
        if record.ok and record.environment.machine == here:
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


def _refused(job: Job) -> str:
    """Why a job's time isn't predicted; empty if it is."""
    if job.device != "cpu":
        return "the rates are those of the CPU"
    if not (known_method(job.method).fits or known_method(job.method).trains):
        return "it takes no training step"
    return ""


def _lengths(most: int) -> list[int]:
    """Batch lengths that every other is told from."""
    return sorted({min(SHORT, most), *([most // 4] if most > 256 else []), most})


def wall_seconds(seconds: Sequence[float], at_once: int) -> float:
    """Seconds until jobs have ended that begin in this order, so many at once."""
    free = [0.0] * max(1, at_once)
    for one in seconds:
        heapq.heapreplace(free, free[0] + one)
    return max(free)

"""A few steps on a fresh copy of the job's model, to count what timing must not see.

Counting tensors and operations slows a step down, so it is done apart from the timed ones, on a
model built anew from the same seeds. Nothing here changes a bit of the trained model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

import torch

from peftmark.catalog.task import Task
from peftmark.lab.data.batches import Shape
from peftmark.lab.data.job_data import Work
from peftmark.lab.measure.flop_counter import Operations
from peftmark.lab.memory.live_tensors import LiveBytes, LiveTensors
from peftmark.lab.methods import Prepared
from peftmark.lab.step import Step
from peftmark.lab.team import ALONE, Team
from peftmark.record.job import Job


@dataclass(frozen=True)
class Probed:
    """What the probe steps showed.

    Attributes:
        live: bytes at the peak, on the run's largest batch.
        shapes: of the passes of the two steps whose storages were followed.
        inputs: names of the model's inputs.
        flops: floating-point operations of each training step, by step.
    """

    live: LiveBytes
    shapes: tuple[tuple[Shape, ...], ...]
    inputs: tuple[str, ...]
    flops: tuple[int, ...]


def probe(job: Job, task: Task, prepared: Prepared, work: Work, device: torch.device) -> Probed:
    """Follow storages in two steps, and count operations in them and a third.

    The shortest batch makes the optimizer's states, then the largest has the run's peak; with a
    middling one the operations are known at three lengths. Of several devices the storages are
    those of the last, whose rows are the longest where batches are sorted; the operations are those
    of all, one device's share after the other.

    Args:
        prepared: a model of its own, in the state before the first step.
    """
    lengths = sorted(set(work.longest))
    live = LiveTensors(prepared.model)
    devices = job.recipe.devices
    team = Team(devices - 1, devices) if devices > 1 else ALONE
    step = Step(job, task, prepared, device, passes=live.start_pass, team=team)
    taken = 0

    shapes: list[tuple[Shape, ...]] = []
    inputs: tuple[str, ...] = ()

    def take(length: int) -> None:
        nonlocal taken, inputs
        taken += 1
        batch = work.train(work.longest.index(length))
        parts = step.team.own(batch.parts(job.recipe.device_rows))
        shapes.append(tuple(part.shape for part in parts))
        inputs = tuple(batch.inputs)
        step(taken, batch)

    counted: dict[int, int] = {}

    def count(length: int) -> None:
        with Operations(job) as operations:
            take(length)
        counted[length] = operations.total

    with live:
        for length in (lengths[0], lengths[-1]):
            count(length)
            live.end_step()
    wanted = {lengths[0], lengths[len(lengths) // 2], lengths[-1]}
    if devices > 1:
        counted.clear()
        step.team = ALONE
    for length in sorted(wanted - counted.keys()):
        count(length)
    return Probed(
        live.peak(),
        tuple(shapes[:2]),
        inputs,
        tuple(interpolate(counted, length) for length in work.longest),
    )


def of_both(first: Probed, second: Probed, steps: int) -> Probed:
    """What two stages show together, each probed by itself: the larger peak, and the operations of
    each step.

    Args:
        steps: of the first stage.
    """
    larger = max(first, second, key=lambda one: one.live.total)
    return replace(larger, flops=first.flops[:steps] + second.flops[steps:])


def interpolate(counted: dict[int, int], length: int) -> int:
    """Operations of a step at a batch length, from those counted at up to three lengths.

    Matrix products grow with the tokens, attention with their square, and penalties not at all: a
    polynomial of degree two, which three points fix exactly for a given batch size. Bucketed
    relative positions (DeBERTa) make it an approximation.
    """
    total = Fraction(0)
    for point, value in counted.items():
        term = Fraction(value)
        for other in counted:
            if other != point:
                term *= Fraction(length - other, point - other)
        total += term
    return round(total)

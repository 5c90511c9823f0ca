"""A job's steps without values, whichever bases they are taken on.

A job that changes its base on the way (`peftmark.record.stages`) is two: its peak is the larger of
both, and a step of it is a mean of theirs, by their numbers of steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from peftmark.catalog.task import Task
from peftmark.lab.build import Build
from peftmark.lab.data.batches import Shape
from peftmark.lab.duration.work import Amounts
from peftmark.lab.measure.probe import Probed
from peftmark.lab.memory import fake_step
from peftmark.lab.memory.fake_step import Seen
from peftmark.lab.models import config_for
from peftmark.record.job import Job
from peftmark.record.stages import second_stage


def run(job: Job, task: Task, config: Any, shapes: Sequence[Sequence[Shape]], **more: Any) -> Seen:
    """As `fake_step.run`, of both stages where the second has another base.

    Raises:
        Unsupported, NotSymbolic: see there.
    """
    first = fake_step.run(job, task, config, shapes, **more)
    second = second_stage(job)
    if second is None:
        return first
    other = fake_step.run(second, task, config, shapes, **more)
    return of_both(first, other, second.recipe.steps / job.recipe.steps)


def of_both(first: Seen, second: Seen, share: float) -> Seen:
    """What two stages show together.

    Args:
        share: of all steps, the second stage's.
    """
    larger = max(first, second, key=lambda seen: seen.trace.peak().total)
    flops = None
    if first.flops is not None and second.flops is not None:
        flops = round(_mean(first.flops, second.flops, share))
    return replace(
        larger,
        paged=max(first.paged, second.paged),
        flops=flops,
        pass_flops=round(_mean(first.pass_flops, second.pass_flops, share)),
        trainable=max(first.trainable, second.trainable),
        work=_work(first.work, second.work, share),
    )


def _work(first: Amounts, second: Amounts, share: float) -> Amounts:
    nothing = [0, 0, 0]
    return {
        name: [
            round(_mean(one, other, share))
            for one, other in zip(first.get(name, nothing), second.get(name, nothing), strict=True)
        ]
        for name in dict.fromkeys((*first, *second))
    }


def _mean(first: int, second: int, share: float) -> float:
    return (1 - share) * first + share * second


def predicted_peak(build: Build, probed: Probed) -> int:
    """Bytes at the peak of the steps that a probe took, from the job and its model's configuration.

    Raises:
        Unsupported, NotSymbolic: see `run`.
    """
    config = config_for(build.folder, build.job, max(1, len(build.task.labels)))
    given = "attention_mask" in probed.inputs
    seen = run(build.job, build.task, config, probed.shapes, inputs=probed.inputs, mask_given=given)
    return seen.trace.peak().total

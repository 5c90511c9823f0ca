"""Which base a job of two stages ends on, and the second stage as a job of its own.

Everything after training goes by the base that was trained on last: reloading, merging, timing,
exporting and evaluating what was saved.
"""

from __future__ import annotations

from dataclasses import replace

from peftmark.catalog.methods import known_method
from peftmark.record.job import Job
from peftmark.record.recipe import first_stage_steps

IN_STAGES = ("two-stage", "bitfit-distilled", "diff-pruning-adapter", "growing-lora")
"""Methods whose later steps hold other tensors than the first ones, or take another time."""


def in_stages(job: Job) -> bool:
    """Whether a job's steps are of one kind first and of another later."""
    return job.method in IN_STAGES


def ends_as(job: Job) -> Job:
    """The job on the base that its last stage trains on: one that isn't quantised, of two stages of
    which the second has such a base; every other job as it is."""
    if job.method != "two-stage" or job.quantization == "none":
        return job
    if known_method(job.method).option(job.recipe.options, "second_quantization") == "same":
        return job
    recipe = replace(job.recipe, double_quantization=None)
    return replace(job, quantization="none", recipe=recipe, stored_id=job.job_id)


def second_stage(job: Job) -> Job | None:
    """The second stage as a job of AdaLoRA from its first step, where its base is another than the
    first one's: its steps hold the same tensors. None for every other job."""
    last = ends_as(job)
    if last is job:
        return None
    steps = job.recipe.steps - first_stage_steps(job.recipe.options, job.recipe.steps)
    recipe = replace(last.recipe, steps=steps, options={})
    return replace(last, method="adalora", recipe=recipe)

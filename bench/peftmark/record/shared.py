"""What a row may say of time where its job shared a GPU with others of the run.

Its figures of time are those of a timed stretch that had the device to itself, or none: a number
that neighbours were in says nothing of a method.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from peftmark.record.fields_batch_latency import BATCH_LATENCY, MERGED_BATCH_LATENCY
from peftmark.record.outcome import Outcome

TIMED_STEPS = 50
"""Most steps of a timed stretch."""

BESIDE = "other jobs of the run may have used the GPU meanwhile"
UNTIMED = "the job shared its GPU with others and had no timed stretch"
STAGES = "the steps of a method in two stages change midway, and a timed stretch is of the first"

OF_STRETCH = (
    "train_seconds",
    "step_seconds_p10",
    "step_seconds_p50",
    "step_seconds_p90",
    "cpu_seconds",
    "samples_per_second",
    "tokens_per_second",
    "energy_gpu_joules",
    "energy_cpu_joules",
    "mfu",
)
"""Columns of the timed steps."""
OF_ALONE = (
    *OF_STRETCH,
    "gemm_flops_per_second",
    "latency_p50_seconds",
    "latency_p95_seconds",
    "merged_latency_p50_seconds",
    "merged_latency_p95_seconds",
    *BATCH_LATENCY.values(),
    *MERGED_BATCH_LATENCY.values(),
)
"""Columns of what is timed with the device to itself, the timed steps among it."""
NEVER_ALONE = ("eval_seconds", "generated_tokens_per_second", "phase_seconds")
"""Columns of times that are never taken so."""


def without_neighbours(outcome: Outcome, timed: bool, staged: bool) -> Outcome:
    """The outcome of a job that shared its GPU, without times that others may have been in.

    Args:
        timed: whether it took its timed stretches.
        staged: whether its method trains in two stages.
    """
    gone = dict.fromkeys(NEVER_ALONE, BESIDE)
    if not timed:
        gone |= dict.fromkeys(OF_ALONE, UNTIMED)
    elif staged:
        gone |= dict.fromkeys(OF_STRETCH, STAGES)
    # What was null before keeps its reason.
    reasons = gone | outcome.null_reasons
    nulls: dict[str, Any] = dict.fromkeys(name for name in gone if name != "phase_seconds")
    done = replace(
        outcome,
        **nulls,
        phase_seconds={},
        energy_flags=outcome.energy_flags if timed and not staged else (),
        curve=tuple(replace(point, seconds=math.nan) for point in outcome.curve),
        null_reasons=reasons,
    )
    return replace(done, timed_alone=done.train_seconds is not None)

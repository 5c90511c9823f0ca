"""Several jobs in one process: which may share one, and what their rows say of it."""

from __future__ import annotations

from dataclasses import replace

from peftmark.record.job import Job
from peftmark.record.outcome import Outcome

TRIALS_PER_PROCESS = 8
"""Trials of learning rates that a process with a GPU runs, unless it is said otherwise. An
assumption: it spares seven of eight starts, and was not tried on a GPU. Nothing is reported of a
trial but its scores; jobs that are reported have a process each."""

RAN_OTHERS = "the process had run other jobs before, and what it kept of them would be in it"
OF_A_PROCESS = ("vmhwm_bytes", "vmhwm_train_bytes", "rss_before_train_bytes")
"""Columns of an outcome that are of the whole process."""


def most_jobs(job: Job, gpu: bool, given: int | None) -> int:
    """Jobs that the process of a job may run in turn.

    Args:
        given: what the user chose; None for the default.
    """
    if job.purpose == "repeat":
        return 1  # so that it shows whether a process that ran others gives the same bits
    if job.recipe.devices > 1:
        return 1  # it forks the job's other processes, which what ran before can't be in
    if given is not None:
        return given
    return TRIALS_PER_PROCESS if gpu and job.purpose == "tuning" else 1


def of_process(outcome: Outcome, before: int, start_seconds: float | None) -> Outcome:
    """The outcome with how its process came to it; and without the memory that other jobs of the
    process would be in.

    Args:
        before: jobs that the process ran before.
        start_seconds: until the worker told of its first phase; None if it never did.
    """
    outcome = replace(outcome, start_seconds=start_seconds, jobs_before=before)
    if not before:
        return outcome
    reasons = outcome.null_reasons | dict.fromkeys(OF_A_PROCESS, RAN_OTHERS)
    return replace(
        outcome,
        null_reasons=reasons,
        vmhwm_bytes=None,
        vmhwm_train_bytes=None,
        rss_before_train_bytes=None,
    )

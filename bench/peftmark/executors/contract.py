"""What an executor is given and what it gives back, whichever it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from peftmark.record.job import Environment, Job
from peftmark.record.outcome import Outcome
from peftmark.record.recipe import FORM
from peftmark.record.sent import outcome_of
from peftmark.sources.assets import Places

WORKER = "peftmark.lab.worker:main"

Listener = Callable[[Job, dict[str, Any]], None]


def never() -> bool:
    """The answer to "stop?" where nobody asks to."""
    return False


def unheard(job: Job, message: dict[str, Any]) -> None:
    """A listener that takes no notice."""


@dataclass(frozen=True)
class Order:
    """Jobs to run, and how.

    Attributes:
        jobs: (job, number of its next attempt) in the order they start.
        places: where workers find assets.
        logs: folder for the workers' logs.
        seconds_limit: wall seconds after which an attempt is stopped; None for no limit.
        retries: further attempts of a job that ended for a cause outside itself: a worker killed,
            a device lost, memory that ran out while other jobs ran beside it. What a job did
            itself (no memory alone, a NaN, an error, the time limit) it would do again.
        needs: `needs_of(job)` -> bytes of memory that such a job took before, or is predicted to.
        refused: `needs_of(job)` -> why such a job can't fit here; it is never started.
        on_device: `needs_of(job)` -> bytes of a GPU that such a job takes, with its CUDA context;
            for jobs that share one.
        untimed: ids of jobs without a timed stretch where they share a GPU; trials of learning
            rates and the repeat have none either.
        stop: asked twice a second; True ends the running jobs as `interrupted` and starts no more.
        listener: told of every start and every message of a worker.
        worker: "module:function" that a worker process runs; a test puts a fake here.
        beside: jobs that others run for us at the same time, maybe on this machine.
        outbox: folder in which jobs leave what they trained; None if none does.
        keep: ids of the jobs that do.
    """

    jobs: Sequence[tuple[Job, int]]
    places: Places
    logs: Path
    seconds_limit: float | None = None
    retries: int = 1
    needs: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, str] = field(default_factory=dict)
    on_device: Mapping[str, int] = field(default_factory=dict)
    untimed: frozenset[str] = frozenset()
    stop: Callable[[], bool] = never
    listener: Listener = unheard
    worker: str = WORKER
    beside: int = 0
    outbox: Path | None = None
    keep: frozenset[str] = frozenset()

    def leaves(self, job: Job, attempt: int) -> Path | None:
        """The folder that an attempt leaves what it trained in, not there before; None for none."""
        kept = self.outbox is not None and job.job_id in self.keep
        return self.outbox / f"{job.job_id}.{attempt}" if kept and self.outbox else None

    def times(self, job: Job) -> bool:
        """Whether a job has a timed stretch where it shares a GPU."""
        return job.purpose == "report" and job.job_id not in self.untimed


@dataclass(frozen=True)
class Finished:
    """How one attempt of a job ended.

    Attributes:
        wall_seconds: from the worker's start to its end.
        nvml_process_bytes: the most device memory the worker held; None on the CPU.
        nvml_device_bytes: highest rise of the device's memory over idle; None on the CPU.
        nvml_reason: why one or both are None; empty if neither is.
        outside: what ended it lay outside the job, such as a killed worker; empty, or what.
        again: the job is tried once more in this run; empty, or why.
        environment: the machine it ran on; None for the machine that gave the order.
    """

    job: Job
    attempt: int
    outcome: Outcome
    started_at: str
    finished_at: str
    wall_seconds: float
    nvml_process_bytes: int | None
    nvml_device_bytes: int | None
    nvml_reason: str
    outside: str = ""
    again: str = ""
    environment: Environment | None = None

    def to_json(self) -> str:
        """JSON of all but the job, which whoever asks for it has."""
        data: dict[str, Any] = {**vars(self), "outcome": self.outcome.to_json()}
        data["environment"] = None if self.environment is None else asdict(self.environment)
        del data["job"]
        return json.dumps(data)

    @staticmethod
    def from_json(job: Job, text: str) -> Finished:
        """The inverse of `to_json`.

        Raises:
            ValueError, TypeError, KeyError: it is none.
        """
        data = json.loads(text)
        data["outcome"] = outcome_of(data["outcome"])
        if data["environment"] is not None:
            data["environment"] = Environment(**data["environment"])
        return Finished(job=job, **data)


def log_file(logs: Path, job: Job, attempt: int) -> Path:
    """Where the log of an attempt lies."""
    return logs / f"{job.job_id}.{attempt}.log"


def needs_of(job: Job) -> str:
    """What jobs of like memory have in common: model, cell, task and the shape of a batch."""
    recipe = job.recipe
    return "|".join(
        map(
            str,
            (
                job.model if job.own_model is None else f"{job.model}@{job.model_identity}",
                *job.cell,
                job.task,
                recipe.batch_size,
                recipe.max_length,
                recipe.precision,
                recipe.weights,
                recipe.gradient_accumulation,
                recipe.optimizer,
                recipe.gradient_checkpointing,
                *(getattr(recipe, name) for name in FORM),
                job.device,
            ),
        )
    )


def utc_now() -> str:
    """Now as ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")

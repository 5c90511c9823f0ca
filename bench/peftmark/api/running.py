"""A run that a script watches: it is called back where the command line draws bars."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from peftmark.catalog.methods import cell_title
from peftmark.catalog.metrics import decimals, metric_title
from peftmark.core.errors import Exit, Leave
from peftmark.executors.contract import Finished
from peftmark.record.job import Job, Purpose, Record
from peftmark.record.outcome import Status
from peftmark.run.progress import clock, job_title
from peftmark.run.runner import Plan, Selection
from peftmark.run.session import Summary, carry_out
from peftmark.run.stop import Stop


@dataclass(frozen=True)
class Progress:
    """A job that has ended, or how far one is; printed it is a line.

    Attributes:
        kind: "ended" once a job has, "tried" if it ended and is tried once more, "going" while it
            runs.
        done: jobs of this stage that have ended, of `total`.
        phase: what the worker does now; empty of a job that has ended.
        step: optimizer steps taken, of `steps`; None before the first.
        metric: key of the score; `score` is the primary metric, and None where there is none yet.
        status: how the job ended; empty while it runs.
        reason: why it ended so, in words; empty for "ok".
        seconds: from the worker's start to its end; None while it runs.
    """

    kind: str
    done: int
    total: int
    cell: str
    task: str
    seed: int
    purpose: Purpose
    title: str
    phase: str = ""
    step: int | None = None
    steps: int | None = None
    metric: str = ""
    score: float | None = None
    status: Status | str = ""
    reason: str = ""
    seconds: float | None = None

    def __str__(self) -> str:
        start = f"{self.done}/{self.total} {self.title}: "
        score = ""
        if self.score is not None:
            score = (
                f"{metric_title(self.metric)} {self.score:.{decimals(self.metric, self.score)}f}"
            )
        if self.kind == "going":
            step = "" if self.step is None else f"step {self.step} of {self.steps}"
            return start + (", ".join(filter(None, (step, score))) or self.phase)
        told = score if self.status == "ok" and score else f"{self.status}: {self.reason}"
        again = "; it is tried again" if self.kind == "tried" else ""
        return f"{start}{told}, {clock(self.seconds or 0.0)}{again}"


Callback = Callable[[Progress], object]


class _Stage:
    """Calls back for each job that ends, and for messages of workers where that is asked for."""

    def __init__(self, total: int, ended: Callback | None, going: Callback | None) -> None:
        self._done, self._total = 0, total
        self._ended, self._going = ended, going

    def event(self, job: Job, message: dict[str, Any]) -> None:
        if self._going is not None:
            step = message.get("step")
            self._going(
                self._progress(
                    "going",
                    job,
                    phase=str(message.get("phase", "")),
                    step=step,
                    steps=None if step is None else job.recipe.steps,
                    score=message.get("metric"),
                )
            )

    def finished(self, record: Record, done: Finished) -> None:
        self._done += not done.again
        if self._ended is not None:
            outcome = done.outcome
            self._ended(
                self._progress(
                    "tried" if done.again else "ended",
                    done.job,
                    score=outcome.metric_value,
                    status=outcome.status,
                    reason=outcome.status_reason,
                    seconds=done.wall_seconds,
                )
            )

    def _progress(self, kind: str, job: Job, **more: Any) -> Progress:
        return Progress(
            kind=kind,
            done=self._done,
            total=self._total,
            cell=cell_title(*job.cell),
            task=job.task,
            seed=job.seed,
            purpose=job.purpose,
            title=job_title(job),
            metric=job.metric,
            **more,
        )


@dataclass(frozen=True)
class _Watcher:
    """Tells of jobs and of nothing else."""

    ended: Callback | None
    going: Callback | None

    def planned(self, plan: Plan) -> None: ...

    def fetching(self) -> None: ...

    def fetched(self, sources: Mapping[str, str]) -> None: ...

    def looking(self, text: str) -> None: ...

    @contextmanager
    def stage(self, plan: Plan, jobs: Sequence[Job], trials: bool) -> Iterator[_Stage]:
        yield _Stage(len(jobs), self.ended, self.going)


def watched_run(selection: Selection, ended: Callback | None, going: Callback | None) -> Summary:
    """Run what has no result yet; see `peftmark.run`."""
    stop = Stop()
    _, summary = carry_out(selection, _Watcher(ended, going), stop)
    if stop.asked():
        raise Leave(stop.code)
    if summary.code == Exit.NOT_REPEATABLE and summary.repeat is not None:
        told = f"{job_title(summary.repeat.job)} gave other numbers than the job it repeats"
        warnings.warn(f"{told} ({summary.repeat.detail}): do not trust these results", stacklevel=4)
    return summary

"""What a person sees while jobs run: live bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from types import MappingProxyType, TracebackType
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from peftmark.analysis.validity import FLAG_KINDS, Flag, Repeat
from peftmark.catalog.methods import cell_title
from peftmark.catalog.metrics import decimals, metric_title
from peftmark.core.shown import plural, visible
from peftmark.duration.estimates import Ended, Estimate, Key, key_of, remaining
from peftmark.executors.contract import Finished
from peftmark.record.job import Job

QUIET = 30.0
"""Seconds after which a log that nobody has written to says what runs."""
MOST_TOLD = 4


def job_title(job: Job) -> str:
    """Cell, task and seed of a job, such as "QLoRA r8 on sts-b, seed 0", and its purpose."""
    title = f"{cell_title(*job.cell)} on {job.task}, seed {job.seed}"
    if job.purpose == "tuning":
        penalty = (
            f", penalty {job.recipe.adalora.orthogonal_weight:g}" if job.recipe.adalora else ""
        )
        return (
            f"{title}, trial of learning rate {job.recipe.learning_rate:g}{penalty}, "
            f"{job.recipe.steps} steps"
        )
    return f"{title}, repeat" if job.purpose == "repeat" else title


def clock(seconds: float) -> str:
    """A duration as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


class Board:
    """Progress over all jobs; use as a context manager around the run.

    Args:
        console: where to draw.
        jobs: the jobs that will run.
        slots: how many run at once, for the time left.
        predicted: what jobs are predicted to take, as far as that is known.
    """

    def __init__(
        self,
        console: Console,
        jobs: Sequence[Job],
        slots: int,
        predicted: Mapping[Key, Estimate] = MappingProxyType({}),
    ) -> None:
        self._console = console
        self._live = console.is_terminal
        self._total = len(jobs)
        self._slots = max(1, min(slots, self._total))
        self._done = 0
        self._wall: list[float] = []
        self._waiting = {job.job_id: job for job in jobs}
        self._predicted, self._ended = predicted, list[Ended]()
        self._bars: dict[str, TaskID] = {}
        self._start = self._said = time.monotonic()
        self._running: dict[str, tuple[Job, Any]] = {}
        self._over = threading.Event()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            console=console,
            disable=not self._live,
            refresh_per_second=4,
        )
        self._all = self._progress.add_task("all jobs", total=self._total, note="")

    def __enter__(self) -> Board:
        self._progress.__enter__()
        if not self._live:
            threading.Thread(target=self._still, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._progress.__exit__(kind, error, trace)

    def event(self, job: Job, message: dict[str, Any]) -> None:
        """A worker's message: a phase, a step, or a metric."""
        if not self._live:
            steps = f"step {message.get('step')} of {job.recipe.steps}"
            self._running[job.job_id] = job, steps if "step" in message else message.get("phase")
            return
        bar = self._bars.get(job.job_id)
        if bar is None:
            title = escape(visible(job_title(job)))
            bar = self._progress.add_task(title, total=job.recipe.steps, note="")
            self._bars[job.job_id] = bar
        if "step" in message:
            self._progress.update(bar, completed=message["step"])
        if "metric" in message:
            note = f"{metric_title(job.metric)} {_score(job, message['metric'])}"
            self._progress.update(bar, note=note)
        elif "phase" in message:
            self._progress.update(bar, note=message["phase"])

    def finished(self, done: Finished) -> None:
        """A job ended: one line stays on the screen."""
        self._running.pop(done.job.job_id, None)
        bar = self._bars.pop(done.job.job_id, None)
        if bar is not None:
            self._progress.remove_task(bar)
        if done.again:
            self._print(
                f"[yellow]again[/] {escape(job_title(done.job))}: "
                f"{escape(done.outcome.status_reason)}: {escape(done.again)}; it is tried again"
            )
            return
        self._done += 1
        self._wall.append(done.wall_seconds)
        self._waiting.pop(done.job.job_id, None)
        known = self._of(done.job)
        if known is not None:
            self._ended.append(Ended(key_of(done.job), known, done.wall_seconds))
        left = self._left()
        self._progress.update(self._all, completed=self._done, note=left)
        outcome = done.outcome
        if outcome.status == "ok" and outcome.metric_value is not None:
            result = f"{metric_title(done.job.metric)} {_score(done.job, outcome.metric_value)}"
        else:
            result = f"{outcome.status}: {outcome.status_reason}"
        style = "green" if outcome.status == "ok" else "red"
        self._print(
            f"[{style}]{self._done}/{self._total}[/] {escape(job_title(done.job))}: "
            f"{escape(result)}, {clock(done.wall_seconds)}" + (f", {left}" if left else "")
        )

    def left(self) -> str:
        """What is left of the run, in words; empty while nobody knows."""
        return self._left()

    def _still(self) -> None:
        """On a console that shows no bars: say what runs, where nothing was said for a while."""
        while not self._over.wait(QUIET):
            if time.monotonic() - self._said >= QUIET:
                self.tell_running()

    def tell_running(self) -> None:
        """A line of what runs and how far it is."""
        running = [
            f"{job_title(job)} ({told})" for job, told in list(self._running.values())[:MOST_TOLD]
        ]
        more = len(self._running) - len(running)
        text = "; ".join(running) + (f"; {more} more" if more > 0 else "") or "workers are starting"
        self._print(f"... {escape(text)}")

    def _print(self, text: str) -> None:
        self._said = time.monotonic()
        self._console.print(text, highlight=False, soft_wrap=True)

    def _left(self) -> str:
        left = self._total - self._done
        if not left:
            return f"done in {clock(time.monotonic() - self._start)}"
        waiting: dict[Key, list[float]] = {}
        for job in self._waiting.values():
            known = self._of(job)
            if known is None:
                break
            waiting.setdefault(key_of(job), []).append(known)
        else:
            return f"about {clock(remaining(waiting, self._ended) / self._slots)} left"
        if not self._wall:
            return ""
        mean = sum(self._wall) / len(self._wall)
        return f"about {clock(mean * left / self._slots)} left"

    def _of(self, job: Job) -> float | None:
        """Seconds that a job is predicted to take; None if nobody knows."""
        one = self._predicted.get(key_of(job))
        return None if one is None else one.predicted


def tell_suspects(repeat: Repeat | None, found: Sequence[Flag], console: Console) -> None:
    """Say whether the repeated job gave the same bits, and what else is suspect, a line each."""
    if repeat is not None and repeat.verdict == "different":
        console.print(
            f"[bold red]NOT REPEATABLE[/]: {escape(job_title(repeat.job))} gave other numbers than "
            f"the job it repeats ({escape(repeat.detail)}). Do not trust these results.",
            soft_wrap=True,
        )
    elif repeat is not None and repeat.verdict == "same":
        console.print("Repeatability: the job that ran twice gave the same bits.", soft_wrap=True)
    elif repeat is not None:
        line = f"Repeatability: {repeat.verdict}, {repeat.detail}."
        console.print(line, markup=False, soft_wrap=True)
    for kind, meaning in FLAG_KINDS.items():
        titles = [job_title(flag.job) for flag in found if flag.kind == kind]
        if titles:
            more = f" and {len(titles) - 3} more" if len(titles) > 3 else ""
            jobs = plural(len(titles), "job")
            line = f"Suspect ({kind}): {jobs} {meaning}: {'; '.join(titles[:3])}{more}."
            console.print(line, markup=False, soft_wrap=True)


def _score(job: Job, value: float) -> str:
    return f"{value:.{decimals(job.metric, value)}f}"

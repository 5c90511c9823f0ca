"""One worker process, from its start to how its job ended.

The supervisor alone decides how a job ended, from the worker's last message, its exit code and the
clock.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from peftmark.executors.beside import no_locks, on_gpu, seen_by_nvml, told_of_places
from peftmark.executors.child import child, places_told
from peftmark.executors.contract import (
    WORKER,
    Finished,
    Listener,
    Order,
    log_file,
    utc_now,
)
from peftmark.executors.in_turn import most_jobs, of_process
from peftmark.executors.launch import Launcher, NotStarted
from peftmark.executors.protocol import MOST_AT_ONCE, MOST_BYTES, Broken, Inbox
from peftmark.executors.slots import Slot
from peftmark.executors.worker_files import bound, empty
from peftmark.machine.nvml import DeviceMeter
from peftmark.record.job import Job
from peftmark.record.outcome import Outcome
from peftmark.record.sent import cut

GRACE_SECONDS = 5.0
STACK_SECONDS = 0.2
ORPHANED = 255

LOST = Outcome("crashed", "the process that the worker was forked from ended before it")
"""Of a worker that nobody could watch over any more, and that was ended for it."""


@dataclass
class Worker:
    """A running attempt of a job.

    Attributes:
        last: what it told last, message by message on top of each other.
        outcome: what it reported as its end.
        stopped: why the supervisor ended it.
        scratch: folder for its temporary files, removed at its end.
        shared: whether another job ran beside it at any time, in the same memory.
        lost: whether the server that it was forked from ended before it did.
        before: jobs that its process ran before this one.
        most: jobs that its process may run.
        begun: when it told of its first phase; None before.
        ready: whether the job is over and its process, as it was before, can take another.
    """

    job: Job
    attempt: int
    slot: Slot
    log: Path
    process: Any
    inbox: Inbox
    scratch: Path
    meter: DeviceMeter
    started_at: str
    start: float
    last: dict[str, Any] = field(default_factory=dict)
    outcome: Outcome | None = None
    stopped: Outcome | None = None
    shared: bool = False
    lost: bool = False
    before: int = 0
    most: int = 1
    begun: float | None = None
    ready: bool = False

    @property
    def over(self) -> bool:
        """Whether the job is: its process ended, or is ready for another."""
        return self.ready or not self.alive

    @property
    def alive(self) -> bool:
        """Whether its process runs."""
        return bool(self.process.is_alive())

    @property
    def killed(self) -> bool:
        """Whether a signal ended it that was not ours."""
        code = self.process.exitcode
        return self.outcome is None and self.stopped is None and code is not None and code < 0

    @property
    def orphaned(self) -> bool:
        """Whether it lives on without the server that it was forked from, the only one that could
        tell of its end: `multiprocessing` then takes it for ended, with this code."""
        if self.process.exitcode != ORPHANED:
            return False
        with suppress(OSError):
            os.kill(self.process.pid, 0)
            return True
        return False

    def older_than(self, seconds: float | None) -> bool:
        """Whether it has run for longer than this."""
        return seconds is not None and time.monotonic() - self.start > seconds


class Starter:
    """Starts worker processes on jobs.

    Args:
        gpu: whether workers use GPUs.
        at_once: jobs that run at the same time.
        jobs_per_process: jobs that a process may run in turn; None for what is the default.
    """

    def __init__(
        self, order: Order, gpu: bool, at_once: int, jobs_per_process: int | None = None
    ) -> None:
        self._launcher = Launcher(gpu, preload=order.worker == WORKER)
        self._gpu, self._jobs_per_process = gpu, jobs_per_process
        self._idle: list[Worker] = []
        self._ours: defaultdict[Slot, set[int]] = defaultdict(set)  # processes, old ones too
        self._order = order
        self._scratch = order.logs.resolve().with_name("scratch")
        beside = order.beside
        self._at_once = f"up to {at_once + beside}" if beside else str(at_once)
        self._places = places_told(order.places)

    def start(self, job: Job, attempt: int, slot: Slot) -> Worker:
        """Start a worker on a job: the process that waits on its slot, or a new one.

        Raises:
            NotStarted: it could not be.
        """
        most = most_jobs(job, self._gpu, self._jobs_per_process)
        for idle in [one for one in self._idle if one.slot in slot.places][: len(slot.places)]:
            self._idle.remove(idle)
            if most > 1 and (worker := self._hand_over(idle, job, attempt)) is not None:
                return worker
            _release(idle)
        return self._new(job, attempt, slot, most)

    def _new(self, job: Job, attempt: int, slot: Slot, most: int) -> Worker:
        """Start a process on a job.

        Raises:
            NotStarted: it could not be.
        """
        context = self._launcher.context
        ours, theirs = context.Pipe()
        log = log_file(self._order.logs, job, attempt)
        scratch = self._scratch / log.stem
        setup = {
            "jobs_at_once": self._at_once,
            "cores": sorted(slot.cores),
            "scratch": str(scratch),
        }
        process = context.Process(
            target=child,
            args=(
                setup,
                self._order.worker,
                theirs,
                *self._told(job, attempt, log, slot),
                slot.device,
                *([most] if most > 1 else []),
            ),
            daemon=True,
        )
        # Its idle reading is without the worker.
        meter = DeviceMeter(slot.device, ours=self._ours[slot]).__enter__()
        try:
            self._launcher.start(process)
        except NotStarted:
            meter.__exit__(None, None, None)
            ours.close()
            raise
        finally:
            theirs.close()
        meter.pid = process.pid
        self._ours[slot].add(process.pid)
        return Worker(
            job,
            attempt,
            slot,
            log,
            process,
            Inbox(ours),
            scratch,
            meter,
            utc_now(),
            time.monotonic(),
            most=most,
        )

    def _told(self, job: Job, attempt: int, log: Path, slot: Slot) -> tuple[str, str, str]:
        """What a worker is told of a job: the job, its places, and its log."""
        outbox = self._order.leaves(job, attempt)
        told = {} if outbox is None else {"outbox": str(outbox.resolve())}
        told |= told_of_places(slot, self._scratch, self._order.times(job))
        return job.to_json(), json.dumps(self._places | told), str(log.resolve())

    def _hand_over(self, idle: Worker, job: Job, attempt: int) -> Worker | None:
        """Give a job to a process that ran others; None if it doesn't take it."""
        log = log_file(self._order.logs, job, attempt)
        meter = DeviceMeter(idle.slot.device, ours=self._ours[idle.slot]).__enter__()
        meter.pid = idle.process.pid
        try:
            if not idle.alive:
                raise BrokenPipeError
            idle.inbox.tell(json.dumps(self._told(job, attempt, log, idle.slot)).encode())
        except OSError:
            meter.__exit__(None, None, None)
            return None
        return Worker(
            job,
            attempt,
            idle.slot,
            log,
            idle.process,
            idle.inbox,
            idle.scratch,
            meter,
            utc_now(),
            time.monotonic(),
            before=idle.before + 1,
            most=idle.most,
        )

    def rest(self, one: Worker) -> None:
        """Let the process of a finished job wait for another, if it is ready for one."""
        if one.ready:
            self._idle.append(one)

    def idle(self, device: str | None) -> int:
        """Processes on a device that wait for jobs."""
        return sum(one.slot.device == device for one in self._idle)

    def end(self) -> None:
        """End what waits for jobs, and remove what held the workers' temporary files, once none is
        left."""
        for one in self._idle:
            _release(one)
        self._launcher.end()
        no_locks(self._scratch)
        with suppress(OSError):
            self._scratch.rmdir()


def listen(running: Sequence[Worker], listener: Listener) -> None:
    """Wait up to half a second for messages or deaths, and take in what came."""
    by_handle = {r.inbox.connection: r for r in running if not r.inbox.closed}
    sentinels = [r.process.sentinel for r in running]
    for ready in wait([*by_handle, *sentinels], timeout=0.5):
        one = by_handle.get(ready)
        if one is not None:
            _take(one, listener)


def _release(one: Worker) -> None:
    """End a process that waits for a job: it leaves when its pipe closes."""
    one.inbox.close()
    one.process.join(GRACE_SECONDS)
    _signal(one, signal.SIGKILL)
    one.process.join()
    shutil.rmtree(one.scratch, ignore_errors=True)


def _take(one: Worker, listener: Listener | None, most: int = MOST_AT_ONCE) -> None:
    try:
        for message in one.inbox.take(most):
            if one.ready:
                one.ready = False
                raise Broken("a message of no job")
            if one.begun is None:
                one.begun = time.monotonic()
            if isinstance(message, Outcome):
                if one.outcome is not None:
                    one.outcome = None
                    raise Broken("a second outcome")
                one.outcome = message
            elif message.get("ready"):
                if one.outcome is None or one.before + 1 >= one.most:
                    raise Broken("ready for a job that it was not to take")
                one.ready = True
            else:
                one.last.update(message)
                if listener is not None:
                    listener(one.job, message)
    except Broken as error:
        one.inbox.close()  # nothing that it sends after this may pass for its outcome
        if one.outcome is None and one.stopped is None:
            told = f"the worker sent what is no message of ours ({cut(str(error))})"
            one.stopped = _with_place(Outcome("crashed", told), one)


def end(running: Sequence[Worker], outcome: Outcome, stacks: bool = False) -> None:
    """Ask workers to end, then make them; their outcome is the given one unless they had one.

    Args:
        stacks: have them write to their logs where they are.
    """
    for one in running:
        if one.outcome is None and one.stopped is None:
            one.stopped = _with_place(outcome, one)
    if stacks and running:
        for one in running:
            _signal(one, signal.SIGUSR1)
        time.sleep(STACK_SECONDS)
    kill(running)


def kill(running: Sequence[Worker]) -> None:
    """End workers and all that they started, politely first."""
    for one in running:
        _signal(one, signal.SIGTERM)
    limit = time.monotonic() + GRACE_SECONDS
    for one in running:
        one.process.join(max(0.0, limit - time.monotonic()))
        _signal(one, signal.SIGKILL)
        one.process.join()


def _signal(one: Worker, number: int) -> None:
    """Send a signal to a worker and to what it started."""
    with suppress(ProcessLookupError, PermissionError):
        try:
            os.killpg(one.process.pid, number)
        except ProcessLookupError:  # it has no group of its own yet, or all of it is gone
            if one.alive:
                os.kill(one.process.pid, number)


def _with_place(outcome: Outcome, one: Worker) -> Outcome:
    step, phase = one.last.get("step"), one.last.get("phase", "start")
    place = f"at step {step} of {one.last.get('steps')}" if step else f"in phase {phase}"
    reason = (outcome.status_reason or "").removesuffix(".")
    return replace(outcome, status_reason=f"{reason}, {place}")


def finish(one: Worker, died: Callable[[Worker], Outcome]) -> Finished:
    """Take in a worker's last words.

    Args:
        died: the outcome of a worker that left none and was not stopped.
    """
    _take(one, None, MOST_BYTES)
    ok = one.outcome is not None and one.outcome.status == "ok" and one.stopped is None
    waits, one.ready = one.ready and one.alive, one.ready and one.alive and ok
    if one.ready:
        empty(one.scratch)
    elif waits:
        _release(one)
    else:
        _end_process(one)
    bound(one.log)
    one.meter.__exit__(None, None, None)
    outcome = one.outcome or one.stopped or (LOST if one.lost else died(one))
    if one.stopped is not outcome and outcome.status not in ("ok", "invalid", "unsupported"):
        outcome = _with_place(outcome, one)
    taken = None if one.begun is None else round(one.begun - one.start, 3)
    return Finished(
        job=one.job,
        attempt=one.attempt,
        outcome=on_gpu(of_process(outcome, one.before, taken), one.slot, one.meter.others),
        started_at=one.started_at,
        finished_at=utc_now(),
        wall_seconds=round(time.monotonic() - one.start, 3),
        **seen_by_nvml(one.meter, one.slot, one.before),
    )


def _end_process(one: Worker) -> None:
    """Wait for the end of a worker's process, and remove its temporary files."""
    if one.orphaned:
        one.lost = one.outcome is None and one.stopped is None
        _signal(one, signal.SIGKILL)
    one.inbox.close()
    one.process.join()
    if one.slot.others:
        _signal(one, signal.SIGKILL)  # a job's other processes, should one be on its way out
    shutil.rmtree(one.scratch, ignore_errors=True)

"""The near side of a run on a cluster: hand jobs over, take their endings in, try again, stop."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Protocol

from peftmark.executors.contract import Finished, Order, log_file, utc_now
from peftmark.executors.node import Answer, answer, noted, payload
from peftmark.executors.parcel import unpack
from peftmark.machine.environment import versions
from peftmark.record.job import Environment, Job
from peftmark.record.outcome import Outcome
from peftmark.record.sent import cut

NO_READINGS = "the node sent no readings"


@dataclass(frozen=True)
class Lost:
    """A call that came to no answer.

    Attributes:
        outcome: how the job ended, as far as the cluster tells.
        outside: as in `Finished`.
        detail: for the job's log.
    """

    outcome: Outcome
    outside: str = ""
    detail: str = ""


class Cluster(Protocol):
    """Runs `remote.run_here` elsewhere. A handle stands for one call of it."""

    def submit(self, payloads: Sequence[str], devices: int) -> list[Any]:
        """Hand calls over, each to so many devices of one node; a handle each."""

    def started(self, handle: Any) -> bool:
        """Whether a call has begun to run, as far as the cluster tells."""

    def wait(self, handles: Sequence[Any]) -> list[Any]:
        """Wait about half a second at most; the calls that ended."""

    def take(self, handle: Any) -> str | Lost:
        """What a call that ended returned."""

    def cancel(self, handles: Sequence[Any]) -> None:
        """End calls, and wait until they have ended."""


@dataclass
class _Call:
    job: Job
    attempt: int
    tries_left: int
    handle: Any
    began: str
    start: float
    started: bool = False


def drive(order: Order, cluster: Cluster, at_once: int) -> Iterator[Finished]:
    """Run jobs on a cluster, yielding each attempt as it ends.

    Args:
        at_once: calls handed over at the same time.
    """
    waiting = deque((job, attempt, order.retries) for job, attempt in order.jobs)
    beside = min(at_once, len(waiting)) - 1
    running: list[_Call] = []
    try:
        while waiting or running:
            room = min(at_once - len(running), len(waiting))
            if room and not order.stop():
                batch = [waiting.popleft() for _ in range(room)]
                for devices, alike in groupby(batch, lambda one: one[0].recipe.devices):
                    ones = list(alike)
                    texts = [payload(order, job, attempt, beside) for job, attempt, _ in ones]
                    running += [
                        _Call(*one, handle, utc_now(), time.monotonic())
                        for one, handle in zip(ones, cluster.submit(texts, devices), strict=True)
                    ]
                for call in running[-room:]:
                    order.listener(call.job, {"phase": "queued"})
            ended = cluster.wait([call.handle for call in running]) if running else []
            for call in running:
                if not call.started and (call.handle in ended or cluster.started(call.handle)):
                    call.started, call.began, call.start = True, utc_now(), time.monotonic()
                    order.listener(call.job, {"phase": "start"})
            stopped = order.stop()  # asked after waiting: Ctrl-C may have ended a job by itself
            for call in [call for call in running if call.handle in ended]:
                running.remove(call)
                done = _taken(order, call, cluster.take(call.handle), stopped)
                if done.outside and call.tries_left and not stopped:
                    waiting.append((call.job, call.attempt + 1, call.tries_left - 1))
                    done = replace(done, again=done.outside)
                order.listener(call.job, {"phase": "end"})
                yield done
            if stopped:
                waiting.clear()
                cluster.cancel([call.handle for call in running])
                begun, running = [call for call in running if call.started], []
                for call in begun:
                    order.listener(call.job, {"phase": "end"})
                    yield _ended(call, Outcome("interrupted", "stopped by the user"))
    finally:
        if running:
            cluster.cancel([call.handle for call in running])


def _taken(order: Order, call: _Call, result: str | Lost, stopped: bool) -> Finished:
    """How a call ended, its log written beside the others."""
    told = result if isinstance(result, Lost) else _told(call.job, result)
    if isinstance(told, Lost):
        if stopped:
            return _ended(call, Outcome("interrupted", "stopped by the user"))
        done, log = _ended(call, told.outcome, told.outside), told.detail
    else:
        log = told.log
        done = told.finished or _ended(call, Outcome("crashed", told.refused), node=told.node)
        done = _unpacked(order, done, told)
    order.logs.mkdir(parents=True, exist_ok=True)
    text = log.encode("utf-8", "replace")
    log_file(order.logs, call.job, call.attempt).write_bytes(text)
    return done


def _told(job: Job, result: str) -> Answer | Lost:
    """What a node answered. One answer that is none, as of a file that was cut, ends no run."""
    try:
        return answer(job, result)
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        reason = f"the node sent what is no answer of ours ({type(error).__name__}: {error})"
        return Lost(Outcome("crashed", cut(reason)))


def _unpacked(order: Order, done: Finished, told: Answer) -> Finished:
    """An ending after what the job left is where a job here would have left it."""
    folder = order.leaves(done.job, done.attempt)
    if folder is None or not told.left:
        return done
    try:
        unpack(told.left, folder)
    except (OSError, ValueError) as error:
        return noted(done, error)
    return done


def _ended(
    call: _Call, outcome: Outcome, outside: str = "", node: Environment | None = None
) -> Finished:
    """The end of a call whose node told nothing about the job."""
    return Finished(
        job=call.job,
        attempt=call.attempt,
        outcome=outcome,
        started_at=call.began,
        finished_at=utc_now(),
        wall_seconds=round(time.monotonic() - call.start, 3),
        nvml_process_bytes=None,
        nvml_device_bytes=None,
        nvml_reason=NO_READINGS,
        outside=outside,
        environment=node or Environment(versions(), None, None, {}),  # which node is not known
    )

"""Run jobs on this machine: one worker process a job, as many at once as there is room for.

A worker that dies in any way leaves an outcome and a free slot; it never stops the matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bench import nvml
from bench.errors import UserError
from bench.executors.order import Finished, Order, needs_of, utc_now
from bench.executors.process import OomKills, Starter, Worker, end, finish, kill, listen
from bench.executors.slots import Room, Slot, free_memory
from bench.outcome import Outcome
from bench.record import Job

LOOK_AHEAD = 100
"""Jobs that are looked at for one that fits beside those that run."""

MEMORY = "memory ran out beside other jobs"


@dataclass(frozen=True)
class _Waiting:
    job: Job
    attempt: int
    tries_left: int
    alone: bool = False


def run_jobs(order: Order, slots: Sequence[Slot], room: Room | None = None) -> Iterator[Finished]:
    """Run jobs here, yielding each attempt as it ends.

    Args:
        slots: places for workers, at least one.
        room: the memory that they share; by default what is free now, with the needs that the
            order knows.

    Raises:
        UserError: every GPU is lost, and jobs are left.
    """
    room = room or Room(free_memory(), order.needs)
    fitting = [(job, n) for job, n in order.jobs if needs_of(job) not in order.refused]
    for job, attempt in order.jobs:
        if (job, attempt) not in fitting:
            yield _refused(job, attempt, order.refused[needs_of(job)])
    waiting = [_Waiting(job, attempt, order.retries) for job, attempt in fitting]
    if not waiting:
        return
    free, lost = list(slots), set[str]()
    running: dict[int, tuple[Worker, _Waiting]] = {}
    kills = OomKills()
    gpu = any(slot.device is not None for slot in slots)
    starter = Starter(
        order.worker, order.places, order.logs, gpu,
        at_once=min(len(slots), len(waiting)), beside=order.beside,
    )  # fmt: skip
    try:
        while waiting or running:
            while free and not order.stop():
                one = _next(waiting, [w for _, w in running.values()], room)
                if one is None:
                    break
                worker = starter.start(one.job, one.attempt, free.pop(0))
                running[worker.process.pid] = worker, one
                if len(running) + order.beside > 1 and not gpu:
                    for beside, _ in running.values():
                        beside.shared = True
                order.listener(one.job, {"phase": "start"})
            workers = [worker for worker, _ in running.values()]
            listen(workers, order.listener)
            kill([worker for worker in workers if worker.stopped is not None and worker.alive])
            if order.stop():  # asked after listening: Ctrl-C may have ended a worker by itself
                waiting.clear()
                end(workers, Outcome("interrupted", "stopped by the user"))
            for worker in [worker for worker in workers if not worker.alive]:
                _, one = running.pop(worker.process.pid)
                done = finish(worker, kills.died)
                room.learn(done.job, done.outcome)
                if worker.slot.device is not None and _is_lost(worker.slot.device, done.outcome):
                    lost.add(worker.slot.device)
                else:
                    free.append(worker.slot)
                done = replace(done, outside=_outside(worker, done.outcome, lost))
                if done.outside and one.tries_left and not order.stop():
                    alone = done.outside == MEMORY
                    waiting.append(
                        replace(one, attempt=one.attempt + 1, tries_left=one.tries_left - 1,
                                alone=alone)
                    )  # fmt: skip
                    done = replace(done, again=done.outside + (": now alone" if alone else ""))
                yield done
            overdue = [w for w in workers if w.alive and w.older_than(order.seconds_limit)]
            limit = f"over the limit of {order.seconds_limit or 0:g} s a job"
            end(overdue, Outcome("timed_out", limit), stacks=True)
            if waiting and not running and not free:
                raise UserError(
                    f"every GPU is lost; {len(waiting)} jobs were not started",
                    "Run the same command again when nvidia-smi shows the devices.",
                )
    finally:
        kill([worker for worker, _ in running.values()])
        starter.end()


def _refused(job: Job, attempt: int, reason: str) -> Finished:
    """The ending of a job that was never started."""
    now = utc_now()
    nothing = "the job was not started"
    return Finished(
        job, attempt, Outcome("unsupported", reason), now, now, 0.0, None, None, nothing
    )


def _next(waiting: list[_Waiting], running: Sequence[_Waiting], room: Room) -> _Waiting | None:
    """Take the first job that may start now off the list."""
    if any(one.alone for one in running):
        return None
    for place, one in enumerate(waiting[:LOOK_AHEAD]):
        fits = not running if one.alone else room.fits(one.job, [r.job for r in running])
        if fits:
            return waiting.pop(place)
    return None


def _outside(worker: Worker, outcome: Outcome, lost: set[str]) -> str:
    """What ended a job if that lay outside itself, so that it deserves another try."""
    if worker.slot.device in lost:
        return "its GPU was lost"
    if outcome.status == "out_of_memory" and worker.shared:
        return MEMORY
    if outcome.status == "crashed" and worker.killed:
        return "its worker was killed"
    return ""


def _is_lost(device: str, outcome: Outcome) -> bool:
    """Whether a GPU no longer answers, after a job on it went wrong."""
    return outcome.status == "crashed" and nvml.lost(device)

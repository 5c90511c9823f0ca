"""Run jobs on this machine: one worker process a job, as many at once as there is room for.

A worker that dies in any way leaves an outcome and a free slot; it never stops the matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from bench import nvml
from bench.errors import UserError
from bench.executors.order import Finished, Order
from bench.executors.process import OomKills, Starter, Worker, end, finish, kill, listen
from bench.executors.slots import Room, Slot, free_memory
from bench.outcome import Outcome
from bench.record import Job

LOOK_AHEAD = 100
"""Jobs that are looked at for one that fits beside those that run."""


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
    waiting = [_Waiting(job, attempt, order.retries) for job, attempt in order.jobs]
    free, lost = list(slots), set[str]()
    running: dict[int, tuple[Worker, _Waiting]] = {}
    kills = OomKills()
    gpu = any(slot.device is not None for slot in slots)
    starter = Starter(
        order.worker, order.places, order.logs, gpu, at_once=min(len(slots), len(waiting))
    )
    try:
        while waiting or running:
            while free and not order.stop():
                one = _next(waiting, [w for _, w in running.values()], room)
                if one is None:
                    break
                worker = starter.start(one.job, one.attempt, free.pop(0))
                running[worker.process.pid] = worker, one
                if len(running) > 1 and not gpu:
                    for beside, _ in running.values():
                        beside.shared = True
                order.listener(one.job, {"phase": "start"})
            workers = [worker for worker, _ in running.values()]
            listen(workers, order.listener)
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
                again = _again(worker, done.outcome, lost) if one.tries_left else None
                if again is not None and not order.stop():
                    waiting.append(
                        replace(one, attempt=one.attempt + 1, tries_left=one.tries_left - 1,
                                alone=again.alone)
                    )  # fmt: skip
                    done = replace(done, again=again.reason)
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


def _next(waiting: list[_Waiting], running: Sequence[_Waiting], room: Room) -> _Waiting | None:
    """Take the first job that may start now off the list."""
    if any(one.alone for one in running):
        return None
    for place, one in enumerate(waiting[:LOOK_AHEAD]):
        fits = not running if one.alone else room.fits(one.job, [r.job for r in running])
        if fits:
            return waiting.pop(place)
    return None


@dataclass(frozen=True)
class _Again:
    reason: str
    alone: bool = False


def _again(worker: Worker, outcome: Outcome, lost: set[str]) -> _Again | None:
    """Why a job deserves another try: what ended it lay outside itself."""
    if worker.slot.device in lost:
        return _Again("its GPU was lost")
    if outcome.status == "out_of_memory" and worker.shared:
        return _Again("memory ran out beside other jobs: now alone", alone=True)
    if outcome.status == "crashed" and worker.killed:
        return _Again("its worker was killed")
    return None


def _is_lost(device: str, outcome: Outcome) -> bool:
    """Whether a GPU no longer answers, after a job on it went wrong."""
    return outcome.status == "crashed" and nvml.lost(device)

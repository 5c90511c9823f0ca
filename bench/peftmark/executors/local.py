"""Run jobs on this machine in worker processes, as many at once as there is room for.

A worker that dies in any way leaves an outcome and a free slot; it never stops the matrix.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from peftmark.core.errors import UserError
from peftmark.executors.contract import Finished, Order, needs_of, utc_now
from peftmark.executors.launch import NotStarted
from peftmark.executors.oom_kills import OomKills
from peftmark.executors.process import Starter, Worker, end, finish, kill, listen
from peftmark.executors.slots import DeviceRoom, Room, Slot, free_memory, together
from peftmark.machine import nvml
from peftmark.record.job import Job
from peftmark.record.outcome import Outcome

LOOK_AHEAD = 100
"""Jobs that are looked at for one that fits beside those that run."""

MEMORY = "memory ran out beside other jobs"


@dataclass(frozen=True)
class _Waiting:
    job: Job
    attempt: int
    tries_left: int
    alone: bool = False


@dataclass(frozen=True)
class _State:
    """Where the jobs of an order stand: its lists change as they run.

    Attributes:
        waiting: attempts that have not started, the first one first.
        running: process id -> a worker, and the attempt that it runs.
        free: slots without a worker.
        lost: GPUs that no longer answer.
        room: the machine's memory.
        on_devices: the memory of its GPUs.
    """

    waiting: list[_Waiting]
    running: dict[int, tuple[Worker, _Waiting]]
    free: list[Slot]
    lost: set[str]
    room: Room
    on_devices: DeviceRoom

    def on(self, device: str | None) -> list[_Waiting]:
        """The attempts that run on a device."""
        return [one for worker, one in self.running.values() if worker.slot.device == device]


def run_jobs(
    order: Order,
    slots: Sequence[Slot],
    room: Room | None = None,
    jobs_per_process: int | None = None,
) -> Iterator[Finished]:
    """Run jobs here, yielding each attempt as it ends.

    Args:
        slots: places for workers, at least one.
        room: the memory that they share; by default what is free now, and the order's needs.
        jobs_per_process: jobs that a process may run in turn; None for `in_turn.most_jobs` alone.

    Raises:
        UserError: a job asks for more devices than there are, or every GPU is lost, and jobs are
            left.
    """
    _check_devices([job for job, _ in order.jobs], slots)
    room = room or Room(free_memory(), order.needs)
    waiting = []
    for job, attempt in order.jobs:
        if (why := order.refused.get(needs_of(job))) is None:
            waiting.append(_Waiting(job, attempt, order.retries))
        else:
            yield _never_ran(job, attempt, Outcome("unsupported", why))
    if not waiting:
        return
    state = _State(waiting, {}, list(slots), set(), room, DeviceRoom(order.on_device))
    kills = OomKills()
    at_once = min(len(slots) // min(w.job.recipe.devices for w in waiting), len(waiting))
    starter = Starter(order, slots[0].device is not None, at_once, jobs_per_process)
    try:
        while waiting or state.running:
            for one, why in _fill_slots(state, order, starter):
                yield _never_ran(one.job, one.attempt, Outcome("crashed", why))
            workers = [worker for worker, _ in state.running.values()]
            listen(workers, order.listener)
            kill([worker for worker in workers if worker.stopped is not None and worker.alive])
            if order.stop():  # asked after listening: Ctrl-C may have ended a worker by itself
                waiting.clear()
                end(workers, Outcome("interrupted", "stopped by the user"))
            for worker in [worker for worker in workers if worker.over]:
                _, one = state.running.pop(worker.process.pid)
                done = _finished(worker, state, kills)
                starter.rest(worker)
                if done.outside and one.tries_left and not order.stop():
                    another = _next_try(one, done.outside)
                    waiting.append(another)
                    why = done.outside + (": now alone" if another.alone else "")
                    done = replace(done, again=why)
                yield done
            overdue = [w for w in workers if not w.over and w.older_than(order.seconds_limit)]
            limit = f"over the limit of {order.seconds_limit or 0:g} s a job"
            end(overdue, Outcome("timed_out", limit), stacks=True)
            _check_left(state)
    finally:
        kill([worker for worker, _ in state.running.values()])
        starter.end()


def _check_devices(jobs: Sequence[Job], slots: Sequence[Slot]) -> None:
    """Raise UserError for jobs over several devices that could never start here."""
    most = max((job.recipe.devices for job in jobs), default=1)
    what = "GPUs" if slots[0].device is not None else "processor cores"
    if most > 1 and slots[0].shared:
        raise UserError(
            f"the recipe asks for {most} devices a job (devices), and jobs that share a GPU have "
            "one each",
            "Leave --jobs-per-gpu out, or set devices: 1.",
        )
    if most > len(slots):
        raise UserError(
            f"the recipe asks for {most} {what} a job (devices), and there are places for "
            f"{len(slots)} processes",
            f"Set devices to {len(slots)} or fewer, or --jobs to {most} or more, where the machine "
            "has them.",
        )


def _check_left(state: _State) -> None:
    """Raise UserError if jobs wait, none runs, and too few GPUs are left for any."""
    left, waiting = len(state.free), state.waiting
    if state.running or not waiting or any(one.job.recipe.devices <= left for one in waiting):
        return
    raise UserError(
        f"every GPU is lost{f' but {left}' if left else ''}; {len(waiting)} jobs were not started",
        "Run the same command again when nvidia-smi shows the devices.",
    )


def _fill_slots(state: _State, order: Order, starter: Starter) -> Iterator[tuple[_Waiting, str]]:
    """Start jobs, as many as there are free slots and memory for; those that could not be started,
    and why."""
    while state.free and not order.stop():
        found = _next(state, starter.idle)
        if found is None:
            return
        one, slot = found
        state.waiting.remove(one)
        for place in slot.places:
            state.free.remove(place)
        try:
            worker = starter.start(one.job, one.attempt, slot)
        except NotStarted as error:
            state.free[:0] = slot.places
            yield one, str(error)
            continue
        state.running[worker.process.pid] = worker, one
        # Those in the same memory: of the machine, or of a GPU.
        mates = [w for w, _ in state.running.values() if w.slot.device == slot.device]
        if len(mates) + (order.beside if slot.device is None else 0) > 1:
            for mate in mates:
                mate.shared = True
        order.listener(one.job, {"phase": "start"})


def _finished(worker: Worker, state: _State, kills: OomKills) -> Finished:
    """How a worker's attempt ended; its slot is free again, unless its GPU is lost."""
    done = finish(worker, kills.died)
    state.room.learn(done.job, done.outcome)
    if worker.slot.shared:
        state.on_devices.learn(done)
    state.lost.update(name for name in worker.slot.devices if _is_lost(name, done.outcome))
    state.free.extend(worker.slot.places)
    state.free[:] = [slot for slot in state.free if slot.device not in state.lost]
    return replace(done, outside=_outside(worker, done.outcome, state.lost))


def _next_try(one: _Waiting, outside: str) -> _Waiting:
    """The attempt after one that something outside the job ended."""
    return replace(
        one, attempt=one.attempt + 1, tries_left=one.tries_left - 1, alone=outside == MEMORY
    )


def _never_ran(job: Job, attempt: int, outcome: Outcome) -> Finished:
    """The ending of a job that was never started."""
    now = utc_now()
    return Finished(job, attempt, outcome, now, now, 0.0, None, None, "the job was not started")


def _next(state: _State, idle: Callable[[str | None], int]) -> tuple[_Waiting, Slot] | None:
    """The first job that may start now, and where: on the GPU with the fewest jobs.

    Args:
        idle: device -> processes on it that wait for a job.
    """
    running = [one for _, one in state.running.values()]
    # Equal ones keep their order.
    slots = sorted(dict.fromkeys(state.free), key=lambda slot: len(state.on(slot.device)))
    for one in state.waiting[:LOOK_AHEAD]:
        if not state.room.fits(one.job, [other.job for other in running]):
            continue
        if (count := one.job.recipe.devices) > 1:
            if len(state.free) >= count and _may_start(one, state.free[0], state, 0):
                return one, together(state.free[:count])
            continue
        for slot in slots:
            if _may_start(one, slot, state, idle(slot.device)):
                return one, slot
    return None


def _may_start(one: _Waiting, slot: Slot, state: _State, idle: int) -> bool:
    """Whether a job may start in a place beside those that run in the same memory."""
    beside = state.on(slot.device)
    if any(other.alone for other in beside) or (one.alone and beside):
        return False
    if not slot.shared:
        return True
    left = max(0, idle - 1)  # this job takes one of the processes that wait
    return state.on_devices.fits(one.job, slot, [other.job for other in beside], left)


def _outside(worker: Worker, outcome: Outcome, lost: set[str]) -> str:
    """What ended a job if that lay outside itself, so that it deserves another try."""
    if lost.intersection(worker.slot.devices):
        return "its GPU was lost"
    if outcome.status == "out_of_memory" and worker.shared:
        return MEMORY
    if outcome.status == "crashed" and (worker.killed or worker.lost):
        return "its worker was killed"
    return ""


def _is_lost(device: str, outcome: Outcome) -> bool:
    """Whether a GPU no longer answers, after a job on it went wrong."""
    return outcome.status == "crashed" and nvml.lost(device)

"""Which executor runs the jobs, on which device, and how many at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from peftmark.core.errors import UserError
from peftmark.executors import local, ray, slurm
from peftmark.executors.contract import Finished, Order
from peftmark.executors.slots import Slot, cpu_slots, gpu_slots
from peftmark.machine import nvml
from peftmark.machine.accelerators import kind_of
from peftmark.machine.environment import cores
from peftmark.machine.visible import REMEDY
from peftmark.record.job import DEVICES, Device, Job

EXECUTORS = ("local", "ray", "slurm")
AUTO: Literal["auto"] = "auto"
"""As many jobs on a GPU as there are processor cores for, where its memory holds them."""

QUEUED = 64
"""Jobs that Slurm's queue holds of a run, unless `--jobs` says otherwise."""


@dataclass(frozen=True)
class Where:
    """Where the user wants jobs to run, as typed.

    Attributes:
        executor: one of `EXECUTORS`.
        ray_address: HOST:PORT of a Ray cluster.
        slurm: `key=value,...` for Slurm.
        device: what the nodes have; None to ask Ray, or for the CPU.
        jobs_per_process: jobs that a process here may run in turn; None for what is the default.
        jobs_per_gpu: jobs that may share a GPU here, as many as its memory holds: at most so many,
            or `AUTO` for one a processor core; None for one.
    """

    executor: str = "local"
    ray_address: str | None = None
    slurm: str | None = None
    device: str | None = None
    jobs_per_process: int | None = None
    jobs_per_gpu: int | Literal["auto"] | None = None

    def words(self) -> list[str]:
        """The same as options of a command that runs one job."""
        options = {
            "--executor": self.executor if self.executor != "local" else None,
            "--ray-address": self.ray_address,
            "--slurm": self.slurm,
            "--node-device": self.device,
        }
        return [word for name, value in options.items() if value for word in (name, value)]


HERE = Where()


@dataclass(frozen=True)
class Venue:
    """Where jobs will run.

    Attributes:
        device: the device of every job.
        gpus: GPUs there are, as far as is known.
        at_once: jobs that run at the same time, at most.
        run: runs them.
        slots: places for workers on this machine; none where jobs run elsewhere.
        told: what to tell a person who may have expected a GPU; empty for nothing.
    """

    device: Device
    gpus: int
    at_once: int
    run: Callable[[Order], Iterator[Finished]]
    slots: list[Slot] = field(default_factory=list)
    told: str = ""

    @property
    def workers(self) -> int:
        """Jobs at once that take no time from each other, as far as is known."""
        devices = {slot.device for slot in self.slots if slot.shared}
        return len(devices) or self.at_once

    def of(self, jobs: Iterable[Job]) -> Venue:
        """The same for these jobs: those over several devices take as many places here each."""
        most = max((job.recipe.devices for job in jobs), default=1)
        if most == 1 or not self.slots:
            return self
        return replace(self, at_once=max(1, self.at_once // most))


def choose(where: Where, jobs: int | None) -> Venue:
    """The venue for what the user typed.

    Args:
        jobs: most jobs at once, None for as many as there is room for.

    Raises:
        UserError: options that contradict each other, a cluster that is not there, more jobs than
            GPUs, or GPUs asked for that are not there.
    """
    _check(where)
    return VENUES[where.executor](where, jobs)


def _check(where: Where) -> None:
    """Raise UserError for options that contradict each other."""
    owners = {
        "--ray-address": (where.ray_address, ("ray",)),
        "--slurm": (where.slurm, ("slurm",)),
        "--node-device": (where.device, ("ray", "slurm")),
        "--jobs-per-process": (where.jobs_per_process, ("local",)),
        "--jobs-per-gpu": (where.jobs_per_gpu, ("local",)),
    }
    for option, (value, executors) in owners.items():
        if value is not None and where.executor not in executors:
            raise UserError(
                f"{option} says nothing to the executor {where.executor}",
                f"Add --executor {' or '.join(executors)}, or leave {option} out.",
            )


def _here(where: Where, jobs: int | None) -> Venue:
    devices = nvml.devices()
    if devices.refused:
        raise UserError(devices.refused, REMEDY)
    found = [gpu.uuid for gpu in devices.found]
    memory = {gpu.uuid: gpu.memory_bytes for gpu in devices.found}
    if found and where.jobs_per_gpu is not None and (why := kind_of(devices.device).alone):
        raise UserError(
            f"--jobs-per-gpu says nothing of {kind_of(devices.device).title}: {why}",
            "Leave it out: one job runs at a time.",
        )
    slots = _slots(jobs, memory, where.jobs_per_gpu)
    run = partial(_run_here, slots=slots, jobs_per_process=where.jobs_per_process)
    device: Device = devices.device if found else "cpu"
    return Venue(device, len(found), len(slots), run, slots, devices.told)


def on_cpu(jobs: int | None) -> Venue:
    """This machine's processor, whatever GPUs it has.

    Args:
        jobs: most jobs at once, None for one a core.
    """
    slots = cpu_slots(jobs or cores())
    run = partial(_run_here, slots=slots, jobs_per_process=None)
    return Venue("cpu", 0, len(slots), run, slots)


def _run_here(
    order: Order, slots: Sequence[Slot], jobs_per_process: int | None
) -> Iterator[Finished]:
    return local.run_jobs(order, slots, jobs_per_process=jobs_per_process)


def _slots(
    wanted: int | None, gpus: Mapping[str, int | None], per_gpu: int | Literal["auto"] | None
) -> list[Slot]:
    """Places for workers.

    Args:
        wanted: jobs at once, at most; None for as many as there is room for.
        gpus: UUID -> bytes, None where that is not known.
        per_gpu: jobs that may share a GPU.
    """
    if not gpus:
        if per_gpu is not None:
            raise UserError(
                "--jobs-per-gpu says nothing on a machine without GPUs",
                "Leave it out; `peftmark doctor` shows which GPUs are seen, and --jobs says how "
                "many jobs run at once.",
            )
        return cpu_slots(wanted or cores())
    # Each worker keeps a core busy.
    on_each = max(1, cores() // len(gpus)) if per_gpu == AUTO else per_gpu or 1
    if wanted is not None and wanted > on_each * len(gpus):
        raise _too_many(wanted, len(gpus), on_each)
    places = gpu_slots({uuid: nvml.near_cores(uuid) for uuid in gpus}, on_each, gpus)
    return places[: wanted or len(places)]


def _too_many(wanted: int, gpus: int, on_each: int) -> UserError:
    if on_each == 1:
        return UserError(
            f"--jobs {wanted}: there are {gpus} GPUs, and two jobs on one would falsify each "
            "other's time and memory",
            f"Use --jobs 1 to {gpus}, or --jobs-per-gpu, with which a part of each job is timed "
            "alone.",
        )
    return UserError(
        f"--jobs {wanted}: there are {gpus} GPUs with {on_each} jobs on each at most",
        f"Use --jobs 1 to {gpus * on_each}, or more jobs with --jobs-per-gpu.",
    )


def _on_ray(where: Where, jobs: int | None) -> Venue:
    if where.ray_address is None:
        raise UserError(
            "--executor ray needs the address of a Ray cluster that runs",
            "Add --ray-address HOST:PORT; `ray start --head` starts one and prints it.",
        )
    cpus, gpus = ray.resources(where.ray_address)
    device = _device(where.device or ("cuda" if gpus else "cpu"))
    room = cpus if device == "cpu" else min(cpus, gpus)
    if not room:
        what = "CPU" if device == "cpu" else "GPU with a CPU beside it"
        raise UserError(
            f"the Ray cluster at {where.ray_address} has {cpus} CPUs and {gpus} GPUs: no {what}",
            "Add a node, or choose another --node-device.",
        )
    at_once = min(jobs or room, room)
    run = partial(ray.run_jobs, address=where.ray_address, device=device, at_once=at_once)
    return Venue(device, gpus, at_once, run)


def _on_slurm(where: Where, jobs: int | None) -> Venue:
    given = slurm.settings(where.slurm or "")
    slurm.library()
    device = _device(where.device or "cpu")
    at_once = jobs or (cores() if given.cluster == "local" else QUEUED)
    run = partial(slurm.run_jobs, given=given, device=device, at_once=at_once)
    return Venue(device, 0 if device == "cpu" else at_once, at_once, run)


def _device(name: str) -> Device:
    return next(device for device in DEVICES if device == name)


VENUES: Mapping[str, Callable[[Where, int | None], Venue]] = {
    "local": _here,
    "ray": _on_ray,
    "slurm": _on_slurm,
}
"""Executor -> what makes its venue."""

"""Places for workers on this machine, and the memory they share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from peftmark.executors.contract import Finished, needs_of
from peftmark.machine.environment import allowed_cores
from peftmark.machine.gpus import CONTEXT_BYTES
from peftmark.machine.groups import cpu_quota, memory_left
from peftmark.record.job import Job
from peftmark.record.outcome import Outcome

_CPU = Path("/sys/devices/system/cpu")
_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True)
class Slot:
    """A place for one worker at a time.

    Attributes:
        device: UUID of its GPU, None for the CPU.
        cores: cores it is bound to; empty to let the kernel choose.
        on_device: places on the same GPU, this one among them.
        memory: bytes of its GPU; None if that is not known.
        others: where the other processes of a job over several devices are; this is the first's.
    """

    device: str | None = None
    cores: frozenset[int] = frozenset()
    on_device: int = 1
    memory: int | None = None
    others: tuple[Slot, ...] = ()

    @property
    def shared(self) -> bool:
        """Whether other workers may be on its GPU."""
        return self.on_device > 1

    @property
    def places(self) -> tuple[Slot, ...]:
        """Its places one by one."""
        return replace(self, others=()), *self.others

    @property
    def devices(self) -> list[str]:
        """The GPUs of its places; none on the CPU."""
        return [place.device for place in self.places if place.device is not None]


def together(slots: Sequence[Slot]) -> Slot:
    """Several places as that of one job."""
    return replace(slots[0], others=tuple(slots[1:]))


def cpu_slots(count: int) -> list[Slot]:
    """Places on the CPU, each bound to a core of its own if all the cores are taken.

    With fewer workers than cores the kernel chooses: two runs side by side must not meet on the
    same core. With more there is none to give, and none with more than a quota has time for.
    """
    cores, quota = _in_order(allowed_cores()), cpu_quota()
    if count != len(cores) or (quota is not None and quota < count):
        return [Slot()] * count
    return [Slot(cores=frozenset({core})) for core in cores]


def gpu_slots(
    devices: Mapping[str, frozenset[int]],
    on_each: int = 1,
    memory: Mapping[str, int | None] = MappingProxyType({}),
) -> list[Slot]:
    """Places on every GPU, bound to the cores that are near it: a first one on each, then the
    second ones.

    Args:
        devices: UUID -> cores that share its node; empty if that is not known.
        on_each: places on each GPU.
        memory: UUID -> bytes, None where that is not known.
    """
    allowed = set(allowed_cores())
    return on_each * [
        Slot(uuid, frozenset(near & allowed), on_each, memory.get(uuid))
        for uuid, near in devices.items()
    ]


def _in_order(cores: Sequence[int]) -> list[int]:
    """One hardware thread of every core first, then their twins."""

    def twin(core: int) -> int:
        with suppress(OSError, ValueError):
            text = (_CPU / f"cpu{core}" / "topology" / "thread_siblings_list").read_text()
            # As in "0,64" or "0-1".
            siblings = [int(part) for part in text.strip().replace("-", ",").split(",")]
            return siblings.index(core) if core in siblings else 1
        return 0

    return sorted(cores, key=lambda core: (twin(core), core))


def free_memory() -> int | None:
    """Bytes that new processes can take: the machine's, or less where a container limits it."""
    found = []
    with suppress(OSError, ValueError, IndexError):
        line = next(x for x in _MEMINFO.read_text().splitlines() if x.startswith("MemAvailable:"))
        found.append(int(line.split()[1]) * 1024)
    if (left := memory_left()) is not None:
        found.append(left)
    return max(0, min(found)) if found else None


class Room:
    """Which jobs fit beside each other into the machine's memory.

    Args:
        total: bytes there are for all workers together; None if that is not known.
        needs: `needs_of(job)` -> bytes, from earlier runs.

    A job that nothing is known of is let in: if memory runs out it is tried again alone, and from
    then on its need is known.
    """

    def __init__(self, total: int | None, needs: Mapping[str, int]) -> None:
        self._total = total
        self._needs = dict(needs)

    def fits(self, job: Job, running: Iterable[Job]) -> bool:
        """Whether a job may start beside those that run. Alone it always may."""
        others = [self._need(other) for other in running]
        if not others or self._total is None:
            return True
        return self._need(job) + sum(others) <= self._total

    def _need(self, job: Job) -> int:
        """Bytes of all of a job's processes."""
        return self._needs.get(needs_of(job), 0) * job.recipe.devices

    def learn(self, job: Job, outcome: Outcome) -> None:
        """Take in what a job took."""
        if outcome.vmhwm_bytes is not None:
            key = needs_of(job)
            self._needs[key] = max(self._needs.get(key, 0), outcome.vmhwm_bytes)


LEFT_FREE = 0.05
"""Share of a GPU's memory that predictions leave over where jobs share it: for what the driver
keeps, and for holes in what is free. An assumption."""


class DeviceRoom:
    """Which jobs fit beside each other into the memory of one GPU.

    Args:
        needs: `needs_of(job)` -> bytes of the GPU that such a job takes, its CUDA context among
            them: as predicted, or as seen in earlier runs.

    A job that nothing is known of has the GPU alone; from then on its need is known.
    """

    def __init__(self, needs: Mapping[str, int]) -> None:
        self._needs = dict(needs)

    def fits(self, job: Job, slot: Slot, running: Iterable[Job], idle: int = 0) -> bool:
        """Whether a job may start in a place beside those that run on its GPU. Alone it always may.

        Args:
            running: jobs on the GPU.
            idle: processes on it that wait for a job.
        """
        jobs = [job, *running]
        if len(jobs) == 1:
            return True
        needs = [self._needs.get(needs_of(one)) for one in jobs]
        known = [need for need in needs if need is not None]
        if slot.memory is None or len(known) < len(needs):
            return False
        return sum(known) + idle * CONTEXT_BYTES <= (1 - LEFT_FREE) * slot.memory

    def learn(self, done: Finished) -> None:
        """Take in what a job took."""
        if (taken := device_bytes(done.nvml_process_bytes, done.outcome)) is not None:
            key = needs_of(done.job)
            self._needs[key] = max(self._needs.get(key, 0), taken)


def device_bytes(process_bytes: int | None, outcome: Outcome) -> int | None:
    """Bytes of its GPU that a job took: as the driver saw its process, or else what torch had
    reserved, and a context; None where neither is known."""
    if process_bytes is not None:
        return process_bytes
    reserved = outcome.torch_reserved_bytes
    return None if reserved is None else reserved + CONTEXT_BYTES

"""Clocks, memory and energy of one job, kept apart by phase.

Readings are taken at the edges of a phase, after a synchronisation; inside the timed steps there is
one time stamp a step, and a thread that reads the processor's energy every half a minute. What
cannot be read is None with a reason.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peftmark.lab.accelerator import module_of, synchronise
from peftmark.lab.number_types import TYPES
from peftmark.lab.team import Team
from peftmark.machine import nvml
from peftmark.machine.accelerators import kind_of
from peftmark.machine.rapl import Rapl
from peftmark.machine.shared_device import SharedDevice
from peftmark.record.fields import figure

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")
_NO_PROC = "no /proc on this system"

TRAINING = ("warm_up", "train", "beside")
"""Phases of training steps: before the timed ones, those, and the rest of a job that shares its
GPU."""
SHORTEST_SECONDS = 1.0
"""Below this an energy counter's steps (20 to 100 ms on a GPU) are too coarse to mean anything."""
SHORT_SECONDS = 10.0
"""Below this the figure stands, flagged."""


@dataclass(frozen=True)
class Reading:
    """A figure or why there is none."""

    value: float | None
    reason: str = ""


class _Difference:
    """What a counter rises by between `start` and `stop`, for one that never starts again."""

    def __init__(self, counter: nvml.EnergyCounter) -> None:
        self._counter = counter
        self._before: tuple[float | None, str] = None, ""

    def start(self) -> None:
        self._before = self._counter.read()

    def stop(self) -> tuple[float | None, str]:
        (start, start_reason), (after, reason) = self._before, self._counter.read()
        if start is None or after is None:
            return None, start_reason or reason
        if after < start:
            return None, f"the counter went backwards, from {start:.0f} to {after:.0f} J"
        return after - start, ""


class Meters:
    """Measures the phases of one job.

    Args:
        device: where the model is.
        turns: the device as other jobs use it too, which timed steps have for themselves.
    """

    def __init__(self, device: torch.device, turns: SharedDevice | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self.noted: dict[str, Any] = {}
        self.cpu_seconds = 0.0
        self.allocated: int | None = None
        self.reserved: int | None = None
        self.vmhwm: int | None = None
        self.vmhwm_train: int | None = None
        self.turns = turns or SharedDevice()
        if self.turns.shared:
            self.turns.settle = self._synchronise
        self._device = device
        self._gpu: Any = None if device.type == "cpu" else module_of(device)
        self._marks: list[list[Any]] = []  # time stamps of each timed phase
        self._open = False
        uuid = os.environ.get("CUDA_VISIBLE_DEVICES", "") if device.type == "cuda" else ""
        self._uuid = uuid
        self._counters: dict[str, Rapl | _Difference] = {
            "cpu": Rapl(),
            **({"gpu": _Difference(nvml.EnergyCounter(uuid))} if uuid else {}),
        }
        self._joules: dict[str, Reading] = {name: Reading(0.0) for name in self._counters}
        self._flags: list[str] = []

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure the time inside, and for training steps the rest too."""
        with self.turns.alone() if name == "train" else nullcontext():
            self.turns.pause()
            with self._measured(name):
                yield

    @contextmanager
    def _measured(self, name: str) -> Iterator[None]:
        self._synchronise()
        training = name in TRAINING
        if training:
            self._before_training()
        timed = name == "train"
        if timed:
            self._start_energy()
        cpu = time.process_time()
        start = time.perf_counter()
        if timed:
            self._marks.append([self._stamp()])
            self._open = True
        try:
            yield
        finally:
            self._open = False
            self._synchronise()
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            if timed:
                self.cpu_seconds += time.process_time() - cpu
                self._add_energy()
            if training:
                self._after_training()

    def book(self, target: str, seconds: float, source: str | None) -> None:
        """Book time under a phase, taking it from another where it was spent in this job."""
        if source is not None:
            self.seconds[source] -= seconds
        self.seconds[target] = self.seconds.get(target, 0.0) + seconds

    def note(self, column: str, value: float | int | str | None) -> None:
        """Keep the first value of a figure, which becomes the column of that name.

        Raises:
            KeyError: there is no such column; says what to write.
        """
        self.noted.setdefault(figure(column).key, value)

    def step(self) -> None:
        """Mark the end of a step; outside timed phases nothing is kept, and other jobs may have the
        device for themselves first."""
        if self._open:
            self._marks[-1].append(self._stamp())
        else:
            self.turns.pause()

    # --- time -----------------------------------------------------------------------------------

    def _stamp(self) -> Any:
        if self._gpu is None:
            return time.perf_counter()
        event = self._gpu.Event(enable_timing=True)
        event.record()  # no waiting: the device notes the time when it gets there
        return event

    def step_seconds(self) -> list[float]:
        """Seconds of every timed step. On a GPU call it only after a phase has ended."""
        pairs = [pair for marks in self._marks for pair in pairwise(marks)]
        if self._gpu is None:
            return [after - before for before, after in pairs]
        return [before.elapsed_time(after) / 1000 for before, after in pairs]

    def step_percentiles(self) -> tuple[float, float, float] | None:
        """The 10th, 50th and 90th percentile of the timed steps' seconds."""
        seconds = self.step_seconds()
        if not seconds:
            return None
        low, middle, high = np.percentile(seconds, [10, 50, 90])
        return float(low), float(middle), float(high)

    def _synchronise(self) -> None:
        synchronise(self._device)

    # --- memory ---------------------------------------------------------------------------------

    def _before_training(self) -> None:
        if self._gpu is not None:
            self._gpu.reset_peak_memory_stats(self._device)
        self.vmhwm = _most(self.vmhwm, high_water_mark())
        reset_high_water_mark()
        # After the reset, which files' pages dropped before it would not count for; and a peak by
        # itself, since the kernel sums both figures from counters that lag by some pages.
        (resident,) = status_bytes("VmRSS")
        self.note("rss_before_train_bytes", resident)
        self.vmhwm_train = _most(self.vmhwm_train, resident)

    def _after_training(self) -> None:
        if self._gpu is not None:
            allocated = self._gpu.max_memory_allocated(self._device)
            reserved = self._gpu.max_memory_reserved(self._device)
            self.allocated = _most(self.allocated, allocated)
            self.reserved = _most(self.reserved, reserved)
        self.vmhwm_train = _most(self.vmhwm_train, high_water_mark())

    def life_peak(self) -> int | None:
        """VmHWM of the worker so far, over all phases."""
        self.vmhwm = _most(self.vmhwm, _most(self.vmhwm_train, high_water_mark()))
        return self.vmhwm

    # --- several processes ----------------------------------------------------------------------

    def take_in(self, team: Team) -> None:
        """Take in what the job's other processes read of their training: memory of the largest, and
        time of all processors and energy of all GPUs together. The processors' energy is the
        machine's whoever reads it."""
        gpu = self._joules.get("gpu", Reading(None)).value
        own = [self.allocated, self.reserved, self.vmhwm_train, self.life_peak()]
        every = team.gathered([*own, self.cpu_seconds, gpu])
        columns = list(zip(*every, strict=True))
        self.allocated, self.reserved, self.vmhwm_train, self.vmhwm = (
            int(max(known)) if (known := [v for v in values if v is not None]) else None
            for values in columns[:4]
        )
        self.cpu_seconds = _sum(columns[4]) or 0.0
        if gpu is not None:
            joules = _sum(columns[5])
            self._joules["gpu"] = Reading(joules, "a counter of another of its GPUs can't be read")
        summed = _sum(columns[0] if self._gpu is not None else columns[2])
        self.note("summed_peak_bytes", None if summed is None else int(summed))

    # --- energy ---------------------------------------------------------------------------------

    def _start_energy(self) -> None:
        for counter in self._counters.values():
            counter.start()

    def _add_energy(self) -> None:
        stretch = {name: counter.stop() for name, counter in self._counters.items()}
        # On a shared device the supervisor tells strangers from the jobs that have paused.
        if (
            self._uuid
            and not self.turns.shared
            and (found := nvml.contention(self._uuid, os.getpid()))
        ):
            self._flag(found)
        for name, (joules, reason) in stretch.items():
            so_far = self._joules[name]
            if so_far.value is None:
                continue
            total = None if joules is None else so_far.value + joules
            self._joules[name] = Reading(total, reason)

    def _flag(self, text: str) -> None:
        if text not in self._flags:
            self._flags.append(text)

    def energy(self) -> tuple[Reading, Reading, tuple[str, ...]]:
        """(GPU joules, CPU joules, flags) of the timed steps."""
        window = self.seconds.get("train", 0.0)
        found = {}
        for name in ("gpu", "cpu"):
            reading = self._joules.get(name, Reading(None, self._no_gpu_counter()))
            if reading.value is not None and window < SHORTEST_SECONDS:
                reading = Reading(None, f"the timed steps took {window:.2f} s, too short to meter")
            found[name] = reading
        if any(reading.value is not None for reading in found.values()):
            if window < SHORT_SECONDS:
                self._flag(f"short window: {window:.1f} s")
            at_once = os.environ.get("PEFTMARK_JOBS_AT_ONCE", "1")
            if found["cpu"].value is not None and at_once != "1":
                self._flag(f"contended: {at_once} jobs at once on this machine")
        return found["gpu"], found["cpu"], tuple(self._flags)

    def _no_gpu_counter(self) -> str:
        """Why no counter of a GPU is read."""
        if self._gpu is None:
            return "the job ran on the CPU"
        kind: Any = self._device.type
        return kind_of(kind).unmetered or "no device is named"


def _sum(values: Sequence[float | None]) -> float | None:
    """The sum of values of which none is unknown; else None."""
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _most(one: int | None, other: int | None) -> int | None:
    found = [value for value in (one, other) if value is not None]
    return max(found) if found else None


def status_bytes(*names: str) -> tuple[int | None, ...]:
    """Memory figures of this process from /proc, in bytes; None without /proc.

    Args:
        names: keys of /proc/self/status, such as VmRSS. All are from one read: the kernel takes a
            quarter of a millisecond for it.
    """
    found: dict[str, int] = {}
    try:
        for line in _STATUS.read_text().splitlines():
            key, _, rest = line.partition(":")
            if key in names:
                found[key] = int(rest.split()[0]) * 1024
    except OSError:
        return (None,) * len(names)
    return tuple(found.get(name) for name in names)


def high_water_mark() -> int | None:
    """VmHWM of this process in bytes; never ru_maxrss, which a child inherits from its parent."""
    return status_bytes("VmHWM")[0]


def reset_high_water_mark() -> None:
    """Start VmHWM anew from the memory now in use (Linux: 5 to clear_refs)."""
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return


GEMM_SIZE = {"cpu": 1024, "cuda": 8192, "xpu": 8192}
GEMM_SECONDS = 0.25


def gemm_peak(device: torch.device, precision: str) -> float:
    """Floating-point operations a second of a large square matrix product, the best of several.

    With the thread count that is set, in the precision of the job, right now on this machine.
    """
    size = GEMM_SIZE[device.type]
    kind = TYPES[precision]
    # Random numbers: a GPU multiplies constants faster than data. A generator of its own, so that
    # the job's streams stay as they are.
    source = torch.Generator(device=device).manual_seed(0)
    left = torch.rand(size, size, device=device, generator=source).to(kind)
    out = torch.empty_like(left)
    best, spent = float("inf"), 0.0
    torch.mm(left, left, out=out)
    while spent < GEMM_SECONDS:
        synchronise(device)
        start = time.perf_counter()
        torch.mm(left, left, out=out)
        synchronise(device)
        took = time.perf_counter() - start
        best, spent = min(best, took), spent + took
    return 2 * size**3 / best


def timed_peak(meters: Meters, device: torch.device, precision: str) -> float | None:
    """`gemm_peak` with the device to itself; None where the job is timed nowhere."""
    if not meters.turns.timed:
        return None
    with meters.turns.alone():
        return gemm_peak(device, precision)

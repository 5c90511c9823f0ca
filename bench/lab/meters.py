"""Clocks and memory of one job, kept apart by phase."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR_REFS = Path("/proc/self/clear_refs")


class Meters:
    """Wall seconds by phase and the peak memory.

    On CUDA the peak is torch's `max_memory_allocated` over the training phase alone, since
    evaluation batches are larger; on the CPU it is the worker's VmHWM over its whole life.
    Time is taken at the edges of a phase only, after a synchronisation.
    """

    def __init__(self, device: torch.device) -> None:
        self.seconds: dict[str, float] = {}
        self._cuda = device if device.type == "cuda" else None
        self._cuda_peak = 0

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time inside to the phase."""
        training = self._cuda is not None and name == "train"
        self._synchronise()
        if training:
            torch.cuda.reset_peak_memory_stats(self._cuda)
        start = time.perf_counter()
        try:
            yield
        finally:
            self._synchronise()
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            if training:
                peak = torch.cuda.max_memory_allocated(self._cuda)
                self._cuda_peak = max(self._cuda_peak, peak)

    def _synchronise(self) -> None:
        if self._cuda is not None:
            torch.cuda.synchronize(self._cuda)

    def peak_memory(self) -> tuple[int | None, str]:
        """Peak bytes and what measured them."""
        if self._cuda is not None:
            return self._cuda_peak, "torch max_memory_allocated, training"
        peak = high_water_mark()
        return peak, "VmHWM of worker" if peak else "none: no /proc on this system"


def high_water_mark() -> int | None:
    """VmHWM of this process in bytes; never ru_maxrss, which a child inherits from its parent."""
    try:
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        return None
    return None


def reset_high_water_mark() -> None:
    """Start VmHWM anew from the memory now in use (Linux: 5 to clear_refs)."""
    try:
        _CLEAR_REFS.write_text("5")
    except OSError:
        return

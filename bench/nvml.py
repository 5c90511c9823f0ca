"""NVIDIA device counters behind one file (module `pynvml` of the package nvidia-ml-py).

Nothing here raises: a machine without driver, library or device is an ordinary machine, and the
reason is data. What only a GPU can confirm is listed in docs/architecture.md.
"""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any


@dataclass(frozen=True)
class Gpu:
    """One CUDA device as NVML names it; `uuid` is what CUDA_VISIBLE_DEVICES accepts."""

    uuid: str
    name: str
    memory_bytes: int | None


@dataclass(frozen=True)
class Devices:
    """Devices found, and the reason when there are none."""

    found: tuple[Gpu, ...]
    reason: str | None
    driver: str | None = None


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def devices() -> Devices:
    """List the NVIDIA devices of this machine."""
    try:
        import pynvml
    except ImportError as error:
        return Devices((), f"nvidia-ml-py is not installed ({error})")
    try:
        pynvml.nvmlInit()
    except Exception as error:  # a driver half installed raises more than NVMLError
        return Devices((), f"NVML: {error}")
    try:
        listed = [_gpu(pynvml, i) for i in range(pynvml.nvmlDeviceGetCount())]
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        found = _allowed(listed, os.environ.get("CUDA_VISIBLE_DEVICES"))
        reason = "CUDA_VISIBLE_DEVICES leaves none" if listed else "NVML lists no device"
        return Devices(found, None if found else reason, driver)
    except Exception as error:
        return Devices((), f"NVML: {error}")
    finally:
        _shutdown(pynvml)


def _allowed(listed: list[Gpu], visible: str | None) -> tuple[Gpu, ...]:
    """The devices that CUDA_VISIBLE_DEVICES leaves, in its order.

    It names devices by number or by the head of their UUID, and ends at the first unknown name.
    Numbers count in NVML's (PCI) order here; CUDA counts so only with CUDA_DEVICE_ORDER=PCI_BUS_ID,
    so on a machine with unlike cards UUIDs are the safe way.
    """
    if visible is None:
        return tuple(listed)
    allowed: list[Gpu] = []
    for name in (part.strip() for part in visible.split(",")):
        numbered = name.isdecimal() and int(name) < len(listed)
        match = [listed[int(name)]] if numbered else [g for g in listed if g.uuid.startswith(name)]
        if not name or len(match) != 1:
            break
        allowed += match
    return tuple(allowed)


def _shutdown(pynvml: Any) -> None:
    with suppress(Exception):
        pynvml.nvmlShutdown()


def _gpu(pynvml: Any, index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    try:
        memory: int | None = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    except pynvml.NVMLError:
        memory = None
    return Gpu(
        _text(pynvml.nvmlDeviceGetUUID(handle)), _text(pynvml.nvmlDeviceGetName(handle)), memory
    )


class PeakMemory:
    """Samples a device's used memory from outside the worker, as a rise over the idle reading.

    Use as a context manager around one job; `peak_bytes` is None when a reading failed or no
    device was given. Spikes shorter than the period are missed: torch's own peak is the headline.

    Args:
        uuid: the device, or None for a job on the CPU.
        period_seconds: time between two readings.
    """

    def __init__(self, uuid: str | None, period_seconds: float = 0.2) -> None:
        self._uuid = uuid
        self._period = period_seconds
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._idle: int | None = None
        self.peak_bytes: int | None = None

    def __enter__(self) -> PeakMemory:
        if self._uuid is not None:
            self._thread = threading.Thread(target=self._watch, name="nvml", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)

    def _watch(self) -> None:
        try:
            import pynvml

            pynvml.nvmlInit()
        except Exception:  # a meter never stops a job
            return
        try:
            handle = pynvml.nvmlDeviceGetHandleByUUID(self._uuid)
            while not self._stop.is_set():
                used = int(pynvml.nvmlDeviceGetMemoryInfo(handle).used)
                if self._idle is None:
                    self._idle = used
                self.peak_bytes = max(self.peak_bytes or 0, used - self._idle)
                self._stop.wait(self._period)
        except Exception:
            self.peak_bytes = None
        finally:
            _shutdown(pynvml)

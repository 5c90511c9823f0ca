"""NVIDIA device counters behind one file (module `pynvml` of the package nvidia-ml-py).

Nothing here raises: a machine without driver, library or device is an ordinary machine, and the
reason is data. What only a GPU can confirm is listed in docs/architecture.md.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Set
from contextlib import closing, suppress
from types import TracebackType
from typing import Any

from peftmark.machine.accelerators import here
from peftmark.machine.torch_gpus import or_seen_by_torch
from peftmark.machine.visible import VARIABLE, Devices, Gpu, choose

ANSWER_SECONDS = 5.0
"""How long the end of a job waits for a driver that is busy with a reading."""

_ON_THE_CPU = "the job ran on the CPU"


class Unmetered(Exception):
    """Torch is built for GPUs that NVML doesn't know; says what that means."""


def _text(value: Any) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _open() -> Any:
    """The binding with NVML initialised; raises whatever a half-installed driver raises."""
    if why := here().unmetered or here().unused:
        raise Unmetered(why)
    import pynvml

    if not hasattr(pynvml, "_nvmlGetFunctionPointer"):
        raise ImportError("another package provides the module pynvml")
    pynvml.nvmlInit()
    return pynvml


def _shutdown(pynvml: Any) -> None:
    with suppress(Exception):
        pynvml.nvmlShutdown()


def _reason(error: Exception) -> str:
    if isinstance(error, Unmetered):
        return str(error)
    if isinstance(error, ImportError):
        return f"nvidia-ml-py is not installed ({error})"
    return f"NVML: {error}"


def devices() -> Devices:
    """The devices of this machine that jobs may use: those that NVML lists and the environment
    leaves, or, where NVML lists none, or torch is built for others, those that torch sees."""
    kind = here()
    if kind.unmetered:
        asked_not = f"NVML was not asked: torch is built for {kind.title}"
        return or_seen_by_torch(Devices((), asked_not))
    found = _listed_devices()
    if found.found or found.refused or found.told:
        return found
    return or_seen_by_torch(found)


def _listed_devices() -> Devices:
    try:
        pynvml = _open()
    except Exception as error:  # a driver half installed raises more than NVMLError
        return Devices((), _reason(error))
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
        listed: list[Gpu] = []
        slices: dict[str, list[Gpu]] = {}
        for handle in handles:
            parts = _slices(pynvml, handle)
            if parts is None:
                listed.append(_gpu(pynvml, handle))
            else:
                slices[_text(pynvml.nvmlDeviceGetUUID(handle))] = parts
                listed += parts
        if not listed and slices:
            text = f"{len(slices)} GPUs are in MIG mode and none has a slice (nvidia-smi mig -lgi)"
            return Devices((), text, driver, refused=text)
        return choose(listed, os.environ.get(VARIABLE), driver, slices)
    except Exception as error:
        return Devices((), _reason(error))
    finally:
        _shutdown(pynvml)


def _slices(pynvml: Any, handle: Any) -> list[Gpu] | None:
    """The slices (MIG) that a GPU is divided into, which CUDA then runs on alone; None if it isn't
    divided."""
    try:
        if not pynvml.nvmlDeviceGetMigMode(handle)[0]:
            return None
        most = pynvml.nvmlDeviceGetMaxMigDeviceCount(handle)
    except Exception:  # most boards and old drivers know no slices
        return None
    found = []
    for place in range(most):
        with suppress(Exception):  # a place without a slice
            found.append(_gpu(pynvml, pynvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place)))
    return found


def _gpu(pynvml: Any, handle: Any) -> Gpu:
    try:
        memory: int | None = int(pynvml.nvmlDeviceGetMemoryInfo(handle).total)
    except pynvml.NVMLError:
        memory = None
    return Gpu(
        _text(pynvml.nvmlDeviceGetUUID(handle)), _text(pynvml.nvmlDeviceGetName(handle)), memory
    )


class _Device:
    """One device with NVML held open until `close`; any call may raise.

    CUDA numbers devices in another order than NVML, so a device is found by its UUID alone.
    """

    def __init__(self, uuid: str) -> None:
        self._nvml = _open()
        try:
            self._handle = self._nvml.nvmlDeviceGetHandleByUUID(uuid)
        except Exception:
            self.close()
            raise

    def used_bytes(self) -> int:
        """Memory in use, without the driver's own share where the driver tells them apart.

        A driver knows the second version of this call always or never, so the readings of a job
        are of one kind.
        """
        nvml = self._nvml
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(self._handle, version=nvml.nvmlMemory_v2)
        except (nvml.NVMLError_FunctionNotFound, nvml.NVMLError_ArgumentVersionMismatch):
            memory = nvml.nvmlDeviceGetMemoryInfo(self._handle)
        return int(memory.used)

    def processes(self) -> dict[int, int | None]:
        """Bytes of each compute process by its id; None where the driver does not say."""
        listed = self._nvml.nvmlDeviceGetComputeRunningProcesses(self._handle)
        return {int(p.pid): p.usedGpuMemory for p in listed}

    def joules(self) -> float:
        """Energy of the board since the driver was loaded."""
        return int(self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._handle)) / 1000

    def cores(self) -> frozenset[int]:
        """Cores near the device."""
        words = self._nvml.nvmlDeviceGetCpuAffinity(self._handle, -(-(os.cpu_count() or 1) // 64))
        return frozenset(
            64 * place + bit
            for place, word in enumerate(words)
            for bit in range(64)
            if word >> bit & 1
        )

    def close(self) -> None:
        """Let go of NVML."""
        _shutdown(self._nvml)


def lost(uuid: str) -> bool:
    """Whether the driver answers, and says that this device is gone or wants a reset."""
    try:
        pynvml = _open()
    except Exception:  # no driver to ask: nothing is known of the device
        return False
    gone = (
        pynvml.NVMLError_GpuIsLost,
        pynvml.NVMLError_NotFound,
        pynvml.NVMLError_ResetRequired,
    )
    try:
        with closing(_Device(uuid)) as device:
            device.used_bytes()
    except gone:
        return True
    except Exception:
        return False
    finally:
        _shutdown(pynvml)
    return False


def near_cores(uuid: str) -> frozenset[int]:
    """Numbers of the cores on the device's own node; empty where the driver doesn't say."""
    try:
        with closing(_Device(uuid)) as device:
            return device.cores()
    except Exception:
        return frozenset()


class EnergyCounter:
    """The device's own energy counter: the whole board, whoever uses it (Volta and newer).

    The counter moves in steps of some 20 to 100 ms, so short windows are coarse. Read it after
    the device is synchronised.

    Args:
        uuid: the device, or None for a job on the CPU.
    """

    def __init__(self, uuid: str | None) -> None:
        self._uuid = uuid
        self._device: _Device | None = None

    def read(self) -> tuple[float | None, str]:
        """Joules since the driver was loaded.

        Returns:
            (joules, ""), or (None, why there is no reading).
        """
        if self._uuid is None:
            return None, _ON_THE_CPU
        try:
            self._device = self._device or _Device(self._uuid)
            return self._device.joules(), ""
        except Exception as error:
            return None, _reason(error)

    def close(self) -> None:
        """Let go of NVML; a later read opens it again."""
        if self._device is not None:
            self._device.close()
        self._device = None


def contention(uuid: str | None, pid: int) -> str | None:
    """What to say of other compute processes on the device beside one; None if none is known."""
    if uuid is None:
        return None
    try:
        with closing(_Device(uuid)) as device:
            return contended(_others(set(device.processes()), pid))
    except Exception:
        return None


def contended(others: int) -> str | None:
    """The energy flag for this many other processes on the device; None for none."""
    if not others:
        return None
    return f"contended: {others} other process{'' if others == 1 else 'es'} on the device"


def _others(listed: set[int], pid: int | None, before: frozenset[int] = frozenset()) -> int:
    """Processes besides the worker, among those the driver lists.

    Inside a container the driver may number processes as the host does. So where the worker's
    number isn't listed, one process that wasn't there before the worker is taken for it.
    """
    strangers = listed - {pid}
    disguised = pid not in listed and strangers - before
    return len(strangers) - bool(disguised)


class DeviceMeter:
    """Samples a device from outside the worker, over one job.

    Use as a context manager entered before the worker starts, so that the idle reading is without
    it, and set `pid` once the worker has one. The other attributes stand after the exit. Spikes
    shorter than the period are missed: torch's own peak is the headline. The driver's process
    list leaves out managed memory, so with a paged optimizer `process_bytes` is a lower bound.

    Args:
        uuid: the device, or None for a job on the CPU.
        period_seconds: time between two readings.
        ours: processes that are no strangers, such as workers beside this one; may grow.

    Attributes:
        pid: process id of the worker.
        process_bytes: the most the worker's process held; None if a reading lacked it.
        device_bytes: the highest rise of the device's used memory over the idle reading.
        reason: why one or both are None; empty if neither is.
        others: the most other compute processes seen at once.
    """

    def __init__(
        self, uuid: str | None, period_seconds: float = 0.2, ours: Set[int] = frozenset()
    ) -> None:
        self.pid: int | None = None
        self.process_bytes: int | None = None
        self.device_bytes: int | None = None
        self.reason = _ON_THE_CPU
        self.others = 0
        self._uuid = uuid
        self._period = period_seconds
        self._ours = ours
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._before: frozenset[int] = frozenset()
        self._worker: int | None = None
        self._rise: int | None = None
        self._process_fault = ""
        self._lost = ""

    def __enter__(self) -> DeviceMeter:
        if self._uuid is None:
            return self
        device = None
        try:
            device = _Device(self._uuid)
            self._before = frozenset(self._listed(device))
            idle = device.used_bytes()
        except Exception as error:  # a meter never stops a job
            self.reason = _reason(error)
            if device is not None:
                device.close()
            return self
        watch = threading.Thread(target=self._watch, args=(device, idle), name="nvml", daemon=True)
        watch.start()
        self._thread = watch
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread is None:
            return
        self._stop.set()
        self._thread.join(ANSWER_SECONDS)
        if self._thread.is_alive():
            self.reason = "NVML does not answer"
        elif self._lost or self._rise is None:  # the peak of a part is no peak
            self.reason = self._lost or "the job ended before a second reading"
        else:
            self.device_bytes = self._rise
            self.reason = self._process_fault
            if not self.reason and self._worker is None:
                self.reason = "process memory: the driver did not list the worker"
            self.process_bytes = None if self.reason else self._worker

    def _watch(self, device: _Device, idle: int) -> None:
        try:
            while not self._stop.wait(self._period):
                self._note(self._listed(device))
                self._rise = max(self._rise or 0, device.used_bytes() - idle)
        except Exception as error:
            self._lost = f"NVML lost the device midway: {error}"
        finally:
            device.close()

    def _listed(self, device: _Device) -> dict[int, int | None]:
        """The compute processes; a driver that can't list them still reads the device's memory."""
        try:
            return device.processes()
        except Exception as error:
            self._process_fault = f"process memory: {error}"
            return {}

    def _note(self, listed: dict[int, int | None]) -> None:
        strangers = set(listed) - (self._ours - {self.pid})
        self.others = max(self.others, _others(strangers, self.pid, self._before))
        if self.pid in listed:
            held = listed[self.pid]
            if held is None:
                self._process_fault = "process memory: not available from the driver"
            else:
                self._worker = max(self._worker or 0, held)

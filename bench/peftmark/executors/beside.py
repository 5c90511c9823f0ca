"""Several jobs on one GPU, and one on several: what a worker is told of it, and its row says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from peftmark.executors.in_turn import RAN_OTHERS
from peftmark.executors.slots import Slot
from peftmark.machine.nvml import DeviceMeter, contended
from peftmark.machine.shared_device import SharedDevice, file_of
from peftmark.record.outcome import Outcome
from peftmark.record.shared import BESIDE

SEVERAL = "the job had several GPUs, and the driver was asked about one"


def told_of_places(slot: Slot, folder: Path, timed: bool) -> dict[str, Any]:
    """What a worker is told of a GPU that it shares, or of the places of its job's other processes;
    nothing where it has one device to itself.

    Args:
        folder: of the run, for the locks.
        timed: whether its job has a timed stretch.
    """
    if slot.others:
        return {"team": [{"device": s.device, "cores": sorted(s.cores)} for s in slot.others]}
    if not slot.shared or slot.device is None:
        return {}
    return SharedDevice(file_of(folder, slot.device), timed).as_told()


def no_locks(folder: Path) -> None:
    """Remove the files of all locks, once no worker is left."""
    for file in folder.glob("*.lock"):
        file.unlink(missing_ok=True)


def on_gpu(outcome: Outcome, slot: Slot, strangers: int) -> Outcome:
    """The outcome with how many jobs might be on its GPU at once, and without a time that others
    had a part in.

    Args:
        strangers: processes of others that were on the GPU meanwhile.
    """
    flag = contended(strangers)
    if flag is not None and flag not in outcome.energy_flags:
        outcome = replace(outcome, energy_flags=(*outcome.energy_flags, flag))
    if slot.device is None:
        reason = "the job ran on the CPU"
        return replace(outcome, null_reasons={**outcome.null_reasons, "jobs_on_gpu": reason})
    outcome = replace(outcome, jobs_on_gpu=slot.on_device)
    if not slot.shared:
        return outcome
    reasons = {**outcome.null_reasons, "start_seconds": BESIDE}
    return replace(outcome, start_seconds=None, null_reasons=reasons)


def seen_by_nvml(meter: DeviceMeter, slot: Slot, before: int) -> dict[str, Any]:
    """The device memory of an attempt, as fields of its end: of its process where that ran no
    other job, of the whole device where no other job was on it.

    Args:
        before: jobs that the process ran before.
    """
    process, device, reason = meter.process_bytes, meter.device_bytes, meter.reason
    if slot.others and slot.device is not None:
        process, device, reason = None, None, SEVERAL
    elif before and slot.device is not None:
        process, device, reason = None, None, RAN_OTHERS
    elif slot.shared:
        device, reason = None, reason or BESIDE
    return {"nvml_process_bytes": process, "nvml_device_bytes": device, "nvml_reason": reason}

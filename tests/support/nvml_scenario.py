"""One scenario of the NVML stub, played in its own process: the binding loads its library once.

`python nvml_scenario.py FOLDER [UUID]` prints as JSON what the meters say of that device, first
alone and then around a whole job of the local executor.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import threading
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path

from factory import make_job
from fake_worker import Line
from peftmark.executors import child, local, process
from peftmark.executors.contract import Order
from peftmark.executors.slots import Slot
from peftmark.machine.nvml import DeviceMeter, EnergyCounter, contention, devices
from peftmark.sources.assets import Places
from waiting import wait_for

WORKER = "STUB_NVML_WORKER"
TEXTS = ("refused", "told", "device")
FEW = 4  # readings after which the stub's scripts are over


def readings():
    """Memory readings so far, by the stub's own count."""
    with suppress(OSError, AttributeError):
        return ctypes.CDLL("libnvidia-ml.so.1").stub_readings()
    return 0


def sampled():
    """Wait until a running meter has read a few times more; at once if none is running."""
    last = readings() + FEW
    wait_for(lambda: readings() >= last or all(t.name != "nvml" for t in threading.enumerate()))


def worker(connection, job_json, places_json, log, device):
    """Be on the device until told to go, and report what its energy counter says."""
    line = Line(connection, job_json, log)
    mine = Path(os.environ[WORKER])
    mine.with_suffix(".new").write_text(str(os.getpid()))
    mine.with_suffix(".new").rename(mine)
    counter = EnergyCounter(device)
    joules, reasons = zip(*(counter.read() for _ in range(3)), strict=True)
    reason = "; ".join(dict.fromkeys(filter(None, reasons)))
    counter.close()
    flag = contention(device, os.getpid())
    wait_for(mine.with_suffix(".go").exists)
    line.finish(
        energy_gpu_joules=None if reason else joules[-1] - joules[0],
        energy_flags=() if flag is None else (flag,),
        null_reasons={"energy_gpu_joules": reason} if reason else {},
        data_source=os.environ[child.JOBS_AT_ONCE],
    )


def let_it_go(mine):
    """Tell the worker to go once it was sampled."""
    wait_for(mine.exists)
    sampled()
    mine.with_suffix(".go").touch()


def alone(uuid, mine):
    """The meters around this very process."""
    meter = DeviceMeter(uuid, period_seconds=0.005)
    with meter:
        meter.pid = os.getpid()
        mine.write_text(str(os.getpid()))
        sampled()
    counter = EnergyCounter(uuid)
    energy = [counter.read() for _ in range(3)]
    flag = contention(uuid, os.getpid())
    counter.close()
    mine.unlink()
    return {
        "process_bytes": meter.process_bytes,
        "device_bytes": meter.device_bytes,
        "reason": meter.reason,
        "others": meter.others,
        "energy": energy,
        "contention": flag,
    }


def job(uuid, mine, folder):
    """A whole job on the device."""
    process.DeviceMeter = partial(DeviceMeter, period_seconds=0.005)
    threading.Thread(target=let_it_go, args=(mine,), daemon=True).start()
    order = Order(
        [(make_job(), 1)],
        Places(None, ("package",), folder),
        folder,
        worker="nvml_scenario:worker",
    )
    (done,) = local.run_jobs(order, [Slot(uuid)])
    return {
        "status": done.outcome.status,
        "reason": done.nvml_reason,
        "process_bytes": done.nvml_process_bytes,
        "device_bytes": done.nvml_device_bytes,
        "joules": done.outcome.energy_gpu_joules,
        "energy_reason": done.outcome.null_reasons.get("energy_gpu_joules", ""),
        "flags": done.outcome.energy_flags,
        "at_once": done.outcome.data_source,
    }


def main(folder, uuid=None):
    folder = Path(folder)
    mine = folder / "worker"
    os.environ[WORKER] = str(mine)
    print(
        json.dumps(
            {
                "devices": {k: v for k, v in asdict(devices()).items() if k not in TEXTS},
                "alone": alone(uuid, mine),
                "job": job(uuid, mine, folder),
            }
        )
    )


if __name__ == "__main__":
    main(*sys.argv[1:])

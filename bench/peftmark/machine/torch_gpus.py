"""GPUs that torch sees where NVML sees none: AMD's, and containers that lack NVML's library.

Torch is asked in a short process of its own, and only where something speaks for a GPU: a machine
without one isn't kept waiting for torch to load.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from importlib import util
from pathlib import Path

from peftmark.core.shown import plain
from peftmark.machine.visible import VARIABLES, Devices, Gpu

PROBE_SECONDS = 120.0
_DEV = Path("/dev")
_NODES = ("nvidia[0-9]*", "kfd", "dxg")  # device files of NVIDIA, of AMD, and of Windows' subsystem
_ASK = """
import json, torch
seen = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
print(json.dumps([[one.name, one.total_memory] for one in seen]))
"""


def or_seen_by_torch(without: Devices) -> Devices:
    """The devices that torch sees, or, where it sees none, what NVML said.

    Args:
        without: NVML's answer, which has no device.
    """
    asked = {name: os.environ[name] for name in VARIABLES if os.environ.get(name, "").strip()}
    hidden = any(name in os.environ and _hides(os.environ[name]) for name in VARIABLES)
    if hidden or not (asked or any(any(_DEV.glob(node)) for node in _NODES)):
        return without
    if not _built_for_gpus():
        return _told(without, asked, "torch is built for the CPU alone")
    found, fault = _seen(tuple(sorted(asked.items())))
    if not found:
        return _told(without, asked, fault or "torch sees no GPU")
    return Devices(found, None)


def _told(without: Devices, asked: dict[str, str], why: str) -> Devices:
    """NVML's answer, and, where a GPU was asked for, that there is none."""
    if not asked:
        return without
    shown = plain(" ".join(f"{name}={value}" for name, value in asked.items()))
    none = f"{shown} asks for a GPU and there is none ({without.reason}; {why})"
    return Devices((), without.reason, told=f"{none}: jobs run on the CPU")


def _hides(value: str) -> bool:
    first = value.split(",")[0].strip()
    return not first or first.startswith("-") or first == "NoDevFiles"


def _built_for_gpus() -> bool:
    """Whether torch was built for CUDA or HIP, by the file that says so; unread counts as yes."""
    spec = util.find_spec("torch")
    if spec is None or spec.origin is None:
        return False
    try:
        lines = Path(spec.origin).with_name("version.py").read_text("utf-8").splitlines()
    except OSError:
        return True
    values = {
        line.partition("=")[0].partition(":")[0].strip(): line.rpartition("=")[2].strip()
        for line in lines
        if "=" in line
    }
    return any(values.get(name, "None") != "None" for name in ("cuda", "hip"))


@cache
def _seen(asked: tuple[tuple[str, str], ...]) -> tuple[tuple[Gpu, ...], str]:
    """What torch sees with these variables, in a process of its own, and why it sees nothing."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK],
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=True,
            env=os.environ | {"PYTHONSAFEPATH": "1"},
        )
        seen = json.loads(done.stdout.splitlines()[-1])
        names = _names(dict(asked), len(seen))
        return tuple(Gpu(n, str(t), int(m)) for n, (t, m) in zip(names, seen, strict=True)), ""
    except (OSError, subprocess.SubprocessError, ValueError, TypeError, IndexError) as error:
        return (), f"torch could not be asked: {type(error).__name__}"


def _names(asked: dict[str, str], count: int) -> list[str]:
    """What the variables call the devices that torch counts: it counts those that they leave."""
    for variable in reversed(VARIABLES):
        if variable in asked:
            return [name.strip() for name in asked[variable].split(",")][:count]
    return [str(number) for number in range(count)]

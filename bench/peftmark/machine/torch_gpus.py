"""GPUs that torch sees where NVML sees none: AMD's, Intel's, and those of containers without NVML.

Torch is asked in a short process of its own, and only where something speaks for a GPU: a machine
without one isn't kept waiting for torch to load.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

from peftmark.core.shown import plain
from peftmark.machine.accelerator import Accelerator
from peftmark.machine.accelerators import here, torch_build
from peftmark.machine.visible import Devices, Gpu

PROBE_SECONDS = 120.0
_DEV = Path("/dev")
_ASK = """
import json, torch
there = torch.{device}
if there.device_count():
    there.init()  # which counts again, those that torch can use
seen = [there.get_device_properties(i) for i in range(there.device_count())]
told = [[one.name, one.total_memory, getattr(one, "driver_version", None)] for one in seen]
print(json.dumps(told))
"""


def or_seen_by_torch(without: Devices) -> Devices:
    """The devices that torch sees, or, where it sees none, what NVML said.

    Args:
        without: NVML's answer, which has no device.
    """
    kind = here()
    asked = {name: os.environ[name] for name in kind.variables if os.environ.get(name, "").strip()}
    hidden = any(name in os.environ and _hides(os.environ[name]) for name in kind.variables)
    if hidden or not (asked or any(any(_DEV.glob(node)) for node in kind.nodes)):
        return without
    build = torch_build()
    if build is not None and not any(build.get(name) for name in kind.built):
        return _told(without, asked, "torch is built for the CPU alone")
    found, driver, fault = _seen(kind, tuple(sorted(asked.items())))
    if not found:
        return _told(without, asked, fault or "torch sees no GPU")
    driver = next((f"{n} {build[n]}" for n in kind.driver if build and build.get(n)), driver)
    if not kind.alone or len(found) == 1:
        return Devices(found, None, driver, device=kind.device)
    first = f"torch sees {len(found)} of {kind.title}, and jobs run on the first of them"
    told = f"{first}, {plain(found[0].name)}: {kind.alone}"
    return Devices(found[:1], None, driver, told=told, device=kind.device)


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


@cache
def _seen(
    kind: Accelerator, asked: tuple[tuple[str, str], ...]
) -> tuple[tuple[Gpu, ...], str | None, str]:
    """What torch sees with these variables, in a process of its own, what the first says of its
    driver, and why it sees nothing."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASK.format(device=kind.device)],
            capture_output=True,
            text=True,
            timeout=PROBE_SECONDS,
            check=True,
            env=os.environ | {"PYTHONSAFEPATH": "1"},
        )
        seen = json.loads(done.stdout.splitlines()[-1])
        names = _names(kind, dict(asked), len(seen))
        found = tuple(Gpu(n, str(t[0]), int(t[1])) for n, t in zip(names, seen, strict=True))
        driver = next((str(t[2]) for t in seen if len(t) > 2 and t[2]), None)
        return found, driver, ""
    except (OSError, subprocess.SubprocessError, ValueError, TypeError, IndexError) as error:
        return (), None, f"torch could not be asked: {type(error).__name__}"


def _names(kind: Accelerator, asked: dict[str, str], count: int) -> list[str]:
    """What the variables call the devices that torch counts: it counts those that they leave; where
    they tell no device from another, torch's own name."""
    if kind.alone:
        return [f"{kind.device}:{number}" for number in range(count)]
    for variable in reversed(kind.variables):
        if variable in asked:
            return [name.strip() for name in asked[variable].split(",")][:count]
    return [str(number) for number in range(count)]

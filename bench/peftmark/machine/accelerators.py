"""Which GPUs the torch that is installed here is built for, found without loading it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping
from importlib import util
from pathlib import Path

from peftmark.machine.accelerator import Accelerator
from peftmark.machine.mps import MPS
from peftmark.machine.rocm import ROCM
from peftmark.machine.xpu import XPU
from peftmark.record.job import Device

NVIDIA = Accelerator("nvidia", "NVIDIA's GPUs (CUDA)", "cuda", built=("cuda",))
ACCELERATORS = (NVIDIA, ROCM, XPU, MPS)
"""Every kind; torch is built for one of them at most."""


def here() -> Accelerator:
    """The kind of GPU that this machine's torch is built for; NVIDIA's where it is for none."""
    if sys.platform == "darwin" and platform.machine() == "arm64":
        return MPS
    build = torch_build() or {}
    return next((one for one in ACCELERATORS if any(build.get(n) for n in one.built)), NVIDIA)


def kind_of(device: Device) -> Accelerator:
    """The kind of GPU that a job's device is, which is not the CPU; of `cuda`, which two kinds are,
    what torch is built for."""
    kinds = [one for one in (here(), *ACCELERATORS) if one.device == device]
    return kinds[0]


def torch_build() -> Mapping[str, str] | None:
    """What torch's version file says it was built for: name -> version, such as cuda -> 13.0, empty
    for not; {} without torch, None for a file that can't be read."""
    spec = util.find_spec("torch")
    if spec is None or spec.origin is None:
        return {}
    try:
        lines = Path(spec.origin).with_name("version.py").read_text("utf-8").splitlines()
    except OSError:
        return None
    values = {
        line.partition("=")[0].partition(":")[0].strip(): line.rpartition("=")[2].strip()
        for line in lines
        if "=" in line
    }
    return {name: "" if value == "None" else value.strip("'\"") for name, value in values.items()}

"""Facts of the machine and the software, read without loading torch."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from bench import nvml
from bench.record import Environment

PACKAGES = (
    "peftmark", "torch", "transformers", "peft", "bitsandbytes", "tokenizers", "accelerate",
    "datasets", "evaluate", "numpy", "scipy", "scikit-learn", "safetensors", "pandas", "pyarrow",
    "matplotlib", "nvidia-ml-py", "huggingface_hub",
)  # fmt: skip

NUMERIC = ("torch", "transformers", "peft", "bitsandbytes", "tokenizers", "numpy")
"""Packages whose version can change the bits of a result; rows made with others are redone."""


def versions() -> dict[str, str]:
    """Installed versions of the packages that matter; a missing one is left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def changed_versions(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """The numeric packages that differ, as "torch 2.12.0 -> 2.13.0, ..."; empty if none."""
    return ", ".join(
        f"{name} {old.get(name, 'none')} -> {new.get(name, 'none')}"
        for name in NUMERIC
        if old.get(name) != new.get(name)
    )


def capture() -> Environment:
    """The environment of this run."""
    commit, dirty = _checkout(Path(__file__).resolve().parent.parent)
    return Environment(versions=versions(), commit=commit, dirty=dirty, machine=machine())


def machine() -> dict[str, Any]:
    """Facts of the machine; a value that can't be read is None."""
    cpu = _cpuinfo()
    flags = set((cpu.get("flags") or "").split())
    gpus = nvml.devices()
    return {
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cpu": cpu.get("model name") or platform.processor() or None,
        "cores": cores(),
        "memory_bytes": _memory_bytes(),
        "bf16_instructions": bool(flags & {"avx512_bf16", "amx_bf16"}) if flags else None,
        "gpus": [gpu.name for gpu in gpus.found],
        "gpu_memory_bytes": [gpu.memory_bytes for gpu in gpus.found],
        "gpu_note": gpus.reason,
        "driver": gpus.driver,
    }


def cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpuinfo() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    first = text.split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None


def _checkout(root: Path) -> tuple[str | None, bool | None]:
    """Commit and dirty flag of the checkout peftmark runs from; (None, None) for a wheel."""
    if not (root / ".git").exists():
        return None, None

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True, text=True, timeout=10, check=True,
        ).stdout.strip()  # fmt: skip

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None

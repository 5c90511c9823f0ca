"""Facts of the machine and the software, read without loading torch."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from importlib import metadata, util
from pathlib import Path
from typing import Any

from peftmark.catalog.plugins import plugin_of
from peftmark.catalog.quantizations import QUANTIZATIONS
from peftmark.core.files import PACKAGE
from peftmark.core.shown import plain
from peftmark.machine import nvml
from peftmark.machine.groups import cpu_quota
from peftmark.record.job import Environment, Job, source_key

OPTIONAL = tuple(
    dict.fromkeys(
        [*(q.optional for q in QUANTIZATIONS.values() if q.optional), "liger-kernel", "flash-attn"]
    )
)
"""Packages that a run may do without, and whose version can change the bits of some of its cells.
They count where both sides have them: without them those cells don't run, others run as ever."""

PACKAGES = (
    "peftmark", "torch", "transformers", "peft", "bitsandbytes", "tokenizers", "accelerate",
    "datasets", "evaluate", "numpy", "scipy", "scikit-learn", "safetensors", "pandas", "pyarrow",
    "matplotlib", "nvidia-ml-py", "huggingface_hub", *OPTIONAL,
)  # fmt: skip

NUMERIC = ("torch", "transformers", "peft", "bitsandbytes", "tokenizers", "numpy")
"""Packages whose version can change the bits of a result; rows made with others are redone."""

SOURCES = ("peftmark", "peft", "bitsandbytes")
"""Packages whose files are hashed."""


SIMD = ("avx", "amx", "fma", "f16c", "asimd", "sve")
"""Prefixes of the processor flags that decide which kernels run, and with them the bits."""


def versions() -> dict[str, str]:
    """Installed versions of the packages that matter; a missing one is left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def software() -> dict[str, str]:
    """Installed versions, and hashes of the code of packages under test; as in an environment."""
    return versions() | {source_key(name): digest for name, digest in sources().items()}


def changed_versions(old: Mapping[str, str], new: Mapping[str, str]) -> str:
    """The numeric packages that differ, as "torch 2.12.0 -> 2.13.0, ..."; empty if none.

    Of one version, the code may differ too, where its hash is known on both sides. Of peftmark's
    own code the protocol's version decides, not its hash.
    """
    found = []
    optional = [name for name in OPTIONAL if name in old and name in new]
    for name in (*NUMERIC, *optional):
        a, b = old.get(name), new.get(name)
        if a == b:
            name = source_key(name)
            a, b = old.get(name), new.get(name)
            if a is None or b is None:
                continue
        if a != b:
            found.append(f"{name} {a or 'none'} -> {b or 'none'}")
    return ", ".join(found)


def capture() -> Environment:
    """The environment of this run."""
    commit, dirty = _checkout(PACKAGE.parent.parent)
    return Environment(versions(), commit, dirty, machine(), sources())


def of_job(environment: Environment, job: Job) -> Environment:
    """The environment with the versions of the plug-ins that a job uses, of what they need, and the
    hashes of their code; for a job without plug-ins it is the same."""
    if not job.plugins:
        return environment
    versions, hashes = dict(environment.versions), dict(environment.sources)
    for one in job.plugins:
        found = plugin_of(one.kind, one.key)
        versions = (found.versions if found is not None else {}) | versions
        hashes[one.distribution] = one.code
    return replace(environment, versions=versions, sources=hashes)


def sources() -> dict[str, str]:
    """Package -> hash of its installed code; a package that isn't installed is left out."""
    found = {name: source_hash(name) for name in SOURCES}
    return {name: digest for name, digest in found.items() if digest is not None}


@cache
def source_hash(package: str) -> str | None:
    """Hash of a Python package's code as it is installed: two commits of one version differ.

    Returns:
        First 16 hex digits of a SHA-256 over names and content of its Python files and names and
        sizes of its native libraries; None if it isn't installed.
    """
    spec = util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    root = Path(spec.submodule_search_locations[0])
    digest = hashlib.sha256()
    for path in sorted(p for p in root.rglob("*") if p.suffix in (".py", ".so", ".dll", ".dylib")):
        content = path.read_bytes() if path.suffix == ".py" else str(path.stat().st_size).encode()
        digest.update(f"{path.relative_to(root)}\0".encode())
        digest.update(hashlib.sha256(content).digest())
    return digest.hexdigest()[:16]


_CPU_MODEL = ("cpu family", "model", "stepping")
CHOOSE_KERNELS = (
    "ATEN_CPU_CAPABILITY",
    "ONEDNN_MAX_CPU_ISA",
    "DNNL_MAX_CPU_ISA",
    "MKL_ENABLE_INSTRUCTIONS",
    "MKL_CBWR",
)
"""Variables that keep torch, oneDNN and MKL to the kernels of another processor, which add up in
another order."""


def machine() -> dict[str, Any]:
    """Facts of the machine; a value that can't be read is None."""
    cpu = _cpuinfo()
    flags = set((cpu.get("flags") or "").split())
    gpus = nvml.devices()
    kernels = [f"{name}={os.environ[name]}" for name in CHOOSE_KERNELS if os.environ.get(name)]
    return {
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "cpu": cpu.get("model name") or platform.processor() or None,
        # Virtual processors of several generations share a name.
        "cpu_model": " ".join(cpu[key] for key in _CPU_MODEL if key in cpu) or None,
        "cores": len(allowed_cores()),
        "memory_bytes": _memory_bytes(),
        "simd": " ".join(sorted(f for f in flags if f.startswith(SIMD))) or None,
        "kernels": plain(" ".join(kernels)) or None,
        "bf16_instructions": bool(flags & {"avx512_bf16", "amx_bf16"}) if flags else None,
        "gpus": [gpu.name for gpu in gpus.found],
        "gpu_memory_bytes": [gpu.memory_bytes for gpu in gpus.found],
        "gpu_note": gpus.reason,
        "driver": gpus.driver,
    }


def allowed_cores() -> list[int]:
    """Numbers of the cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def cores() -> int:
    """Processes that can be busy at once: one a core, or fewer where a container's quota of
    processor time is less than that."""
    quota = cpu_quota()
    allowed = len(allowed_cores())
    return allowed if quota is None else max(1, min(allowed, int(quota)))


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
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.SubprocessError):
        return None, None

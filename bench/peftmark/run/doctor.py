"""What this machine can run, what is missing, and what to do about it."""

from __future__ import annotations

import importlib
import logging
import os
import platform
import resource
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peftmark.catalog.plugins import all_found
from peftmark.core.errors import UserError
from peftmark.core.shown import plain
from peftmark.duration.rates import calibrated
from peftmark.machine.environment import NUMERIC, cores, machine, versions
from peftmark.machine.groups import cpu_quota, memory_left
from peftmark.sources.assets import default_cache
from peftmark.sources.hub import hub_reachable
from peftmark.suite.expand import Facts, choose_profile
from peftmark.suite.load import load_suite, suite_names

SPACE_OF_LIBRARIES = 2 * 2**30
"""Twice the address space that the libraries map when all are loaded: 0.95 GiB with a torch for
CPUs, on Linux x86-64 (VmPeak, 2026-11-29). One for CUDA maps more."""


@dataclass(frozen=True)
class Finding:
    """One fact about the machine.

    Attributes:
        needed: without it nothing runs.
        remedy: what to do if it is missing; empty otherwise.
    """

    what: str
    ok: bool
    found: str
    remedy: str = ""
    needed: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Plain data for --json."""
        return asdict(self)


def examine() -> Iterator[Finding]:
    """Look at everything a run needs: what is known at once first, then libraries, which take
    seconds to load."""
    yield from _surroundings()
    yield from _plugins()
    # At import bitsandbytes warns that an optional kernel package is missing, and torchao names its
    # libraries for other machines.
    for chatty in ("bitsandbytes", "torchao", "torch.utils._pytree"):
        logging.getLogger(chatty).setLevel(logging.ERROR)
    installed = versions()
    for name in NUMERIC:
        yield _library(name, installed.get(name))


def calibration() -> Iterator[Finding]:
    """Measure what operations cost here, and say what was found.

    Raises:
        UserError: nothing could be measured.
    """
    yield Finding("calibration", True, "measuring what operations cost here, some 20 seconds ...")
    rates = calibrated(default_cache())
    products = {
        name.partition(" ")[2]: 1e-9 / cost[1]
        for name, cost in sorted(rates.costs.items())
        if name.startswith("mm ") and cost[1]
    }
    told = ", ".join(f"{rate:,.0f} GFLOP/s in {kind}" for kind, rate in products.items())
    yield Finding(
        "calibration",
        True,
        f"{len(rates.costs)} operations measured by {cores()} processes at once; matrix products: "
        f"{told or 'not told apart'}",
    )


def _surroundings() -> Iterator[Finding]:
    facts = machine()
    known = versions().get("peftmark", "of an unknown version: it was not installed")
    yield Finding(
        "peftmark",
        True,
        f"{known}, on Python {facts['python']}, {platform.platform()}",
        needed=True,
    )
    count, memory = facts["cores"], facts["memory_bytes"]
    size = f"{memory / 2**30:.0f} GiB" if memory else "memory unknown"
    yield Finding("cpu", True, f"{facts['cpu']}, {count} cores, {size}: {cores()} jobs at once")
    if (quota := cpu_quota()) is not None:
        yield Finding(
            "quota of processor time",
            True,
            f"a control group gives {quota:g} of {count} cores' time: {cores()} jobs at once",
        )
    if (left := memory_left()) is not None and (memory is None or left < memory):
        yield Finding(
            "limit of memory",
            True,
            f"a control group leaves {max(0, left) / 2**30:.1f} GiB to this process and its jobs",
        )
    fast = bool(facts["bf16_instructions"])
    yield Finding(
        "bf16 on the CPU",
        fast,
        "the CPU has bf16 instructions" if fast else "no bf16 instructions seen",
        "" if fast else "bf16 recipes run, but slowly; time them against fp32 before a long run.",
    )
    gpus = facts["gpus"]
    yield Finding(
        "gpu",
        bool(gpus),
        ", ".join(gpus) if gpus else str(facts["gpu_note"]),
        "" if gpus else "Profile full is not chosen here; by name it runs, far too slowly.",
    )
    reachable, reason = hub_reachable()
    yield Finding(
        "model hub",
        reachable,
        reason,
        "" if reachable else "Use --mirror with local files, or a profile without hub (offline).",
    )
    yield _folder("asset cache", default_cache())
    yield _folder("results", Path("results"))
    names = suite_names()
    if not names:
        remedy = "Reinstall peftmark: its suites are missing."
        yield Finding("suites", False, "none found", remedy, needed=True)
    for name in names:
        yield _suite(name, Facts(len(gpus), reachable, reason))


def _plugins() -> Iterator[Finding]:
    """Every entry point of a plug-in that was found."""
    for one in all_found():
        what = plain(f"plug-in {one.kind} {one.key}")
        remedy = "Fix, update or remove that package; what doesn't name it runs as ever."
        yield Finding(
            what, not one.fault, one.told if one.fault else one.origin, remedy if one.fault else ""
        )


def _suite(name: str, facts: Facts) -> Finding:
    what = f"suite {name}"
    try:
        profile, reason = choose_profile(load_suite(name), None, facts)
    except UserError as error:
        return Finding(what, False, error.what.splitlines()[0], error.remedy)
    return Finding(what, True, f"would run profile {profile} ({reason})")


def _library(name: str, version: str | None) -> Finding:
    remedy = "In a checkout of peftmark: pip install -c constraints.txt ."
    if version is None:
        return Finding(name, False, "not installed", remedy, needed=True)
    if (space := _address_space()) is not None and space < SPACE_OF_LIBRARIES:
        # Their native parts ask for memory again and again, and no signal is heard meanwhile.
        told = f"{version}, not loaded: this shell allows {space / 2**30:.1f} GiB of address space"
        return Finding(name, False, told, "Lift the limit: ulimit -v unlimited.", needed=True)
    try:
        importlib.import_module(name)
    except Exception as error:  # a broken native library raises anything
        text = " ".join(str(error).split())[:200]
        return Finding(name, False, f"{version} fails to load: {text}", remedy, needed=True)
    return Finding(name, True, version, needed=True)


def _address_space() -> int | None:
    """Bytes of address space that this process may have; None without a limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_AS)
    return None if soft == resource.RLIM_INFINITY else soft


def _folder(what: str, path: Path) -> Finding:
    parent = path
    while not parent.exists():
        parent = parent.parent
    free = shutil.disk_usage(parent).free
    writable = parent.is_dir() and os.access(parent, os.W_OK)
    ok = writable and free > 2**30
    text = f"{path}, {free / 2**30:.0f} GiB free{'' if writable else ', not writable'}"
    return Finding(what, ok, text, "" if ok else "Choose another folder, or free some space.")

"""Limits that control groups put on this process, as containers and batch systems set them.

A limit counts for a group and everything in it, so the least of a process's own group and of those
around it is the one that holds (cgroups(7); Linux's cgroup-v2.rst and sched-bwc.rst).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

_MOUNT = Path("/sys/fs/cgroup")
_OWN = Path("/proc/self/cgroup")


def cpu_quota() -> float | None:
    """Processors' worth of time that this process and its children may take together, such as 2.5;
    None without a limit."""
    found = []
    for group in _groups(""):
        with suppress(OSError, ValueError, ArithmeticError):  # "max" is no number: no limit
            quota, period = map(int, (group / "cpu.max").read_text().split())
            found.append(quota / period)
    for group in _groups("cpu"):
        with suppress(OSError, ValueError, ArithmeticError):
            quota, period = (
                int((group / f"cpu.cfs_{name}_us").read_text()) for name in ("quota", "period")
            )
            found.append(quota / period)
    return min((limit for limit in found if limit > 0), default=None)


def memory_left() -> int | None:
    """Bytes that this process and its children may still take together; None without a limit."""
    found = []
    for controller, limit, use in (
        ("", "memory.max", "memory.current"),
        ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        for group in _groups(controller):
            with suppress(OSError, ValueError):
                found.append(int((group / limit).read_text()) - int((group / use).read_text()))
    return min(found, default=None)


def _groups(controller: str) -> Iterator[Path]:
    """Folders of this process's group and of all around it.

    Args:
        controller: of cgroups version 1; empty for version 2.
    """
    with suppress(OSError):
        for line in _OWN.read_text(errors="replace").splitlines():
            _, _, rest = line.partition(":")
            named, _, path = rest.partition(":")
            if controller not in named.split(","):
                continue
            # Version 1 is mounted by the names of its controllers, in whole or one by one.
            mounts = dict.fromkeys((named, controller))
            for mount in (_MOUNT / name for name in mounts if (_MOUNT / name).is_dir()):
                yield from _chain(mount, path)
                return
    # Where that can't be read or says nothing, a container still sees its own group at the top.
    yield _MOUNT / controller


def _chain(mount: Path, path: str) -> Iterator[Path]:
    """The group of a path and those around it, as far as they are mounted here.

    In a container the path may be the host's, and is not below the mount then.
    """
    parts = PurePosixPath(path.strip().lstrip("/")).parts
    if ".." not in parts:
        for end in range(len(parts), 0, -1):
            yield mount.joinpath(*parts[:end])
    yield mount

"""Processes that share a device by its locks and write down, while they hold them, what they do."""

from __future__ import annotations

import multiprocessing
import os
from contextlib import suppress
from pathlib import Path

from peftmark.machine.shared_device import SharedDevice

ROUNDS = 10
"""Timed stretches of a process of `stretches`."""
YIELDS = 300
"""How often a stretch lets others run: long enough that one who may, does."""


def write(events: Path, line: str) -> None:
    """Add a line, whole, whoever else does."""
    handle = os.open(events, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{line}\n".encode())
    os.close(handle)


def start(function, *arguments):
    """Run a function of this module in a process of its own."""
    context = multiprocessing.get_context("fork")
    process = context.Process(target=function, args=arguments, daemon=True)
    process.start()
    return process


def steps(file: Path, events: Path, number: int, over: Path) -> None:
    """Take step after step beside others, pausing between them, until a file is there."""
    with SharedDevice(file) as device:
        while not over.exists():
            write(events, f"step {number}")
            os.sched_yield()
            device.pause()


def stretches(file: Path, events: Path, number: int) -> None:
    """Take some timed stretches."""
    with SharedDevice(file) as device:
        for _ in range(ROUNDS):
            with device.alone():
                write(events, f"begin {number}")
                for _ in range(YIELDS):
                    os.sched_yield()
                write(events, f"end {number}")
            device.pause()


def holds(file: Path, events: Path, over: Path, alone: bool) -> None:
    """Hold the device, alone or beside others, and never pause, until a file is there."""
    with SharedDevice(file) as device:
        if not alone:
            write(events, "holds")
            _until(over)
            return
        with device.alone():
            write(events, "holds")
            _until(over)


def wants(file: Path, events: Path) -> None:
    """Want the device alone, and write down having had it."""
    with SharedDevice(file) as device, device.alone():
        write(events, "had it")


def comes(file: Path, events: Path) -> None:
    """Use the device beside others once."""
    with SharedDevice(file):
        write(events, "came in")


def _until(over: Path) -> None:
    while not over.exists():
        os.sched_yield()


def blocked(pid: int) -> bool:
    """Whether a process waits for a lock, as the kernel tells."""
    with suppress(OSError):
        lines = Path("/proc/locks").read_text().splitlines()
        return any("->" in line and str(pid) in line.split() for line in lines)
    return False

"""What a test has in place of a clock: it waits until something is there, or moves a clock itself.

No verdict of a test may hang on how fast the machine is. `tests/test_clock.py` looks for what does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import TypeVar

Found = TypeVar("Found")

PATIENCE = 600.0
"""Seconds after which something is taken for hung: no test that is right ever comes near them."""

FOREVER = 3600
"""Seconds that a stand-in sleeps which is to hang: whoever started it ends it."""


def wait_for(condition: Callable[[], Found]) -> Found:
    """Ask again and again until the answer is yes; returns the answer."""
    limit = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.01)
    return found


def announce_locks(fcntl: ModuleType, folder: Path) -> None:
    """From here on this process leaves a file with its number in a folder before it locks one."""
    plain = fcntl.flock

    def flock(handle: object, how: int) -> None:
        (folder / str(os.getpid())).touch()
        plain(handle, how)

    fcntl.flock = flock  # type: ignore[attr-defined]


@dataclass
class Clock:
    """Stands for the module `time` in a module of ours: it moves only when a test moves it.

    Attributes:
        at_sleep: called when somebody sleeps, which takes no time.
        slept: how long they wanted to.
    """

    now: float = 1000.0
    at_sleep: Callable[[], object] = lambda: None
    slept: list[float] = field(default_factory=list)

    def monotonic(self) -> float:
        return self.now

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.at_sleep()
        self.now += seconds

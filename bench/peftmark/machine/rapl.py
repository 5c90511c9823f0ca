"""Energy of the processor packages from the kernel's RAPL counters (Linux powercap).

Nothing here raises: most machines keep these counters from users, and the reason is data.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

MOST_WATTS = 1000.0
"""What no processor package takes for long: the largest of servers are sold as 500 W."""

PERIOD_SECONDS = 30.0
"""Time between two readings, less where a counter's range could be used up in twice that."""

SHORTEST_PERIOD = 0.5
ANSWER_SECONDS = 5.0
SLACK_SECONDS = 1.0
"""How far the time of a reading may be off the time that the kernel counted to."""


@dataclass(frozen=True)
class _Zone:
    """A package: its counter in microjoules, which starts again from zero at `limit`."""

    path: Path
    limit: int


class Rapl:
    """Joules that all packages of this machine use between `start` and `stop`, whoever uses them.

    DRAM zones are not added: only some machines have them, so sums would not compare.
    A counter starts again from zero at its range, often after minutes, and says nothing of it. So a
    thread reads it often enough that it can't have done so twice; where the thread came too late,
    nothing is known of the whole stretch.

    Args:
        root: the powercap folder.
        clock: seconds on a clock that nobody sets.
        wait: waits for so many seconds, or until the stretch is over, and says whether it is.
    """

    def __init__(
        self,
        root: Path = Path("/sys/class/powercap"),
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], bool] | None = None,
    ) -> None:
        self._root = root
        self._clock = clock
        self._over = threading.Event()
        self._wait = wait or self._over.wait
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._zones: list[_Zone] = []
        self._last: dict[Path, int] = {}
        self._read_at = 0.0
        self._used = 0
        self._fault = ""

    def start(self) -> None:
        """Begin a stretch: forget the one before, and read from time to time until `stop`."""
        self._last, self._used, self._fault = {}, 0, ""
        self._over.clear()
        self._read()
        if self._fault:
            return
        watch = threading.Thread(target=self._watch, name="rapl", daemon=True)
        try:
            watch.start()
        except RuntimeError as error:  # no room for a thread
            self._fault = f"RAPL: {error}"
        else:
            self._thread = watch

    def stop(self) -> tuple[float | None, str]:
        """End the stretch.

        Returns:
            (joules since `start`, ""), or (None, why that is not known).
        """
        self._over.set()
        if self._thread is not None:
            self._thread.join(ANSWER_SECONDS)
            if self._thread.is_alive():
                return None, "RAPL does not answer"
            self._thread = None
        self._read()
        return (None, self._fault) if self._fault else (self._used / 1e6, "")

    def _watch(self) -> None:
        shortest = min(zone.limit for zone in self._zones) / 1e6 / MOST_WATTS
        period = max(SHORTEST_PERIOD, min(PERIOD_SECONDS, shortest / 2))
        while not self._wait(period) and not self._fault:
            self._read()

    def _read(self) -> None:
        """Add what was used since the last reading; a fault stays for the rest of the stretch."""
        with self._lock:
            try:
                self._fault = self._fault or self._add()
            except PermissionError:
                self._fault = "RAPL is readable by root only"
            except FileNotFoundError:
                self._fault = "a RAPL zone vanished midway"
            except (OSError, ValueError) as error:
                self._fault = f"RAPL: {error}"

    def _add(self) -> str:
        """Why what was used is not known; empty if it is, and added."""
        self._zones = self._zones or self._packages()
        if not self._zones:
            return "no RAPL counters on this machine"
        now = self._clock()
        gap = now - self._read_at
        for zone in self._zones:
            counted = _microjoules(zone.path / "energy_uj")
            before = self._last.get(zone.path)
            self._last[zone.path] = counted
            if before is None:
                continue
            if gap * MOST_WATTS * 1e6 >= zone.limit:
                return (
                    f"RAPL was not read for {gap:.0f} s, in which its counter may have started "
                    f"again twice (range {zone.limit / 1e6:.0f} J)"
                )
            used = counted - before + (zone.limit if counted < before else 0)
            if counted < before and used > (gap + SLACK_SECONDS) * MOST_WATTS * 1e6:
                return f"RAPL's counter fell in {gap:.0f} s, and not by starting again at its range"
            self._used += used
        self._read_at = now
        return ""

    def _packages(self) -> list[_Zone]:
        """Zones named package-N: intel-rapl:0, :1, ... on machines of Intel and AMD alike.

        Their parts (core, dram: intel-rapl:0:1), the whole board (psys) and a second way to the
        same counters (intel-rapl-mmio:0) would count joules twice.
        """
        zones = sorted(self._root.glob("intel-rapl:*"))
        return [
            _Zone(zone, _microjoules(zone / "max_energy_range_uj"))
            for zone in zones
            if _name(zone).startswith("package")
        ]


def _name(zone: Path) -> str:
    try:
        return (zone / "name").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _microjoules(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))

"""Energy of the processor packages from the kernel's RAPL counters (Linux powercap).

Nothing here raises: most machines keep these counters from users, and the reason is data.
"""

from __future__ import annotations

from pathlib import Path


class Rapl:
    """Joules that all packages of this machine have used, whoever used them.

    DRAM zones are not added: only some machines have them, so sums would not compare.
    A counter starts again from zero at its `max_energy_range_uj`, often after minutes; one such
    wrap between two reads is counted and a second goes unseen, so read at least once a minute.

    Args:
        root: the powercap folder.
    """

    def __init__(self, root: Path = Path("/sys/class/powercap")) -> None:
        self._root = root
        self._zones: list[Path] = []
        self._last: dict[Path, int] = {}
        self._wrapped = 0

    def read(self) -> tuple[float | None, str]:
        """Joules on a scale whose zero means nothing: subtract two readings.

        Returns:
            (joules, ""), or (None, why there is no reading).
        """
        try:
            self._zones = self._zones or self._packages()
            if not self._zones:
                return None, "no RAPL counters on this machine"
            for zone in self._zones:
                now = _microjoules(zone / "energy_uj")
                if now < self._last.get(zone, 0):
                    self._wrapped += _microjoules(zone / "max_energy_range_uj")
                self._last[zone] = now
        except PermissionError:
            return None, "RAPL is readable by root only"
        except FileNotFoundError:
            return None, "a RAPL zone vanished midway"
        except (OSError, ValueError) as error:
            return None, f"RAPL: {error}"
        return (sum(self._last.values()) + self._wrapped) / 1e6, ""

    def _packages(self) -> list[Path]:
        """Zones named package-N: intel-rapl:0, :1, ... on machines of Intel and AMD alike.

        Their parts (core, dram: intel-rapl:0:1), the whole board (psys) and a second way to the
        same counters (intel-rapl-mmio:0) would count joules twice.
        """
        zones = sorted(self._root.glob("intel-rapl:*"))
        return [zone for zone in zones if _name(zone).startswith("package")]


def _name(zone: Path) -> str:
    try:
        return (zone / "name").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _microjoules(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))

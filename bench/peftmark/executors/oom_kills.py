"""Workers that the kernel killed because memory ran out: nobody else tells."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

from peftmark.executors.launch import signal_name
from peftmark.executors.process import Worker
from peftmark.record.outcome import Outcome

# The cgroup's own counter where it can be read, else the whole machine's.
# Version 1 of cgroups counts a group without those inside it, so it is not asked.
_OOM_COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))


class OomKills:
    """Kills by the kernel's out-of-memory killer since this was made."""

    def __init__(self) -> None:
        self._counted = self._read()

    def died(self, one: Worker) -> Outcome:
        """How a worker died that left no outcome."""
        code = one.process.exitcode
        if code is None or code >= 0:
            return Outcome("crashed", f"the worker ended with exit code {code} and no outcome")
        if -code == signal.SIGKILL and self._one_more():
            return Outcome("out_of_memory", "killed by the kernel's out-of-memory killer")
        return Outcome("crashed", f"the worker was killed by {signal_name(-code)}")

    def _one_more(self) -> bool:
        """Whether there is a kill not yet put down to a worker; it counts for one now."""
        now = self._read()
        if now is None or self._counted is None or now <= self._counted:
            return False
        self._counted += 1
        return True

    @staticmethod
    def _read() -> int | None:
        for path in _OOM_COUNTERS:
            with suppress(OSError):
                for line in path.read_text().splitlines():
                    if line.startswith("oom_kill "):
                        return int(line.split()[1])
        return None

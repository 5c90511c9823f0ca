"""Workers that ended because memory ran out and could not say so themselves."""

from __future__ import annotations

import signal
from contextlib import suppress
from pathlib import Path

from peftmark.core.full_memory import says_memory_is_full
from peftmark.executors.launch import signal_name
from peftmark.executors.process import Worker
from peftmark.record.outcome import Outcome

# The cgroup's own counter where it can be read, else the whole machine's.
# Version 1 of cgroups counts a group without those inside it, so it is not asked.
_OOM_COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/proc/vmstat"))


LAST_WORDS = 65_536
"""Bytes at the end of a log that may hold why a library ended the process: all threads' stacks
follow it."""


def _last_words(log: Path) -> str:
    with suppress(OSError):
        return log.read_bytes()[-LAST_WORDS:].decode("utf-8", "replace")
    return ""


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
        if -code == signal.SIGABRT and says_memory_is_full(_last_words(one.log)):
            return Outcome("out_of_memory", "a library ended the worker: its log has the words")
        who = one.last.get("lost", "the worker")
        return Outcome("crashed", f"{who} was killed by {signal_name(-code)}")

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

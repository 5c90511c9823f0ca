"""A command with a time limit: what it printed stays, whatever became of it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRACE_SECONDS = 8.0
"""For a command that is told to end, before it is killed: `peftmark run` stores what it has."""
SAID = 400
"""Characters of a command's last words that are repeated."""


@dataclass(frozen=True)
class Ran:
    """A command that has ended.

    Attributes:
        code: its exit code; negative for a signal.
        seconds: wall seconds from start to end.
        late: whether it was ended at its limit.
        out, log: what it printed, and what it said on standard error.
    """

    code: int
    seconds: float
    late: bool
    out: Path
    log: Path

    def printed(self) -> str:
        """All that it printed."""
        return self.out.read_text(encoding="utf-8", errors="replace")

    def lines(self) -> list[Any]:
        """The JSON of each line that it printed; other lines are left out."""
        found = []
        for line in self.printed().splitlines():
            with suppress(ValueError):
                found.append(json.loads(line))
        return found

    def why(self) -> str:
        """How it ended in words; empty if it ended well."""
        if self.late:
            return f"ended at its limit after {self.seconds:.0f} s"
        if not self.code:
            return ""
        said = self.log.read_text(encoding="utf-8", errors="replace").strip()
        last = " ".join((said or self.printed().strip()).splitlines()[-2:])[-SAID:]
        return f"ended with code {self.code}: {last or 'it said nothing'}"


def python(
    words: Sequence[str],
    log: Path,
    seconds: float,
    environment: Mapping[str, str],
    clock: Callable[[], float] = time.monotonic,
) -> Ran:
    """Run `python -m` with these words, and with all that it starts end it after a time.

    Args:
        log: takes standard error; what is printed goes beside it.
        seconds: until it is told to end; it is killed `GRACE_SECONDS` later.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    out = log.with_suffix(".out")
    start = clock()
    with out.open("wb") as printed, log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", *words],
            stdout=printed,
            stderr=said,
            stdin=subprocess.DEVNULL,
            env={**os.environ, **environment},
            start_new_session=True,  # so that its children end with it
        )
        try:
            late = _late(process, seconds)
        finally:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)  # what it left running, too
            process.wait()
    return Ran(process.returncode, clock() - start, late, out, log)


def _late(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait for a process; whether it had to be told to end."""
    try:
        process.wait(max(0.0, seconds))
    except subprocess.TimeoutExpired:
        process.terminate()  # it alone: `peftmark run` ends its workers itself
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE_SECONDS)
        return True
    return False

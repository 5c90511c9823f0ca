"""Processes of ours that fetch or convert: they end when this one does, however it ends."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

ENDS_WITH_ITS_STARTER = """
import os, runpy, sys, threading

def wait():
    os.read(0, 1)  # nothing is ever sent: this returns when whoever started the process is gone
    os._exit(1)

threading.Thread(target=wait, daemon=True).start()
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""


def run_module(
    module: str,
    arguments: Sequence[str],
    *,
    python: str = sys.executable,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    seconds: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a module as `python -m` does, to its end, and take what it prints.

    Args:
        folder: to run in, from which it may import; None for this process's, from which it mayn't.
        environment: variables beside those of this process.
        seconds: the longest that it may take.

    Raises:
        subprocess.TimeoutExpired: it took longer, and was ended.
    """
    safe = [] if folder is not None else ["-P"]
    theirs, ours = os.pipe()  # `subprocess` would close one of its own at once
    try:
        return subprocess.run(
            [python, *safe, "-c", ENDS_WITH_ITS_STARTER, module, *arguments],
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=theirs,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=seconds,
            check=False,
        )
    finally:
        for end in (theirs, ours):
            with suppress(OSError):
                os.close(end)

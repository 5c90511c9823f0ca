"""Whatever is timed runs in a fresh process, as a user would start it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftmark.core.errors import UserError

QUIET = {
    "CUDA_VISIBLE_DEVICES": "",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True)
class Ended:
    """A process that ended well.

    Attributes:
        seconds: wall seconds from its start to its end.
        answer: the JSON of the last line it printed; None if it printed none.
    """

    seconds: float
    answer: Any


def python(
    module: str, arguments: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Ended:
    """Run `python -m module` to its end."""
    return together(module, [arguments], log, environment)[0]


def together(
    module: str,
    each: Sequence[Sequence[str]],
    log: Path,
    environment: Mapping[str, str] | None = None,
) -> list[Ended]:
    """Run `python -m module` once for each list of arguments, all at once.

    Args:
        log: where standard error goes; a number is added from the second process on.

    Returns:
        What each gave; `seconds` are from the common start.

    Raises:
        UserError: if one fails, with the end of what it said.
    """
    logs = [
        log if i == 0 else log.with_name(f"{log.stem}-{i}{log.suffix}") for i in range(len(each))
    ]
    with ExitStack() as stack:
        start = time.perf_counter()
        running = [
            subprocess.Popen(
                [sys.executable, "-m", module, *arguments],
                stdout=stack.enter_context(path.with_suffix(".out").open("w+b")),
                stderr=stack.enter_context(path.open("wb")),
                env={**os.environ, **QUIET, **(environment or {})},
            )
            for arguments, path in zip(each, logs, strict=True)
        ]
        try:
            codes, ends = _wait(running, start)
        except BaseException:
            for process in running:
                process.terminate()
            raise
    ended = []
    for code, seconds, path in zip(codes, ends, logs, strict=True):
        if code:
            said = path.read_text(errors="replace").strip().splitlines()[-5:]
            raise UserError(
                f"python -m {module} ended with code {code}:\n" + "\n".join(said),
                f"All that it said is in {path}.",
            )
        ended.append(Ended(seconds, _last_json(path.with_suffix(".out"))))
    return ended


def _wait(
    running: Sequence[subprocess.Popen[bytes]], start: float
) -> tuple[list[int], list[float]]:
    """Exit codes, and seconds from `start` until each process and those before it had ended."""
    codes, ends = [], []
    for process in running:
        codes.append(process.wait())
        ends.append(time.perf_counter() - start)
    return codes, ends


def _last_json(path: Path) -> Any:
    lines = path.read_text(errors="replace").strip().splitlines()
    try:
        return json.loads(lines[-1])
    except (IndexError, ValueError):
        return None

"""What a Python process of ours takes over from the one that starts it, and what it doesn't.

Switches that a user set for programs of their own, such as `PYTHONWARNINGS=error`, must not change
what a job does or measures: libraries give warnings and need their docstrings, and an interpreter
that traces its memory is another one.
"""

from __future__ import annotations

import multiprocessing.util as started
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

NOT_PASSED_ON = (
    "PYTHONASYNCIODEBUG",
    "PYTHONBREAKPOINT",
    "PYTHONDEBUG",
    "PYTHONDEVMODE",
    "PYTHONDUMPREFS",
    "PYTHONINSPECT",
    "PYTHONIOENCODING",
    "PYTHONMALLOC",
    "PYTHONMALLOCSTATS",
    "PYTHONOPTIMIZE",
    "PYTHONPROFILEIMPORTTIME",
    "PYTHONSTARTUP",
    "PYTHONTRACEMALLOC",
    "PYTHONVERBOSE",
    "PYTHONWARNDEFAULTENCODING",
    "PYTHONWARNINGS",
)
"""Variables of Python that a job's process never sees."""
_STOPS_US = ("PYTHONINSPECT", "PYTHONWARNINGS", "PYTHONWARNDEFAULTENCODING")
"""Variables under which `peftmark` would end with a traceback, or with 1 for every exit code."""
_KEPT_FLAGS = ("-I", "-E", "-s", "-P", "-B", "-S")


def passed_on(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of a process of ours.

    Args:
        more: those beside what this process has.
    """
    kept = {name: value for name, value in os.environ.items() if name not in NOT_PASSED_ON}
    return {**kept, **(more or {})}


def start_afresh() -> None:
    """Be the same command in an interpreter without the switches that would change its exit code.

    Returns if none is set.
    """
    if not any(map(os.environ.get, _STOPS_US)) or not sys.executable:
        return
    kept = {name: value for name, value in os.environ.items() if name not in _STOPS_US}
    with suppress(OSError):
        words = [sys.executable, *sys.orig_argv[1:]]
        os.execve(sys.executable, words, kept)  # noqa: S606 (no shell is wanted)


@contextmanager
def started_with(more: Mapping[str, str]) -> Iterator[None]:
    """Have what `multiprocessing` starts inside take over these variables beside what is passed on,
    and no switch such as -O or -W: it hands those of this process on as arguments."""
    before = dict(os.environ)
    flags = started._args_from_interpreter_flags  # type: ignore[attr-defined]
    os.environ.update(more)
    for name in NOT_PASSED_ON:
        os.environ.pop(name, None)
    started._args_from_interpreter_flags = lambda: [  # type: ignore[attr-defined]
        flag for flag in flags() if flag in _KEPT_FLAGS
    ]
    try:
        yield
    finally:
        started._args_from_interpreter_flags = flags  # type: ignore[attr-defined]
        for name in (*more, *NOT_PASSED_ON):
            os.environ.pop(name, None)
            if name in before:
                os.environ[name] = before[name]

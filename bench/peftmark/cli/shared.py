"""What several commands do: say how far they are."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from peftmark.cli.terminal import as_it_is

if TYPE_CHECKING:
    from peftmark.run.runner import Plan


def waiting_text(plan: Plan) -> str:
    """How many jobs come after trials, for the end of a sentence; empty if none do."""
    count = plan.expanded.waiting
    return f", then {count} that wait for trials" if count else ""


def tell_predictions(done: int, total: int) -> None:
    """Say on the error stream how far predictions of memory are."""
    _tell("Predicting memory", done, total, "steps")


def tell_counts(done: int, total: int) -> None:
    """Say on the error stream how far the counting of parameters is."""
    _tell("Counting parameters", done, total, "adapters")


def tell_timing(done: int, total: int) -> None:
    """Say on the error stream how far predictions of time are."""
    _tell("Predicting time", done, total, "steps")


def tell_reading(done: int, total: int) -> None:
    """Say on the error stream how far the reading of many rows is, every hundredth of the way."""
    if done % max(1, total // 100) == 0 or done == total:
        _tell("Reading results", done, total, "rows")


def _tell(what: str, done: int, total: int, unit: str) -> None:
    live = sys.stderr.isatty()
    if total and (live or done in (0, total)):
        end = "" if live and done < total else "\n"
        start = "\r" if live else ""
        text = f"{start}{what}: {done} of {total} {unit}"
        print(text, end=end, file=as_it_is(sys.stderr), flush=True)

"""What to print where a figure is missing: the status word of the runs, never a blank."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bench.report import words
from bench.report.page import Entry, EntryKind
from bench.table import NOT_RUN, ResultTable, Slot, metric_value


def status_text(slots: Sequence[Slot]) -> str:
    """Statuses of the runs that aren't ok, such as "out of memory ×2, not run"."""
    counts = Counter(s.status for s in slots if not s.ok)
    return ", ".join(
        words.status(name) + (f" ×{n}" if n > 1 else "") for name, n in sorted(counts.items())
    )


def gap(slots: Sequence[Slot]) -> Entry:
    """The entry of a figure that no run gave."""
    if not slots:
        return words.missing("not planned")
    if any(s.ok for s in slots):
        return words.missing("not recorded")
    idle = all(s.status == NOT_RUN for s in slots)
    kind: EntryKind = "missing" if idle else "failed"
    return Entry(status_text(slots), kind=kind)


def overall_gap(table: ResultTable, cell: tuple[str, int | None, str]) -> Entry:
    """The entry of an overall figure that no seed gave, with the task that spoils it."""
    for task in table.tasks:
        slots = table.of(cell, task)
        if not slots:
            return words.missing(f"not planned on {task}")
        if not any(s.value(metric_value) is not None for s in slots):
            return Entry(words.MISSING, f"{task}: {status_text(slots) or 'no metric'}", "failed")
    return words.missing("no seed finished every task")

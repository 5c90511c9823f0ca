"""What to print where a figure is missing: its reason or the status of the runs, never a blank."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from peftmark.analysis.scale import has_best
from peftmark.analysis.table import NOT_RUN, Ratio, ResultTable, Slot, metric_value
from peftmark.catalog.methods import Cell
from peftmark.record.job import Record
from peftmark.render import words
from peftmark.render.page import Column, Entry, EntryKind, Fact, Grid, shorten
from peftmark.report import score_entries

LONGEST_REASON = 90


def status_text(slots: Sequence[Slot]) -> str:
    """Statuses of the runs that aren't ok, such as "out of memory ×2, not run"."""
    counts = Counter(s.status for s in slots if not s.ok)
    return ", ".join(
        words.status(name) + (f" ×{n}" if n > 1 else "") for name, n in sorted(counts.items())
    )


def reason(records: Iterable[Record], name: str) -> str:
    """Why a field is null in some rows: their reasons, each once."""
    found = dict.fromkeys(text for r in records if (text := r.null_reason(name)))
    return shorten("; ".join(found), LONGEST_REASON) or "not recorded"


def gap(slots: Sequence[Slot], name: str = "metric_value") -> Entry:
    """The entry of a figure that no run gave.

    Args:
        slots: the runs.
        name: field of the rows that the figure is read from.
    """
    if not slots:
        return words.missing("not planned")
    finished = [s.record for s in slots if s.ok and s.record is not None]
    if finished:
        return words.missing(reason(finished, name))
    idle = all(s.status == NOT_RUN for s in slots)
    kind: EntryKind = "missing" if idle else "failed"
    return Entry(status_text(slots), kind=kind)


def overall_gap(table: ResultTable, cell: Cell) -> Entry:
    """The entry of an overall figure that no seed gave, with the task that spoils it."""
    if table.scale.why_none:
        return words.missing(table.scale.why_none)
    for task in table.scale.tasks:
        slots = table.of(cell, task)
        if not slots:
            return words.missing(f"not planned on {task}")
        if not any(s.value(metric_value) is not None for s in slots):
            return Entry(words.MISSING, f"{task}: {status_text(slots) or 'no metric'}", "failed")
        if not any(s.value(table.read) is not None for s in slots):
            why = reason([s.record for s in slots if s.ok and s.record], "baseline_value")
            known = "" if why == "not recorded" else f", {why}"
            return words.missing(f"{task}: no score of the baseline predictor{known}")
    return words.missing("no seed finished every task")


def no_quality(table: ResultTable) -> str:
    """Why a table has no share of the way to a perfect score."""
    metrics = dict.fromkeys(table.example(task).metric for task in table.tasks)
    names = words.listing([words.metric_title(m) for m in metrics if not has_best(m)])
    return f"{names}: no best possible value" if names else "not recorded"


def ratio_entry(table: ResultTable, cell: Cell, found: Ratio, name: str) -> Entry:
    """A ratio to the reference, with the rows' own reason where a figure is null.

    Args:
        name: field of the rows that the figure is read from.
    """
    fact = Fact(f"{name}, ratio to the reference", words.title(cell), found.value)
    shown = score_entries.claimed(score_entries.ratio_entry(found), fact)
    if shown.note != "not recorded":
        return shown
    pair = [r for r in table.rows if r.ok and r.job.cell in (cell, table.reference)]
    return words.missing(reason(pair, name))


def fold_missing(grid: Grid, fixed: int) -> Grid:
    """A grid without the columns that are "n/a" in every row; the note keeps their reasons.

    Args:
        grid: the table.
        fixed: number of columns at the left that name the row.
    """
    empty = [i for i in range(fixed, len(grid.columns)) if _is_empty(grid, i)]
    if not empty or len(empty) == len(grid.columns) - fixed:
        return grid
    kept = [i for i in range(len(grid.columns)) if i not in empty]
    by_reason: dict[str, list[Column]] = {}
    for i in empty:
        notes = dict.fromkeys(row[i].note for row in grid.rows if row[i].kind == "missing")
        by_reason.setdefault("; ".join(notes), []).append(grid.columns[i])
    parts = (
        f"{words.listing([c.title for c in columns])} ({text})"
        for text, columns in by_reason.items()
    )
    return replace(
        grid,
        columns=tuple(grid.columns[i] for i in kept),
        rows=tuple(tuple(row[i] for i in kept) for row in grid.rows),
        note=f"{grid.note} Without a value in any row: {'; '.join(parts)}.".strip(),
    )


def _is_empty(grid: Grid, column: int) -> bool:
    kinds = {row[column].kind for row in grid.rows}
    return "missing" in kinds and kinds <= {"missing", "failed"}

"""What ran and what didn't."""

from __future__ import annotations

from collections.abc import Sequence

from peftmark.analysis.table import NOT_RUN, TO_COME, ResultTable, Slot
from peftmark.catalog.methods import Cell
from peftmark.record.outcome import STATUSES
from peftmark.render import words
from peftmark.render.page import FAILED, Block, Column, Entry, Grid, Section, shorten
from peftmark.report import missing

LONGEST_REASON = 300
PURPOSES = {"report": "", "tuning": "tuning trial", "repeat": "repeat"}
OK, TO_DO = "●", "○"


def section(table: ResultTable) -> Section:
    """Coverage by status, by cell and task, what can't run here, and the list of failures."""
    blocks: list[Block] = [_grid(table), _statuses(table)]
    if table.unsupported:
        blocks.append(_unsupported(table))
    failures = _failures(table)
    if failures.rows:
        blocks.append(failures)
    return Section("coverage", "What ran and what did not", _lead(table), tuple(blocks))


def _lead(table: ResultTable) -> str:
    counts = table.counts()
    planned = len(table.slots)
    failed = table.failed
    text = f"{words.plural(planned, 'job')} planned: {_tally(table.slots)}."
    if failed:
        parts = [
            f"{words.status(name)} {n}"
            for name, n in sorted(counts.items())
            if name not in ("ok", *TO_COME)
        ]
        text += f" Failed: {words.listing(parts)}."
    if table.unsupported:
        text += f" {words.plural(len(table.unsupported), 'cell')} can't run here at all."
    trials = table.planned("tuning")
    if trials:
        text += f" Before them {words.plural(len(trials), 'tuning trial')}: {_tally(trials)}."
    if table.strays:
        text += f" {left_out(table.strays)}"
    return text


def _tally(slots: Sequence[Slot]) -> str:
    """Jobs by how they ended, in words."""
    ok = sum(s.ok for s in slots)
    idle = sum(s.status in TO_COME for s in slots)
    return f"{ok} ok, {len(slots) - ok - idle} failed, {idle} not run yet"


def left_out(strays: int) -> str:
    """A sentence on rows of no planned job."""
    one = strays == 1
    return (
        f"{words.plural(strays, 'stored row')} {'belongs' if one else 'belong'} to no job of this "
        f"profile (another profile, or a changed suite) and {'is' if one else 'are'} left out."
    )


def _grid(table: ResultTable) -> Grid:
    columns = (Column("cell"), *(Column(task) for task in table.tasks))
    rest = table.without(table.unsupported)
    rows = tuple(
        (Entry(words.title(cell)), *(_marks(table, cell, task) for task in table.tasks))
        for cell in rest.cells
    )
    apart = len(table.cells) - len(rest.cells)
    also = f" {words.plural(apart, 'cell')} that can't run here stand below." if apart else ""
    return Grid(
        "Runs by cell and task, one mark a seed",
        columns,
        rows,
        note=f"{OK} ok, {FAILED} failed, {TO_DO} not run yet.{also}",
    )


def _marks(table: ResultTable, cell: Cell, task: str) -> Entry:
    slots = table.of(cell, task)
    if not slots:
        return words.missing(_why_no_slot(table, cell, task))
    ok = sum(s.ok for s in slots)
    text = " ".join(OK if s.ok else TO_DO if s.status in TO_COME else FAILED for s in slots)
    rest = missing.status_text(slots)
    note = f"{ok}/{len(slots)} ok" + (f"; {rest}" if rest else "")
    return Entry(text, note, "marks", float(ok))


def _why_no_slot(table: ResultTable, cell: Cell, task: str) -> str:
    trials = [s for s in table.planned("tuning") if (s.job.cell, s.job.task) == (cell, task)]
    if not trials:
        return "not planned"
    # Of a search: its trials are made, and others did better.
    made = table.of() and all(s.record is not None for s in table.planned("tuning"))
    return "others did better in trials" if made else "waits for its tuning trials"


def _statuses(table: ResultTable) -> Grid:
    counts = table.counts()
    names = ["ok", *(n for n in STATUSES if n != "ok" and counts[n]), NOT_RUN]
    meanings = {**STATUSES, NOT_RUN: "no finished attempt in the results"}
    rows = tuple(
        (
            Entry(words.status(name)),
            Entry(str(counts[name]), kind="number", sort=counts[name]),
            Entry(meanings[name]),
        )
        for name in names
    )
    columns = (Column("status"), Column("jobs", numeric=True), Column("meaning"))
    return Grid("Jobs by status", columns, rows, folded=True)


def _unsupported(table: ResultTable) -> Grid:
    """One row a cell, with its reasons, each once."""
    rows = []
    for cell in table.unsupported:
        found = [r for r in table.records.values() if r.job.cell == cell]
        reasons = dict.fromkeys(" ".join(r.outcome.status_reason.split()) for r in found)
        told = shorten("; ".join(filter(None, reasons)), LONGEST_REASON) or "no reason recorded"
        jobs = sum(j.cell == cell for j in table.jobs)
        tried = Entry(f"{len(found)} of {jobs}", kind="number", sort=float(len(found)))
        rows.append((Entry(words.title(cell)), Entry(told), tried))
    columns = (Column("cell"), Column("reason"), Column("jobs", "tried of planned", numeric=True))
    return Grid(
        "Cells that can't run here",
        columns,
        tuple(rows),
        note="This machine or these library versions can't run them; they are in no other table "
        "and no picture.",
    )


def _failures(table: ResultTable) -> Grid:
    columns = (
        Column("cell"),
        Column("task"),
        Column("seed", numeric=True),
        Column("status"),
        Column("reason"),
        Column("attempts", numeric=True),
    )
    rows = tuple(
        (
            Entry(words.title(r.job.cell), PURPOSES[r.job.purpose]),
            Entry(r.job.task),
            Entry(str(r.job.seed), kind="number", sort=r.job.seed),
            Entry(words.status(r.outcome.status), kind="failed"),
            Entry(shorten(r.outcome.status_reason, LONGEST_REASON) or "no reason recorded"),
            Entry(str(r.attempt), kind="number", sort=r.attempt),
        )
        for r in (*table.rows, *table.extras)
        if not r.ok and r.job.cell not in table.unsupported
    )
    return Grid("Failures", columns, rows)

"""Stored rows as the tables that advice is given from."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain

from peftmark.analysis.machines import sentence
from peftmark.analysis.table import ResultTable, build
from peftmark.catalog.methods import Cell
from peftmark.record.job import PROTOCOL, Job, Record
from peftmark.record.recipe import FORM


def tables_of(records: Sequence[Record]) -> tuple[list[ResultTable], list[str]]:
    """Rows as tables, one for each suite, profile, model and device, and what was left out.

    Only rows of the newest version of a suite and of today's procedure count. Of two jobs of the
    same cell, task and seed (an older recipe) the later counts, on every machine that ran it. Rows
    that were padded, compiled or attended otherwise than the newest of their task are of no
    comparison with it.
    Trials enter no figure; they tell where learning rates come from.
    """
    reported = [r for r in records if r.job.purpose == "report"]
    newest: dict[str, int] = {}
    for r in reported:
        newest[r.job.suite] = max(newest.get(r.job.suite, 0), r.job.suite_version)
    groups: dict[tuple[str, ...], dict[tuple[object, ...], list[Record]]] = {}
    old = replaced = 0
    for r in sorted(reported, key=lambda r: (r.finished_at, r.job.job_id)):
        job = r.job
        if job.protocol != PROTOCOL or job.suite_version != newest[job.suite]:
            old += 1
            continue
        rows = groups.setdefault(_kind(job), {}).setdefault((job.cell, job.task, job.seed), [])
        if rows and rows[-1].job.job_id != job.job_id:
            replaced += len(rows)
            rows.clear()
        rows.append(r)
    others = sum(_of_newest_form(rows) for rows in groups.values())
    left = {
        "of an older suite or procedure": old,
        "that a later recipe replaced": replaced,
        f"of another {', '.join(FORM[:-1])} or {FORM[-1]} than the newest": others,
    }
    notes = [f"{count} rows {which} are left out." for which, count in left.items() if count]
    trials = [
        r
        for r in records
        if r.job.purpose == "tuning"
        and (r.job.protocol, r.job.suite_version) == (PROTOCOL, newest.get(r.job.suite))
    ]
    tables = [
        _table(list(chain(*groups[key].values())), [r for r in trials if _kind(r.job) == key])
        for key in sorted(groups)
    ]
    return tables, [*notes, *filter(None, (sentence(t.machines) for t in tables))]


def _of_newest_form(rows: dict[tuple[object, ...], list[Record]]) -> int:
    """Leave out, on each task, the rows whose step was computed otherwise than that of the newest;
    how many those were.

    Args:
        rows: cell, task and seed -> rows of one job; changed in place.
    """
    last = [one[-1] for one in rows.values()]
    last.sort(key=lambda r: (r.job.cell.trains, r.finished_at, r.job.job_id))
    newest = {r.job.task: r.job.form for r in last}
    other = [
        key
        for key, one in rows.items()
        if not (job := one[-1].job).form.items() <= newest[job.task].items()
    ]
    return sum(len(rows.pop(key)) for key in other)


def _kind(job: Job) -> tuple[str, ...]:
    """What rows of one table share."""
    return job.suite, job.profile, job.model, job.model_identity, job.device


def _table(rows: Sequence[Record], trials: Sequence[Record]) -> ResultTable:
    ordered = sorted(rows, key=lambda r: (r.job.task, r.job.method, r.job.seed, r.job.job_id))
    reference = _reference([r.job.cell for r in ordered])
    places = {(r.job.cell, r.job.task) for r in ordered}
    ordered += [r for r in trials if (r.job.cell, r.job.task) in places]
    return build(ordered, [r.job for r in ordered], reference)


def _reference(cells: Sequence[Cell]) -> Cell:
    """What suites nearly always compare with: plain LoRA of the lowest rank, else the first cell.

    Verdicts are one family with it and another without, so that it must not hang on the order of
    the rows.
    """
    lora = [c for c in cells if c.method == "lora"]
    if not lora:
        return cells[0]
    return min(lora, key=lambda c: (c.quantization != "none", c.variant, c.size or 0))

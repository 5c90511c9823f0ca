"""Rows of several machines: what ran where, what agrees, and what was left apart."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from peftmark.analysis.machines import Machines, sentence
from peftmark.analysis.table import ResultTable
from peftmark.analysis.validity import first_difference
from peftmark.catalog.methods import Cell
from peftmark.machine.environment import NUMERIC, changed_versions
from peftmark.record.fields import FIELDS, title
from peftmark.record.job import Record
from peftmark.render import words
from peftmark.render.page import Block, Column, Entry, Grid, Paragraph, Section
from peftmark.report import measures
from peftmark.report.measures import Measure

APART = (
    measures.STEP_TIME,
    measures.TOKENS,
    Measure("vmhwm_train_bytes"),
    Measure("torch_allocated_bytes"),
    measures.Energy("energy_cpu_joules", head="energy"),
    Measure("latency_p50_seconds", shown="ms"),
)
"""Figures of one machine that stand side by side here and in no mean."""
COUNTED = tuple(f.key for f in FIELDS.values() if f.exact and f.type != "json")
MOST_NAMED = 4


def note(table: ResultTable) -> str:
    """Whose times and the like a table shows, to stand below it; empty for one machine."""
    machines = table.machines
    if not machines.several:
        return ""
    name = machines.names[machines.main]
    return f"Times, energy and memory of allocators are of {name} alone, and n says of how many."


def section(table: ResultTable) -> Section | None:
    """The machines of a report; None where there is one."""
    machines = table.machines
    if not machines.several:
        return None
    blocks: list[Block] = [Paragraph(_pooled()), _where(machines)]
    if machines.shared:
        blocks.append(_agreement(machines))
    blocks.append(_apart(table))
    return Section("machines", "On which machines", sentence(machines), tuple(blocks))


def _pooled() -> str:
    """Which columns may be pooled, as the fields say."""
    by_section: dict[str, list[str]] = {}
    for field in FIELDS.values():
        if not field.pooled and field.kind == "cost":
            by_section.setdefault(field.section, []).append(field.title)
    listed = (f"{name.lower()} ({'; '.join(titles)})" for name, titles in by_section.items())
    apart = words.listing(list(listed))
    return (
        "Pooled over machines: scores, losses, steps, counts of parameters and operations, bytes "
        "of files and of live tensors, which are the same everywhere. Kept apart, since they say "
        f"as much of the machine as of the method: {apart}, and the peak where an allocator saw "
        "it. A machine is known by its processor with model and instructions, its GPUs and their "
        "driver: two hosts of one kind are one machine here."
    )


def _where(machines: Machines) -> Grid:
    columns = (
        Column("machine"),
        Column("finished", "of its rows", numeric=True),
        Column("what ran"),
        Column("versions"),
        Column("from, to", "UTC"),
    )
    rows = tuple(
        (
            Entry(machines.names[key], "times shown" if key == machines.main else key),
            _finished(list(rows.values())),
            Entry(_what(list(rows.values()))),
            Entry(_versions(list(rows.values()))),
            Entry(_when(list(rows.values()))),
        )
        for key, rows in machines.by_machine.items()
    )
    return Grid("What ran where", columns, rows)


def _finished(rows: Sequence[Record]) -> Entry:
    ok = sum(row.ok for row in rows)
    return Entry(f"{ok:,} of {len(rows):,}", kind="number", sort=float(ok))


def _what(rows: Sequence[Record]) -> str:
    jobs = [row.job for row in rows]
    tasks = list(dict.fromkeys(job.task for job in jobs))
    seeds = sorted({job.seed for job in jobs if job.purpose == "report"})
    cells = words.plural(len({job.cell for job in jobs}), "cell")
    told = f"{cells} on {words.some(tasks)}"
    return f"{told}, seeds {words.some([str(seed) for seed in seeds])}" if seeds else told


def _versions(rows: Sequence[Record]) -> str:
    """Versions of peftmark and of what decides numbers."""
    found = []
    for name in ("peftmark", *NUMERIC):
        seen = sorted({row.environment.versions.get(name, "") for row in rows} - {""})
        if seen:
            found.append(f"{name} {' and '.join(seen)}")
    return ", ".join(found) or "not recorded"


def _when(rows: Sequence[Record]) -> str:
    first, last = min(r.started_at for r in rows)[:10], max(r.finished_at for r in rows)[:10]
    return first if first == last else f"{first} to {last}"


# --- what agrees --------------------------------------------------------------------------------


def _agreement(machines: Machines) -> Grid:
    columns = (
        Column("machine"),
        Column("jobs on both", f"with {machines.names[machines.main]}", numeric=True),
        Column("the same bits", "scores, losses, weights", numeric=True),
        Column("the same counts", numeric=True),
        Column("largest difference of a score", numeric=True),
    )
    rows = tuple(_agrees(machines, key) for key in machines.by_machine if key != machines.main)
    text = (
        "Other bits on another kind of machine are no fault: its kernels add in another order. "
        "Counts are decided by the code alone, but for what training prunes; those that differ "
        "are named."
    )
    return Grid("What agrees where one job ran on several", columns, rows, note=text)


def _agrees(machines: Machines, key: str) -> tuple[Entry, ...]:
    pairs = list(_pairs(machines.by_machine[machines.main], machines.by_machine[key]))
    name = Entry(machines.names[key])
    if not pairs:
        none = words.missing("no job finished on both")
        return name, Entry("0", kind="number", sort=0.0), none, none, none
    same = sum(not first_difference(a, b) for a, b in pairs)
    other = [column for column in COUNTED if any(_differ(a, b, column) for a, b in pairs)]
    counted = sum(not any(_differ(a, b, column) for column in COUNTED) for a, b in pairs)
    named = words.some([title(column) for column in other], MOST_NAMED) if other else ""
    versions = sum(_other_versions(a, b) for a, b in pairs)
    apart = [
        abs(x - y)
        for a, b in pairs
        if (x := a.outcome.metric_value) is not None
        if (y := b.outcome.metric_value) is not None
    ]
    beside = f"{versions} made with other versions" if versions else ""
    return (
        name,
        Entry(f"{len(pairs):,}", beside, "number", float(len(pairs))),
        Entry(f"{same:,}", kind="number", sort=float(same)),
        Entry(f"{counted:,}", named, "number", float(counted)),
        _largest(apart),
    )


def _largest(apart: Sequence[float]) -> Entry:
    if not apart:
        return words.missing("no score on both")
    return Entry(words.number(max(apart), 4), kind="number", sort=max(apart))


def _pairs(
    mine: Mapping[str, Record], others: Mapping[str, Record]
) -> Iterator[tuple[Record, Record]]:
    """Rows of the jobs that finished on both."""
    for job_id, row in mine.items():
        other = others.get(job_id)
        if other is not None and row.ok and other.ok:
            yield row, other


def _differ(one: Record, other: Record, column: str) -> bool:
    """Whether two rows have unlike counts; a count that one of them lacks is no difference."""
    a, b = getattr(one.outcome, column), getattr(other.outcome, column)
    return a is not None and b is not None and a != b


def _other_versions(one: Record, other: Record) -> bool:
    return bool(changed_versions(one.environment.software, other.environment.software))


# --- what stands apart --------------------------------------------------------------------------


def _apart(table: ResultTable) -> Grid:
    machines = table.machines
    rows = tuple(
        (Entry(words.title(cell)), Entry(machines.names[key]), *entries)
        for cell in table.cells
        for key, found in machines.by_machine.items()
        if (entries := _figures(list(found.values()), cell)) is not None
    )
    shown = [i for i in range(len(APART)) if any(row[2 + i].kind != "missing" for row in rows)]
    heads = (Column("cell"), Column("machine"), *(APART[i].column for i in shown))
    kept = tuple((*row[:2], *(row[2 + i] for i in shown)) for row in rows)
    text = (
        "Mean over the finished runs of the machine, whose tasks and seeds may be others than "
        "those of another machine: compare cells within one machine only."
    )
    return Grid("Times and meters by machine", heads, kept, folded=True, note=text)


def _figures(rows: Sequence[Record], cell: Cell) -> tuple[Entry, ...] | None:
    """A cell's figures on one machine; None where it has no finished run there."""
    mine = [r for r in rows if r.ok and r.job.cell == cell and r.job.purpose == "report"]
    return tuple(_figure(mine, measure) for measure in APART) if mine else None


def _figure(rows: Sequence[Record], measure: Measure) -> Entry:
    values = [v for row in rows if (v := measure.read(row)) is not None]
    if not values:
        return words.missing("not measured there")
    mean = statistics.fmean(values)
    return Entry(measure.text(mean), f"n = {len(values)}", "number", mean)

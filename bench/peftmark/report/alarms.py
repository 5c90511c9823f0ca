"""Which runs raised an alarm of `peftmark.catalog.alarms`, and what is not measured."""

from __future__ import annotations

from collections.abc import Sequence

from peftmark.analysis.alarms import Count, Reading, count, read
from peftmark.analysis.table import ResultTable
from peftmark.catalog.alarms import ALARMS
from peftmark.record.job import Record
from peftmark.render import words
from peftmark.render.page import Block, Column, Entry, Grid, Section

TITLE = "What training warned of"
PAGE = "docs/alarms.md"


def section(table: ResultTable) -> Section:
    """One row an alarm, and one each cell and task that raised it; of the reported runs."""
    rows = [r for r in table.rows if r.ok]
    counts = count(rows)
    raised = _raised(rows)
    blocks: list[Block] = [_by_alarm(counts)]
    if raised.rows:
        blocks.append(raised)
    return Section("alarms", TITLE, _lead(counts), tuple(blocks))


def _lead(counts: Sequence[Count]) -> str:
    """Which were raised, and which could not be told: silence is no all-clear."""
    told = [f"{c.alarm.title} ({words.plural(c.raised, 'run')})" for c in counts if c.raised]
    unknown = [c for c in counts if not c.measured]
    text = f"Raised: {'; '.join(told)}." if told else "No alarm was raised where it is measured."
    if unknown:
        text += f" Not measured in any run: {words.plural(len(unknown), 'alarm')} of {len(counts)}."
    return f"{text} An alarm is a hint and no verdict; how often each is false: {PAGE}."


def _by_alarm(counts: Sequence[Count]) -> Grid:
    columns = (
        Column("alarm"),
        Column("raised"),
        Column("measured"),
        Column("threshold"),
        Column("what to do"),
    )
    return Grid("Alarms", columns, tuple(_alarm_row(c) for c in counts))


def _alarm_row(found: Count) -> tuple[Entry, ...]:
    every = found.measured + sum(found.unmeasured.values())
    why = max(found.unmeasured, key=lambda reason: found.unmeasured[reason], default="")
    measured = Entry(f"{found.measured} of {words.plural(every, 'run')}", why)
    if found.measured:
        raised = Entry(f"{found.raised} of {found.measured}")
    else:
        raised = Entry("not measured", why or "nothing trains by steps", kind="missing")
    alarm = found.alarm
    return (Entry(alarm.title), raised, measured, Entry(alarm.rule), Entry(alarm.action))


def _raised(rows: Sequence[Record]) -> Grid:
    """Cell and task by alarm, with the seeds and their values."""
    groups: dict[tuple[object, ...], list[tuple[Record, Reading]]] = {}
    for row in rows:
        if row.job.purpose != "report" or not row.job.cell.trains:
            continue
        for reading in read(row):
            if reading.raised:
                key = (reading.alarm.key, row.job.cell, row.job.task)
                groups.setdefault(key, []).append((row, reading))
    order = list(ALARMS)
    keys = sorted(groups, key=lambda key: order.index(str(key[0])))
    columns = (
        Column("alarm"),
        Column("cell"),
        Column("task"),
        Column("seeds"),
        Column("value"),
        Column("threshold"),
    )
    grid = tuple(_group_row(groups[key]) for key in keys)
    return Grid("Runs that raised one", columns, grid, folded=True)


def _group_row(found: Sequence[tuple[Record, Reading]]) -> tuple[Entry, ...]:
    job, alarm = found[0][0].job, found[0][1].alarm
    worst = max if alarm.side == "above" else min
    reading = worst((r for _, r in found), key=lambda r: r.value or 0.0)
    seeds = ", ".join(str(row.job.seed) for row, _ in found)
    most = "" if len(found) == 1 else "at worst "
    return (
        Entry(alarm.title),
        Entry(words.title(job.cell)),
        Entry(job.task),
        Entry(seeds),
        Entry(f"{most}{reading.text}"),
        Entry(alarm.rule),
    )

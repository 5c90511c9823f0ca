"""The command `alarms`: what training warned of, and how often such a warning is false."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from peftmark.cli.options import OF_ALL, add_profile, add_results, add_suites
from peftmark.core.errors import Exit, UserError
from peftmark.core.shown import plain, quoted

if TYPE_CHECKING:
    from peftmark.analysis.alarms import Count, Reading
    from peftmark.record.job import Record

NAME = "alarms"
HELP = "say what training warned of, and how often each warning was false"


def add_options(sub: argparse.ArgumentParser) -> None:
    """Which rows, or which job."""
    sub.add_argument(
        "source",
        nargs="+",
        metavar="SUITE|DIR|FILE",
        help="whose rows count: a suite's name, its results folder, or a file of rows",
    )
    sub.add_argument(
        "--job", action="append", default=[], metavar="ID", help="only this job (repeatable)"
    )
    add_profile(sub, OF_ALL)
    add_suites(sub)
    add_results(sub)


def run(options: argparse.Namespace) -> int:
    """The counts of every alarm over the rows, or the readings of one job."""
    from peftmark.analysis.alarms import count, read, together

    sources = _rows(options)
    if not options.job:
        counts = together([count(rows) for rows in sources])
        if options.json:
            print(json.dumps([facts(one) for one in counts], indent=2))
        else:
            print("\n".join(table(counts)))
        return Exit.OK
    of = {row.job.job_id: row for rows in sources for row in rows}
    if unknown := [name for name in options.job if name not in of]:
        raise UserError(
            f"--job {quoted(unknown[0])}: no row of these is of that job",
            "Give an id as `peftmark plan` and the report's rows.csv have it.",
        )
    readings = {name: read(of[name]) for name in options.job}
    if options.json:
        told = {name: [_reading_facts(one) for one in found] for name, found in readings.items()}
        print(json.dumps(told, indent=2))
        return Exit.OK
    for name, found in readings.items():
        job = of[name].job
        print(plain(f"{job.job_id}: {job.method}, {job.task}, seed {job.seed}"))
        for one in found:
            for line in lines(one):
                print(plain(line))
    return Exit.OK


def _rows(options: argparse.Namespace) -> list[list[Record]]:
    """The rows that count of every source, each job once, at the first that has it.

    Raises:
        UserError: a source has none.
    """
    from peftmark.api.selected import contents_of
    from peftmark.storage.unread import no_results

    seen: set[str] = set()
    found: list[list[Record]] = []
    for source in options.source:
        where, contents = contents_of(source, options.results, options.suites)
        # Of several attempts the last; jobs that the suite no longer plans are runs all the same.
        rows = {
            row.job.job_id: row
            for row in sorted(contents.rows, key=lambda row: row.attempt)
            if options.profile in (None, row.job.profile)
        }
        if not rows:
            raise no_results(where, contents, "Run them first, or name another profile.")
        found.append([row for key, row in rows.items() if key not in seen])
        seen |= rows.keys()
    return found


def lines(reading: Reading) -> list[str]:
    """One alarm of a job as text."""
    mark = {True: "ALARM", False: "fine", None: "?"}[reading.raised]
    told = [f"{mark:<6}{reading.alarm.key}: {reading.text}"]
    if reading.raised is not None:
        told[0] += f" (alarm {reading.alarm.rule})"
    if reading.raised:
        told.append(f"      {reading.alarm.title}. {reading.alarm.action}")
    return told


def table(counts: Sequence[Count]) -> list[str]:
    """The counts as a Markdown table."""
    head = ("alarm", "measured", "raised", "right", "false", "no other seed", "missed", "so")
    rows = [
        (
            f"`{c.alarm.key}`",
            f"{c.measured} of {c.measured + sum(c.unmeasured.values())}",
            *(map(str, _numbers(c)) if c.measured else "-----"),
            c.verdict,
        )
        for c in counts
    ]
    return [
        f"| {' | '.join(head)} |",
        f"|{'---|' * len(head)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


def _numbers(found: Count) -> tuple[int, ...]:
    return found.raised, found.right, found.false, found.untold, found.missed


def facts(found: Count) -> dict[str, Any]:
    """The counts of an alarm as JSON has them."""
    alarm = found.alarm
    return {
        "alarm": alarm.key,
        "threshold": alarm.threshold,
        "rule": alarm.rule,
        "source": alarm.source,
        "measured": found.measured,
        "unmeasured": dict(found.unmeasured),
        "raised": found.raised,
        "right": found.right,
        "false": found.false,
        "no_other_seed": found.untold,
        "missed": found.missed,
        "verdict": found.verdict,
    }


def _reading_facts(reading: Reading) -> dict[str, Any]:
    return {
        "alarm": reading.alarm.key,
        "value": reading.value,
        "threshold": reading.alarm.threshold,
        "raised": reading.raised,
        "step": reading.step,
        "where": reading.where,
        "reason": reading.reason,
    }

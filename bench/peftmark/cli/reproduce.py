"""The command `reproduce`: published rows run again, and what came of them."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from peftmark.cli.options import (
    AS_MANY,
    add_job,
    add_jobs,
    add_mirror,
    add_results,
    add_suite,
    add_suites,
    count,
)

if TYPE_CHECKING:
    from peftmark.analysis.reproduction import Reproduced
    from peftmark.core.errors import Exit
    from peftmark.record.job import Record
    from peftmark.run.reproduce import Chosen

NAME = "reproduce"
HELP = "run some published rows again; the exit code says whether they came out"
LONGEST = 200
"""Characters of a clause on a terminal."""


def add_options(sub: argparse.ArgumentParser) -> None:
    """Which rows, and where they are."""
    add_suite(sub)
    add_suites(sub)
    add_results(sub)
    add_mirror(sub)
    sub.add_argument(
        "--sample",
        type=count,
        metavar="N",
        help="rows to run again: the cheapest of unlike cells and tasks (default: 2)",
    )
    add_job(sub)
    add_jobs(sub, AS_MANY)


def run(options: argparse.Namespace) -> int:
    """Run some published rows again and hold them against what was published."""
    from peftmark.cli.run import Screen, console_on
    from peftmark.run.reproduce import Asked, carry_out, choose, code_of
    from peftmark.run.stop import Stop

    asked = Asked(
        suite=options.suite,
        results=options.results,
        mirror=options.mirror,
        suites=options.suites,
        sample=options.sample,
        only=tuple(options.job),
        jobs=options.jobs,
    )
    console = console_on(sys.stderr if options.json else sys.stdout)

    def say(line: str) -> None:
        console.print(line, markup=False, soft_wrap=True)

    chosen = choose(asked)
    for line in _beforehand(chosen):
        say(line)
    stop = Stop()
    found = carry_out(chosen, Screen(console, None), stop)
    code = stop.code if stop.asked() else code_of(found)
    for one in found:
        say(verdict_line(one))
    if stop.asked():
        say("Stopped: what had not run was not checked.")
    say(_sentence(found, code))
    if options.json:
        print(json.dumps(_facts(chosen, found, code), indent=2))
    return code


def _beforehand(chosen: Chosen) -> list[str]:
    """What is about to run, and how long it takes as far as is known."""
    from peftmark.run.progress import clock

    count_ = len(chosen.rows)
    lines = [f"{count_} published row{'s' * (count_ != 1)} of {chosen.file} to run again:"]
    for row in chosen.rows:
        seconds = chosen.seconds.get(row.job.job_id)
        took = f"took {clock(row.wall_seconds)} when it was published"
        time = took if seconds is None else f"{clock(seconds)} predicted here, {took}"
        lines.append(f"  {_title(row)} (job {row.job.job_id}): {time}")
    lines += [f"Note: {note}." for note in chosen.notes]
    lines += [f"Left out: {n} rows: {why}." for why, n in sorted(chosen.left_out.items())]
    return lines


def _title(row: Record) -> str:
    from peftmark.catalog.methods import cell_title

    job = row.job
    trial = f", trial at {job.recipe.learning_rate:g}" if job.purpose == "tuning" else ""
    return f"{cell_title(*job.cell)} on {job.task}, seed {job.seed}{trial}"


def verdict_line(one: Reproduced) -> str:
    """A row's verdict with what it rests on."""
    from peftmark.catalog.metrics import metric_title
    from peftmark.core.shown import short
    from peftmark.render.words import score

    job = one.published.job
    values = [one.again.outcome.metric_value if one.again else None]
    values.append(one.published.outcome.metric_value)
    here, there = ("none" if v is None else score(job.metric, v) for v in values)
    parts = [f"{metric_title(job.metric)} {here} here, {there} published"]
    if one.interval is not None and one.interval.half_width is not None:
        ends = [score(job.metric, end) for end in (one.interval.low, one.interval.high)]
        parts.append(f"one more seed lies in {ends[0]} to {ends[1]} ({one.interval.n} other seeds)")
    parts += [short(text, LONGEST) for text in (one.detail, *one.elsewhere) if text]
    if one.left_out:
        parts.append(f"not recorded then: {', '.join(one.left_out)}")
    return f"{one.verdict}: {_title(one.published)}: {'; '.join(parts)}"


def _sentence(found: list[Reproduced], code: Exit) -> str:
    """How many rows came out, and what the exit code is."""
    from collections import Counter

    counts = Counter(one.verdict for one in found)
    told = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
    came = "Reproduced" if code == code.OK else "Not reproduced"
    return f"{came} (exit code {int(code)}): {told}."


def _facts(chosen: Chosen, found: list[Reproduced], code: Exit) -> dict[str, Any]:
    """The same as plain data."""
    from peftmark.run.reproduce import kind_of

    return {
        "suite": chosen.asked.suite,
        "published": str(chosen.file),
        "results": str(chosen.asked.selection.results / chosen.asked.suite),
        "code": int(code),
        "sentence": _sentence(found, code),
        "rows": [
            {
                "job": one.published.job.job_id,
                "title": _title(one.published),
                "task": one.published.job.task,
                "seed": one.published.job.seed,
                "purpose": one.published.job.purpose,
                "verdict": one.verdict,
                "kind": kind_of(one),
                "metric": one.published.job.metric,
                "published": one.published.outcome.metric_value,
                "here": one.again.outcome.metric_value if one.again else None,
                "low": one.interval.low if one.interval else None,
                "high": one.interval.high if one.interval else None,
                "seeds": one.interval.n if one.interval else None,
                "elsewhere": one.elsewhere,
                "detail": one.detail,
                "not_recorded": one.left_out,
                "seconds": one.again.wall_seconds if one.again else None,
                "predicted_seconds": chosen.seconds.get(one.published.job.job_id),
            }
            for one in found
        ],
        "left_out": chosen.left_out,
        "notes": chosen.notes,
    }

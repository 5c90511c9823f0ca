"""What several commands do: write the report, and say how far they are."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peftmark.run.runner import Plan


def write_report(plan: Plan, options: argparse.Namespace) -> list[Path]:
    """The report of a plan's suite from its stored rows; the files, the page first."""
    from peftmark.analysis.unknown_names import unknown_names
    from peftmark.report.report_input import ReportInput
    from peftmark.report.write import write
    from peftmark.storage.external import load_external
    from peftmark.storage.unread import unread
    from peftmark.suite.expand import as_recorded

    records = list(plan.contents.records.values())
    mine = [r for r in records if r.job.profile == plan.profile]
    others = {r.job.profile for r in records} - {plan.profile}
    notes = [
        f"The results folder also has rows of profile {name}: "
        f"peftmark report {plan.suite.name} --profile {name}"
        for name in sorted(others)
    ]
    clauses = [*unread(plan.contents), *unknown_names([r.job for r in mine])]
    notes += [f"{clause[:1].upper()}{clause[1:]}." for clause in clauses]
    # The rows decide the device, so that a report can be made on another machine.
    known_rows = {r.job.job_id: r for r in mine}
    jobs = as_recorded(plan.suite, plan.profile, known_rows).jobs if mine else plan.jobs
    profile = plan.suite.profiles[plan.profile]
    # What is known of elsewhere is of language models.
    elsewhere = load_external(options.results) if any(job.causal for job in jobs) else ()
    given = ReportInput(
        records=mine,
        planned=jobs,
        options=plan.suite.report,
        summary=profile.summary,
        notes=notes,
        results=plan.store.folder,
        claims=plan.claims,
        elsewhere=elsewhere,
    )
    return write(given, options.reports / plan.suite.name)


def waiting_text(plan: Plan) -> str:
    """How many jobs come after trials, for the end of a sentence; empty if none do."""
    count = plan.expanded.waiting
    return f", then {count} that wait for trials" if count else ""


def tell_predictions(done: int, total: int) -> None:
    """Say on the error stream how far predictions of memory are."""
    live = sys.stderr.isatty()
    if total and (live or done in (0, total)):
        end = "" if live and done < total else "\n"
        start = "\r" if live else ""
        text = f"{start}Predicting memory: {done} of {total} steps"
        print(text, end=end, file=sys.stderr, flush=True)

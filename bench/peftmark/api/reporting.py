"""The report of a suite from its stored rows: which rows, and where the files go."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from peftmark.analysis.table import build
from peftmark.analysis.unknown_names import unknown_names
from peftmark.core.amounts import Price, read_price
from peftmark.report.report_input import ReportInput
from peftmark.report.write import write
from peftmark.run.runner import Plan, Selection, make_plan
from peftmark.run.until_decided import decisions_text
from peftmark.storage.external import load_external
from peftmark.storage.store import Store
from peftmark.storage.unread import no_results, unread
from peftmark.suite.added_seeds import by_hand
from peftmark.suite.expand import as_recorded
from peftmark.suite.with_rows import load_with_rows


def stored_plan(selection: Selection) -> Plan:
    """The plan of a suite's stored rows; without a profile that of the newest row.

    Raises:
        UserError: no such suite or profile, or no rows.
    """
    if selection.profile is None:
        suite = load_with_rows(selection.suite, selection.suites, selection.results)
        records = Store(selection.results, suite.name).read().records.values()
        latest = max(records, key=lambda r: (r.finished_at, r.job.job_id), default=None)
        if latest is not None and latest.job.profile in suite.profiles:
            selection = replace(selection, profile=latest.job.profile)
    plan = make_plan(selection, recorded=True)
    if not plan.contents.attempts:
        run = f"Run them first: peftmark run {plan.suite.name}"
        raise no_results(plan.store.folder, plan.contents, run)
    return plan


def write_report(
    plan: Plan,
    results: Path,
    reports: Path,
    price: Price | None = None,
    watts: float | None = None,
) -> list[Path]:
    """The report of a plan's suite from its stored rows; the files, the page first.

    Args:
        results: the results folder, of which rows of elsewhere are shown too.
        reports: the folder in which the suite's gets the report.
        price: of an hour of the machine; None for the profile's, which may have none.
        watts: that the processor takes while it works; None likewise.
    """
    records = plan.contents.rows
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
    known_rows = {i: r for i, r in plan.contents.records.items() if r.job.profile == plan.profile}
    jobs = plan.jobs
    if mine:
        jobs = as_recorded(plan.suite, plan.profile, known_rows).jobs
    notes += filter(None, [by_hand(known_rows.values())])
    if any(record.most_seeds for record in mine):
        table = build(list(known_rows.values()), jobs, plan.suite.report.reference)
        told = decisions_text(table, max(record.question or "reference" for record in mine))
        notes.append(f"{told[:1].upper()}{told[1:]}.")
    profile = plan.suite.profiles[plan.profile]
    # What is known of elsewhere is of language models.
    elsewhere = load_external(results) if any(job.causal for job in jobs) else ()
    given = ReportInput(
        records=mine,
        planned=jobs,
        options=replace(plan.suite.report, watts=watts or profile.watts),
        summary=profile.summary,
        notes=notes,
        results=plan.store.folder,
        claims=plan.claims,
        elsewhere=elsewhere,
        price=price or read_price(profile.price),
    )
    return write(given, reports / plan.suite.name)

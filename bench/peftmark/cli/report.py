"""The command `report`: a suite's report from stored results."""

from __future__ import annotations

import argparse
import json

from peftmark.cli.options import (
    OF_MACHINE,
    add_mirror,
    add_profile,
    add_reports,
    add_results,
    add_suite,
    add_suites,
    selection_of,
)
from peftmark.cli.shared import write_report
from peftmark.core.errors import Exit

NAME = "report"
HELP = "write the report of a suite from its results"


def add_options(sub: argparse.ArgumentParser) -> None:
    """Which results, and where the report goes."""
    add_suite(sub)
    add_profile(sub, OF_MACHINE)
    add_suites(sub)
    add_results(sub)
    add_reports(sub)
    add_mirror(sub)


def run(options: argparse.Namespace) -> int:
    """Report from stored results."""
    from dataclasses import replace

    from peftmark.run.runner import make_plan
    from peftmark.storage.store import Store
    from peftmark.storage.unread import no_results
    from peftmark.suite.with_rows import load_with_rows

    selection = selection_of(options)
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
    written = write_report(plan, options)
    if options.json:
        print(json.dumps({"profile": plan.profile, "files": [str(p) for p in written]}, indent=2))
    else:
        print(f"Report of profile {plan.profile}: {written[0]}")
    return Exit.OK

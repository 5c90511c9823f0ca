"""The command `run`: the jobs of a suite that have no result yet, then the report."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftmark.cli.options import (
    OF_MACHINE,
    add_mirror,
    add_profile,
    add_reports,
    add_results,
    add_suite,
    add_suites,
    add_which_jobs_and_where,
    count,
    selection_of,
)
from peftmark.cli.shared import waiting_text, write_report
from peftmark.core.errors import Exit
from peftmark.executors.select import DEVICES

if TYPE_CHECKING:
    from peftmark.record.job import Job
    from peftmark.run.runner import Plan, Selection
    from peftmark.run.stop import Stop

NAME = "run"
HELP = "run the jobs of a suite that have no result yet, then report"


def add_options(sub: argparse.ArgumentParser) -> None:
    """Which jobs, where, and what is done with those that fail."""
    add_suite(sub)
    add_profile(sub, OF_MACHINE)
    add_suites(sub)
    add_results(sub)
    add_reports(sub)
    add_mirror(sub)
    add_which_jobs_and_where(sub)
    # The older spelling of --node-device: commands in rows and scripts have it.
    sub.add_argument("--device", choices=DEVICES, help=argparse.SUPPRESS)
    sub.add_argument("--timeout", type=count, metavar="SECONDS", help="time limit of a job")
    sub.add_argument(
        "--retries",
        type=int,
        choices=range(6),
        default=1,
        metavar="N",
        help="further tries of a job whose worker was killed, 0 to 5 (default: 1)",
    )
    sub.add_argument(
        "--show-texts",
        action="store_true",
        help="keep what models write to rows of your own, and show some in the report",
    )
    sub.add_argument("--no-report", action="store_true", help="do not write the report")


def run(options: argparse.Namespace) -> int:
    """Run what has no result yet, then report."""
    from dataclasses import replace

    from rich.console import Console

    from peftmark.report.live_file import lead_on
    from peftmark.run.runner import fetch, make_plan
    from peftmark.run.stop import Stop
    from peftmark.sources.manifest import check_mirror
    from peftmark.suite.load import needed_models, needed_tasks

    selection = selection_of(options)
    console = Console(stderr=options.json, highlight=False)
    plan = make_plan(selection)
    _announce(plan, console)
    if plan.to_run:  # before anything is written
        if selection.mirror is not None:
            profile = plan.suite.profiles[plan.profile]
            models = needed_models(profile, plan.suite.methods(plan.profile))
            check_mirror(selection.mirror, models, needed_tasks(profile))
        console.print("Fetching and verifying model and data ...")
        for name, source in fetch(plan).items():
            console.print(f"  {name}: {source}", markup=False)
    stop = Stop()
    live = None if options.no_report else options.reports / plan.suite.name / "live.html"
    if live is not None and plan.to_run:
        console.print(f"While it runs: {live}", markup=False, soft_wrap=True)
    with plan.store.lock():
        # Once more, now that no other run can finish jobs; the profile stays the chosen one.
        selection = replace(selection, profile=plan.profile)
        with stop.watching():
            for trials in (True, False):
                _run_stage(trials, selection, console, stop, plan, live)
        plan.store.rebuild()
    code = _summary(selection, options, console, plan)
    if not options.no_report:
        everything = replace(selection, only=(), again=False)
        written = write_report(make_plan(everything, before=plan), options)
        if live is not None and live.is_file():
            lead_on(live, written[0].name)
        console.print(f"Report: {written[0]}", markup=False, soft_wrap=True)
    return stop.code if stop.asked() else code


def _run_stage(
    trials: bool,
    selection: Selection,
    console: Any,
    stop: Stop,
    before: Plan,
    live: Path | None = None,
) -> None:
    """Run the trials of learning rates, or, planned anew, the jobs that use what they chose.

    Args:
        live: where to write a page while they run; None for nowhere.
    """
    from peftmark.report.live_file import LiveFile
    from peftmark.run.progress import Board
    from peftmark.run.runner import execute, make_plan

    if stop.asked():
        return
    plan = make_plan(selection, before=before)
    jobs = [job for job in plan.to_run if (job.purpose == "tuning") == trials]
    if not jobs:
        return
    if plan.expanded.choices:
        stage = "trials of learning rates" if trials else "jobs with the chosen learning rates"
        console.print(f"{len(jobs)} {stage}:", markup=False)
    with Board(console, jobs, plan.venue.at_once) as board:
        page = LiveFile(
            live,
            f"{plan.suite.name}, profile {plan.profile}",
            plan.jobs,
            plan.contents.records,
            plan.suite.report.reference,
            board.left,
        )
        page.begin()

        def told(job: Job, message: dict[str, Any]) -> None:
            board.event(job, message)
            page.event(job, message)

        for record, done in execute(plan, jobs, selection, told, stop):
            board.finished(done)
            page.finished(record)


def _announce(plan: Plan, console: Any) -> None:
    from rich.markup import escape

    done = len(plan.planned) - len(plan.to_run)
    console.print(
        f"Suite {plan.suite.name} v{plan.suite.version}, profile [bold]{plan.profile}[/] "
        f"({escape(plan.profile_reason)}): {len(plan.planned)} jobs, {done} already done, "
        f"{len(plan.to_run)} to run{waiting_text(plan)}, {plan.venue.at_once} at once.",
        soft_wrap=True,
    )
    for note in plan.notes:
        console.print(f"Note: {note}.", markup=False, soft_wrap=True)
    for path, why in plan.contents.damaged.items():
        console.print(f"Set aside as unreadable: {path.name}: {why}", markup=False, soft_wrap=True)


def _summary(selection: Selection, options: argparse.Namespace, console: Any, before: Plan) -> Exit:
    """Print how the selected jobs stand and what is suspect about them; the exit code for it."""
    from peftmark.analysis.machines import by_machine
    from peftmark.analysis.validity import flags, repeatability
    from peftmark.run.progress import tell_suspects
    from peftmark.run.runner import make_plan

    plan = make_plan(selection, before=before)
    records = plan.contents.records
    counts: dict[str, int] = {}
    for job in plan.jobs:
        record = records.get(job.job_id)
        status = record.outcome.status if record else "not run"
        counts[status] = counts.get(status, 0) + 1
    text = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    line = f"{len(plan.jobs)} jobs: {text}{waiting_text(plan)}. Results: {plan.store.derived}"
    console.print(line, markup=False, soft_wrap=True)
    machines = by_machine(plan.contents.rows)
    repeat, found = repeatability(plan.jobs, records, machines), flags(plan.jobs, records)
    tell_suspects(repeat, found, console)
    if options.json:
        facts = {
            "suite": plan.suite.name,
            "profile": plan.profile,
            "jobs": counts,
            "waiting": plan.expanded.waiting,
            "results": str(plan.store.derived),
            "repeatability": repeat and {"verdict": repeat.verdict, "detail": repeat.detail},
            "flags": [{"kind": f.kind, "job": f.job.job_id, "detail": f.detail} for f in found],
            "notes": plan.notes,
        }
        print(json.dumps(facts, indent=2))
    if repeat is not None and repeat.verdict == "different":
        return Exit.NOT_REPEATABLE
    waiting = 0 if selection.only else plan.expanded.waiting
    settled = sum(r is not None and r.settled for r in (records.get(j.job_id) for j in plan.jobs))
    return Exit.OK if settled == len(plan.jobs) + waiting else Exit.INCOMPLETE

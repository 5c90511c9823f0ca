"""The command line: parses, wires, prints and exits; heavy modules load inside the commands."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from bench import __version__
from bench.errors import Exit, UserError

if TYPE_CHECKING:
    from bench.record import Job, Record
    from bench.runner import Plan, Selection, Stop

EXIT_CODES = """\
exit codes:
  0    everything asked for was done
  1    a fault of peftmark itself (with a traceback)
  2    bad input, a missing asset, a full disk; nothing was lost
  6    the run ended, but some jobs are not ok (the report says which and why)
  7    one job was run twice and gave other numbers: the results can't be trusted
  130  stopped by Ctrl-C, 143 by SIGTERM; finished jobs are kept
"""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Entry point of `peftmark`."""
    options = _parser().parse_args(arguments)
    try:
        code = options.command(options)
        sys.stdout.flush()
    except UserError as error:
        print(f"peftmark: {error}", file=sys.stderr)
        code = error.code
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    except BrokenPipeError:
        # What is still buffered has no reader; the interpreter would complain about it at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = Exit.OK
    sys.exit(int(code))


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found {text!r}; a whole number from 1")
    return int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="peftmark",
        description="Compare parameter-efficient fine-tuning methods by running them.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"peftmark {__version__}")
    commands = parser.add_subparsers(metavar="command", required=True)

    def command(
        name: str, function: Callable[[argparse.Namespace], int], help_text: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=help_text, description=help_text)
        sub.set_defaults(command=function)
        sub.add_argument("--json", action="store_true", help="print facts as JSON")
        return sub

    run = command("run", _run, "run the jobs of a suite that have no result yet, then report")
    report = command("report", _report, "write the report of a suite from its results")
    plan = command("plan", _plan, "print the jobs of a suite, and why each would run or is done")
    budget = command("budget", _budget, "show what a suite's parameter budgets give, without a run")
    budget.add_argument("--model", help="the model to count on, in place of the profile's")
    for sub in (run, report, plan, budget):
        others = "every one" if sub is budget else "chosen for the machine"
        sub.add_argument("suite", help="name of a suite (see: peftmark list)")
        sub.add_argument("--profile", help=f"profile of the suite; {others} if left out")
        sub.add_argument("--suites", type=Path, metavar="DIR", help="a folder of your own suites")
    for name, subs in {"results": (run, report, plan), "reports": (run, report)}.items():
        text = f"{name} folder (default: ./{name})"
        for sub in subs:
            sub.add_argument(f"--{name}", type=Path, default=Path(name), metavar="DIR", help=text)
    for sub in (run, report, plan):
        sub.add_argument("--mirror", type=Path, metavar="DIR", help="local data sets and models")
    for sub in (run, plan):
        sub.add_argument(
            "--job", action="append", default=[], metavar="ID", help="only this job (repeatable)"
        )
        sub.add_argument("--again", action="store_true", help="run finished jobs too")
        sub.add_argument("--jobs", type=_count, help="jobs at once (default: one per GPU or core)")
    run.add_argument("--timeout", type=_count, metavar="SECONDS", help="time limit of a job")
    run.add_argument("--no-report", action="store_true", help="do not write the report")

    listing = command("list", _list, "list suites, methods, quantizations, tasks, metrics, models")
    listing.add_argument("--suites", type=Path, metavar="DIR", help="a folder of your own suites")
    methods = command("methods", _methods, "list methods with the parameters they train")
    methods.add_argument("--markdown", action="store_true", help="print docs/methods.md")
    command("doctor", _doctor, "say what this machine can run, what is missing, and the remedy")
    return parser


def _selection(options: argparse.Namespace) -> Selection:
    from bench.runner import Selection

    return Selection(
        suite=options.suite,
        profile=options.profile or None,
        mirror=options.mirror,
        suites=options.suites,
        results=options.results,
        jobs=getattr(options, "jobs", None),
        only=tuple(getattr(options, "job", ())),
        again=getattr(options, "again", False),
        seconds_limit=getattr(options, "timeout", None),
    )


# --- run ----------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    from dataclasses import replace

    from rich.console import Console

    from bench.runner import Stop, fetch, make_plan

    selection = _selection(options)
    console = Console(stderr=options.json, highlight=False)
    plan = make_plan(selection)
    _announce(plan, console)
    if plan.to_run:  # before anything is written
        console.print("Fetching and verifying model and data ...")
        for name, source in fetch(plan).items():
            console.print(f"  {name}: {source}", markup=False)
    stop = Stop()
    with plan.store.lock():
        # Once more, now that no other run can finish jobs; the profile stays the chosen one.
        selection = replace(selection, profile=plan.profile)
        with stop.watching():
            for trials in (True, False):
                _run_stage(trials, selection, console, stop)
        plan.store.rebuild()
    code = _summary(selection, options, console)
    if not options.no_report:
        everything = replace(selection, only=(), again=False)
        written = _write_report(make_plan(everything), options.reports)
        console.print(f"Report: {written[0]}", markup=False, soft_wrap=True)
    return stop.code if stop.asked() else code


def _run_stage(trials: bool, selection: Selection, console: Any, stop: Stop) -> None:
    """Run the trials of learning rates, or, planned anew, the jobs that use what they chose."""
    from bench.progress import Board
    from bench.runner import execute, make_plan

    if stop.asked():
        return
    plan = make_plan(selection)
    jobs = [job for job in plan.to_run if (job.purpose == "tuning") == trials]
    if not jobs:
        return
    if plan.expanded.choices:
        stage = "trials of learning rates" if trials else "jobs with the chosen learning rates"
        console.print(f"{len(jobs)} {stage}:", markup=False)
    with Board(console, jobs, len(plan.slots)) as board:
        for _, done in execute(plan, jobs, selection, board.event, stop):
            board.finished(done)


def _announce(plan: Plan, console: Any) -> None:
    from rich.markup import escape

    done = len(plan.planned) - len(plan.to_run)
    console.print(
        f"Suite {plan.suite.name} v{plan.suite.version}, profile [bold]{plan.profile}[/] "
        f"({escape(plan.profile_reason)}): {len(plan.planned)} jobs, {done} already done, "
        f"{len(plan.to_run)} to run{_waiting(plan)}, {len(plan.slots)} at once.",
        soft_wrap=True,
    )
    for note in plan.notes:
        console.print(f"Note: {note}.", markup=False, soft_wrap=True)
    for path, why in plan.contents.damaged.items():
        console.print(f"Set aside as unreadable: {path.name}: {why}", markup=False, soft_wrap=True)


def _waiting(plan: Plan) -> str:
    count = plan.expanded.waiting
    return f", then {count} that wait for trials" if count else ""


def _summary(selection: Selection, options: argparse.Namespace, console: Any) -> Exit:
    """Print how the selected jobs stand and what is suspect about them; the exit code for it."""
    from bench.progress import tell_suspects
    from bench.runner import make_plan
    from bench.validity import flags, repeatability

    plan = make_plan(selection)
    records = plan.contents.records
    counts: dict[str, int] = {}
    for job in plan.jobs:
        record = records.get(job.job_id)
        status = record.outcome.status if record else "not run"
        counts[status] = counts.get(status, 0) + 1
    text = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()))
    line = f"{len(plan.jobs)} jobs: {text}{_waiting(plan)}. Results: {plan.store.derived}"
    console.print(line, markup=False, soft_wrap=True)
    repeat, found = repeatability(plan.jobs, records), flags(plan.jobs, records)
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


# --- report -------------------------------------------------------------------------------------


def _report(options: argparse.Namespace) -> int:
    from dataclasses import replace

    from bench.runner import make_plan
    from bench.store import Store
    from bench.suite import load_suite

    selection = _selection(options)
    if selection.profile is None:
        suite = load_suite(selection.suite, selection.suites)
        records = Store(selection.results, suite.name).read().records.values()
        latest = max(records, key=lambda r: (r.finished_at, r.job.job_id), default=None)
        if latest is not None and latest.job.profile in suite.profiles:
            selection = replace(selection, profile=latest.job.profile)
    plan = make_plan(selection)
    if not plan.contents.attempts:
        raise UserError(
            f"{plan.store.folder} holds no results",
            f"Run them first: peftmark run {plan.suite.name}",
        )
    written = _write_report(plan, options.reports)
    if options.json:
        print(json.dumps({"profile": plan.profile, "files": [str(p) for p in written]}, indent=2))
    else:
        print(f"Report of profile {plan.profile}: {written[0]}")
    return Exit.OK


def _write_report(plan: Plan, reports: Path) -> list[Path]:
    from bench.report import write

    records = list(plan.contents.records.values())
    mine = [r for r in records if r.job.profile == plan.profile]
    others = {r.job.profile for r in records} - {plan.profile}
    notes = [
        f"The results folder also has rows of profile {name}: "
        f"peftmark report {plan.suite.name} --profile {name}"
        for name in sorted(others)
    ]
    if plan.contents.older:
        notes.append(f"{plan.contents.older} rows of an older peftmark are left out.")
    # The rows decide the device, so that a report can be made on another machine.
    jobs = _as_recorded(plan, mine)
    profile = plan.suite.profiles[plan.profile]
    return write(mine, jobs, profile.summary, plan.suite.report, reports / plan.suite.name, notes)


def _as_recorded(plan: Plan, records: Sequence[Record]) -> Sequence[Job]:
    from bench.matrix import expand

    known = {r.job.job_id: r for r in records}
    devices = sorted({r.job.device for r in records})
    choices = [expand(plan.suite, plan.profile, device, known).jobs for device in devices]
    choices = choices or [plan.jobs]
    return max(choices, key=lambda jobs: sum(job.job_id in known for job in jobs))


# --- what needs no run --------------------------------------------------------------------------


def _plan(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from bench.progress import job_title
    from bench.runner import make_plan

    plan = make_plan(_selection(options))
    if options.json:
        rows = [
            {
                "job_id": p.job.job_id,
                "action": p.action,
                "reason": p.reason,
                "config": asdict(p.job),
            }
            for p in plan.planned
        ]
        facts = {
            "suite": plan.suite.name,
            "version": plan.suite.version,
            "profile": plan.profile,
            "profile_reason": plan.profile_reason,
            "jobs": rows,
            "waiting": plan.expanded.waiting,
            "notes": plan.notes,
        }
        print(json.dumps(facts, indent=2))
        return Exit.OK
    print(f"Suite {plan.suite.name} v{plan.suite.version}: {plan.suite.summary}")
    print(f"Profile {plan.profile} ({plan.profile_reason})")
    for planned in plan.planned:
        title = job_title(planned.job)
        print(f"  {planned.job.job_id}  {planned.action:4}  {title}: {planned.reason}")
    print(f"{len(plan.planned)} jobs, {len(plan.to_run)} to run{_waiting(plan)}")
    for note in plan.notes:
        print(f"Note: {note}.")
    return Exit.OK


def _list(options: argparse.Namespace) -> int:
    from bench.catalog import METRICS, MODELS, QUANTIZATIONS
    from bench.methods import all_methods
    from bench.suite import load_suite, suite_names
    from bench.tasks import TASKS

    suites: dict[str, str] = {}
    for name in suite_names(options.suites):
        try:
            suite = load_suite(name, options.suites)
            suites[name] = f"{suite.summary} Profiles: {', '.join(suite.profiles)}."
        except UserError as error:
            suites[name] = f"can't be used: {error.what.splitlines()[0]}"
    facts = {
        "suites": suites,
        "methods": {m.key: f"{m.title}: {m.summary}" for m in all_methods().values()},
        "quantizations": {q.key: q.summary for q in QUANTIZATIONS.values()},
        "tasks": {t.key: f"{t.summary} ({t.metric})" for t in TASKS.values()},
        "metrics": {m.key: f"{m.summary} ({m.direction} is better)" for m in METRICS.values()},
        "models": {m.key: m.summary for m in MODELS.values()},
    }
    if options.json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
        return Exit.OK
    for heading, rows in facts.items():
        print(f"{heading}:")
        for key, text in rows.items():
            print(f"  {key:22}{text}")
    return Exit.OK


def _budget(options: argparse.Namespace) -> int:
    from bench.budgets import budget_text, budgets, facts_of

    found = budgets(options.suite, options.profile, options.suites, options.model)
    print(json.dumps(facts_of(found), indent=2) if options.json else budget_text(found))
    return Exit.OK


def _methods(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    from bench.manual import count_all, markdown, method_table

    counts = count_all()
    if options.json:
        print(json.dumps(asdict(counts), indent=2))
    else:
        print(markdown(counts) if options.markdown else method_table(counts))
    return Exit.OK


def _doctor(options: argparse.Namespace) -> int:
    from bench.doctor import examine

    findings = examine()
    if options.json:
        print(json.dumps([f.as_dict() for f in findings], indent=2))
    else:
        for finding in findings:
            mark = "ok  " if finding.ok else "miss"
            print(f"{mark}  {finding.what}: {finding.found}")
            if finding.remedy:
                print(f"      {finding.remedy}")
    return Exit.OK if all(f.ok for f in findings if f.needed) else Exit.USAGE

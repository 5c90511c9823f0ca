"""What each command does: facts from the modules that know them, printed as text or JSON."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import Exit, UserError

if TYPE_CHECKING:
    from bench.runner import Plan, Selection, Stop


def selection_of(options: argparse.Namespace) -> Selection:
    """What the user asked for."""
    from bench.executors.choice import Where
    from bench.runner import Selection

    asked = {f.name: getattr(options, f.name) for f in fields(Where) if hasattr(options, f.name)}
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
        retries=getattr(options, "retries", 1),
        where=Where(**asked),
    )


# --- run ----------------------------------------------------------------------------------------


def run(options: argparse.Namespace) -> int:
    """Run what has no result yet, then report."""
    from dataclasses import replace

    from rich.console import Console

    from bench.manifest import check_mirror
    from bench.runner import Stop, fetch, make_plan
    from bench.suite import needed_models, needed_tasks

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
        written = _write_report(make_plan(everything), options)
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
    with Board(console, jobs, plan.venue.at_once) as board:
        for _, done in execute(plan, jobs, selection, board.event, stop):
            board.finished(done)


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


def waiting_text(plan: Plan) -> str:
    """How many jobs come after trials, for the end of a sentence; empty if none do."""
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
    line = f"{len(plan.jobs)} jobs: {text}{waiting_text(plan)}. Results: {plan.store.derived}"
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


def report(options: argparse.Namespace) -> int:
    """Report from stored results."""
    from dataclasses import replace

    from bench.runner import make_plan
    from bench.store import Store
    from bench.suite import load_suite

    selection = selection_of(options)
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
    written = _write_report(plan, options)
    if options.json:
        print(json.dumps({"profile": plan.profile, "files": [str(p) for p in written]}, indent=2))
    else:
        print(f"Report of profile {plan.profile}: {written[0]}")
    return Exit.OK


def _write_report(plan: Plan, options: argparse.Namespace) -> list[Path]:
    from bench.claims import load_claims
    from bench.external import load_external
    from bench.matrix import as_recorded
    from bench.report import write
    from bench.suite import suite_folders

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
    known_rows = {r.job.job_id: r for r in mine}
    jobs = as_recorded(plan.suite, plan.profile, known_rows).jobs if mine else plan.jobs
    profile = plan.suite.profiles[plan.profile]
    known = load_claims(suite_folders(options.suites)) if plan.suite.claims else {}
    return write(
        mine,
        jobs,
        profile.summary,
        plan.suite.report,
        options.reports / plan.suite.name,
        notes,
        plan.store.folder,
        [known[key] for key in plan.suite.claims],
        # What is known of elsewhere is of language models.
        load_external(options.results) if any(job.causal for job in jobs) else (),
    )


# --- what needs no run --------------------------------------------------------------------------


def fetch(options: argparse.Namespace) -> int:
    """What a suite needs, into a folder that `run --mirror` takes."""
    from dataclasses import asdict

    from bench.mirror import fetch_suite, mirrored_text

    if not options.json:
        print("Fetching and verifying model and data ...", flush=True)
    found = fetch_suite(
        options.suite, options.profile or None, options.to, options.mirror, options.suites
    )
    if options.json:
        print(json.dumps(asdict(found) | {"folder": str(found.folder)}, indent=2))
        return Exit.OK
    print(mirrored_text(found))
    return Exit.OK


def show_list(options: argparse.Namespace) -> int:
    """Every name that a suite may use."""
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
        "tasks": {t.key: f"{t.summary} ({t.kind}: {t.metric})" for t in TASKS.values()},
        "metrics": {m.key: f"{m.summary} ({m.direction} is better)" for m in METRICS.values()},
        "models": {m.key: f"{m.summary} ({m.read_as})" for m in MODELS.values()},
    }
    if options.json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
        return Exit.OK
    for heading, rows in facts.items():
        print(f"{heading}:")
        for key, text in rows.items():
            print(f"  {key:<21} {text}")
    return Exit.OK


def budget(options: argparse.Namespace) -> int:
    """The sizes that budgets give."""
    from bench.budgets import budget_text, budgets, facts_of

    found = budgets(options.suite, options.profile, options.suites, options.model)
    print(json.dumps(facts_of(found), indent=2) if options.json else budget_text(found))
    return Exit.OK


def methods(options: argparse.Namespace) -> int:
    """Every method with the parameters it trains."""
    from dataclasses import asdict

    from bench.manual import count_all, markdown, method_table

    counts = count_all()
    if options.json:
        print(json.dumps(asdict(counts), indent=2))
    else:
        print(markdown(counts) if options.markdown else method_table(counts))
    return Exit.OK


def doctor(options: argparse.Namespace) -> int:
    """What this machine can run."""
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


# --- what stored results say --------------------------------------------------------------------


def claims(options: argparse.Namespace) -> int:
    """Verdicts on published claims."""
    from bench.ledger import claims_facts, claims_text, look

    if options.memory:
        return _memory_claims(options)
    found = look(options.suite, options.profile, options.results, options.suites)
    print(json.dumps(claims_facts(found), indent=2) if options.json else claims_text(found))
    return Exit.OK


def _memory_claims(options: argparse.Namespace) -> int:
    """Verdicts on published memory figures, from predictions."""
    from bench.assets import default_cache
    from bench.published import LEDGER, memory_verdicts
    from bench.published_text import memory_facts, memory_text

    path = None if options.suites is None else options.suites / LEDGER
    found = memory_verdicts(path, default_cache(), tell_predictions)
    print(json.dumps(memory_facts(found), indent=2) if options.json else memory_text(found))
    return Exit.OK


def tell_predictions(done: int, total: int) -> None:
    """Say on the error stream how far predictions of memory are."""
    live = sys.stderr.isatty()
    if total and (live or done in (0, total)):
        end = "" if live and done < total else "\n"
        start = "\r" if live else ""
        text = f"{start}Predicting memory: {done} of {total} steps"
        print(text, end=end, file=sys.stderr, flush=True)


def recommend(options: argparse.Namespace) -> int:
    """Methods that fit what the user has."""
    from bench.advice.answer import advice_text, advise, facts_of

    found = advise(
        options.results,
        options.suite,
        options.source,
        options.profile,
        memory=options.memory,
        rows=options.rows,
        task=options.task,
        max_drop=options.max_drop,
        max_parameters=options.max_parameters,
        max_time=options.max_time,
        model=options.model,
    )
    print(json.dumps(facts_of(found), indent=2) if options.json else advice_text(found))
    return Exit.OK


def simulate(options: argparse.Namespace) -> int:
    """How often the statistics are right where the truth is known."""
    from bench.simulation import simulation_text

    text = simulation_text(options.suites, options.draws)
    print(json.dumps({"tables": text}, indent=2) if options.json else text)
    return Exit.OK

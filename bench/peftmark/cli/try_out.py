"""The command `try`: from a file of one's own to an answer and an adapter."""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftmark.cli import new
from peftmark.cli.inspect import add_columns, declared
from peftmark.cli.options import (
    add_reports,
    add_results,
    add_suites,
    count,
    hours,
)
from peftmark.core.errors import Exit, UserError

if TYPE_CHECKING:
    from peftmark.advice.recommend import Answer
    from peftmark.advice.short_answer import Outcome
    from peftmark.run.runner import Plan

NAME = "try"
HELP = "which method to use on rows of your own: writes a suite, tunes, runs until decided, answers"
HOURS = 1.0
MAX_DROP = "1"
FEWEST_ROWS = 60
MADE_BY = "# Made by `peftmark try`"
TOLD = "# Told: "
FITS = "# For: "
"""Before the hours and the file that the steps were chosen for; where they are others now and
nothing has run yet, the suite is written anew."""


def add_options(sub: argparse.ArgumentParser) -> None:
    """The file, what its columns are, and what may be spent."""
    sub.add_argument("data", type=Path, metavar="FILE", help="a file of rows")
    add_columns(sub)
    sub.add_argument(
        "--suite-name", metavar="NAME", help="of the suite and its task (default: from the file's)"
    )
    sub.add_argument(
        "--model",
        metavar="NAME",
        help="the model to fine-tune: a name (see: peftmark list), or the folder of one of yours",
    )
    sub.add_argument("--read-as", choices=new.READ_AS, help="what your own model is taken for")
    sub.add_argument(
        "--hours", type=hours, metavar="H", help=f"that all may take (default: {HOURS:g})"
    )
    sub.add_argument(
        "--memory", metavar="SIZE", help="of the GPU it has to fit, such as 24GB or RTX 4090"
    )
    sub.add_argument(
        "--max-drop",
        metavar="POINTS",
        help="points below the best that you accept for a method that costs less "
        f"(default: {MAX_DROP})",
    )
    sub.add_argument("--jobs", type=count, help="most jobs at once (default: one per GPU or core)")
    sub.add_argument("--mirror", type=Path, metavar="DIR", help="local data sets and models")
    add_suites(sub)
    add_results(sub)
    add_reports(sub)


def run(options: argparse.Namespace) -> int:
    """Write the suite, run it until it is decided or time is up, and answer."""
    from peftmark.api.reporting import write_report
    from peftmark.cli.run import Screen, console_on
    from peftmark.core.amounts import parse_points
    from peftmark.report.live_file import lead_on
    from peftmark.run.runner import Selection, make_plan
    from peftmark.run.session import carry_out
    from peftmark.run.stop import Stop
    from peftmark.run.time_budget import TimeBudget

    begin = time.monotonic()
    options.hours = options.hours or HOURS
    options.max_drop = options.max_drop or MAX_DROP
    parse_points("--max-drop", options.max_drop)  # before hours are spent
    console = console_on(sys.stderr)

    def tell(text: str) -> None:
        console.print(f"{text}.", markup=False, soft_wrap=True)

    name = options.suite_name or _name(options.data)
    selection = Selection(
        name,
        mirror=options.mirror,
        suites=options.suites,
        results=options.results,
        jobs=options.jobs,
    )
    length, left_out = _suite(options, replace(selection, suite=name), tell)
    left = options.hours - (time.monotonic() - begin) / 3600
    stop = Stop()
    screen = Screen(console, options.reports)
    plan, summary = carry_out(selection, screen, stop, TimeBudget(max(left, 1e-3), tell))
    if stop.asked():
        screen.stopped()
        tell("Stopped. The same command goes on")
        return stop.code
    plan = make_plan(replace(selection, profile=plan.profile), before=plan)
    written = write_report(plan, options.results, options.reports)
    if screen.live is not None and screen.live.is_file():
        lead_on(screen.live, written[0].name)
    answer, fault = _advised(options, name)
    outcome = _outcome(plan, options, left_out, length, written[0], fault)
    _answer(answer, outcome, options.json)
    return summary.code if answer is not None and answer.picks else Exit.INCOMPLETE


def _name(data: Path) -> str:
    """A suite's name from a file's, and not one that peftmark's own suites and tasks have."""
    import re

    from peftmark.catalog.tasks import TASKS
    from peftmark.suite.checks import suite_folders
    from peftmark.suite.load import RESERVED

    stem = re.sub(r"[^a-z0-9]+", "-", data.name.split(".")[0].lower()).strip("-")[:37] or "rows"
    ours = {path.stem for path in suite_folders(None)[-1].glob("*.yaml")}
    return f"my-{stem}" if stem in {*TASKS, *ours, *RESERVED} else stem


def _suite(options: argparse.Namespace, selection: Any, tell: Any) -> tuple[str, tuple[str, ...]]:
    """Write the suite, or take the one that this command wrote before.

    Returns:
        how long a training is, as a sentence, and why methods are not in it.

    Raises:
        UserError: the file can't be read, another suite has the name, or nothing fits.
    """
    from peftmark.core.files import write_all
    from peftmark.machine.gpus import device
    from peftmark.own.read import read_own
    from peftmark.own.suite_text import default_model
    from peftmark.run.progress import clock
    from peftmark.run.try_suite import Wanted, fitted
    from peftmark.sources.assets import default_cache

    found, task = declared(options, options.data)
    model = options.model or default_model(task.kind)
    causal, form = new.check_model(model, task.kind, options.read_as)
    keys: dict[str, Any] = {**found.keys, "train": str(options.data)}
    path = (options.suites or Path("suites")) / f"{selection.suite}.yaml"
    asked = f"{MADE_BY} from {json.dumps([keys, model, options.read_as, options.memory])}"
    fits = f"{FITS}{json.dumps([options.hours, _content(options.data)])}"
    anew = False
    if path.is_file():
        lines = [*path.read_text(encoding="utf-8").splitlines(), "", ""]
        begun = any((options.results / selection.suite / "parts").glob("*.parquet"))
        anew = not begun and lines[0] == asked and _as_written(lines, fits)
        if not anew and lines[0] == asked and lines[1].startswith(TOLD):
            tell(f"Goes on with {path}, with the steps that were chosen when it was written")
            length, *left_out = json.loads(lines[1].removeprefix(TOLD))
            return length, tuple(left_out)
    own = read_own(selection.suite, task, [Path.cwd()], default_cache())
    if (rows := len(own.data.train) + len(own.data.eval)) < FEWEST_ROWS:
        raise UserError(
            f"{options.data}: {rows} rows; methods can't be told apart on so few",
            f"Give at least {FEWEST_ROWS}.",
        )
    other = f" with --suite-name, or remove {path} to begin again"
    path = new.place(selection.suite, options.suites, force=anew, remedy=other)
    wanted = Wanted(
        name=selection.suite,
        keys=keys,
        why=found.why,
        model=model,
        causal=causal,
        form=form,
        read_as=options.read_as,
        hours=options.hours,
        device=None if options.memory is None else device(options.memory),
    )
    made = fitted(wanted, selection, tell)
    told = f"{TOLD}{json.dumps([made.told, *made.left_out])}"
    write_all({path: f"{asked}\n{told}\n{fits} {_hash(made.text.encode())}\n{made.text}"})
    takes = "" if made.seconds is None else f" Trials and three seeds: about {clock(made.seconds)}"
    tell(f"Wrote {path}: {made.told}{takes}".rstrip("."))
    return made.told, made.left_out


def _as_written(lines: list[str], fits: str) -> bool:
    """Whether a suite is as it was written, for other hours or another file than now."""
    before, _, told = lines[2].rpartition(" ")
    text = "\n".join(lines[3:-2]) + "\n"
    return before.startswith(FITS) and before != fits and told == _hash(text.encode())


def _hash(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()[:16]


def _content(data: Path) -> str:
    """The start of a hash of a file; of a folder that of its files."""
    from peftmark.core.hashes import sha256_file
    from peftmark.own.places import find

    found = find(str(data), [Path.cwd()])
    files = sorted(p for p in found.rglob("*") if p.is_file()) if found.is_dir() else [found]
    return _hash("".join(map(sha256_file, files)).encode())


def _outcome(
    plan: Plan,
    options: argparse.Namespace,
    left_out: tuple[str, ...],
    length: str,
    report: Path,
    fault: str,
) -> Outcome:
    from peftmark.advice.short_answer import Outcome

    kept, rows = plan.store.adapters.entries(), plan.contents.records
    known = [job.job_id in rows and rows[job.job_id].settled for job in plan.jobs]
    folders = [("--results", options.results, "results"), ("--suites", options.suites, None)]
    return Outcome(
        name=plan.suite.name,
        left_out=left_out,
        length=length,
        adapters={kept[folder].job.cell: folder for folder in sorted(kept)},
        report=report,
        unfinished=known.count(False) + plan.expanded.waiting,
        fault=fault,
        where=tuple(w for o, v, d in folders if v and str(v) != d for w in (o, str(v))),
    )


def _advised(options: argparse.Namespace, name: str) -> tuple[Answer | None, str]:
    """The answer of the suite's rows; or why there is none."""
    from peftmark.advice.answer import advise

    try:
        found = advise(
            options.results,
            name,
            memory=None,
            max_drop=options.max_drop,
        )
    except UserError as error:
        return None, f"{error.what}."
    return (found.answers[0], "") if found.answers else (None, "no run has ended.")


def _answer(answer: Answer | None, outcome: Outcome, as_json: bool) -> None:
    from peftmark.advice.short_answer import lines

    told = lines(answer, outcome)
    if not as_json:
        print("\n".join(told))
        return
    pick = answer.picks[0] if answer is not None and answer.picks else None
    facts = {
        "use": None if pick is None else pick.title,
        "lines": told,
        "suite": outcome.name,
        "adapters": {str(cell.stored): str(path) for cell, path in outcome.adapters.items()},
        "report": None if outcome.report is None else str(outcome.report),
    }
    print(json.dumps(facts, indent=2))

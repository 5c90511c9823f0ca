"""The command `recommend`: methods that fit what the user has, from stored results."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from peftmark.cli.options import OF_COUNTED_ROWS, add_profile, add_results, add_source
from peftmark.cli.shared import tell_predictions, tell_timing
from peftmark.core.errors import Exit, UserError

if TYPE_CHECKING:
    from peftmark.advice.answer import Advised

NAME = "recommend"
HELP = "methods that fit: from stored results, or from what is known before any run"

WISHES = {
    "memory": ("SIZE", "most peak memory, such as 24GB or 500MiB, or a GPU such as RTX 4090"),
    "rows": ("N", "training rows you have"),
    "task": ("TASK", "classification, regression, instruction, language or a task's name"),
    "max-drop": ("POINTS", "points below the best cell that you accept (1.0 is 0.01)"),
    "max-parameters": ("N", "most trainable parameters, such as 1M"),
    "max-time": ("TIME", "most training time, such as 90s or 2h"),
    "price": ("AMOUNT", "what an hour of the machine costs, such as 2.50USD; adds a run's price"),
    "max-money": ("AMOUNT", "most money for a run, such as 5USD; needs --price"),
    "model": (
        "NAME",
        "the model you mean: a name, its folder or config.json, or hub:owner/name",
    ),
}
"""Option -> its metavar and what it says."""
AFTER_A_RUN = ("max-time", "price", "max-money")
"""Wishes that only rows can answer."""


def add_options(sub: argparse.ArgumentParser) -> None:
    """What the user has, and the results to choose from."""
    sub.add_argument("suite", nargs="?", help="only the results of this suite")
    add_profile(sub, OF_COUNTED_ROWS)
    add_source(sub, required=False)
    for name, (metavar, text) in WISHES.items():
        sub.add_argument(f"--{name}", metavar=metavar, help=text)
    sub.add_argument(
        "--page",
        type=Path,
        metavar="DIR",
        help="where no rows answer: write what is known before a run as a page too",
    )
    add_results(sub)


def run(options: argparse.Namespace) -> int:
    """Methods that fit what the user has: from rows, or before any run from what is known."""
    from peftmark.advice.answer import Advised, advice_text, advise, facts_of
    from peftmark.advice.read_rows import NothingMeasured

    try:
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
            price=options.price,
            max_money=options.max_money,
        )
    except NothingMeasured as error:
        if options.suite or options.source:
            raise
        found = Advised((), (f"{error.what[:1].upper()}{error.what[1:]}.",))
    if any(not answer.far for answer in found.answers):
        if options.page:
            raise UserError(
                "--page: rows answer, and their suite's report has the page",
                "Leave it out; peftmark report SUITE writes the page.",
            )
        print(json.dumps(facts_of(found), indent=2) if options.json else advice_text(found))
        return Exit.OK
    _before(options, found)
    return Exit.OK


def _unused(options: argparse.Namespace, rows: bool) -> list[str]:
    """Options that were given and say nothing before a run.

    Args:
        rows: whether there are rows, if of something else.
    """
    names = [*AFTER_A_RUN, *(() if rows else ("max-drop", "profile"))]
    return [f"--{name}" for name in names if getattr(options, name.replace("-", "_"))]


def _before(options: argparse.Namespace, found: Advised) -> None:
    """Answer from predictions, rows measured elsewhere and guides."""
    from peftmark.core.files import write_all
    from peftmark.report import before
    from peftmark.report.before_asked import known_before

    told = known_before(
        found.answers,
        options.model,
        options.task,
        options.rows,
        options.memory,
        options.max_parameters,
        _unused(options, bool(found.answers)),
        "" if found.answers else " ".join(found.notes),
        tell_predictions,
        tell_timing,
    )
    if options.json:
        print(
            json.dumps({"answers": [], "notes": list(found.notes), **before.facts(told)}, indent=2)
        )
    else:
        notes = found.notes if found.answers else ()
        print("\n".join([*before.lines(told), *(f"Note: {note}" for note in notes)]))
    if options.page:
        write_all(before.page_files(told, options.page))
        if not options.json:
            print(f"\nPage: {options.page / 'index.html'}")

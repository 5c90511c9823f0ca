"""The command `compare`: two sides as one table, without a verdict."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from peftmark.core.errors import Exit, UserError

if TYPE_CHECKING:
    from peftmark.gate.snapshot import Snapshot

NAME = "compare"
HELP = "two results folders as one table"


def add_options(sub: argparse.ArgumentParser) -> None:
    """The two sides, and the form of the table."""
    sub.add_argument("before", type=Path, help="a suite's results folder, or a baseline")
    sub.add_argument("after", type=Path, help="the same, to hold against it")
    sub.add_argument("--markdown", action="store_true", help="print Markdown")


def run(options: argparse.Namespace) -> int:
    """Two sides as one table, without a verdict."""
    from peftmark.gate.inputs import a_side
    from peftmark.gate.judge import compare as held
    from peftmark.gate.show import markdown, text, to_json

    before, after = (a_side(path) for path in (options.before, options.after))
    _same_suite(before, after)
    found = held(after, before)
    if options.json:
        print(to_json(found).rstrip())
    else:
        print(markdown(found).rstrip() if options.markdown else text(found))
    return Exit.OK


def _same_suite(before: Snapshot, after: Snapshot) -> None:
    for what in ("suite", "profile"):
        if (a := getattr(before, what)) != (b := getattr(after, what)):
            raise UserError(
                f"{before.where} is of {what} {a}, {after.where} of {what} {b}",
                "Only runs of one profile of one suite can be compared.",
            )

"""The command `compare`: two sides as one table, without a verdict."""

from __future__ import annotations

import argparse
from pathlib import Path

from peftmark.core.errors import Exit

NAME = "compare"
HELP = "two results folders as one table"


def add_options(sub: argparse.ArgumentParser) -> None:
    """The two sides, and the form of the table."""
    sub.add_argument("before", type=Path, help="a suite's results folder, or a baseline")
    sub.add_argument("after", type=Path, help="the same, to hold against it")
    sub.add_argument("--markdown", action="store_true", help="print Markdown")


def run(options: argparse.Namespace) -> int:
    """Two sides as one table, without a verdict."""
    from peftmark.gate.hold import side_by_side
    from peftmark.gate.show import markdown, text, to_json

    found = side_by_side(options.before, options.after)
    if options.json:
        print(to_json(found).rstrip())
    else:
        print(markdown(found).rstrip() if options.markdown else text(found))
    return Exit.OK

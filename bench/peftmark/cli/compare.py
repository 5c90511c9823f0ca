"""The command `compare`: runs of one suite held against the first of them, without a verdict."""

from __future__ import annotations

import argparse
from pathlib import Path

from peftmark.cli.options import add_reports
from peftmark.core.errors import Exit

NAME = "compare"
HELP = "results folders compared with the first, as a page"


def add_options(sub: argparse.ArgumentParser) -> None:
    """The runs, what they are called, and where the page goes."""
    sub.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="a suite's results folder, or a baseline; the first is what others are compared with",
    )
    sub.add_argument(
        "--name",
        action="append",
        default=[],
        metavar="NAME",
        help="what to call a run, once for each in their order (default: what its path alone has)",
    )
    add_reports(sub)
    sub.add_argument("--markdown", action="store_true", help="print the page as Markdown")


def run(options: argparse.Namespace) -> int:
    """Several runs as a page, as a table and as JSON."""
    from peftmark.compare import write as shown
    from peftmark.compare.held import hold
    from peftmark.compare.runs import read_runs

    found = hold(read_runs(options.runs, options.name))
    folder = options.reports / found.runs[0].side.suite / "compare"
    page, markdown, *_ = shown.write(found, folder)
    if options.json:
        print(shown.to_json(found))
    elif options.markdown:
        print(markdown.read_text("utf-8").rstrip())
    else:
        print(f"{shown.text(found)}\nPage: {page}")
    return Exit.OK

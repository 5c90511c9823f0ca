"""The command `export`: what a suite found, in the format of another tool."""

from __future__ import annotations

import argparse
from pathlib import Path

from peftmark.cli.export_results import METHOD_COMPARISON, export_results
from peftmark.cli.options import (
    OF_NEWEST_ROWS,
    add_format,
    add_profile,
    add_results,
    add_suite,
)
from peftmark.core.errors import UserError
from peftmark.core.shown import quoted

NAME = "export"
HELP = "write a suite's results in the format of another tool"


def add_options(sub: argparse.ArgumentParser) -> None:
    """What to export, how, and where to."""
    add_suite(sub)
    add_format(sub, f"{METHOD_COMPARISON}: the files that PEFT's method_comparison app reads")
    sub.add_argument("--to", type=Path, required=True, metavar="DIR", help="the folder to make")
    add_profile(sub, OF_NEWEST_ROWS)
    add_results(sub)


def run(options: argparse.Namespace) -> int:
    """Export in the format that was asked for; there is one so far."""
    if options.format != METHOD_COMPARISON:
        raise UserError(
            f"--format: found {quoted(options.format or '')}", f"Allowed: {METHOD_COMPARISON}."
        )
    return export_results(options)

"""The command `export`: a trained adapter to load elsewhere, or results for another tool."""

from __future__ import annotations

import argparse
from pathlib import Path

from peftmark.cli.export_adapter import add_cell_and_task, export_adapter
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
HELP = "write a trained adapter that loads without peftmark, or results for another tool"
OF_ADAPTER = ("cell", "task", "seed", "merged", "with_base", "suites", "mirror")
"""Options that say something of an adapter alone."""


def add_options(sub: argparse.ArgumentParser) -> None:
    """What to export, how, and where to."""
    add_suite(sub)
    add_cell_and_task(sub, required=False)
    sub.add_argument("--to", type=Path, required=True, metavar="DIR", help="the folder to make")
    sub.add_argument(
        "--merged", action="store_true", help="the whole model in fp32, the adapter merged"
    )
    sub.add_argument(
        "--with-base", action="store_true", help="write the base too, for machines without a hub"
    )
    add_format(
        sub,
        f"results and no adapter: {METHOD_COMPARISON}, the files that PEFT's method_comparison "
        "app reads",
    )
    add_profile(sub, OF_NEWEST_ROWS)
    add_results(sub)


def run(options: argparse.Namespace) -> int:
    """Export an adapter, or results in the format that was asked for; there is one so far."""
    if options.format is None:
        if options.cell is None or options.task is None:
            raise UserError(
                "an adapter is exported by --cell and --task",
                f'Give both, such as --cell "LoRA r8" --task trec; results: --format '
                f"{METHOD_COMPARISON}.",
            )
        return export_adapter(options)
    if options.format != METHOD_COMPARISON:
        raise UserError(
            f"--format: found {quoted(options.format)}", f"Allowed: {METHOD_COMPARISON}."
        )
    if given := [name for name in OF_ADAPTER if getattr(options, name) not in (None, False)]:
        flags = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UserError(f"--format exports results, of which {flags} says nothing", "Leave it out.")
    return export_results(options)

"""The command `table`: a suite's scores as a paper prints them."""

from __future__ import annotations

import argparse
import json

from peftmark.cli.options import (
    OF_NEWEST_ROWS,
    add_format,
    add_profile,
    add_results,
    add_source,
    add_suite,
    add_suites,
)
from peftmark.core.errors import Exit, UserError
from peftmark.core.shown import plain

NAME = "table"
HELP = "print a suite's scores as a table for a paper"


def add_options(sub: argparse.ArgumentParser) -> None:
    """Which rows, and the form of the table."""
    add_suite(sub)
    add_profile(sub, OF_NEWEST_ROWS)
    add_format(sub, "markdown, latex (with booktabs), html, or csv, unrounded (default: markdown)")
    add_suites(sub)
    add_results(sub)
    add_source(sub, required=False)


def run(options: argparse.Namespace) -> int:
    """The table on the output."""
    from peftmark.api.selected import select
    from peftmark.report.paper_table import facts, rendered
    from peftmark.suite.load import find_suite

    if options.source is None:
        find_suite(options.suite, options.suites)  # a suite is never named by a path
    selected = select(
        options.source or options.suite,
        profile=options.profile,
        results=options.results,
        suites=options.suites,
    )
    if selected.suite != options.suite:
        raise UserError(
            f"{selected.where} has rows of suite {plain(selected.suite)}, not of {options.suite}",
            f"Name that suite: peftmark table {plain(selected.suite)} --from {options.source}",
        )
    if options.json:
        print(json.dumps(facts(selected.table), indent=2, ensure_ascii=False))
    else:
        print(rendered(selected.table, options.format or "markdown"), end="")
    return Exit.OK

"""The command `report`: a suite's report from stored results."""

from __future__ import annotations

import argparse
import json

from peftmark.cli.options import (
    OF_MACHINE,
    add_mirror,
    add_profile,
    add_reports,
    add_results,
    add_suite,
    add_suites,
    selection_of,
)
from peftmark.core.amounts import parse_hour_price, parse_watts
from peftmark.core.errors import Exit

NAME = "report"
HELP = "write the report of a suite from its results"


def add_options(sub: argparse.ArgumentParser) -> None:
    """Which results, and where the report goes."""
    add_suite(sub)
    add_profile(sub, OF_MACHINE)
    add_suites(sub)
    add_results(sub)
    add_reports(sub)
    add_mirror(sub)
    sub.add_argument(
        "--price",
        metavar="AMOUNT",
        help="what an hour of the machine costs, such as 2.50USD; adds a run's price as a cost",
    )
    sub.add_argument(
        "--watts",
        metavar="N",
        help="what the processor takes while it works: joules where no energy was recorded",
    )


def run(options: argparse.Namespace) -> int:
    """Report from stored results."""
    from peftmark.api.reporting import stored_plan, write_report

    price = None if options.price is None else parse_hour_price("--price", options.price)
    watts = None if options.watts is None else parse_watts("--watts", options.watts)
    plan = stored_plan(selection_of(options))
    written = write_report(plan, options.results, options.reports, price, watts)
    if options.json:
        print(json.dumps({"profile": plan.profile, "files": [str(p) for p in written]}, indent=2))
    else:
        print(f"Report of profile {plan.profile}: {written[0]}")
    return Exit.OK

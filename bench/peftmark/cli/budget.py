"""The command `budget`: what a suite's parameter budgets give."""

from __future__ import annotations

import argparse
import json

from peftmark.cli.options import OF_ALL, add_profile, add_suite, add_suites
from peftmark.core.errors import Exit

NAME = "budget"
HELP = "show what a suite's parameter budgets give, without a run"


def add_options(sub: argparse.ArgumentParser) -> None:
    """Whose budgets, and the model they are counted on."""
    sub.add_argument(
        "--model", metavar="NAME", help="the model to count on, in place of the profile's"
    )
    add_suite(sub)
    add_profile(sub, OF_ALL)
    add_suites(sub)


def run(options: argparse.Namespace) -> int:
    """The sizes that budgets give."""
    from peftmark.run.parameter_budgets import budget_text, budgets, facts_of

    found = budgets(options.suite, options.profile, options.suites, options.model)
    print(json.dumps(facts_of(found), indent=2) if options.json else budget_text(found))
    return Exit.OK

"""The command `simulate`: how often the statistics are right where the truth is known."""

from __future__ import annotations

import argparse
import json

from peftmark.cli.options import count
from peftmark.core.errors import Exit

NAME = "simulate"
HELP = "check the statistics on simulated data"


def add_options(sub: argparse.ArgumentParser) -> None:
    """How much is simulated."""
    sub.add_argument("--repeats", type=count, default=3000, metavar="N", help="simulated suites")
    # The older spelling: to every other command, --suites is a folder.
    sub.add_argument(
        "--suites",
        dest="repeats",
        type=count,
        default=argparse.SUPPRESS,
        help=argparse.SUPPRESS,
    )
    sub.add_argument(
        "--looks",
        action="store_true",
        help="of runs that add seeds until they are decided, with a third as many suites",
    )
    sub.add_argument("--draws", type=count, default=20000, help="simulated intervals")


def run(options: argparse.Namespace) -> int:
    """How often the statistics are right where the truth is known."""
    from peftmark.analysis.simulation import simulation_text

    if options.looks:
        from peftmark.analysis.simulation_looks import looks_text

        text = looks_text(max(1, options.repeats // 3))
    else:
        text = simulation_text(options.repeats, options.draws)
    print(json.dumps({"tables": text}, indent=2) if options.json else text)
    return Exit.OK

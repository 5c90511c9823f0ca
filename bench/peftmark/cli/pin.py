"""The command `pin`: commits of the hub's data sets and models, written into a suite."""

from __future__ import annotations

import argparse
import json

from peftmark.cli.options import add_suite, add_suites
from peftmark.core.errors import Exit

NAME = "pin"
HELP = "write the commits of a suite's hub data sets and models into its file"


def add_options(sub: argparse.ArgumentParser) -> None:
    """Which suite."""
    add_suite(sub)
    add_suites(sub)


def run(options: argparse.Namespace) -> int:
    """Ask the hub for the commits, write them, say what changed."""
    from peftmark.run.pin import pin

    path, pinned = pin(options.suite, options.suites)
    if options.json:
        changes = [{"found": one.found, "written": one.written} for one in pinned]
        print(json.dumps({"suite": str(path), "pinned": changes}, indent=2))
        return Exit.OK
    for one in pinned:
        print(f"{one.found} -> {one.written}")
    print(f"Wrote {path}." if pinned else f"{path}: nothing of the hub is left to pin.")
    return Exit.OK

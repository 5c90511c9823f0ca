"""The command `fetch`: all that a suite needs, for use without network."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from peftmark.cli.options import OF_MACHINE, add_mirror, add_profile, add_suite, add_suites
from peftmark.core.errors import Exit

NAME = "fetch"
HELP = "put all that a suite needs into a folder, for use without network"


def add_options(sub: argparse.ArgumentParser) -> None:
    """What to fetch, and where to."""
    sub.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="the folder; may hold other suites"
    )
    add_suite(sub)
    add_profile(sub, OF_MACHINE)
    add_suites(sub)
    add_mirror(sub)


def run(options: argparse.Namespace) -> int:
    """What a suite needs, into a folder that `run --mirror` takes."""
    from dataclasses import asdict

    from peftmark.run.fetch import fetch_suite, mirrored_text

    if not options.json:
        print("Fetching and verifying model and data ...", flush=True)
    found = fetch_suite(
        options.suite, options.profile or None, options.to, options.mirror, options.suites
    )
    if options.json:
        print(json.dumps(asdict(found) | {"folder": str(found.folder)}, indent=2))
        return Exit.OK
    print(mirrored_text(found))
    return Exit.OK

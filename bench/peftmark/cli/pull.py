"""The command `pull`: published results into a results folder of their own."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from peftmark.core.errors import Exit

NAME = "pull"
HELP = "fetch published results into a new folder, every file checked"


def add_options(sub: argparse.ArgumentParser) -> None:
    """Where they are, and the folder to make."""
    sub.add_argument("url", metavar="URL", help="what `peftmark publish` was given")
    sub.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="the results folder to make"
    )


def run(options: argparse.Namespace) -> int:
    """Fetch and check."""
    from peftmark.core.shown import plural
    from peftmark.storage.publish import pull
    from peftmark.storage.remote import open_remote
    from peftmark.storage.unread import unread

    suite, contents = pull(open_remote(options.url), options.to)
    left = unread(contents)
    if options.json:
        facts = {
            "results": str(options.to),
            "suite": suite,
            "jobs": len(contents.records),
            "attempts": contents.attempts,
            "unread": left,
        }
        print(json.dumps(facts, indent=2))
    else:
        print(f"{plural(contents.attempts, 'attempt')} of suite {suite} in {options.to}.")
        for clause in left:
            print(f"{clause[:1].upper()}{clause[1:]}.")
        print(f"Report: peftmark report {suite} --results {options.to}")
    return Exit.INCOMPLETE if left else Exit.OK

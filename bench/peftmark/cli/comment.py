"""The command `comment`: a comment on a change, from what a gate wrote."""

from __future__ import annotations

import argparse
from pathlib import Path

from peftmark.core.errors import Exit

NAME = "comment"
HELP = "print a comment from a gate.json, after checking it again"


def add_options(sub: argparse.ArgumentParser) -> None:
    """What the gate wrote."""
    sub.add_argument("file", type=Path, help="what `peftmark gate` wrote")


def run(options: argparse.Namespace) -> int:
    """The Markdown of a comment, made anew from a gate.json that is checked strictly."""
    from peftmark.gate.show import comment as comment_of
    from peftmark.gate.show import from_json, to_json

    found = from_json(options.file)
    print(to_json(found) if options.json else comment_of(found), end="")
    return Exit.OK

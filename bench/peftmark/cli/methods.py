"""The command `methods`: every method with the parameters it trains."""

from __future__ import annotations

import argparse
import json

from peftmark.core.errors import Exit

NAME = "methods"
HELP = "list methods with the parameters they train"


def add_options(sub: argparse.ArgumentParser) -> None:
    """The form of the list."""
    sub.add_argument("--markdown", action="store_true", help="print docs/methods.md")


def run(options: argparse.Namespace) -> int:
    """Every method with the parameters it trains."""
    from dataclasses import asdict

    from peftmark.catalog.methods import METHODS
    from peftmark.catalog.plugins import origins
    from peftmark.docgen.methods_page import known_counts, markdown, method_table

    counts = known_counts()
    if options.json:
        print(json.dumps(asdict(counts) | {"from": origins("method", METHODS)}, indent=2))
    else:
        print(markdown(counts) if options.markdown else method_table(counts))
    return Exit.OK

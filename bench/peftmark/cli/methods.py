"""The command `methods`: every method with the parameters it trains and what it can do."""

from __future__ import annotations

import argparse
import json

from peftmark.core.errors import Exit

NAME = "methods"
HELP = "list methods with the parameters they train and what they can do"


def add_options(sub: argparse.ArgumentParser) -> None:
    """The form of the list."""
    sub.add_argument(
        "names", nargs="*", metavar="METHOD", help="what these can do, and why not what they can't"
    )
    sub.add_argument("--markdown", action="store_true", help="print docs/methods.md")


def run(options: argparse.Namespace) -> int:
    """Every method with the parameters it trains and what it can do."""
    from dataclasses import asdict

    from peftmark.catalog.capabilities import probed
    from peftmark.catalog.methods import METHODS
    from peftmark.catalog.plugins import origins
    from peftmark.docgen.capabilities import known_methods, other_versions
    from peftmark.docgen.capability_tables import explained, terminal
    from peftmark.docgen.methods_page import known_counts, markdown, method_table

    found = probed()
    if options.names:
        print(explained(known_methods(options.names), found))
        return Exit.OK
    counts = known_counts()
    if options.json:
        more = {"from": origins("method", METHODS), "probed": asdict(found)}
        print(json.dumps(asdict(counts) | more, indent=2))
    elif options.markdown:
        print(markdown(counts))
    else:
        print(method_table(counts), terminal(found, other_versions(found)), sep="\n\n")
    return Exit.OK

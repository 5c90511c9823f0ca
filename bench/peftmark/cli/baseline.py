"""The command `baseline`: accept results as what later ones are held against."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from peftmark.cli.options import OF_NEWEST_ROWS, add_baselines, add_profile, add_source, add_suites
from peftmark.core.errors import Exit, UserError

if TYPE_CHECKING:
    pass

NAME = "baseline"
HELP = "accept results as the baseline that later ones are compared with"


def add_options(sub: argparse.ArgumentParser) -> None:
    """Which results, why, and where the baseline goes."""
    add_suites(sub)
    sub.add_argument("verb", choices=["accept"], help="what to do with a baseline")
    add_source(sub, required=True)
    sub.add_argument("--reason", required=True, help="why these numbers are right, a sentence")
    sub.add_argument("--pin", action="store_true", help="as the release's, beside the moving one")
    add_baselines(sub)
    add_profile(sub, OF_NEWEST_ROWS)


def run(options: argparse.Namespace) -> int:
    """Accept the runs of a results folder as the baseline that later ones are held against."""
    from peftmark.gate import baseline as files
    from peftmark.gate.judge import compare
    from peftmark.gate.show import text
    from peftmark.gate.snapshot import of_folder, of_results
    from peftmark.storage.store import Store

    reason = " ".join(options.reason.split())
    if not reason.isprintable():  # nor is a byte that is no UTF-8
        raise UserError("--reason holds what can't be printed", "Give a sentence in UTF-8.")
    if not reason:
        raise UserError("--reason is empty", "Say in a sentence why these numbers are right.")
    folder = options.source.resolve()
    name = of_folder(options.source, options.profile).suite
    store = Store(folder.parent, folder.name)
    found = of_results(store, name, options.profile, options.suites)
    path = files.path_of(options.baselines, found.suite, found.machine, options.pin)
    before = files.read(path) if path.is_file() else None
    if faults := files.refusals(found, before):
        lines = "\n".join(f"  {fault}" for fault in faults)
        raise UserError(
            f"{options.source} can't become a baseline:\n{lines}",
            "Run the suite whole and from a committed state; nothing was written.",
        )
    files.write(path, files.accepted(found, reason, options.pin, before))
    if options.json:
        print(json.dumps({"baseline": str(path), "runs": len(found.lines)}, indent=2))
        return Exit.OK
    if before is not None:
        print(text(compare(found, before)))
    print(f"Accepted {len(found.lines)} runs as {path}. Commit it with the change it belongs to.")
    return Exit.OK

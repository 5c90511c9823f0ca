"""The command `merge`: results of several machines as one folder."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftmark.core.errors import Exit

if TYPE_CHECKING:
    from peftmark.storage.merge import Merged

NAME = "merge"
HELP = "bring results of several machines or versions together in a new folder"
MOST_NAMED = 20


def add_options(sub: argparse.ArgumentParser) -> None:
    """Which results, and the folder to make."""
    sub.add_argument(
        "sources",
        type=Path,
        nargs="+",
        metavar="DIR",
        help="results folders, or folders of one suite in them",
    )
    sub.add_argument(
        "--to", type=Path, required=True, metavar="DIR", help="the results folder to make"
    )


def run(options: argparse.Namespace) -> int:
    """Merge; incomplete where a part could not be read."""
    from peftmark.storage.merge import merge

    found = merge(options.sources, options.to)
    if options.json:
        print(json.dumps(_facts(options.to, found), indent=2))
    else:
        print("\n".join(_text(options.to, found)))
    return Exit.INCOMPLETE if found.damaged or found.older else Exit.OK


def _facts(to: Path, found: Merged) -> dict[str, Any]:
    from peftmark.analysis.machines import machines_of

    suites = {}
    for name, contents in found.suites.items():
        machines = machines_of(contents.rows)
        suites[name] = {
            "jobs": len(contents.records),
            "rows": len(contents.rows),
            "machines": {
                key: {"name": machines.names[key], "rows": len(rows)}
                for key, rows in machines.by_machine.items()
            },
        }
    return {
        "results": str(to),
        "suites": suites,
        "attempts": found.copied,
        "twice": found.twice,
        "damaged": {str(path): why for path, why in found.damaged.items()},
        "older": {str(path): which for path, which in found.older.items()},
    }


def _text(to: Path, found: Merged) -> Iterator[str]:
    from peftmark.analysis.machines import machines_of
    from peftmark.core.shown import plural

    twice = (
        f"; {plural(found.twice, 'attempt')} stood in several and are once" if found.twice else ""
    )
    yield f"{plural(found.copied, 'attempt')} in {to}{twice}."
    for name, contents in found.suites.items():
        machines = machines_of(contents.rows)
        jobs = plural(len(contents.records), "job")
        kinds = plural(len(machines.by_machine), "kind of machine", "kinds of machine")
        yield f"  {name}: {jobs}, {plural(len(contents.rows), 'row')} of {kinds}"
        for key, rows in machines.by_machine.items():
            yield f"    {len(rows):,} of {machines.names[key]}"
    yield from _left_out(found)
    suite = next(iter(found.suites))
    yield f"Report: peftmark report {suite} --results {to}"


def _left_out(found: Merged) -> Iterator[str]:
    """Parts that could not be read, each with the reason."""
    from peftmark.core.shown import plain, plural

    several = {
        "damaged": found.damaged,
        "of an older peftmark that this one can't read": found.older,
    }
    for what, parts in several.items():
        if not parts:
            continue
        verb = "is" if len(parts) == 1 else "are"
        yield f"{plural(len(parts), 'part')} {verb} {what} and left out:"
        for path, why in list(parts.items())[:MOST_NAMED]:
            yield plain(f"  {path}: {why}")
        if len(parts) > MOST_NAMED:
            yield f"  and {len(parts) - MOST_NAMED:,} more"

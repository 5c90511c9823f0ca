"""The command `trend`: every cell over the gates that ran."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from peftmark.cli.options import add_baselines, add_reports, add_results, add_suite
from peftmark.core.errors import Exit, UserError

if TYPE_CHECKING:
    from peftmark.storage.gate_history import Accepted

NAME = "trend"
HELP = "draw what earlier gates saw, and find steps in it"


def add_options(sub: argparse.ArgumentParser) -> None:
    """Whose history, and where the page goes."""
    add_suite(sub)
    add_results(sub)
    add_reports(sub)
    add_baselines(sub)


def run(options: argparse.Namespace) -> int:
    """Every cell over the gates that ran, with the steps in it."""
    from peftmark.catalog.metrics import metric_of
    from peftmark.storage.gate_history import read
    from peftmark.storage.store import Store
    from peftmark.suite.with_rows import load_with_rows
    from peftmark.trend import write as trends

    points, damaged = read(
        options.results, load_with_rows(options.suite, None, options.results).name
    )
    if not points and not damaged:
        raise UserError(
            f"{options.results} has no history of suite {options.suite}",
            f"Every gate adds to it: peftmark gate {options.suite} --against PATH.",
        )
    if any(metric_of(point.metric) is None for point in points):
        Store(options.results, options.suite).read()  # rows know the metrics of plug-ins
    accepted = _accepted(options.baselines, options.suite)
    folder = options.reports / options.suite / "trend"
    written = trends.write(points, accepted, options.suite, folder, damaged)
    if options.json:
        print(json.dumps(trends.facts(points, accepted), indent=2))
        return Exit.OK
    print(trends.text(points, accepted))
    for path, why in damaged.items():
        print(f"Left out as unreadable: {path}: {why}")
    print(f"Page: {written[0]}")
    return Exit.OK


def _accepted(folder: Path, suite: str) -> list[Accepted]:
    """Every acceptance that the baselines of a suite tell of."""
    from peftmark.gate.baseline import read
    from peftmark.storage.gate_history import Accepted

    found = []
    for path in sorted((folder / suite).glob("*.jsonl")):
        side = read(path)
        known = side.accepted
        for entry in (*known.earlier, known) if known is not None else ():
            commit = entry.commit or None
            found.append(Accepted(entry.at, commit, side.machine, entry.pinned, entry.reason))
    return found

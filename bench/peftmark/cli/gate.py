"""The command `gate`: hold a suite's results against a baseline."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from peftmark.cli.options import (
    OF_NEWEST_ROWS,
    add_policy,
    add_profile,
    add_reports,
    add_results,
    add_suite,
    add_suites,
)
from peftmark.core.errors import UserError

if TYPE_CHECKING:
    from peftmark.catalog.methods import Cell
    from peftmark.gate.result import Gate

NAME = "gate"
HELP = "compare results with a baseline; the exit code is the verdict"


def add_options(sub: argparse.ArgumentParser) -> None:
    """Which results, against what, and the policy."""
    sub.add_argument(
        "--elsewhere",
        action="store_true",
        help="the results need not be of the code installed here",
    )
    add_suites(sub)
    add_suite(sub)
    add_results(sub)
    add_reports(sub)
    add_profile(sub, OF_NEWEST_ROWS)
    sub.add_argument(
        "--against",
        type=Path,
        required=True,
        metavar="PATH",
        help="a baseline, a folder of them, or another results folder",
    )
    add_policy(sub)
    sub.add_argument(
        "--expect-change",
        metavar="WHY",
        default="",
        help="other numbers than the baseline's are expected, and why; they are then judged by "
        "quality, counts and costs alone",
    )


def run(options: argparse.Namespace) -> int:
    """Hold a suite's results against a baseline; the exit code is the verdict."""
    from peftmark.gate.history_points import points
    from peftmark.gate.hold import hold
    from peftmark.gate.show import text, to_json
    from peftmark.storage.gate_history import append

    found, before, after = hold(
        options.suite,
        options.against,
        profile=options.profile,
        results=options.results,
        suites=options.suites,
        policy=options.policy,
        declared=options.expect_change,
        elsewhere=options.elsewhere,
    )
    cells = dict.fromkeys(line.cell for side in (before, after) for line in side.lines)
    written = _write_gate(found, list(cells), options.reports / options.suite / "gate")
    append(options.results, points(found, after))
    assert found.code is not None
    sys.stdout.write(to_json(found) if options.json else f"{text(found)}\nPage: {written[-1]}\n")
    return found.code


def _write_gate(found: Gate, cells: list[Cell], folder: Path) -> list[Path]:
    """gate.json, gate.md, comment.md, junit.xml and the page, and the summary of a CI job."""
    from peftmark.core.files import write_all
    from peftmark.gate import page, show
    from peftmark.render.page_files import as_html

    summary = show.markdown(found)
    written = write_all(
        {
            folder / "gate.json": show.to_json(found),
            folder / "gate.md": summary,
            folder / "comment.md": show.comment(found),
            folder / "junit.xml": show.junit(found),
            folder / "index.html": as_html(page.page(found, cells)),
        }
    )
    target = os.environ.get("GITHUB_STEP_SUMMARY")
    if target:
        try:
            with Path(target).open("a", encoding="utf-8") as file:
                file.write(summary)
        except OSError as error:
            raise UserError(
                f"the job summary {target} can't be written: {error.strerror}",
                "Unset GITHUB_STEP_SUMMARY, or fix its path.",
            ) from error
    return written

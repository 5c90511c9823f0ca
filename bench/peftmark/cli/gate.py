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
from peftmark.core.errors import Exit, UserError

if TYPE_CHECKING:
    from peftmark.gate.result import Gate
    from peftmark.gate.snapshot import Snapshot

NAME = "gate"
HELP = "hold results against a baseline; the exit code says how"


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
    from peftmark.core.shown import plain
    from peftmark.gate.history_points import points
    from peftmark.gate.inputs import other_side, profile_of
    from peftmark.gate.judge import judge
    from peftmark.gate.policy import read_policy
    from peftmark.gate.show import text, to_json
    from peftmark.gate.snapshot import of_results
    from peftmark.storage.gate_history import append
    from peftmark.storage.store import Store
    from peftmark.suite.with_rows import load_with_rows

    policy = read_policy(options.policy)
    profile = options.profile or profile_of(options.against)
    load_with_rows(options.suite, options.suites, options.results)  # before its name becomes a path
    store = Store(options.results, options.suite)
    after = of_results(store, options.suite, profile, options.suites)
    if not options.elsewhere:
        _check_made_here(after)
    before, release = other_side(options.against, after)
    found = judge(after, before, policy, release, plain(options.expect_change)[:300])
    written = _write_gate(found, options.reports / options.suite / "gate")
    append(options.results, points(found, after))
    assert found.code is not None
    _say(to_json(found) if options.json else f"{text(found)}\nWritten: {written[0].parent}\n")
    return found.code


def _say(text: str) -> None:
    """Print; a reader that has gone does not change the verdict."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _check_made_here(after: Snapshot) -> None:
    """Refuse rows that other code made than is installed here: nobody ran the code under test.

    Raises:
        UserError: as incomplete.
    """
    from peftmark.machine.environment import NUMERIC, software

    here = software()
    for line in after.lines:
        there = line.environment.software
        names = (n for n in (*NUMERIC, *there) if n in here and n in there)
        other = [f"{n} {there[n]} there, {here[n]} here" for n in names if there[n] != here[n]]
        if other:
            raise UserError(
                f"the results in {after.where} were made by other code: {'; '.join(other[:4])}",
                "Run the suite again with --again, or say --elsewhere if that is as it should be.",
                code=Exit.INCOMPLETE,
            )


def _write_gate(found: Gate, folder: Path) -> list[Path]:
    """gate.json, gate.md, comment.md and junit.xml, and the summary of a CI job."""
    from peftmark.core.files import write_all
    from peftmark.gate import show

    summary = show.markdown(found)
    written = write_all(
        {
            folder / "gate.json": show.to_json(found),
            folder / "gate.md": summary,
            folder / "comment.md": show.comment(found),
            folder / "junit.xml": show.junit(found),
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
                "Unset GITHUB_STEP_SUMMARY, or mend its path.",
            ) from error
    return written

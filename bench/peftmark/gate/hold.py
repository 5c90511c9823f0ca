"""A suite's rows held against a baseline, or against other rows of it."""

from __future__ import annotations

from pathlib import Path

from peftmark.core.errors import Exit, UserError
from peftmark.core.shown import plain
from peftmark.gate.inputs import other_side, profile_of
from peftmark.gate.judge import judge
from peftmark.gate.policy import read_policy
from peftmark.gate.result import Gate
from peftmark.gate.snapshot import Snapshot, of_results
from peftmark.machine.environment import NUMERIC, software
from peftmark.storage.store import Store
from peftmark.suite.with_rows import load_with_rows

LONGEST_REASON = 300


def hold(
    suite: str,
    against: Path,
    *,
    profile: str | None,
    results: Path,
    suites: Path | None,
    policy: Path | None,
    declared: str,
    elsewhere: bool,
) -> tuple[Gate, Snapshot, Snapshot]:
    """Hold a suite's results against a baseline. Writes nothing.

    Args:
        against: a baseline, a folder of them, or another results folder.
        profile: None for the baseline's, or that of the newest row.
        policy: a file that says what fails; None for the default.
        declared: why other numbers than the baseline's are expected; empty if they aren't.
        elsewhere: the rows need not be of the code installed here.

    Returns:
        the verdict, the side that it is held against, and the side that was judged.

    Raises:
        UserError: with the exit code of what is missing, damaged or of other code.
    """
    rules = read_policy(policy)
    profile = profile or profile_of(against)
    load_with_rows(suite, suites, results)  # before its name becomes a path
    after = of_results(Store(results, suite), suite, profile, suites)
    if not elsewhere:
        _check_made_here(after)
    before, release = other_side(against, after)
    found = judge(after, before, rules, release, plain(declared)[:LONGEST_REASON])
    return found, before, after


def _check_made_here(after: Snapshot) -> None:
    """Refuse rows that other code made than is installed here: nobody ran the code under test.

    Raises:
        UserError: as incomplete.
    """
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

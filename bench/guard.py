"""The commands of regression tracking: baselines, the gate, comparisons and trends."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.errors import Exit, UserError

if TYPE_CHECKING:
    from bench.gate.result import Gate
    from bench.gate.snapshot import Snapshot
    from bench.history import Accepted


def baseline(options: argparse.Namespace) -> int:
    """Accept the runs of a results folder as the baseline that later ones are held against."""
    from bench.gate import baseline as files
    from bench.gate.judge import compare
    from bench.gate.show import text
    from bench.gate.snapshot import of_folder, of_results
    from bench.store import Store

    reason = " ".join(options.reason.split())
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


def gate(options: argparse.Namespace) -> int:
    """Hold a suite's results against a baseline; the exit code is the verdict."""
    from bench.gate.judge import judge
    from bench.gate.policy import read_policy
    from bench.gate.record import points
    from bench.gate.show import text, to_json
    from bench.gate.sides import other_side, profile_of
    from bench.gate.snapshot import of_results
    from bench.history import append
    from bench.store import Store
    from bench.suite import load_suite

    policy = read_policy(options.policy)
    profile = options.profile or profile_of(options.against)
    load_suite(options.suite, options.suites)  # before its name becomes a path
    store = Store(options.results, options.suite)
    after = of_results(store, options.suite, profile, options.suites)
    if not options.elsewhere:
        _check_made_here(after)
    before, release = other_side(options.against, after)
    found = judge(after, before, policy, release)
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
    from bench.environment import NUMERIC, software

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
    from bench.files import write_all
    from bench.gate import show

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


def compare(options: argparse.Namespace) -> int:
    """Two sides as one table, without a verdict."""
    from bench.gate.judge import compare as held
    from bench.gate.show import markdown, text, to_json
    from bench.gate.sides import a_side

    before, after = (a_side(path) for path in (options.before, options.after))
    _same_suite(before, after)
    found = held(after, before)
    if options.json:
        print(to_json(found).rstrip())
    else:
        print(markdown(found).rstrip() if options.markdown else text(found))
    return Exit.OK


def _same_suite(before: Snapshot, after: Snapshot) -> None:
    for what in ("suite", "profile"):
        if (a := getattr(before, what)) != (b := getattr(after, what)):
            raise UserError(
                f"{before.where} is of {what} {a}, {after.where} of {what} {b}",
                "Only runs of one profile of one suite can be compared.",
            )


def comment(options: argparse.Namespace) -> int:
    """The Markdown of a comment, made anew from a gate.json that is checked strictly."""
    from bench.gate.show import comment as comment_of
    from bench.gate.show import from_json, to_json

    found = from_json(options.file)
    print(to_json(found) if options.json else comment_of(found), end="")
    return Exit.OK


def trend(options: argparse.Namespace) -> int:
    """Every cell over the gates that ran, with the steps in it."""
    from bench import trend as trends
    from bench.history import read
    from bench.suite import load_suite

    points, damaged = read(options.results, load_suite(options.suite).name)
    if not points and not damaged:
        raise UserError(
            f"{options.results} has no history of suite {options.suite}",
            f"Every gate adds to it: peftmark gate {options.suite} --against PATH.",
        )
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
    from bench.gate.baseline import read
    from bench.history import Accepted

    found = []
    for path in sorted((folder / suite).glob("*.jsonl")):
        side = read(path)
        known = side.accepted
        for entry in (*known.earlier, known) if known is not None else ():
            commit = entry.commit or None
            found.append(Accepted(entry.at, commit, side.machine, entry.pinned, entry.reason))
    return found


def versions(options: argparse.Namespace) -> int:
    """Two versions of a library on one suite, run in turns, as one table."""
    from bench.files import write_all
    from bench.gate.judge import compare as held
    from bench.gate.judge import judge
    from bench.gate.policy import read_policy
    from bench.gate.show import markdown, text, to_json
    from bench.gate.snapshot import of_results
    from bench.store import Store
    from bench.versions import is_pinned, parse, prepare, run_side, turns

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    wanted = parse(options.old, "--old"), parse(options.new, "--new")
    policy = read_policy(options.policy) if options.policy else None
    old, new = prepare(options.suite, *wanted, options.results, say)
    more = ["--jobs", str(options.jobs)] if options.jobs else []
    more += ["--mirror", str(options.mirror)] if options.mirror else []
    for number, side in turns(old, new, options.rounds):
        say(f"Round {number + 1} of {options.rounds}: {' '.join(side.requirements)}")
        again = number > 0 or not is_pinned(side.requirements)
        run_side(side, options.suite, options.profile, again, more)
    before, after = (
        of_results(Store(side.results, options.suite), options.suite, options.profile, None)
        for side in (old, new)
    )
    found = held(after, before) if policy is None else judge(after, before, policy)
    folder = options.reports / options.suite / "versions"
    files = {folder / "versions.json": to_json(found), folder / "versions.md": markdown(found)}
    written = write_all(dict(files))
    print(to_json(found).rstrip() if options.json else text(found))
    say(f"Written: {written[0].parent}")
    return found.code or Exit.OK

"""The command `versions`: two versions of a library on one suite."""

from __future__ import annotations

import argparse
import sys

from peftmark.cli.options import (
    OF_NEWEST_ROWS,
    add_jobs,
    add_mirror,
    add_policy,
    add_profile,
    add_reports,
    add_results,
    add_suite,
    count,
)
from peftmark.core.errors import Exit

NAME = "versions"
HELP = "two versions of a library on one suite"
LONGEST = 24
"""Characters of a version's name on the page."""


def add_options(sub: argparse.ArgumentParser) -> None:
    """The versions, and how they are run."""
    add_suite(sub)
    add_results(sub)
    add_reports(sub)
    add_profile(sub, OF_NEWEST_ROWS)
    add_policy(sub)
    for side in ("old", "new"):
        sub.add_argument(
            f"--{side}", required=True, metavar="SPEC", help="what pip installs, as 'peft==0.20.0'"
        )
    sub.add_argument(
        "--rounds", type=count, default=1, help="runs of each side, in turns (default: 1)"
    )
    add_mirror(sub)
    add_jobs(sub, "; 1 for honest times")


def run(options: argparse.Namespace) -> int:
    """Two versions of a library on one suite, run in turns, as one page."""
    from peftmark.compare import write as compared
    from peftmark.compare.held import hold
    from peftmark.compare.runs import Run
    from peftmark.core.files import write_all
    from peftmark.core.shown import short
    from peftmark.gate.judge import judge
    from peftmark.gate.policy import read_policy
    from peftmark.gate.show import text, to_json
    from peftmark.gate.snapshot import of_results
    from peftmark.run.versions import is_pinned, parse, prepare, run_side, shown, turns
    from peftmark.storage.store import Store

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    wanted = parse(options.old, "--old"), parse(options.new, "--new")
    policy = read_policy(options.policy) if options.policy else None
    old, new = prepare(options.suite, *wanted, options.results, say)
    more = ["--jobs", str(options.jobs)] if options.jobs else []
    more += ["--mirror", str(options.mirror)] if options.mirror else []
    for number, side in turns(old, new, options.rounds):
        say(f"Round {number + 1} of {options.rounds}: {side.shown}")
        again = number > 0 or not is_pinned(side.requirements)
        run_side(side, options.suite, options.profile, again, more)
    before, after = (
        of_results(Store(side.results, options.suite), options.suite, options.profile, None)
        for side in (old, new)
    )
    labels = [short(shown(requirements), LONGEST) for requirements in wanted]
    if labels[0] == labels[1]:
        labels = ["old", "new"]
    both = hold((Run(labels[0], before), Run(labels[1], after)))
    found = judge(after, before, policy) if policy is not None else both.gates[1]
    assert found is not None
    folder = options.reports / options.suite / "versions"
    pages = compared.files(both, folder, "versions.md")
    written = write_all({**pages, folder / "versions.json": to_json(found)})
    told = text(found) if policy is not None else compared.text(both)
    print(to_json(found).rstrip() if options.json else told)
    say(f"Page: {written[0]}")
    return found.code or Exit.OK

"""The runs that the user named, each with a short name to be called by."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from peftmark.core.errors import UserError
from peftmark.core.shown import plain, quoted
from peftmark.gate.inputs import a_side
from peftmark.gate.snapshot import Snapshot

MOST_RUNS = 8
LONGEST_LABEL = 24
SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
"""What a suite's name in a row may look like: it becomes the name of a folder."""


@dataclass(frozen=True)
class Run:
    """One results folder or baseline, and what it is called."""

    label: str
    side: Snapshot


def read_runs(paths: Sequence[Path], labels: Sequence[str]) -> tuple[Run, ...]:
    """The runs in the order they were named.

    Args:
        paths: results folders of a suite, or baselines.
        labels: what to call them, one each; empty for the names of their folders.

    Raises:
        UserError: too few or too many, no results there, another suite or profile than the first's,
            or labels that don't tell the runs apart.
    """
    if not 2 <= len(paths) <= MOST_RUNS:
        raise UserError(
            f"{len(paths)} named, 2 to {MOST_RUNS} can be compared",
            "Name results folders of a suite, or baselines: peftmark compare A B.",
        )
    if len({path.resolve() for path in paths}) < len(paths):
        for path in paths:
            a_side(path)  # what is wrong with it says more
        raise UserError("a run is named twice", "Name each results folder once.")
    names = _labels(labels, len(paths)) if labels else names_of(paths)
    runs = tuple(Run(name, a_side(path)) for name, path in zip(names, paths, strict=True))
    for run in runs[1:]:
        _check_same_suite(runs[0].side, run.side)
    suite = runs[0].side.suite
    if not SAFE_NAME.fullmatch(suite):
        raise UserError(
            f"{runs[0].side.where} is of a suite called {quoted(suite)}",
            "Names of suites are letters, digits, '-' and '_'; nothing was written.",
        )
    return runs


def _labels(labels: Sequence[str], count: int) -> list[str]:
    """The user's labels, checked."""
    found = [plain(label).strip() for label in labels]
    wrong = next((x for x in found if not 1 <= len(x) <= LONGEST_LABEL), None)
    if wrong is not None:
        raise UserError(
            f"--name {quoted(wrong)} has {len(wrong)} characters",
            f"A name has 1 to {LONGEST_LABEL}.",
        )
    if len(found) != count or len(set(found)) < count:
        raise UserError(
            f"{len(set(found))} different names for {count} runs",
            "Give one --name for each run, in their order, or none.",
        )
    return found


def names_of(paths: Sequence[Path]) -> list[str]:
    """What tells the paths apart, such as "old" and "new" of old/smoke and new/smoke; letters where
    that would be too long or the same."""
    parts = [plain(str(path)).removesuffix(".jsonl").strip("/").split("/") for path in paths]
    while all(len(p) > 1 for p in parts) and len({p[-1] for p in parts}) == 1:
        parts = [p[:-1] for p in parts]
    while all(len(p) > 1 for p in parts) and len({p[0] for p in parts}) == 1:
        parts = [p[1:] for p in parts]
    names = ["/".join(p) for p in parts]
    if len(set(names)) == len(names) and all(0 < len(n) <= LONGEST_LABEL for n in names):
        return names
    return [chr(ord("A") + i) for i in range(len(paths))]


def _check_same_suite(first: Snapshot, other: Snapshot) -> None:
    for what in ("suite", "profile"):
        if (a := getattr(first, what)) != (b := getattr(other, what)):
            raise UserError(
                f"{first.where} is of {what} {plain(a)}, {other.where} of {what} {plain(b)}",
                "Only runs of one profile of one suite can be compared.",
            )

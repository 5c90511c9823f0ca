"""What a gate looks at, as one table: how it is told, and what of the policy decides it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from peftmark.gate import costs, counts, deployment
from peftmark.gate.matching import Matched
from peftmark.gate.policy import Policy
from peftmark.gate.result import Finding

Finds = Callable[[Matched, Policy], Iterator[Finding]]


@dataclass(frozen=True)
class Check:
    """One group of checks; a finding's check is its key, alone or with a dot and more behind it.

    Attributes:
        worse: a cell's verdict when this group has a regression in it; empty for a group whose
            findings are never one.
        of_cells: whether a finding without a cell is about all of them.
        policy: keys of the policy that decide whether and when it fails; none where it always does.
        finds: what looks for it in the runs of both sides; None where `judge.judge` does, since
            it has more to do with them.
    """

    key: str
    worse: str
    of_cells: bool
    policy: tuple[str, ...] = ()
    finds: Finds | None = None


CHECKS: Mapping[str, Check] = {
    check.key: check
    for check in (
        Check("procedure", "", False),
        Check("run", "broken", False),
        Check("bits", "", False),
        Check("seeds", "seeds alike", True),
        Check("count", "changed", True, ("counts", "ignored_counts"), counts.counts),
        Check("deployment", "saved wrong", True, ("counts",), deployment.deployment),
        Check(
            "quality",
            "worse",
            True,
            ("quality", "alpha", "margin", "task_margin", "few_seeds_limit"),
        ),
        Check("steps_to_target", "slower to learn", True, ("steps_to_target", "alpha")),
        Check("memory", "uses more memory", True, ("memory", "memory_growth"), costs.memory),
        Check("time", "slower", True, ("timings", "runner", "slowdown"), costs.times),
    )
}
"""Every group by its key, in the order in which a gate tells them."""


def group_of(check: str) -> str:
    """The group of a finding's check."""
    return check.partition(".")[0]

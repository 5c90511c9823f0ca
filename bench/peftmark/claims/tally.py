"""How the claims of a ledger stand: how many are decided, and what each of the others waits for."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from peftmark.claims.part import Kind
from peftmark.render import words

Status = Literal["decided", "undecided", "no results", "not comparable", "not runnable here"]
STATUSES: tuple[Status, ...] = (
    "decided",
    "undecided",
    "no results",
    "not comparable",
    "not runnable here",
)

DECIDED: tuple[Kind, ...] = (
    "reproduced",
    "contradicted",
    "refuted on paper",
    "confirmed on paper",
)


def status_of(kinds: Sequence[Kind], paper: Kind, waits: bool) -> Status:
    """How a claim stands.

    Args:
        kinds: its verdict by the rows of each suite that has some.
        paper: its verdict without any row.
        waits: whether a suite tests it that has no results yet.

    Returns:
        "decided" if rows of one suite, or arithmetic, decide it; "not runnable here" if nothing
        tests it; else what the best of its suites says.
    """
    if paper == "untestable":
        return "not runnable here"
    if paper in DECIDED or any(kind in DECIDED for kind in kinds):
        return "decided"
    if "undecided" in kinds:
        return "undecided"
    if "not comparable" in kinds:
        return "not comparable"
    return "no results" if waits else "undecided"


def tally_lines(found: Iterable[tuple[str, Status, str]]) -> list[str]:
    """The number of claims in each state, then each state's claims with their suite or reason.

    Args:
        found: of each claim its id, its state, and the suite or the reason that goes with it.
    """
    claims = list(found)
    counts = [f"{sum(s == one for _, s, _ in claims)} {one}" for one in STATUSES]
    lines = [f"{words.plural(len(claims), 'claim')}: {', '.join(counts)}."]
    for status in STATUSES:
        by_reason: dict[str, list[str]] = {}
        for name, of_it, why in claims:
            if of_it == status:
                by_reason.setdefault(why, []).append(name)
        lines += [f"  {status}: {', '.join(ids)}: {why}" for why, ids in by_reason.items()]
    return lines

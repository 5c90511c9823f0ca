"""The verdict on one test of a claim, as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from peftmark.catalog.methods import Cell
from peftmark.claims.ledger import ClaimTest

Kind = Literal[
    "reproduced",
    "contradicted",
    "undecided",
    "not comparable",
    "refuted on paper",
    "confirmed on paper",
    "untestable",
]
KINDS: tuple[Kind, ...] = (
    "reproduced",
    "contradicted",
    "undecided",
    "not comparable",
    "refuted on paper",
    "confirmed on paper",
    "untestable",
)


@dataclass(frozen=True)
class Pair:
    """Two neighbours, or others, of an order.

    Attributes:
        shown: whether the first is shown to be the better one; None if neither is.
        low, high: ends of the interval of how much better the first is; the smallest and the
            largest difference seen for counts.
    """

    first: Cell
    second: Cell
    shown: bool | None
    neighbours: bool
    low: float
    high: float


@dataclass(frozen=True)
class Part:
    """The verdict of one test.

    Attributes:
        test: None for a claim that has none.
        effect: the difference or ratio, mean over tasks; the value of an expression.
        low, high: ends of the interval; of counts the smallest and largest over tasks and seeds.
        exact: whether low and high are counted, not estimated.
        direction: where the claim is of a size beyond "no difference": the verdict on its side of
            that alone, by the same interval.
        seeds: those that all tasks share; of counts the pairs of the task with the fewest.
        tasks: those compared on.
        pairs: of an order.
        reason: why it is undecided, not comparable or untestable.
        settle: what would settle it, if not seeds alone.
        more: how many seeds would probably settle it.
        notes: what a reader should know of the rows.
        jobs: ids of the jobs whose rows it rests on.
        elsewhere: whether rows of other profiles or suites test it, and none of these.
    """

    test: ClaimTest | None
    kind: Kind
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    exact: bool = False
    direction: Kind | None = None
    seeds: int = 0
    tasks: tuple[str, ...] = ()
    pairs: tuple[Pair, ...] = ()
    reason: str = ""
    settle: str = ""
    more: int | None = None
    notes: tuple[str, ...] = ()
    jobs: tuple[str, ...] = ()
    elsewhere: bool = False

    @property
    def text(self) -> str:
        """The verdict, with that on the direction where it is another one."""
        if self.direction is None or self.direction == self.kind:
            return self.kind
        return f"{self.kind} in size and {self.direction} in direction"

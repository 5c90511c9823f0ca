"""What a branch of a guide is: its conditions, its advice, and the comparison that would judge it.

A guide is questions with two sides each, which end in leaves. The guides themselves are in
`peftmark.advice.guides`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from peftmark.catalog.task import TaskKind

Figure = Literal["score", "memory", "latency"]
Bounds = tuple[float, float]
ANY: Bounds = (0, math.inf)


@dataclass(frozen=True)
class Group:
    """Some cells.

    Attributes:
        title: what to call them.
        methods: their methods.
        quantized: whether their base is quantised; None for either.
        ranks: lowest and highest size allowed.
        options: (name, value) of options of the method that their jobs have.
    """

    title: str
    methods: tuple[str, ...]
    quantized: bool | None = False
    ranks: Bounds | None = None
    options: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Test:
    """A comparison that judges an advice: every pair of a cell of `better` and one of `than`.

    Attributes:
        says: what the guide's advice implies for measured rows, as a statement.
        figure: the score, where higher is better, or a cost, where lower is.
        alike: fields of a cell that a pair must share.
        rows: training rows that a task must have: at least the first, less than the second.
        drop: points of the score that `better` may lie below `than`.
        share: share of the base's parameters that both cells' adapters must have: more than the
            first, at most the second.
        kinds: kinds that a task must be one of; empty for any.
    """

    __test__ = False  # pytest takes a class of this name for its own

    says: str
    figure: Figure
    better: Group
    than: Group
    alike: tuple[str, ...] = ()
    rows: Bounds = ANY
    drop: float = 0.0
    share: Bounds | None = None
    kinds: tuple[TaskKind, ...] = ()


@dataclass(frozen=True)
class When:
    """What a condition asks of rows, memory, task and model; what is left open asks nothing.

    Attributes:
        rows: at least the first, less than the second.
        memory: bytes that the GPU has, likewise.
        large_or_text: text is generated, or the model has more than a billion parameters.
        yours: it also asks what only the user can tell.
    """

    rows: Bounds = ANY
    memory: Bounds = ANY
    large_or_text: bool = False
    yours: bool = False

    def holds(
        self, rows: int | None, memory: int | None, writes: bool, parameters: int | None
    ) -> bool | None:
        """Whether it holds for what a user has; None where that isn't known.

        Args:
            writes: whether the task is to generate text.
        """
        told: list[bool | None] = [None] if self.yours else []
        for value, (low, high) in ((rows, self.rows), (memory, self.memory)):
            if (low, high) != ANY:
                told.append(None if value is None else low <= value < high)
        if self.large_or_text:
            told.append(True if writes else None if parameters is None else parameters > 1e9)
        return False if False in told else None if None in told else True

    def both(self, other: When) -> When:
        """What asks for this and another."""
        return When(
            _within(self.rows, other.rows),
            _within(self.memory, other.memory),
            self.large_or_text or other.large_or_text,
            self.yours or other.yours,
        )


def _within(a: Bounds, b: Bounds) -> Bounds:
    return max(a[0], b[0]), min(a[1], b[1])


@dataclass(frozen=True)
class Leaf:
    """What a guide says to do.

    Attributes:
        test: the comparison that judges it; None where none can.
        reason: why not; empty with a test.
    """

    advice: str
    test: Test | None = None
    reason: str = ""


@dataclass(frozen=True)
class Side:
    """One answer to a question.

    Attributes:
        condition: the answer, as what follows "if".
        when: the same of what a user has.
        then: the next question, or what to do.
    """

    condition: str
    when: When
    then: Question | tuple[Leaf, ...]


@dataclass(frozen=True)
class Question:
    """A question of a tree, by its two answers."""

    yes: Side
    no: Side


@dataclass(frozen=True)
class Advice:
    """One branch of a guide, from its first question to a leaf.

    Attributes:
        condition: all that follows "if".
        advice: what the guide says then.
        source: the guide, and which part of it.
        test: the comparison that judges it; None where none can.
        reason: why not; empty with a test.
        when: the condition, of what a user has.
    """

    condition: str
    advice: str
    source: str
    test: Test | None = None
    reason: str = ""
    when: When = When()


def branches(tree: Question, source: str) -> Iterator[Advice]:
    """Every way through a tree, a leaf each, in the order of its text."""
    yield from _from(tree, source, (), When())


def _from(
    node: Question | tuple[Leaf, ...], source: str, said: tuple[str, ...], when: When
) -> Iterator[Advice]:
    if isinstance(node, tuple):
        for leaf in node:
            yield Advice(" and ".join(said), leaf.advice, source, leaf.test, leaf.reason, when)
        return
    for side in (node.yes, node.no):
        yield from _from(side.then, source, (*said, side.condition), when.both(side.when))

"""What a gate found, as plain data: the content of gate.json, from which every text is made."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import ConfigDict, Field, TypeAdapter

from peftmark.core.errors import Exit

FORMAT: Final = 1

Kind = Literal[
    "regression",
    "incomplete",
    "not deterministic",
    "not comparable",
    "numbers changed",
    "undecided",
    "suspicious",
    "improved",
    "note",
]
KINDS: dict[Kind, Exit] = {
    "regression": Exit.REGRESSION,
    "incomplete": Exit.INCOMPLETE,
    "not deterministic": Exit.NOT_REPEATABLE,
    "not comparable": Exit.NOT_COMPARABLE,
    "numbers changed": Exit.NUMBERS_CHANGED,
    "undecided": Exit.UNDECIDED,
    "suspicious": Exit.OK,
    "improved": Exit.OK,
    "note": Exit.OK,
}
"""What a finding is -> the exit code it asks for; the first in this order wins."""

MARKS: dict[str, str] = {
    "regression": "−",
    "incomplete": "!",
    "not deterministic": "≠",
    "not comparable": "x",
    "numbers changed": "#",
    "undecided": "?",
    "suspicious": "~",
    "improved": "+",
    "note": "·",
    "": "=",
}

Text = Annotated[str, Field(max_length=2000)]
Name = Annotated[str, Field(max_length=300)]
STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)


@dataclass(frozen=True)
class Finding:
    """One thing that a maintainer should know.

    Attributes:
        check: what was looked at, a stable key such as `count.trainable_parameters`.
        cell: the cell's title; empty for the whole suite.
        sentence: what was found, with both values.
        against: "baseline", or "release" for the pinned one.
    """

    __pydantic_config__: ClassVar = STRICT
    kind: Kind
    check: Name
    cell: Name
    sentence: Text
    against: Literal["baseline", "release"] = "baseline"


@dataclass(frozen=True)
class Change:
    """A score before and after.

    Attributes:
        difference: after less before, positive where it is better, with the ends of its 95 %
            interval over seeds; null without one.
        p: adjusted one-sided p of "it did not fall"; null where nothing was tested.
        detectable: smallest true drop that would be found four times in five; null likewise.
        seeds: pairs of seeds it rests on.
        metric: whose values they are; empty for what is on the scale of no one metric.
    """

    __pydantic_config__: ClassVar = STRICT
    before: float | None
    after: float | None
    difference: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    detectable: float | None = None
    seeds: int = 0
    metric: str = ""


@dataclass(frozen=True)
class TaskResult:
    """One cell on one task.

    Attributes:
        verdict: in a word or two.
    """

    __pydantic_config__: ClassVar = STRICT
    task: Name
    metric: Name
    verdict: Name
    change: Change


@dataclass(frozen=True)
class CellResult:
    """One cell.

    Attributes:
        verdict: the worst that was found, in a word or two.
        kind: kind of the worst finding; empty if there is none.
        runs: pairs compared, and of them `identical` to the last bit.
        change: the metric, mean over tasks.
        memory, time: ratio after over before of peak memory and step time; null if unknown.
    """

    __pydantic_config__: ClassVar = STRICT
    cell: Name
    verdict: Name
    kind: Kind | Literal[""]
    runs: int
    identical: int
    change: Change
    memory: float | None
    time: float | None
    tasks: tuple[TaskResult, ...]


@dataclass(frozen=True)
class Side:
    """Where one side came from.

    Attributes:
        commit: of peftmark.
        versions: of the packages that can change numbers, differing ones alone where both are
            known.
    """

    __pydantic_config__: ClassVar = STRICT
    where: Text
    commit: Name
    finished_at: Name
    accepted: Text
    versions: dict[Name, Name]


@dataclass(frozen=True)
class Gate:
    """The verdict of a gate.

    Attributes:
        code: the exit code; null where two sides were compared without a policy.
        sentence: the verdict in words.
        machine: class of the machine.
        findings: worst first.
        timings: what times may be taken for, in a sentence.
    """

    __pydantic_config__: ClassVar = STRICT
    peftmark_gate: Literal[1]
    suite: Name
    profile: Name
    machine: Name
    code: int | None
    sentence: Text
    before: Side
    after: Side
    release: Side | None
    timings: Text
    cells: tuple[CellResult, ...]
    findings: tuple[Finding, ...]
    policy: dict[Name, Any]


GATE: TypeAdapter[Gate] = TypeAdapter(Gate)


def code_of(findings: tuple[Finding, ...]) -> Exit:
    """The exit code: that of the worst finding."""
    return code_of_kinds({finding.kind for finding in findings})


def code_of_kinds(found: Collection[Kind]) -> Exit:
    """The exit code of the worst of some kinds."""
    return next((code for kind, code in KINDS.items() if kind in found), Exit.OK)

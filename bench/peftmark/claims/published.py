"""Published figures that need neither a run nor weights, and what is said of each on paper.

Counts of parameters are held against PEFT's own adapter on a model without values, sums against
arithmetic, memory against predicted steps (`peftmark.claims.memory_figures`), step times against
the same steps on a GPU's data sheet (`peftmark.duration.published_steps`).

- A count is confirmed if it is equal, refuted if it is another one. What the installed PEFT lacks
  is not comparable, and what it can't build without weights is untestable.
- A step time is confirmed if the prediction is within a quarter of it, else undecided: a prediction
  of time has too many assumptions to refute a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from peftmark.claims.ledger import ClaimTest
from peftmark.claims.memory_figures import MemoryVerdict, memory_verdicts
from peftmark.claims.memory_ledger import LEDGER as MEMORY
from peftmark.claims.memory_text import claimed_text, predicted_text
from peftmark.claims.paper import on_paper
from peftmark.claims.part import Kind
from peftmark.claims.published_ledger import (
    LEDGER,
    Ledger,
    PublishedCount,
    PublishedSum,
    first_place,
    load_ledger,
)
from peftmark.duration.published_steps import Timed, timed_steps
from peftmark.memory.adapter_counts import Count, counts

NEAR = 0.25
"""Largest difference from a published step time, relative to it, that counts as the same."""

Subject = Literal["parameters", "bytes", "memory", "step time"]
SUBJECTS: tuple[Subject, ...] = ("parameters", "bytes", "memory", "step time")

Heard = Callable[[int, int], None]


@dataclass(frozen=True)
class Finding:
    """A published figure beside ours.

    Attributes:
        claimed, ours: with their units; ours is empty where there is none.
        claimed_value, our_values: the same as numbers, in `unit`; ours from lowest to highest.
        kind: one of `peftmark.claims.part.KINDS`.
        reason: why it isn't confirmed; also what a confirmed one rests on.
        date: of the published run; empty where the ledger has none.
    """

    subject: Subject
    name: str
    claimed: str
    ours: str
    claimed_value: float
    our_values: tuple[float, ...]
    unit: str
    kind: Kind
    reason: str
    source: str
    date: str = ""


def published(
    suites: Path | None,
    cache: Path | None,
    counting: Heard = lambda done, total: None,
    predicting: Heard = lambda done, total: None,
    predict: bool = False,
) -> list[Finding]:
    """Every published figure with its verdict, by subject.

    Args:
        suites: a folder of suites besides those shipped, whose ledgers come first.
        cache: folder of the cache; None to keep nothing.
        counting: told how many of how many adapters are counted.
        predicting: told how many of how many steps are predicted.
        predict: also predict steps that the cache doesn't hold, which takes minutes.

    Raises:
        SuiteError: a ledger that is missing or has faults.
    """
    ledger = load_ledger(first_place(suites, LEDGER))
    memory = first_place(suites, MEMORY)
    told = counts([ledger.adapter(row) for row in ledger.counts], cache, counting)
    figures = memory_verdicts(memory, cache, predicting, only_kept=not predict)
    steps = timed_steps(cache, predicting, only_kept=not predict)
    return [
        *(count_of(ledger, *pair) for pair in zip(ledger.counts, told, strict=True)),
        *(sum_of(ledger, row) for row in ledger.sums),
        *map(memory_of, figures),
        *map(time_of, steps),
    ]


def count_of(ledger: Ledger, row: PublishedCount, told: Count) -> Finding:
    """The verdict on a published count."""
    kind, reason = _of_count(row, told)
    ours = told.trainable
    return Finding(
        "parameters",
        row.name,
        f"{row.trains:,}",
        "" if ours is None else f"{ours:,}",
        row.trains,
        () if ours is None else (ours,),
        "",
        kind,
        reason,
        f"{ledger.folder}/{row.source}",
        row.date,
    )


def _of_count(row: PublishedCount, told: Count) -> tuple[Kind, str]:
    if told.absent:
        return "not comparable", f"{told.absent}; the run had {row.peft}"
    if told.trainable is None:
        return "untestable", told.reason
    if told.trainable == row.trains:
        frozen = f"{row.frozen} was frozen after PEFT had built it" if row.frozen else ""
        return "confirmed on paper", frozen
    more = told.trainable - row.trains
    return "refuted on paper", f"{more:+,} with the installed PEFT; the run had {row.peft}"


def sum_of(ledger: Ledger, row: PublishedSum) -> Finding:
    """The verdict on what follows from published figures."""
    part = on_paper(ClaimTest(part=row.name, arithmetic=row.arithmetic))
    assert part is not None and part.effect is not None
    sum_ = row.arithmetic
    unit = f" {sum_.unit}" if sum_.unit else ""
    return Finding(
        "bytes",
        row.name,
        f"{sum_.claimed:g}{unit}",
        f"{part.effect:.6g}{unit}",
        sum_.claimed,
        (part.effect,),
        sum_.unit,
        part.kind,
        f"{row.says} {sum_.expression}, within {sum_.tolerance:g}{unit}",
        f"{ledger.folder}/{row.source}",
        row.date,
    )


def memory_of(verdict: MemoryVerdict) -> Finding:
    """A verdict on a memory figure, as `--memory-figures` has it."""
    figure, known = verdict.figure, verdict.span is not None
    kind: Kind = "undecided" if verdict.kind == "unknown" else verdict.kind
    return Finding(
        "memory",
        figure.id,
        claimed_text(verdict),
        predicted_text(verdict) if known else "",
        verdict.claimed,
        verdict.span or (),
        "" if figure.unit == "ratio" else figure.unit,
        kind,
        verdict.reason,
        figure.source,
    )


def time_of(one: Timed) -> Finding:
    """The verdict on a published step time."""
    row, off = one.row, one.off
    kind: Kind = "confirmed on paper" if off is not None and abs(off) <= NEAR else "undecided"
    reason = one.missing
    if off is not None:
        reason = f"{off:+.0%}" + (f": {row.reason}" if row.reason else "")
    return Finding(
        "step time",
        row.what,
        f"{1000 * row.seconds:,.0f} ms",
        "" if one.seconds is None else f"{1000 * one.seconds:,.0f} ms",
        1000 * row.seconds,
        () if one.seconds is None else (1000 * one.seconds,),
        "ms",
        kind,
        reason,
        one.group.title,
    )


def equal(found: Sequence[Finding]) -> tuple[int, int]:
    """How many published counts of parameters are equal, of how many."""
    rows = [one for one in found if one.subject == "parameters"]
    return sum(one.kind == "confirmed on paper" for one in rows), len(rows)

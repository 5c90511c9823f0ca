"""Seeds added until the questions are decided: when a run looks, and what a look may decide.

A family is looked at several times. The error of each test is spent over the looks, a share of it
at each: a p of a look counts divided by its share, and the smallest such p so far is a p of its
own, however looks and tests depend on one another and whenever the run ends (Bonferroni's bound
over the looks). Holm's correction over those p then holds the error of the whole family at alpha
over all looks together (Ye, Li, Liu and Yao, Statistics in Medicine 32, 2013, whose boundaries are
closer and rest on a joint normal law). The share spent by n of at most N seeds is (n / N)², of the
family of Kim and DeMets (Biometrika 74, 1987).
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from peftmark.analysis.stats import Comparison, compare, equivalent
from peftmark.analysis.table import TO_COME, ResultTable
from peftmark.catalog.methods import Cell
from peftmark.record.outcome import FIRST_LOOK

GROWTH = 4 / 3
POWER = 2.0


@dataclass(frozen=True)
class Look:
    """A time at which a run looks.

    Attributes:
        number: from 1.
        seeds: that are in by then.
        share: of the error that it may spend.
    """

    number: int
    seeds: frozenset[int]
    share: float


def sizes(most: int) -> tuple[int, ...]:
    """Numbers of seeds at which a run of at most so many looks: 3, then about a third more each
    time, and the most."""
    found = [min(FIRST_LOOK, most)]
    while found[-1] < most:
        found.append(min(most, max(found[-1] + 1, round(found[-1] * GROWTH))))
    return tuple(found)


def looks(seeds: Sequence[int], most: int) -> tuple[Look, ...]:
    """The looks that so many seeds, in their order, are enough for.

    Args:
        seeds: planned so far.
        most: seeds that there may be at most.
    """
    found, spent = [], 0.0
    for number, size in enumerate(sizes(most), 1):
        share = (size / most) ** POWER - spent
        spent += share
        if size <= len(seeds):
            found.append(Look(number, frozenset(seeds[:size]), share))
    return tuple(found)


def share_at(seeds: int, most: int) -> float:
    """Share of the error that what is read at so many seeds may spend, of a run that adds up to
    `most`: that of the look with them; of a number at which no run looks the least of any."""
    every = looks(tuple(range(most)), most)
    return next(
        (look.share for look in every if len(look.seeds) == seeds),
        min(look.share for look in every),
    )


def seen(table: ResultTable, *cells: Cell) -> tuple[Look, ...] | None:
    """The looks at which these cells are whole: every planned job has ended that is in by then.
    None where the number of seeds was fixed."""
    if table.most_seeds is None:
        return None
    order = dict.fromkeys(job.seed for job in table.jobs if job.purpose == "report")
    ended: dict[Cell, dict[int, bool]] = {}
    for cell in cells:
        by_seed = ended.setdefault(cell, {})
        for slot in table.of(cell):
            seed = slot.job.seed
            by_seed[seed] = by_seed.get(seed, True) and slot.status not in TO_COME
    return tuple(
        look
        for look in looks(tuple(order), table.most_seeds)
        if all(by_seed.get(seed, False) for by_seed in ended.values() for seed in look.seeds)
    )


def sequential_p(
    by_seed: Sequence[tuple[int, Sequence[float]]], seen: Collection[Look]
) -> float | None:
    """p of "no difference" over all looks so far; None where no look has one.

    Args:
        by_seed: seed -> a difference for each task.
    """
    found = [
        one.p / look.share for look in seen if (one := _at(by_seed, look)) and one.p is not None
    ]
    return min(1.0, *found) if found else None


def sequentially_equivalent(
    by_seed: Sequence[tuple[int, Sequence[float]]],
    seen: Collection[Look],
    margin: float,
    alpha: float,
) -> bool:
    """Whether a look so far shows a difference within the margin, at its share of alpha."""
    return any(
        equivalent(one, margin, alpha * look.share)
        for look in seen
        if (one := _at(by_seed, look)) is not None
    )


def looks_beyond(
    by_seed: Sequence[tuple[int, Sequence[float]]], seen: Collection[Look], margin: float
) -> float | None:
    """p of "the difference lies within the margin" over all looks so far; None where no look has
    one. Each is that of the margin on the side where the mean lies, two-sided: the other end of the
    margin may be as near, and both tails then count.

    Args:
        margin: above 0, in the unit of the differences.
    """
    found = []
    for look in seen:
        one = _at(by_seed, look)
        if one is None or one.p is None:
            continue
        side = 1.0 if one.estimate.mean > 0 else -1.0
        moved = [(seed, [v - side * margin for v in tasks]) for seed, tasks in by_seed]
        beyond = _at(moved, look)
        if beyond is not None and beyond.p is not None:
            far = side * beyond.estimate.mean > 0
            found.append((beyond.p if far else 1.0) / look.share)
    return min(1.0, *found) if found else None


def _at(by_seed: Sequence[tuple[int, Sequence[float]]], look: Look) -> Comparison | None:
    values = [tasks for seed, tasks in by_seed if seed in look.seeds]
    return compare(list(zip(*values, strict=True))) if values else None

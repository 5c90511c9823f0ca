"""One test of a claim held against rows: its interval, and whether that shows the claim."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from peftmark.analysis.sequential import share_at
from peftmark.analysis.stats import (
    FEWEST_FOR_SPREAD,
    Comparison,
    bound,
    compare,
    geometric_mean,
    seeds_to_decide,
    spread_ratio,
)
from peftmark.catalog.methods import Cell, cell_title
from peftmark.claims.comparisons import Compared, Interaction, Order, Ratio, Spread
from peftmark.claims.evidence import Evidence, Values, gap, missing, notes, obstacle, values_of
from peftmark.claims.ledger import ClaimTest
from peftmark.claims.part import Kind, Pair, Part
from peftmark.record.job import Record

Pairs = Mapping[int, tuple[float, float]]
"""Seed -> the values of two cells on one task."""

SLACK = 1e-12
"""A figure this close to a limit, relative to it, lies on the limit: 0.3 - 0.2 is not 0.1."""

NO_PAIRS = "the cells have no seed in common"
NO_SHARED_SEED = "no seed was run by both cells on every task"
OPEN = "the interval holds figures that fit and others"
TOO_CLOSE = "no affordable number of seeds: the figure lies too close to the limit"


def judge(test: ClaimTest, evidence: Evidence) -> Part:
    """The verdict of a test of rows that belongs to the profile of the evidence."""
    if lacking := evidence.lacks(test):
        return Part(test, "not comparable", reason=lacking)
    tasks = tuple(task for task in evidence.tasks if task in (test.tasks or evidence.tasks))
    cells = dict.fromkeys(test.cells)
    slots = {cell: [s for t in tasks for s in evidence.slots.get((cell, t), ())] for cell in cells}
    rows = [s.record for found in slots.values() for s in found if s.record is not None]
    base = Part(
        test,
        "undecided",
        tasks=tasks,
        notes=notes(test, rows, evidence.suspects),
        jobs=tuple(r.job.job_id for r in rows),
    )
    if holes := gap(slots, tasks):
        run = f"peftmark run {evidence.suite} --profile {evidence.profile}"
        can = not any(s.status == "unsupported" for found in slots.values() for s in found)
        return replace(base, reason=holes, settle=run if can else "a machine that can run it")
    if fault := obstacle(test, rows):
        return replace(base, kind="not comparable", reason=fault)
    compared = test.compared
    is_order = isinstance(compared, Order)
    values: list[Values] = []
    for cell, measure in zip(test.cells, test.measures(), strict=True):
        if lack := missing(cell, measure, slots[cell]):
            return replace(base, reason=lack)
        values.append(values_of(slots[cell], measure, oriented=is_order))
    level = _level(rows, evidence.level)
    if isinstance(compared, Order):
        return _order(base, values, level)
    assert compared is not None
    if isinstance(compared, Interaction):
        values = [_less(*values[:2]), _less(*values[2:])]
    pairs = _pairs(values[0], values[1] if len(values) > 1 else None)
    if not all(pairs.values()):
        return replace(base, reason=NO_PAIRS)
    if isinstance(compared, Spread):
        return _spread(base, compared, pairs, level)
    return _bounded(base, compared, pairs, level)


def _level(rows: Sequence[Record], level: float) -> float:
    """The level of an interval on rows to which seeds were added until others of their questions
    were answered: it may spend what the look at which they stand may spend, so that the error holds
    whenever the run ended."""
    most = max((row.most_seeds or 0 for row in rows), default=0)
    if not most:
        return level
    by_cell: dict[Cell, set[int]] = {}
    for row in rows:
        by_cell.setdefault(row.job.cell, set()).add(row.job.seed)
    shared = len(set.intersection(*by_cell.values()))
    return 1 - (1 - level) * share_at(shared, most)


# --- differences and ratios ---------------------------------------------------------------------


def fits(low: float, high: float, limits: tuple[float, float]) -> bool | None:
    """Whether an interval shows a claim.

    Args:
        low, high: the interval.
        limits: lowest and highest value that fits the claim.

    Returns:
        True if it lies within the limits, ends included; False if it lies outside; None if some of
        it does.
    """
    lowest, highest = limits
    room = SLACK * max(1.0, *(abs(limit) for limit in limits if math.isfinite(limit)))
    if low >= lowest - room and high <= highest + room:
        return True
    return False if high < lowest - room or low > highest + room else None


def _bounded(base: Part, compared: Compared, pairs: Mapping[str, Pairs], level: float) -> Part:
    is_ratio = isinstance(compared, Ratio)
    if is_ratio and any(a <= 0 or b <= 0 for found in pairs.values() for a, b in found.values()):
        return replace(base, reason="0 and negative figures have no ratio")
    assert base.test is not None
    if all(m.kind == "count" for m in base.test.measures()):
        return _counted(base, compared, pairs)
    tasks = _shared(pairs, (lambda a, b: math.log(a / b)) if is_ratio else (lambda a, b: a - b))
    if tasks is None:
        return replace(base, reason=NO_SHARED_SEED)
    back = math.exp if is_ratio else float
    low, high = compared.limits
    limits = (_log(low), _log(high)) if is_ratio else (low, high)
    c = compare(tasks, level)
    base = replace(base, effect=back(c.estimate.mean), seeds=c.n)
    ends = bound(c, level)
    if ends is None:
        return replace(base, reason=_no_interval(c, compared.to is None), settle=_more_seeds(c))
    kind = _kind(fits(*ends, limits))
    base = replace(base, kind=kind, low=back(ends[0]), high=back(ends[1]))
    base = replace(base, direction=direction_of(base, compared))
    if kind != "undecided":
        return base
    away = min(abs(c.estimate.mean - limit) for limit in limits if math.isfinite(limit))
    more = _seeds_needed(c, away, 1 - level)
    return replace(
        base,
        reason=OPEN,
        settle="" if more else TOO_CLOSE,
        more=more,
    )


def _counted(base: Part, compared: Compared, pairs: Mapping[str, Pairs]) -> Part:
    """The verdict on counts: every pair has to fit."""
    is_ratio = isinstance(compared, Ratio)
    seen = [a / b if is_ratio else a - b for found in pairs.values() for a, b in found.values()]
    kind = _kind(fits(min(seen), max(seen), compared.limits))
    found = replace(
        base,
        kind=kind,
        effect=geometric_mean(seen) if is_ratio else math.fsum(seen) / len(seen),
        low=min(seen),
        high=max(seen),
        exact=True,
        seeds=min(len(found) for found in pairs.values()),
        reason="the claim fits on some tasks or seeds alone" if kind == "undecided" else "",
    )
    return replace(found, direction=direction_of(found, compared))


def _spread(base: Part, compared: Spread, pairs: Mapping[str, Pairs], level: float) -> Part:
    """The verdict on a ratio of standard deviations, each of one value a seed: the mean over the
    tasks."""
    first, second = (_shared(pairs, side) for side in (lambda a, b: a, lambda a, b: b))
    if first is None or second is None:
        return replace(base, reason=NO_SHARED_SEED)
    ones, others = (
        [math.fsum(seed) for seed in zip(*side, strict=True)] for side in (first, second)
    )
    found = spread_ratio(ones, others, level)
    base = replace(base, seeds=len(ones))
    if found is None:
        few = len(ones) < FEWEST_FOR_SPREAD
        least = f"an interval of spreads needs at least {FEWEST_FOR_SPREAD} seeds"
        reason = least if few else "a cell's figure is the same at every seed, so has no spread"
        return replace(base, reason=reason, settle=least if few else "more seeds")
    kind = _kind(fits(found.low, found.high, compared.limits))
    base = replace(base, kind=kind, effect=found.ratio, low=found.low, high=found.high)
    base = replace(base, direction=direction_of(base, compared))
    if kind != "undecided":
        return base
    return replace(base, reason=OPEN, settle="more seeds")


def direction_of(part: Part, compared: Compared) -> Kind | None:
    """The verdict on the direction of a claimed gain or loss, whatever its size."""
    if compared.to is None or part.low is None or part.high is None:
        return None
    limits = compared.beyond()
    if limits is None:
        return None
    if part.low == part.high == compared.nothing:  # counts that are the same: no difference at all
        return "contradicted"
    return _kind(fits(part.low, part.high, limits))


def _kind(shown: bool | None) -> Kind:
    return "undecided" if shown is None else "reproduced" if shown else "contradicted"


def _log(limit: float) -> float:
    return limit if math.isinf(limit) else math.log(limit)


def _pairs(one: Values, other: Values | None) -> dict[str, Pairs]:
    """Task -> pairs of the same seed; a missing second cell counts as 0."""
    if other is None:
        return {task: {s: (v, 0.0) for s, v in found.items()} for task, found in one.items()}
    return {
        task: {s: (v, other[task][s]) for s, v in found.items() if s in other[task]}
        for task, found in one.items()
    }


def _less(one: Values, other: Values) -> Values:
    """The first value less the second, by task and seed, where both are."""
    pairs = _pairs(one, other)
    return {task: {s: a - b for s, (a, b) in found.items()} for task, found in pairs.items()}


def _shared(
    pairs: Mapping[str, Pairs], of: Callable[[float, float], float]
) -> list[list[float]] | None:
    """A number from each pair, by task, at the seeds that all tasks share; None without such."""
    seeds = sorted(set.intersection(*(set(found) for found in pairs.values())))
    return [[of(*found[s]) for s in seeds] for found in pairs.values()] if seeds else None


def _no_interval(c: Comparison, alone: bool) -> str:
    if c.n < 2:
        return "one seed has no interval"
    if alone:
        return "the figure is the same at every seed, so its spread is unknown"
    return "the cells differ by the same amount at every seed, so the spread is unknown"


def _more_seeds(c: Comparison) -> str:
    return "at least two seeds" if c.n < 2 else "more seeds"


def _seeds_needed(c: Comparison, away: float, alpha: float) -> int | None:
    """Seeds that would mostly tell a figure from a limit so far away; None if unaffordably many."""
    found = seeds_to_decide(c, away, alpha) if away > SLACK else None
    return None if found is None else max(found, c.n + 1)


# --- orders -------------------------------------------------------------------------------------


def _order(base: Part, values: Sequence[Values], level: float) -> Part:
    assert base.test is not None
    measure, cells = base.test.measures()[0], base.test.cells
    sign = 1 if measure.better == "higher" else -1
    pairs: list[Pair] = []
    settle: list[str] = []
    needed: list[int] = []
    seeds: set[int] = set()
    for i, j in itertools.combinations(range(len(cells)), 2):
        found = _pairs(values[i], values[j])
        if not all(found.values()):
            return replace(base, reason=NO_PAIRS)
        text, more = "", None
        if measure.kind == "count":
            seen = [sign * (a - b) for one in found.values() for a, b in one.values()]
            low, high = min(seen), max(seen)
            seeds.add(min(map(len, found.values())))
        else:
            tasks = _shared(found, lambda a, b: sign * (a - b))
            if tasks is None:
                return replace(base, reason=NO_SHARED_SEED)
            low, high, text, more = _better(tasks, level)
            seeds.add(len(tasks[0]))
        shown = True if low > 0 else False if high < 0 else None
        pairs.append(Pair(cells[i], cells[j], shown, j == i + 1, low, high))
        if shown is None and j == i + 1:
            settle += [text] if text else []
            needed += [more] if more else []
    kind: Kind = "undecided"
    if any(pair.shown is False for pair in pairs):
        kind = "contradicted"
    elif all(pair.shown for pair in pairs if pair.neighbours):
        kind = "reproduced"
    is_open = kind == "undecided"
    return replace(
        base,
        kind=kind,
        pairs=tuple(pairs),
        seeds=min(seeds),
        exact=measure.kind == "count",
        reason=_pairs_text(pairs, kind),
        settle="; ".join(dict.fromkeys(settle)) if is_open else "",
        more=max(needed) if is_open and needed and not settle else None,
    )


def _better(tasks: Sequence[Sequence[float]], level: float) -> tuple[float, float, str, int | None]:
    """Interval of how much better one cell is, and what would show which is."""
    c = compare(tasks, level)
    ends = bound(c, level)
    if ends is None:
        return -math.inf, math.inf, _more_seeds(c), None
    more = _seeds_needed(c, abs(c.estimate.mean), 1 - level)
    return *ends, "" if more else TOO_CLOSE, more


def _pairs_text(pairs: Sequence[Pair], kind: Kind) -> str:
    """The pairs that decide, in words."""
    if kind == "reproduced":
        return ""
    wanted = False if kind == "contradicted" else None
    named = [
        f"{cell_title(*pair.first)} before {cell_title(*pair.second)}"
        for pair in pairs
        if pair.shown is wanted and (pair.neighbours or kind == "contradicted")
    ]
    start = "the reverse is shown for" if kind == "contradicted" else "not shown:"
    return f"{start} {'; '.join(named)}"

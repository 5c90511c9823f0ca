"""Whether cells stopped learning, lost a class, or reach their targets later."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence

from peftmark.analysis.stats import Comparison, compare, holm, one_sided
from peftmark.catalog.methods import Cell
from peftmark.gate.matching import Matched, Pair, finding
from peftmark.gate.policy import Policy
from peftmark.gate.quality import CLASSES, COLLAPSES, FEWEST, STEPS
from peftmark.gate.result import Finding, Kind
from peftmark.render import words

TOLD = 2
"""New collapses of a cell, less those that ended, from which they are told though they may be
chance: some seeds of small tasks always collapse."""


# --- collapses ----------------------------------------------------------------------------------


def collapses(matched: Matched, policy: Policy) -> Iterator[Finding]:
    """Cells in which more runs predict one thing for every row than did before.

    Fisher's exact test of the two counts, one-sided, Holm over cells: the chance of a collapse is
    no property of a seed, so runs are not paired. What trains nothing can't collapse.
    """
    found: dict[Cell, tuple[list[Pair], int]] = {}
    for cell in (cell for cell in matched.cells if cell.trains):
        fresh = [p for p in matched.of(cell) if p.after.collapsed and not p.before.collapsed]
        over = sum(bool(p.before.collapsed) and not p.after.collapsed for p in matched.of(cell))
        if fresh:
            found[cell] = fresh, over
    ps = [_fisher(matched.of(cell)) for cell in found]
    for (cell, (fresh, over)), p in zip(found.items(), holm(ps), strict=True):
        where = words.some([f"{x.after.task} seed {x.after.seed}" for x in fresh])
        verb = "predicts" if len(fresh) == 1 else "predict"
        text = f"{words.plural(len(fresh), 'run')} now {verb} the same for every row: {where}"
        kind: Kind = "suspicious" if len(fresh) - over >= TOLD else "note"
        if p is not None and p <= COLLAPSES * policy.alpha:
            kind = "note" if policy.quality == "advisory" else "regression"
            text += f"; p = {words.p_value(p)}".replace("= <", "<")
        yield finding(kind, "quality.collapsed", cell, text)


def _fisher(pairs: Sequence[Pair]) -> float:
    """p of "a run collapses no more often now" (Fisher, 1935), by the hypergeometric tail."""
    runs = len(pairs)
    after = sum(bool(p.after.collapsed) for p in pairs)
    both = after + sum(bool(p.before.collapsed) for p in pairs)
    ways = math.comb(2 * runs, both)
    tail = sum(
        math.comb(runs, k) * math.comb(runs, both - k) for k in range(after, min(runs, both) + 1)
    )
    return tail / ways


# --- classes ------------------------------------------------------------------------------------

CLASS_MARGIN = 0.1
"""Mean drop of a class's recall within which it fails nothing."""


def classes(matched: Matched, policy: Policy) -> Iterator[Finding]:
    """Classes that are found less often: a rare one hardly shows in a score over all rows.

    Recall by seed, paired, one-sided t, Holm over cells, tasks and classes. A class of which every
    run found half or more and none finds a row now needs no test.
    """
    kind: Kind = "note" if policy.quality == "advisory" else "regression"
    tested: dict[tuple[Cell, str, str], Comparison] = {}
    for cell in (cell for cell in matched.cells if cell.trains):
        for task in dict.fromkeys(p.before.task for p in matched.of(cell)):
            pairs = [p for p in matched.of(cell, task) if p.before.class_hits]
            if not pairs or all(p.identical for p in pairs):
                continue
            for name in pairs[0].before.class_hits:
                recalls = [r for p in pairs if (r := _recalls(p, name)) is not None]
                if recalls and all(a >= 0.5 and b == 0 for a, b in recalls):
                    unsure = len(recalls) < FEWEST and policy.few_seeds_limit is None
                    least = words.number(min(a for a, _ in recalls))
                    text = f"no row of class {name} on {task} is found any more; recall was {least}"
                    yield finding("undecided" if unsure else kind, "quality.class", cell, text)
                elif len(recalls) >= FEWEST:
                    tested[cell, task, name] = compare([[b - a for a, b in recalls]])
    # Without spread the sign alone would decide, which so few seeds can't.
    ps = holm(
        [None if c.p is None else one_sided(c.p, c.estimate.mean < 0) for c in tested.values()]
    )
    for ((cell, task, name), comparison), p in zip(tested.items(), ps, strict=True):
        drop = -comparison.estimate.mean
        if p is not None and p <= CLASSES * policy.alpha and drop > CLASS_MARGIN:
            text = f"recall of class {name} on {task} fell by {words.number(drop)}"
            text += f"; p = {words.p_value(p)}".replace("= <", "<")
            yield finding(kind, "quality.class", cell, text)


def _recalls(pair: Pair, name: str) -> tuple[float, float] | None:
    """Recall of a class before and after; None where either side has no row of it."""
    both = [line.class_hits.get(name, (0, 0)) for line in (pair.before, pair.after)]
    if not all(rows for _, rows in both):
        return None
    (a, of_a), (b, of_b) = both
    return a / of_a, b / of_b


# --- steps to target ----------------------------------------------------------------------------


def steps_to_target(matched: Matched, policy: Policy) -> Iterator[Finding]:
    """Cells that reach their targets later, or so much earlier that something may leak.

    A run that does not get there counts as later than any that does. Differences are turned into
    signed ranks, averaged within each seed and tested over seeds; a change counts from one interval
    between evaluations on, the resolution of the figure.
    """
    alpha = STEPS * policy.alpha
    kind: Kind = "regression" if policy.steps_to_target == "binding" else "note"
    found: dict[Cell, tuple[Comparison, list[float]]] = {}
    for cell in matched.cells:
        pairs = [p for p in matched.of(cell) if p.before.has_target and p.after.has_target]
        moves = [_later(p) for p in pairs]
        tested = _by_seed(pairs, _signed_ranks(moves)) if any(moves) else None
        if tested is None or all(p.identical for p in pairs):
            continue
        if tested.n >= FEWEST:
            found[cell] = tested, moves
        elif statistics.median(moves) >= 1 and kind == "regression":
            yield from _too_few(cell, tested, moves, policy)
    later = dict(zip(found, holm([_above(*f, 1) for f in found.values()]), strict=True))
    sooner = dict(zip(found, holm([_above(*f, -1) for f in found.values()]), strict=True))
    for cell, (comparison, moves) in found.items():
        middle = statistics.median(moves)
        text = f"targets are reached {_moved(middle)}; {words.plural(comparison.n, 'seed')}"
        if _at_most(later[cell], alpha) and middle >= 1:
            yield finding(kind, "steps_to_target", cell, text)
        elif _at_most(sooner[cell], alpha) and middle <= -1:
            text += "; look for rows that leaked or an evaluation that changed"
            yield finding("suspicious", "steps_to_target", cell, text)


def _too_few(
    cell: Cell, tested: Comparison, moves: Sequence[float], policy: Policy
) -> Iterator[Finding]:
    """Later on one or two seeds: told, and undecided unless the policy decides few seeds by the
    score."""
    seeds = words.plural(tested.n, "seed")
    text = f"targets are reached {_moved(statistics.median(moves))}; {seeds} can't be tested"
    kind: Kind = "undecided" if policy.few_seeds_limit is None else "note"
    yield finding(kind, "steps_to_target", cell, text)


def _at_most(p: float | None, alpha: float) -> bool:
    return p is not None and p <= alpha


def _above(comparison: Comparison, moves: Sequence[float], sign: int) -> float:
    """p of "the mean, times the sign, is not above 0".

    Where all moved alike there is no spread to test by; under no change each would as likely have
    moved the other way.
    """
    mean = sign * comparison.estimate.mean
    if comparison.p is None:
        one_way = all(sign * m > 0 for m in moves) or all(sign * m < 0 for m in moves)
        chance = 0.5 ** len(moves) if one_way else 0.5
        return chance if mean > 0 else 1 - chance
    return one_sided(comparison.p, mean > 0)


def _later(pair: Pair) -> float:
    """Evaluation intervals by which the target is reached later; infinite if it isn't any more."""
    a, b = pair.before.steps_to_target, pair.after.steps_to_target
    if a is None or b is None:
        return 0.0 if a == b else math.inf if b is None else -math.inf
    return (b - a) / pair.before.eval_every


def _signed_ranks(moves: Sequence[float]) -> list[float]:
    """Ranks of the sizes with the signs of the moves, from −1 to 1; ties share their mean rank."""
    sizes = sorted(abs(m) for m in moves)
    rank = {size: sizes.index(size) + (sizes.count(size) + 1) / 2 for size in set(sizes)}
    return [0.0 if m == 0 else math.copysign(rank[abs(m)], m) / len(moves) for m in moves]


def _by_seed(pairs: Sequence[Pair], values: Sequence[float]) -> Comparison | None:
    """Test of the values' mean over the tasks of each seed, for seeds that every task has."""
    by_task: dict[str, dict[int, float]] = {}
    for pair, value in zip(pairs, values, strict=True):
        by_task.setdefault(pair.before.task, {})[pair.before.seed] = value
    seeds = sorted(set.intersection(*map(set, by_task.values())))
    if not seeds:
        return None
    return compare([[runs[seed] for seed in seeds] for runs in by_task.values()])


def _moved(intervals: float) -> str:
    way = "later" if intervals > 0 else "sooner"
    if math.isinf(intervals):
        return (
            "not any more by half of the runs" if intervals > 0 else "by half of the runs at last"
        )
    return f"{way} by a median of {words.short(abs(intervals))} intervals between evaluations"

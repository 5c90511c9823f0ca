"""Whether quality fell: paired by seed, tested as families, with a margin below which none matters.

Each cell's mean over tasks is one family, each cell on each task a second, how fast cells reach
their targets a third, collapses a fourth, the recall of single classes a fifth; `alpha` is shared
out among them, so that altogether a change that alters nothing fails with at most that chance
(docs/gate.md, with the simulation).

Where a metric has no bounds or is better the lower it is, means over tasks are those of shares of
the way from the baseline predictor to the best possible, as in reports (`analysis.scale`). Margins
are points of what is compared; a metric of one's own has none, so every drop that is shown counts.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from peftmark.analysis.scale import (
    POINT,
    SHARE,
    limits_of,
    of_difference,
    point,
    scale_of,
    share,
)
from peftmark.analysis.stats import (
    Comparison,
    bound,
    compare,
    holm,
    minimum_detectable_effect,
    one_sided,
    seeds_to_decide,
)
from peftmark.catalog.methods import Cell
from peftmark.catalog.metrics import decimals, metric_of, sign_of
from peftmark.gate.matching import Matched, Pair, finding
from peftmark.gate.policy import Policy
from peftmark.gate.result import Change, Finding, Kind
from peftmark.gate.run_lines import Line
from peftmark.render import words

Key = TypeVar("Key")

OVERALL, BY_TASK, STEPS, COLLAPSES, CLASSES = 0.5, 0.2, 0.15, 0.1, 0.05
"""Shares of alpha of the five families."""

FEWEST, FEWEST_BY_TASK = 3, 5
"""Pairs of seeds below which a test could hardly ever decide."""


@dataclass
class Judged:
    """What is known of one cell, or of one cell on one task.

    Attributes:
        comparison: of the paired differences, positive where the candidate is better; None
            without a seed that has every task.
        alike: pairs, where all of them moved the same way by a size without spread; else 0. Seeds
            of what trains nothing count once.
        identical: whether every pair is the same to the last bit.
        fell, rose: Holm's one-sided p of "it did not fall", and "rise"; None where nothing was
            tested.
        what: what is compared, in words.
        unit: what a margin of 1 is in what is compared; 0 where margins mean nothing.
    """

    change: Change
    comparison: Comparison | None
    alike: int
    identical: bool
    fell: float | None = None
    rose: float | None = None
    what: str = "score"
    unit: float = 1.0
    findings: list[Finding] = field(default_factory=list)


def judge_cells(matched: Matched, policy: Policy) -> dict[Cell, Judged]:
    """Each cell over all of its tasks."""
    scale = scale_of({p.before.task: p.before.metric for p in matched.pairs})
    read, what = (_share, f"score as a {SHARE}") if scale.kind == "share" else (_score, "score")
    if scale.kind == "gain" and scale.metric:
        what = _named(scale.metric)
    left = f", without {words.listing(scale.left_out)}" if scale.left_out and scale.tasks else ""
    pairs = {c: [p for p in matched.of(c) if p.before.task in scale.tasks] for c in matched.cells}
    found = {cell: _judged(mine, read, f"{what}{left}") for cell, mine in pairs.items()}
    for judged in found.values():
        judged.unit = 1.0 if scale.in_points else 0.0
    _test(found, lambda cell: FEWEST, OVERALL * policy.alpha, policy.margin)
    for cell, judged in found.items():
        judged.findings += _unknown(cell, matched.of(cell), judged, scale.why_none)
        judged.findings += _no_direction(cell, matched.of(cell), judged)
        judged.findings += _drop(cell, None, judged, policy, OVERALL)
    return found


def judge_tasks(matched: Matched, policy: Policy) -> dict[tuple[Cell, str], Judged]:
    """Each cell on each of its tasks, all of them one family.

    A task that is in no mean over tasks is not looked at anywhere else: what can't be told of it
    is undecided, as it would be of the mean.
    """
    shared = scale_of({p.before.task: p.before.metric for p in matched.pairs}).tasks
    found = {
        (cell, task): _judged(matched.of(cell, task))
        for cell in matched.cells
        for task in dict.fromkeys(p.before.task for p in matched.of(cell))
    }
    for (cell, task), judged in found.items():
        pairs = matched.of(cell, task)
        judged.unit = _unit(pairs)
        if sign_of(pairs[0].before.metric) < 0:
            judged.what = _named(pairs[0].before.metric)

    def fewest(key: tuple[Cell, str]) -> int:
        return FEWEST_BY_TASK if key[1] in shared else FEWEST

    _test(found, fewest, BY_TASK * policy.alpha, policy.task_margin)
    for (cell, task), judged in found.items():
        if task not in shared:
            judged.findings += _unpaired(cell, task, matched.of(cell, task), judged)
            judged.findings += _drop(cell, task, judged, policy, BY_TASK, alone=True)
        elif judged.change.seeds >= FEWEST_BY_TASK:
            judged.findings += _drop(cell, task, judged, policy, BY_TASK)
    return found


def _named(metric: str) -> str:
    """A metric with its direction, where more isn't better."""
    title = words.metric_title(metric)
    return f"{title} (lower is better)" if sign_of(metric) < 0 else title


def _unit(pairs: Sequence[Pair]) -> float:
    """What a margin of 1 is in the unit of a task's metric; 0 where it means nothing."""
    points = [point(p.before.metric, p.before.baseline_value) for p in pairs]
    known = [found for found in points if found is not None]
    return statistics.fmean(known) / POINT if known and len(known) == len(points) else 0.0


def _score(line: Line) -> float | None:
    return line.value


def _share(line: Line) -> float | None:
    return share(line.metric, line.value, line.baseline_value)


def _judged(
    pairs: Sequence[Pair],
    read: Callable[[Line], float | None] = _score,
    what: str = "score",
) -> Judged:
    """The paired differences over the seeds that every task has.

    Args:
        read: what is compared of a run; shares are better the higher they are.
        what: the same in words.
    """
    by_task: dict[str, dict[int, tuple[float, float]]] = {p.before.task: {} for p in pairs}
    signs = {p.before.task: sign_of(p.before.metric) if read is _score else 1.0 for p in pairs}
    for pair in pairs:
        before, after = read(pair.before), read(pair.after)
        if before is not None and after is not None:
            by_task[pair.before.task][pair.before.seed] = before, after
    metrics = {p.before.metric for p in pairs} if read is _score else set()
    seeds = sorted(set.intersection(*map(set, by_task.values()))) if by_task else []
    identical = bool(pairs) and all(p.identical for p in pairs)
    if not seeds:
        return Judged(Change(None, None), None, 0, identical, what=what)
    used = {task: [runs[seed] for seed in seeds] for task, runs in by_task.items()}
    moves = [[signs[task] * (b - a) for a, b in both] for task, both in used.items()]
    comparison = compare(moves)
    flat = [both for of_task in used.values() for both in of_task]
    estimate = comparison.estimate
    spread = estimate.half_width is not None and not identical
    change = Change(
        before=statistics.fmean(before for before, _ in flat),
        after=statistics.fmean(after for _, after in flat),
        difference=estimate.mean,
        low=estimate.low if spread else None,
        high=estimate.high if spread else None,
        seeds=comparison.n,
        metric=metrics.pop() if len(metrics) == 1 else "",
    )
    all_moves = [move for of_task in moves for move in of_task]
    one_way = comparison.p is None and (max(all_moves) < 0 or min(all_moves) > 0)
    # Seeds of what trains nothing are copies of one run.
    runs = len(all_moves) if pairs[0].before.cell.trains else len(moves)
    return Judged(change, comparison, runs if one_way else 0, identical, what=what)


def _test(
    family: Mapping[Key, Judged], fewest: Callable[[Key], int], alpha: float, margin: float
) -> None:
    """Fill in Holm's p of one family, and the drop that it would mostly find.

    An identical cell could not have fallen, so it doesn't count.
    """
    tested = [j for key, j in family.items() if not j.identical and _seeds(j) >= fewest(key)]
    ps = [_fell(j) for j in tested]
    fell = holm(ps)
    rose = holm([None if p is None else 1 - p for p in ps])
    size = max(1, sum(p is not None for p in ps))
    for judged, down, up in zip(tested, fell, rose, strict=True):
        assert judged.comparison is not None
        judged.fell, judged.rose = down, up
        # The first step of Holm's procedure, which every finding has to pass in the worst case.
        effect = minimum_detectable_effect(judged.comparison, 2 * alpha / size)
        found = None if effect is None else max(effect, margin * judged.unit)
        judged.change = replace(judged.change, p=down, detectable=found)


def _seeds(judged: Judged) -> int:
    return judged.comparison.n if judged.comparison is not None else 0


def _fell(judged: Judged) -> float | None:
    """p of "the mean is not below 0".

    Where all moved alike there is no spread to test by; under no change each pair would as likely
    have moved the other way.
    """
    assert judged.comparison is not None
    down = judged.comparison.estimate.mean < 0
    if judged.comparison.p is None:
        if not judged.alike:
            return None
        chance = 0.5**judged.alike
        return chance if down else 1 - chance
    return one_sided(judged.comparison.p, down)


def _unknown(cell: Cell, pairs: Sequence[Pair], judged: Judged, why: str) -> Iterator[Finding]:
    """Runs without a score, and cells in which no seed has every task.

    Args:
        why: why there is no mean over tasks at all; empty where there may be one.
    """
    gone = [p for p in pairs if p.after.value is None]
    if gone:
        text = f"{words.plural(len(gone), 'run')} ended well and have no score"
        yield finding("incomplete", "quality.unknown", cell, text)
    elif pairs and why:
        yield finding("note", "quality.unknown", cell, f"{why}, so only single tasks are tested")
    elif pairs and judged.comparison is None:
        text = "no seed has a score on every task of both sides, so nothing is tested"
        yield finding("undecided", "quality.unknown", cell, text)


def _no_direction(cell: Cell, pairs: Sequence[Pair], judged: Judged) -> Iterator[Finding]:
    """Metrics of which nobody here knows which way is better, where scores aren't the same."""
    unknown = dict.fromkeys(m for p in pairs if metric_of(m := p.before.metric) is None)
    if unknown and not judged.identical:
        names = ", ".join(unknown)
        text = f"which way of {names} is better isn't known here, so no change can be judged"
        yield finding("undecided", "quality.unknown", cell, text)


def _unpaired(cell: Cell, task: str, pairs: Sequence[Pair], judged: Judged) -> Iterator[Finding]:
    """A task of which no seed has a score on both sides; a run without one is told by its cell."""
    if judged.comparison is None and all(p.after.value is not None for p in pairs):
        text = f"no seed has a score on {task} on both sides, so nothing is tested"
        yield finding("undecided", "quality.unknown", cell, text)


def _drop(
    cell: Cell,
    task: str | None,
    judged: Judged,
    policy: Policy,
    share: float,
    alone: bool = False,
) -> Iterator[Finding]:
    """What the differences show, or that they can't show anything.

    Args:
        alone: whether the task is in no mean over tasks, and has to be decided by itself.
    """
    comparison = judged.comparison
    if comparison is None or judged.identical:
        return
    margin = (policy.margin if task is None else policy.task_margin) * judged.unit
    alpha = share * policy.alpha
    kind: Kind = "note" if policy.quality == "advisory" else "regression"
    check = "quality.overall" if task is None else "quality.task"
    mean = comparison.estimate.mean
    text = f"{judged.what}{'' if task is None else f' on {task}'} {_from_to(judged.change)}"
    few, whole = comparison.n < FEWEST, task is None or alone
    if few and whole:
        yield from _too_few(cell, task, judged, policy, text, kind)
    elif judged.fell is not None and judged.fell <= alpha and mean < -margin:
        alike = ", by the same on every seed" if judged.alike else ""
        p = f"p = {words.p_value(judged.fell)}".replace("= <", "<")
        yield finding(kind, check, cell, f"{text}{alike}; {p} over {comparison.n} seeds")
        return
    elif judged.rose is not None and judged.rose <= alpha and mean > margin:
        yield finding("improved", check, cell, f"{text}; the baseline can be tightened")
    elif comparison.p is None and mean < -margin and kind != "note":
        text += ", by the same on every seed, which so few seeds can't tell from chance"
        yield finding("undecided", check, cell, text)
    if policy.quality == "non-inferior" and whole and not few:
        yield from _not_ruled_out(cell, judged, policy, text)


def _from_to(change: Change) -> str:
    """`from 0.843 to 0.801 (−0.042 ± 0.010)`."""
    assert change.before is not None and change.after is not None
    values = (change.before, change.after, change.after - change.before)
    # All with the same digits, or the three would not add up.
    digits = max(decimals(change.metric, value) for value in values)
    before, after = (words.number(value, digits) for value in values[:2])
    moved = words.number(values[2], digits, signed=True)
    half = ""
    if change.low is not None and change.difference is not None:
        wide = change.difference - change.low
        most = of_difference(limits_of(change.metric))
        half = f" ± {words.number(wide, digits)}"
        if most is not None and wide > most[1]:
            half = f"; {words.nothing_shown(change.seeds, signed=True)}"
    return f"from {before} to {after} ({moved}{half})"


def _too_few(
    cell: Cell, task: str | None, judged: Judged, policy: Policy, text: str, kind: Kind
) -> Iterator[Finding]:
    """One or two seeds: a limit set by hand, or no verdict."""
    check = "quality.overall" if task is None else "quality.task"
    comparison, limit = judged.comparison, policy.few_seeds_limit
    assert comparison is not None
    if not judged.unit:  # a limit in points means nothing here
        limit = None
    seeds = words.plural(comparison.n, "seed")
    if policy.quality == "advisory":
        return
    if limit is not None and comparison.estimate.mean < -limit:
        text += f"; more than {words.number(limit)}, the limit set for {seeds}"
        yield finding(kind, check, cell, text)
    elif limit is None or policy.quality == "non-inferior":
        text += f"; {seeds} can't be tested, {FEWEST} can; few_seeds_limit would decide"
        yield finding("undecided", check, cell, text)


def _not_ruled_out(cell: Cell, judged: Judged, policy: Policy, text: str) -> Iterator[Finding]:
    """That a drop beyond the margin may well be there."""
    comparison = judged.comparison
    assert comparison is not None
    if not judged.unit:
        text += "; no margin in points means anything for a metric of your own"
        yield finding("undecided", "quality.non-inferior", cell, text)
        return
    interval = bound(comparison, 1 - 2 * policy.alpha)
    if interval is not None and interval[0] > -policy.margin:
        return
    more = seeds_to_decide(comparison, policy.margin, alpha=2 * policy.alpha)
    most = of_difference(limits_of(judged.change.metric))
    lowest = -math.inf if most is None else most[0]
    drop = "" if interval is None else f" of up to {words.number(-max(interval[0], lowest))}"
    text += f"; a drop{drop} isn't ruled out, {policy.margin:g} is allowed"
    if interval is not None:
        text += f"; {f'about {more:,}' if more else 'over 1,000'} seeds would be needed"
    yield finding("undecided", "quality.non-inferior", cell, text)

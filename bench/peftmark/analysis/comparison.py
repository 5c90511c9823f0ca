"""Which differences are shown: paired by seed and task, adjusted for how many are looked at."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from peftmark.analysis.resampled_metrics import MEANS, WEIGHTED
from peftmark.analysis.scale import POINT, point, span
from peftmark.analysis.sequential import Look, sequential_p, sequentially_equivalent
from peftmark.analysis.sequential import seen as seen_looks
from peftmark.analysis.shared_rows import sharing_pairs
from peftmark.analysis.stats import (
    Comparison,
    bootstrap_rows,
    compare,
    equivalent,
    holm,
    minimum_detectable_effect,
    rank_ranges,
    row_noise,
    seeds_to_decide,
)
from peftmark.analysis.table import (
    ResultTable,
    Score,
    difference,
    overall_score,
    task_score,
)
from peftmark.catalog.methods import Cell
from peftmark.catalog.metrics import sign_of
from peftmark.record.job import Job

ALPHA = 0.05
MARGIN = POINT
"""A difference within one point counts as equivalent: 0.01 of what the table averages, on a task
`scale.point` of the metric."""

MOST_CELLS = 40
"""Cells up to which every pair is compared; 41 cells have 820 pairs."""

RESAMPLES = 200

Verdict = Literal["higher", "lower", "equivalent", "undecided", "no interval"]
Key = TypeVar("Key", bound=Hashable)


@dataclass(frozen=True)
class Difference:
    """A paired difference of two cells, judged as one of a family.

    Attributes:
        score: the differences by seed and task.
        comparison: their mean with interval (not adjusted) and p.
        adjusted: Holm's p over the family; None without a usable spread.
        equivalent: whether the difference is shown to lie within the margin, at a level divided by
            the size of the family; never where no margin means anything.
        family: number of comparisons with a p in the family.
        sign: 1 if more is better, −1 if less is.
    """

    score: Score
    comparison: Comparison
    adjusted: float | None
    equivalent: bool
    family: int
    sign: float = 1.0

    @property
    def verdict(self) -> Verdict:
        """What is shown of the difference: which side of zero it lies on, whichever is better."""
        if self.adjusted is None:
            return "no interval"
        if self.adjusted <= ALPHA and self.comparison.se is not None:
            return "higher" if self.comparison.estimate.mean > 0 else "lower"
        return "equivalent" if self.equivalent else "undecided"

    @property
    def better(self) -> bool | None:
        """Whether the first is shown to be better, or worse; None if neither is."""
        if self.verdict not in ("higher", "lower"):
            return None
        return (self.verdict == "higher") == (self.sign > 0)

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval that is not adjusted for the family."""
        estimate = self.comparison.estimate
        return estimate.half_width is not None and not estimate.low <= 0 <= estimate.high

    @property
    def detectable(self) -> float | None:
        """Smallest true difference that would be shown four times in five; None without spread."""
        return minimum_detectable_effect(self.comparison, ALPHA / max(1, self.family))

    @property
    def seeds(self) -> int | None:
        """Seeds that would show a difference as large as this one; None if that can't be said."""
        return seeds_to_decide(self.comparison, alpha=ALPHA / max(1, self.family))


def judge(
    scores: Mapping[Key, Score],
    margin: Callable[[Key], float | None] = lambda _: MARGIN,
    sign: Callable[[Key], float] = lambda _: 1.0,
    seen: Callable[[Key], Sequence[Look] | None] = lambda _: None,
) -> dict[Key, Difference]:
    """Judge paired differences together, as one family; those without a pair are left out.

    Args:
        margin: what counts as equivalent; None where nothing does.
        sign: 1 if more is better, −1 if less is.
        seen: looks of a run that added seeds until it was decided; None where their number was
            fixed.
    """
    known = {key: score for key, score in scores.items() if score.by_seed}
    found = {key: compare(s.strata).within(s.limits) for key, s in known.items()}
    at = {key: seen(key) for key in known}
    p = {
        key: c.p if (looks := at[key]) is None else sequential_p(seed_by_seed(known[key]), looks)
        for key, c in found.items()
    }
    adjusted = dict(zip(found, holm(list(p.values())), strict=True))
    size = sum(one is not None for one in p.values())

    def alike(key: Key) -> bool:
        within, looks, level = margin(key), at[key], ALPHA / max(1, size)
        if within is None:
            return False
        if looks is None:
            return equivalent(found[key], within, level)
        return sequentially_equivalent(seed_by_seed(known[key]), looks, within, level)

    return {
        key: Difference(known[key], comparison, adjusted[key], alike(key), size, sign(key))
        for key, comparison in found.items()
    }


def seed_by_seed(score: Score) -> list[tuple[int, tuple[float, ...]]]:
    """Seed -> its value on each task."""
    seeds = [seed for seed, _ in score.by_seed]
    return list(zip(seeds, zip(*score.strata, strict=True), strict=True))


def against_reference(table: ResultTable) -> dict[Cell, Difference]:
    """Every other cell less the reference, over all tasks."""
    base = overall_score(table, table.reference)
    scores = {c: difference(overall_score(table, c), base) for c in _scored(table, base)}
    return judge(
        scores,
        lambda _: margin_of(table),
        seen=lambda cell: seen_looks(table, cell, table.reference),
    )


def margin_of(table: ResultTable) -> float | None:
    """What counts as equivalent over all tasks; None where gains are averaged."""
    return MARGIN if table.scale.in_points else None


def _scored(table: ResultTable, base: Score) -> tuple[Cell, ...]:
    return tuple(c for c in table.others if base.by_seed and overall_score(table, c).by_seed)


def by_task(table: ResultTable) -> dict[tuple[Cell, str], Difference]:
    """Every other cell less the reference on each task, in its own metric; all are one family."""
    scores = {}
    for task in table.tasks:
        base = task_score(table, table.reference, task)
        for cell in table.others:
            scores[cell, task] = difference(task_score(table, cell, task), base)
    margins = {task: task_margin(table, task) for task in table.tasks}
    signs = {task: sign_of(table.example(task).metric) for task in table.tasks}
    return judge(
        scores,
        lambda key: margins[key[1]],
        lambda key: signs[key[1]],
        lambda key: seen_looks(table, key[0], table.reference),
    )


def task_margin(table: ResultTable, task: str) -> float | None:
    """What counts as equivalent on a task, in the unit of its metric; None where nothing does."""
    return point(table.example(task).metric, baseline_of(table, task))


def baseline_of(table: ResultTable, task: str) -> float | None:
    """The baseline predictor's score on a task, mean over the rows that know it."""
    read = [s.value(lambda r: r.outcome.baseline_value) for s in table.of(task=task)]
    found = [value for value in read if value is not None]
    return statistics.fmean(found) if found else None


def pairwise(table: ResultTable) -> dict[tuple[Cell, Cell], Difference]:
    """Every pair of cells over all tasks, first less second; empty above `MOST_CELLS` cells.

    Pairs with the reference are one family, the same as `against_reference`, and the others are
    another: what is shown of a pair is the same wherever a page speaks of it.
    """
    scores = {c: s for c in table.cells if (s := overall_score(table, c)).by_seed}
    if len(scores) > MOST_CELLS:
        return {}
    return dict(_pairs(table))


def _pairs(table: ResultTable) -> Mapping[tuple[Cell, Cell], Difference]:
    """All pairs of cells, judged once for a table."""
    if not table.pairs:
        scores = {c: s for c in table.cells if (s := overall_score(table, c)).by_seed}
        mine = [pair for pair in itertools.combinations(scores, 2) if table.reference in pair]
        rest = [pair for pair in itertools.combinations(scores, 2) if table.reference not in pair]
        if len(scores) > MOST_CELLS:
            rest = []  # so many comparisons would show next to nothing
        for family in (mine, rest):
            found = {(a, b): difference(scores[a], scores[b]) for a, b in family}
            judged = judge(
                found, lambda _: margin_of(table), seen=lambda pair: seen_looks(table, *pair)
            )
            table.pairs.update(judged)
    return table.pairs


def pair_of(table: ResultTable, a: Cell, b: Cell) -> Difference | None:
    """What is shown of one cell and another over all tasks, in whichever order `pairwise` has
    them; None where they aren't compared."""
    pairs = _pairs(table)
    return pairs.get((a, b)) or pairs.get((b, a))


def shown_higher(table: ResultTable, a: Cell, b: Cell) -> bool:
    """Whether the first cell is shown to score higher than the second."""
    pairs = _pairs(table)
    if found := pairs.get((a, b)):
        return found.verdict == "higher"
    found = pairs.get((b, a))
    return found is not None and found.verdict == "lower"


def ranks(
    table: ResultTable, pairs: Mapping[tuple[Cell, Cell], Difference]
) -> dict[Cell, tuple[int, int]]:
    """Best and worst rank that each scored cell may have, from the pairs that are told apart."""
    cells = [c for c in table.cells if any(c in pair for pair in pairs)]
    better = {}
    for (a, b), found in pairs.items():
        i, j = cells.index(a), cells.index(b)
        better[i, j] = found.verdict == "higher"
        better[j, i] = found.verdict == "lower"
    return dict(zip(cells, rank_ranges(better, len(cells)), strict=True))


# --- noise of the choice of rows ----------------------------------------------------------------


def row_error(table: ResultTable, cell: Cell, task: str) -> float | None:
    """Standard error that the choice of evaluation rows adds to a cell's difference on a task.

    None where predictions are missing, or the rows of the runs differ or may come in another order.
    """
    mine = {s.job.seed: s.record for s in table.of(cell, task) if s.ok}
    theirs = {s.job.seed: s.record for s in table.of(table.reference, task) if s.ok}
    both = [(a, b) for k in mine if (a := mine[k]) and (b := theirs.get(k))]
    pairs = [(a.outcome, b.outcome) for a, b in both]
    if not pairs or not len(pairs[0][0].references):
        return None
    if any(row_order(a.job) != row_order(b.job) for a, b in both):
        return None
    wanted = pairs[0][0].references
    if any(o.references != wanted or len(o.predictions) != len(wanted) for p in pairs for o in p):
        return None
    if len(wanted) > (pairs[0][0].eval_rows or len(wanted)):  # several labels a row
        return None
    labels = np.asarray(wanted, dtype=np.float64)
    found = np.array([[a.predictions, b.predictions] for a, b in pairs], dtype=np.float64)
    metric = table.example(task).metric
    if metric in MEANS:
        by_row = MEANS[metric](found, labels)
        return row_noise(by_row[:, 0] - by_row[:, 1])
    statistic = WEIGHTED.get(metric)
    if statistic is None:
        return None

    def mean_difference(weights: NDArray[np.int64]) -> NDArray[np.float64]:
        values = [statistic(a, labels, weights) - statistic(b, labels, weights) for a, b in found]
        mean: NDArray[np.float64] = np.mean(values, axis=0)
        return mean

    return bootstrap_rows(mean_difference, len(labels), RESAMPLES, np.random.default_rng(0))


def row_order(job: Job) -> tuple[object, ...]:
    """What two runs on the same rows must share for them to be in the same order: rows are sorted
    by their tokens. Labels tell where the order of encoders' rows differs otherwise."""
    asked = (job.causal, job.recipe.max_length) if job.causal is not None else ()
    return (job.model_identity, *asked)


def overall_row_error(table: ResultTable, cell: Cell) -> float | None:
    """The same of the mean over tasks; None if unknown for one.

    Rows of different tasks are drawn apart, so their variances add. How many rows two tasks of one
    origin share isn't recorded, so their errors are taken to move together in full: a covariance
    of the product of both, the largest there can be. It errs on the wide side.

    Where shares are averaged, the way that they are shares of is taken as given.
    """
    errors = {task: _share_error(table, cell, task) for task in table.scale.tasks}
    known = {task: e for task, e in errors.items() if e is not None}
    if not known or len(known) < len(errors):
        return None
    covariances = (known[a] * known[b] for a, b in sharing_pairs(table, list(known)))
    variance = math.fsum(e**2 for e in known.values()) + 2 * math.fsum(covariances)
    return math.sqrt(variance) / len(known)


def _share_error(table: ResultTable, cell: Cell, task: str) -> float | None:
    """The error of a task in the unit that the table averages."""
    error = row_error(table, cell, task)
    if error is None or table.scale.kind != "share":
        return error
    rows = [s.record for s in table.of(cell, task) if s.ok and s.record is not None]
    ways = [span(r.job.metric, r.outcome.baseline_value) for r in rows]
    known = [abs(way) for way in ways if way is not None]
    return error / math.fsum(known) * len(known) if known and len(known) == len(ways) else None

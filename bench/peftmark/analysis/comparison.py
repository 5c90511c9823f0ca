"""Which differences are shown: paired by seed and task, adjusted for how many are looked at."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

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
    metric_value,
    overall_score,
    span,
    task_score,
)
from peftmark.catalog.methods import Cell
from peftmark.record.job import Job

ALPHA = 0.05
MARGIN = 0.01
"""A difference within one point counts as equivalent: 0.01 of the metric, over tasks of what the
table averages."""

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
        equivalent: whether the difference is shown to lie within `MARGIN`, at a level divided by
            the size of the family.
        family: number of comparisons with a p in the family.
    """

    score: Score
    comparison: Comparison
    adjusted: float | None
    equivalent: bool
    family: int

    @property
    def verdict(self) -> Verdict:
        """What is shown of the difference."""
        if self.adjusted is None:
            return "no interval"
        if self.adjusted <= ALPHA and self.comparison.se is not None:
            return "higher" if self.comparison.estimate.mean > 0 else "lower"
        return "equivalent" if self.equivalent else "undecided"

    @property
    def detectable(self) -> float | None:
        """Smallest true difference that would be shown four times in five; None without spread."""
        return minimum_detectable_effect(self.comparison, ALPHA / max(1, self.family))

    @property
    def seeds(self) -> int | None:
        """Seeds that would show a difference as large as this one; None if that can't be said."""
        return seeds_to_decide(self.comparison, alpha=ALPHA / max(1, self.family))


def judge(scores: Mapping[Key, Score]) -> dict[Key, Difference]:
    """Judge paired differences together, as one family; those without a pair are left out."""
    known = {key: score for key, score in scores.items() if score.by_seed}
    found = {key: compare(score.strata) for key, score in known.items()}
    adjusted = dict(zip(found, holm([c.p for c in found.values()]), strict=True))
    size = sum(c.p is not None for c in found.values())
    return {
        key: Difference(
            known[key],
            comparison,
            adjusted[key],
            equivalent(comparison, MARGIN, ALPHA / max(1, size)),
            size,
        )
        for key, comparison in found.items()
    }


def against_reference(table: ResultTable) -> dict[Cell, Difference]:
    """Every other cell less the reference, over all tasks."""
    base = overall_score(table, table.reference)
    return judge({c: difference(overall_score(table, c), base) for c in _scored(table, base)})


def _scored(table: ResultTable, base: Score) -> tuple[Cell, ...]:
    return tuple(c for c in table.others if base.by_seed and overall_score(table, c).by_seed)


def by_task(table: ResultTable) -> dict[tuple[Cell, str], Difference]:
    """Every other cell less the reference on each task; all of them are one family."""
    scores = {}
    for task in table.tasks:
        base = task_score(table, table.reference, task)
        for cell in table.others:
            scores[cell, task] = difference(task_score(table, cell, task), base)
    return judge(scores)


def pairwise(table: ResultTable) -> dict[tuple[Cell, Cell], Difference]:
    """Every pair of cells over all tasks, first less second; empty above `MOST_CELLS` cells."""
    scores = {c: s for c in table.cells if (s := overall_score(table, c)).by_seed}
    if len(scores) > MOST_CELLS:
        return {}
    pairs = itertools.combinations(scores, 2)
    return judge({(a, b): difference(scores[a], scores[b]) for a, b in pairs})


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
    labels = np.asarray(wanted, dtype=np.float64)
    found = np.array([[a.predictions, b.predictions] for a, b in pairs], dtype=np.float64)
    metric = table.example(task).metric
    if metric in MEANS:
        by_row = (found == labels).astype(np.float64) if metric == "accuracy" else found
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


def _counts(
    found: NDArray[np.float64], wanted: NDArray[np.float64], weights: NDArray[np.int64]
) -> tuple[NDArray[np.float64], ...]:
    """True positives, false positives, false negatives and true negatives of each resample."""
    kinds = ((1, 1), (1, 0), (0, 1), (0, 0))
    hits = [((found == f) & (wanted == w)).astype(np.float64) for f, w in kinds]
    return tuple(weights @ hit for hit in hits)


def _f1(
    found: NDArray[np.float64], wanted: NDArray[np.float64], weights: NDArray[np.int64]
) -> NDArray[np.float64]:
    tp, fp, fn, _ = _counts(found, wanted, weights)
    return np.divide(2 * tp, 2 * tp + fp + fn, out=np.zeros_like(tp), where=2 * tp + fp + fn > 0)


def _mcc(
    found: NDArray[np.float64], wanted: NDArray[np.float64], weights: NDArray[np.int64]
) -> NDArray[np.float64]:
    tp, fp, fn, tn = _counts(found, wanted, weights)
    scale = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return np.divide(tp * tn - fp * fn, scale, out=np.zeros_like(tp), where=scale > 0)


def _pearson(
    found: NDArray[np.float64], wanted: NDArray[np.float64], weights: NDArray[np.int64]
) -> NDArray[np.float64]:
    n = weights.sum(axis=1)
    x, y = found - found.mean(), wanted - wanted.mean()
    mx, my = weights @ x / n, weights @ y / n
    over = weights @ (x * y) / n - mx * my
    under = np.sqrt((weights @ x**2 / n - mx**2) * (weights @ y**2 / n - my**2))
    correlation: NDArray[np.float64] = np.divide(
        over, under, out=np.zeros_like(over), where=under > 0
    )
    return correlation


def _spearman(
    found: NDArray[np.float64], wanted: NDArray[np.float64], weights: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Pearson of the ranks among all rows: ranks drawn again would differ only by rounding."""
    from scipy.stats import rankdata

    ranks = [np.asarray(rankdata(values), dtype=np.float64) for values in (found, wanted)]
    return _pearson(ranks[0], ranks[1], weights)


def _log_likelihood(
    found: NDArray[np.float64], tokens: NDArray[np.float64], weights: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Mean over tokens of rows that are drawn whole."""
    drawn = weights @ tokens
    mean: NDArray[np.float64] = np.divide(
        weights @ (found * tokens), drawn, out=np.full(drawn.shape, np.nan), where=drawn > 0
    )
    return mean


MEANS = ("accuracy", "exact_match", "rouge_l")
"""Metrics that are means over rows; where text is written, `predictions` are what is averaged."""

Weighted = Callable[
    [NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]], NDArray[np.float64]
]
WEIGHTED: dict[str, Weighted] = {
    "f1": _f1,
    "matthews_correlation": _mcc,
    "pearson": _pearson,
    "spearmanr": _spearman,
    "log_likelihood": _log_likelihood,
}
"""Metric -> its value for each resample: (predictions, labels, weights) to shape (resamples,)."""


def overall_row_error(table: ResultTable, cell: Cell) -> float | None:
    """The same of the mean over tasks, whose rows are drawn apart; None if unknown for one.

    Where shares are averaged, the way that they are shares of is taken as given.
    """
    errors = [_share_error(table, cell, task) for task in table.tasks]
    known = [e for e in errors if e is not None]
    if not known or len(known) < len(errors):
        return None
    return math.sqrt(math.fsum(e**2 for e in known)) / len(known)


def _share_error(table: ResultTable, cell: Cell, task: str) -> float | None:
    """The error of a task in the unit that the table averages."""
    error = row_error(table, cell, task)
    if error is None or table.read is metric_value:
        return error
    rows = [s.record for s in table.of(cell, task) if s.ok and s.record is not None]
    ways = [span(r.job.metric, r.outcome.baseline_value) for r in rows]
    known = [abs(way) for way in ways if way is not None]
    return error / math.fsum(known) * len(known) if known and len(known) == len(ways) else None

"""Whether one run is above every constant guess by its evaluation rows. Pure.

It speaks of the run: other rows would show the same, and other seeds are another matter. What the
rows can't tell is not shown: no count of rows, a metric of probabilities or of one's own, a mean
over tokens.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from peftmark.analysis.resampled_metrics import MEANS, WEIGHTED
from peftmark.analysis.scale import gain
from peftmark.analysis.stats import chance_of_hits, resample_rows
from peftmark.catalog.metrics import sign_of
from peftmark.record.job import Record

SHARES = ("accuracy", "exact_match", "subset_accuracy")
"""Metrics that are the share of rows that are right."""
CLASSES = ("f1", "macro_f1", "weighted_f1", "balanced_accuracy", "matthews_correlation")
SCORES = ("pearson", "spearmanr", "rmse", "mae")
"""Metrics that are computed again from stored predictions, of classes and of scores."""
DRAWS = 2000
"""Resamples of the rows, so that no chance below 1 / 2,001 is shown."""
FEWEST = 30
"""Rows below which draws of them say too little of other rows."""
CLOSE = 1e-6
"""Of a row: a stored share times the rows is a whole number but for rounding."""

Array = NDArray[np.float64]


def above_guess(record: Record, alpha: float) -> bool:
    """Whether a finished run is shown to be above every constant guess.

    A share of rows that are right has an exact bound (Clopper and Pearson, 1934). Other metrics are
    computed again on rows drawn with replacement, the run's less the best constant's (a percentile
    bootstrap; Efron, 1979); of classes their correlation has to be above 0 as well, since classes
    drawn at random have a higher macro F1 than a constant.

    The guess is the recorded one, of the training labels, or the best one that knows the evaluation
    labels, whichever is higher: a run that predicts one class for every row is never above.

    Args:
        alpha: chance of a false alarm, one-sided.
    """
    outcome, metric = record.outcome, record.job.metric
    found = gain(metric, outcome.metric_value, outcome.baseline_value)
    if found is None or not math.isfinite(found) or found <= 0 or not outcome.eval_rows:
        return False
    if metric in SHARES:
        return _chance_of_share(record, outcome.eval_rows) <= alpha
    if metric in CLASSES + SCORES:
        return _chance_of_draws(record, outcome.eval_rows) <= alpha
    return False


def _chance_of_share(record: Record, rows: int) -> float:
    """Chance that a constant guess would have as many rows right."""
    value, guess = record.outcome.metric_value, record.outcome.baseline_value
    assert value is not None and guess is not None
    hits = math.floor(value * rows + CLOSE)
    share = max(guess, _commonest(record, rows))
    return chance_of_hits(hits, rows, share) if 0 <= hits <= rows and share <= 1 else 1.0


def _commonest(record: Record, rows: int) -> float:
    """Share of the evaluation rows that have the commonest label; 0 where labels aren't stored.

    Where text is written, references hold no labels.
    """
    labels = np.asarray(record.outcome.references, dtype=np.float64)
    if record.job.metric == "exact_match" or not len(labels):
        return 0.0
    if len(labels) % rows:
        return 1.0  # not the labels of these rows, so nothing is shown
    _, counts = np.unique(labels.reshape(rows, -1), axis=0, return_counts=True)
    return float(counts.max()) / rows


def _chance_of_draws(record: Record, rows: int) -> float:
    """Share of draws of the rows in which the best constant is as good as the run."""
    metric = record.job.metric
    found, wanted = (
        np.asarray(values, dtype=np.float64)
        for values in (record.outcome.predictions, record.outcome.references)
    )
    if (
        rows < FEWEST
        or len(found) != rows
        or len(wanted) != rows
        or not np.isfinite([found, wanted]).all()
    ):
        return 1.0
    constant = _best_constant(metric, wanted)

    def ahead(weights: NDArray[np.int64]) -> Array:
        difference = _values(metric, found, wanted, weights) - _values(
            metric, constant, wanted, weights
        )
        if metric not in CLASSES:
            return sign_of(metric) * difference
        return np.minimum(difference, WEIGHTED["matthews_correlation"](found, wanted, weights))

    drawn = resample_rows(ahead, rows, DRAWS, np.random.default_rng(0))
    return (1 + int((~(drawn > 0)).sum())) / (1 + DRAWS)


def _best_constant(metric: str, wanted: Array) -> Array:
    """The predictions of the constant that scores best on these labels."""
    able = np.unique(wanted) if metric in CLASSES else np.array([wanted.mean(), np.median(wanted)])
    once = np.ones((1, len(wanted)), dtype=np.int64)
    guesses = [np.full_like(wanted, value) for value in able]
    return max(guesses, key=lambda g: sign_of(metric) * float(_values(metric, g, wanted, once)[0]))


def _values(metric: str, found: Array, wanted: Array, weights: NDArray[np.int64]) -> Array:
    """A metric on each resample."""
    if metric in WEIGHTED:
        return WEIGHTED[metric](found, wanted, weights)
    mean: Array = weights @ MEANS[metric](found, wanted) / weights.sum(axis=1)
    return mean

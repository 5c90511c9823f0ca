"""Metrics of many resamples of the evaluation rows at once, from stored predictions. Pure.

Metrics of probabilities are not here: rows keep what was predicted, and not how probable it was.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray


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
    """Of any number of classes (Gorodkin, Computational Biology and Chemistry 28, 2004)."""
    hits, guessed, there = _by_class(found, wanted, weights)
    rows = there.sum(axis=0)
    over = hits.sum(axis=0) * rows - (guessed * there).sum(axis=0)
    scale = np.sqrt((rows**2 - (guessed**2).sum(axis=0)) * (rows**2 - (there**2).sum(axis=0)))
    mcc: NDArray[np.float64] = np.divide(over, scale, out=np.zeros_like(over), where=scale > 0)
    return mcc


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


def _by_class(
    found: NDArray[np.float64], wanted: NDArray[np.float64], weights: NDArray[np.int64]
) -> tuple[NDArray[np.float64], ...]:
    """Hits, predictions and references of each class by resample, shape (classes, resamples)."""
    classes = np.union1d(found, wanted)
    drawn = weights.astype(np.float64)
    guesses, labels = (
        (values[:, None] == classes).astype(np.float64) for values in (found, wanted)
    )
    return (drawn @ (guesses * labels)).T, (drawn @ guesses).T, (drawn @ labels).T


def _f1_by_class(
    hits: NDArray[np.float64], guessed: NDArray[np.float64], there: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.divide(2 * hits, guessed + there, out=np.zeros_like(hits), where=guessed + there > 0)


def _macro_f1(
    found: NDArray[np.float64], wanted: NDArray[np.float64], weights: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Mean over the classes that a resample has."""
    hits, guessed, there = _by_class(found, wanted, weights)
    known = guessed + there > 0
    mean: NDArray[np.float64] = _f1_by_class(hits, guessed, there).sum(axis=0) / known.sum(axis=0)
    return mean


def _weighted_f1(
    found: NDArray[np.float64], wanted: NDArray[np.float64], weights: NDArray[np.int64]
) -> NDArray[np.float64]:
    hits, guessed, there = _by_class(found, wanted, weights)
    by_class = _f1_by_class(hits, guessed, there) * there
    mean: NDArray[np.float64] = by_class.sum(axis=0) / there.sum(axis=0)
    return mean


def _balanced_accuracy(
    found: NDArray[np.float64], wanted: NDArray[np.float64], weights: NDArray[np.int64]
) -> NDArray[np.float64]:
    hits, _, there = _by_class(found, wanted, weights)
    recall = np.divide(hits, there, out=np.zeros_like(hits), where=there > 0)
    mean: NDArray[np.float64] = recall.sum(axis=0) / (there > 0).sum(axis=0)
    return mean


def _rmse(
    found: NDArray[np.float64], wanted: NDArray[np.float64], weights: NDArray[np.int64]
) -> NDArray[np.float64]:
    root: NDArray[np.float64] = np.sqrt(weights @ (found - wanted) ** 2 / weights.sum(axis=1))
    return root


def _right(found: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    hits: NDArray[np.float64] = (found == wanted).astype(np.float64)
    return hits


def _contributed(found: NDArray[np.float64], _: NDArray[np.float64]) -> NDArray[np.float64]:
    return found


def _absolute_error(found: NDArray[np.float64], wanted: NDArray[np.float64]) -> NDArray[np.float64]:
    error: NDArray[np.float64] = np.abs(found - wanted)
    return error


MEANS: dict[str, Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]] = {
    "accuracy": _right,
    "exact_match": _contributed,
    "rouge_l": _contributed,
    "mae": _absolute_error,
}
"""Metric that is a mean over rows -> what each row gives to it, from predictions and labels; where
text is written, `predictions` are what is averaged."""

Weighted = Callable[
    [NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]], NDArray[np.float64]
]
WEIGHTED: dict[str, Weighted] = {
    "f1": _f1,
    "matthews_correlation": _mcc,
    "pearson": _pearson,
    "spearmanr": _spearman,
    "log_likelihood": _log_likelihood,
    "macro_f1": _macro_f1,
    "weighted_f1": _weighted_f1,
    "balanced_accuracy": _balanced_accuracy,
    "rmse": _rmse,
}
"""Metric -> its value for each resample: (predictions, labels, weights) to shape (resamples,)."""

"""Linear models on features: fitted by scikit-learn, kept as plain arrays.

Classes are told by logistic regression, several labels a row by one against the rest each, scores
by ridge regression.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import expit
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression, Ridge

from peftmark.catalog.task import TaskKind
from peftmark.lab.metrics import softmax

Matrix = Any
"""Shape (rows, features): a NumPy array or one of scipy's sparse matrices, float64."""

STRENGTHS = (0.001, 0.01, 0.1, 1.0, 10.0)
"""C that the selection rows choose from, by powers of ten: from a penalty that leaves little but
the commonest class to one that hardly binds. C weighs the losses of the rows against half the
squared weights, as in LIBLINEAR (Fan et al. 2008); ridge regression's penalty is 1/C."""

PLAIN_STRENGTH = 1.0
"""C without selection rows: scikit-learn's own."""

MOST_ITERATIONS = 1000
"""Iterations of L-BFGS (assumption: on standardised features of some thousand rows it settles in
tens to hundreds)."""

KINDS: tuple[TaskKind, ...] = ("classification", "multi-label", "regression")


@dataclass(frozen=True)
class Guess:
    """What a linear model says of rows.

    Attributes:
        predictions: class numbers or scores, shape (rows,); of several labels 1 or 0 of each, shape
            (rows, labels).
        probabilities: shape (rows, classes) or (rows, labels); None for scores.
        outputs: what they are told from, shape (rows, outputs): log odds or scores.
    """

    predictions: np.ndarray
    probabilities: np.ndarray | None
    outputs: np.ndarray


@dataclass(frozen=True)
class Linear:
    """A fitted linear model.

    Attributes:
        weights: shape (outputs, features), float64. Of two classes there is one output, the log
            odds of the second.
        intercepts: shape (outputs,).
        classes: of a classification, the class numbers that the training rows have.
        settled: whether the solver had come to its end.
    """

    kind: TaskKind
    weights: np.ndarray
    intercepts: np.ndarray
    classes: np.ndarray
    settled: bool = True

    @property
    def parameters(self) -> int:
        """Weights and intercepts."""
        return int(self.weights.size + self.intercepts.size)

    def guess(self, features: Matrix, labels: int) -> Guess:
        """What it says of rows.

        Args:
            labels: classes or labels of the task, those that no training row has among them.
        """
        outputs = np.asarray(features @ self.weights.T) + self.intercepts
        if self.kind == "regression":
            return Guess(outputs[:, 0], None, outputs)
        if self.kind == "multi-label":
            return Guess((outputs > 0).astype(np.float64), expit(outputs), outputs)
        if len(self.classes) == 2:
            second = expit(outputs[:, 0])
            known = np.stack([1 - second, second], axis=1)
            best = (outputs[:, 0] > 0).astype(np.int64)
        else:
            known, best = softmax(outputs), outputs.argmax(axis=1)
        probabilities = np.zeros((len(outputs), labels))
        probabilities[:, self.classes] = known
        return Guess(self.classes[best].astype(np.float64), probabilities, outputs)

    def arrays(self) -> dict[str, np.ndarray]:
        """All that `linear_from` needs."""
        return {"weights": self.weights, "intercepts": self.intercepts, "classes": self.classes}


def linear_from(kind: TaskKind, arrays: Mapping[str, np.ndarray]) -> Linear:
    """The inverse of `Linear.arrays`."""
    return Linear(kind, arrays["weights"], arrays["intercepts"], arrays["classes"])


def fit(kind: TaskKind, features: Matrix, targets: np.ndarray, strength: float) -> Linear:
    """Fit a linear model to every row.

    Args:
        targets: class numbers or scores, shape (rows,); of several labels 1 or 0, shape (rows,
            labels).
        strength: C.
    """
    if kind == "regression":
        ridge = Ridge(alpha=1 / strength).fit(features, targets)
        return Linear(kind, ridge.coef_[None, :], np.array([ridge.intercept_]), _NO_CLASSES)
    if kind == "multi-label":
        each = [_one_label(features, column, strength) for column in targets.T]
        weights, intercepts, settled = zip(*each, strict=True)
        return Linear(kind, np.stack(weights), np.array(intercepts), _NO_CLASSES, all(settled))
    present = np.unique(targets)
    if len(present) == 1:
        return Linear(kind, np.zeros((1, features.shape[1])), np.zeros(1), present)
    found, settled = _logistic(features, targets, strength)
    return Linear(kind, found.coef_, found.intercept_, found.classes_, settled)


_NO_CLASSES = np.zeros(0, dtype=np.int64)


def _one_label(
    features: Matrix, column: np.ndarray, strength: float
) -> tuple[np.ndarray, float, bool]:
    """(weights, intercept, whether it settled) of one label against the rest."""
    count, rows = column.sum(), len(column)
    if 0 < count < rows:
        found, settled = _logistic(features, column, strength)
        return found.coef_[0], float(found.intercept_[0]), settled
    # On every row or on none: the log odds with half a row added to both sides, no weights.
    return np.zeros(features.shape[1]), float(np.log((count + 0.5) / (rows - count + 0.5))), True


def _logistic(features: Matrix, targets: np.ndarray, strength: float) -> tuple[Any, bool]:
    """A fitted logistic regression, by L-BFGS, and whether it settled."""
    model = LogisticRegression(C=strength, max_iter=MOST_ITERATIONS)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(features, targets)
    return model, not any(issubclass(w.category, ConvergenceWarning) for w in told)


@dataclass(frozen=True)
class Chosen:
    """A linear model with the C that the selection rows chose.

    Attributes:
        score: the primary metric on the selection rows; None without such rows.
    """

    linear: Linear
    strength: float
    score: float | None


def choose(
    kind: TaskKind,
    features: Matrix,
    targets: np.ndarray,
    score: Callable[[Linear], float] | None,
    sign: float = 1.0,
) -> Chosen:
    """Fit with every C and keep the best on the selection rows, of equals the strictest.

    Args:
        score: the primary metric on the selection rows; None without such rows.
        sign: 1 where more of the metric is better, −1 where less is.
    """
    if score is None:
        return Chosen(fit(kind, features, targets, PLAIN_STRENGTH), PLAIN_STRENGTH, None)
    tried = [Chosen(one, c, score(one)) for c, one in _fits(kind, features, targets)]
    # The first of equals, which is the strictest.
    return max(tried, key=lambda one: sign * (one.score or 0.0))


def _fits(kind: TaskKind, features: Matrix, targets: np.ndarray) -> Iterator[tuple[float, Linear]]:
    for strength in STRENGTHS:
        yield strength, fit(kind, features, targets, strength)

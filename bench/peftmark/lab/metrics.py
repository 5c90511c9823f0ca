"""Quality metrics as `evaluate` modules that need no download; scikit-learn and scipy compute."""

from __future__ import annotations

import re
import tempfile
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import evaluate
import numpy as np
from datasets import Features, Value
from scipy import stats
from sklearn import metrics as sk

from peftmark.lab import own_metric
from peftmark.lab.errors import Unsupported

BINS = 15
"""Bins of the calibration error (Guo et al. 2017, arXiv 1706.04599)."""


class GlueMetrics(evaluate.Metric):  # type: ignore[misc]
    """The metrics of `PREDICTED`: accuracy, F1, correlations, errors.

    `config_name` is the comma-separated list of metric keys wanted. A correlation with a constant
    prediction does not exist; it counts as 0 here, the value of knowing nothing.
    """

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description="GLUE metrics, computed locally",
            citation="",
            inputs_description="predictions and references: class numbers, or scores",
            features=Features({"predictions": Value("float64"), "references": Value("float64")}),
        )

    def _compute(self, predictions: Any, references: Any) -> dict[str, float]:
        found, wanted = np.asarray(predictions), np.asarray(references)
        return {
            key: float(PREDICTED[key](wanted, found)) for key in str(self.config_name).split(",")
        }


def _correlation(of: Any, wanted: np.ndarray, found: np.ndarray) -> float:
    """A correlation by scipy; 0 where one side is constant."""
    if np.ptp(found) == 0 or np.ptp(wanted) == 0:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.NearConstantInputWarning)
        return float(of(found, wanted).statistic)


def _balanced_accuracy(wanted: np.ndarray, found: np.ndarray) -> float:
    """Mean over the classes of the references of the share of their rows that is found."""
    with warnings.catch_warnings():
        # A class that is predicted and stands in no reference has no rows to find.
        warnings.filterwarnings("ignore", message="y_pred contains classes not in y_true")
        return float(sk.balanced_accuracy_score(wanted, found))


def _f1(average: str, wanted: np.ndarray, found: np.ndarray) -> float:
    return float(sk.f1_score(wanted, found, average=average, zero_division=0.0))


PREDICTED: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": sk.accuracy_score,
    "f1": partial(sk.f1_score, zero_division=0.0),
    "matthews_correlation": sk.matthews_corrcoef,
    "pearson": partial(_correlation, stats.pearsonr),
    "spearmanr": partial(_correlation, stats.spearmanr),
    "macro_f1": partial(_f1, "macro"),
    "weighted_f1": partial(_f1, "weighted"),
    "micro_f1": partial(_f1, "micro"),
    "subset_accuracy": sk.accuracy_score,
    "balanced_accuracy": _balanced_accuracy,
    "rmse": sk.root_mean_squared_error,
    "mae": sk.mean_absolute_error,
}
"""Metric of classes, labels or scores -> its value for the references and the predictions."""


def _auroc(wanted: np.ndarray, probabilities: np.ndarray) -> float:
    """Area under the ROC curve: of two classes by the probability of class 1; of several the mean
    over classes of each against the rest; of several labels the mean over labels.

    A class or label that all references have, or none, has no such area and is left out of a mean.
    """
    if wanted.ndim == 1 and probabilities.shape[1] == 2:
        return float(sk.roc_auc_score(wanted == 1, probabilities[:, 1]))
    hits = _by_class(wanted, probabilities.shape[1])
    known = [c for c in range(hits.shape[1]) if 0 < hits[:, c].sum() < len(hits)]
    return float(np.mean([sk.roc_auc_score(hits[:, c], probabilities[:, c]) for c in known]))


def _by_class(wanted: np.ndarray, classes: int) -> np.ndarray:
    """Whether each row has each class, shape (rows, classes)."""
    hits: np.ndarray = wanted == 1 if wanted.ndim == 2 else wanted[:, None] == np.arange(classes)
    return hits


def _log_loss(wanted: np.ndarray, probabilities: np.ndarray) -> float:
    return float(sk.log_loss(wanted, probabilities, labels=range(probabilities.shape[1])))


def _calibration_error(wanted: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error (Guo et al. 2017, equation 3): rows fall into `BINS` equal bins of
    their highest probability, each with its upper end; the mean over rows of how far the bin's
    accuracy lies from its mean probability."""
    top = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == wanted
    bins = np.clip(np.ceil(top * BINS).astype(int) - 1, 0, BINS - 1)
    gaps = np.bincount(bins, weights=right - top, minlength=BINS)
    return float(np.abs(gaps).sum() / len(wanted))


PROBABLE: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "auroc": _auroc,
    "log_loss": _log_loss,
    "calibration_error": _calibration_error,
}
"""Metric of probabilities -> its value for the references and the probabilities."""


def why_none(key: str, references: np.ndarray) -> str:
    """Why a metric doesn't exist for some references, whatever is predicted; empty if it does."""
    if key != "auroc":
        return ""
    alike = (references == references[:1]).all(axis=0)
    if not np.all(alike):
        return ""
    what = "no label tells two rows apart" if references.ndim == 2 else "one class alone"
    return f"AUROC compares rows of two classes, and among {len(references)} rows there is {what}"


def check_exists(key: str, references: np.ndarray) -> None:
    """Refuse evaluation rows for which a metric doesn't exist.

    Raises:
        Unsupported: says why it doesn't.
    """
    if why := why_none(key, references):
        raise Unsupported(f"{why}: evaluate on other rows, or choose another metric")


def score(
    keys: tuple[str, ...],
    predictions: np.ndarray,
    references: np.ndarray,
    probabilities: np.ndarray | None = None,
) -> dict[str, float]:
    """Every metric of `keys` that exists for the references (`why_none`) on the same predictions.

    Args:
        keys: metric keys (`peftmark.catalog.metrics.metric_of`).
        predictions: shape (rows,), class numbers or scores; shape (rows, classes) of 0 and 1 for
            several labels.
        references: shaped like the predictions.
        probabilities: shape (rows, classes), of each class or label; None for scores.

    Raises:
        UserError: a metric of one's own that can't be found or gave no finite number.
    """
    found: dict[str, float] = {}
    plain = tuple(k for k in keys if k in PREDICTED and references.ndim == 1)
    if plain:
        # The library makes a folder for every metric; the usual place for it may not be writable.
        with tempfile.TemporaryDirectory(prefix="metric-") as scratch:
            metric = GlueMetrics(
                config_name=",".join(plain), keep_in_memory=True, cache_dir=scratch
            )
            result = metric.compute(
                predictions=predictions.tolist(), references=references.tolist()
            )
        found |= {key: float(result[key]) for key in plain}
    for key in keys:
        if key in found or why_none(key, references):
            continue
        if key in PREDICTED:
            found[key] = float(PREDICTED[key](references, predictions))
        elif key not in PROBABLE:
            found[key] = own_metric.value_of(key, references, predictions, probabilities)
        else:
            if probabilities is None:
                raise ValueError(f"{key} is computed from probabilities, and there are none")
            found[key] = PROBABLE[key](references, probabilities.astype(np.float64))
    return {key: found[key] for key in keys if key in found}


def softmax(logits: np.ndarray) -> np.ndarray:
    """Probabilities of classes from logits or log-likelihoods, shape (rows, classes), in fp64."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    exponentials = np.exp(shifted)
    probabilities: np.ndarray = exponentials / exponentials.sum(axis=1, keepdims=True)
    return probabilities


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Probabilities of labels, each by itself, from logits, shape (rows, labels), in fp64."""
    probabilities: np.ndarray = 0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))
    return probabilities


def mean_likelihood(by_row: np.ndarray, tokens: np.ndarray) -> float:
    """Log-likelihood a token over all rows.

    Args:
        by_row: log-likelihood a token of each row, shape (rows,).
        tokens: predicted tokens of each row, shape (rows,).
    """
    return float(np.average(by_row.astype(np.float64), weights=tokens))


def of_text(by_row: np.ndarray, tokens: np.ndarray) -> dict[str, float]:
    """Every metric of text that is read on; arguments as of `mean_likelihood`."""
    likelihood = mean_likelihood(by_row, tokens)
    return {"log_likelihood": likelihood, "perplexity": float(np.exp(-likelihood))}


def of_answers(
    by_answer: Mapping[str, np.ndarray], by_row: np.ndarray, tokens: np.ndarray
) -> dict[str, float]:
    """Every metric of answers.

    Args:
        by_answer: what `answers` says of the written ones.
        by_row: log-likelihood a token of each right answer, shape (rows,).
        tokens: tokens of each right answer, shape (rows,).
    """
    found = {name: float(np.mean(values)) for name, values in by_answer.items()}
    return found | {"completion_perplexity": float(np.exp(-mean_likelihood(by_row, tokens)))}


def with_own(
    keys: Sequence[str], found: Mapping[str, float], references: np.ndarray, predictions: np.ndarray
) -> dict[str, float]:
    """The metrics of `keys`, those of one's own called on what is written or read.

    Args:
        found: the metrics of the catalogue.
        references: right answers; of text the number of predicted tokens of each row.
        predictions: written answers; of text each row's log-likelihood a token.
    """
    return {
        key: found[key] if key in found else own_metric.value_of(key, references, predictions)
        for key in keys
    }


def answers(
    found: Sequence[str], wanted: Sequence[str], pattern: str = ""
) -> dict[str, np.ndarray]:
    """What each written answer contributes to exact match and to ROUGE-L.

    Exact match looks past case, spaces and a full stop at the end; with a pattern, at what its
    first group finds last, commas left out, and an answer without it is wrong. ROUGE-L is the F
    measure of the longest common subsequence of words (Lin 2004), without stemming.
    """
    from rouge_score.rouge_scorer import RougeScorer

    scorer: Any = RougeScorer(["rougeL"])
    pairs = list(zip(found, wanted, strict=True))
    exact = [_same(what_counts(one, pattern), what_counts(other, pattern)) for one, other in pairs]
    rouge = [scorer.score(other, one)["rougeL"].fmeasure for one, other in pairs]
    return {"exact_match": np.array(exact, dtype=np.float64), "rouge_l": np.array(rouge)}


def what_counts(text: str, pattern: str) -> str | None:
    """What counts of an answer; None if there is nothing of it."""
    if pattern:
        every = re.findall(pattern, text)
        return str(every[-1]).replace(",", "") if every else None
    return " ".join(text.casefold().split()).removesuffix(".")


def _same(one: str | None, other: str | None) -> bool:
    return one is not None and one == other


def baseline(key: str, train: np.ndarray, references: np.ndarray, classes: int) -> float:
    """The metric of the best constant guess from the training labels.

    Of classes the commonest, and where probabilities are read the share of each; of several labels
    those that more than half of the rows have, and the share of each; of scores the mean, for the
    mean absolute error the median. A constant tells no two rows apart, so its AUROC is 0.5.

    Args:
        train: shape (rows,), or (rows, classes) of 0 and 1 for several labels.
        references: the same of the rows that are scored.
        classes: number of classes; 0 for scores.

    Raises:
        Unsupported: the metric doesn't exist for the references.
        UserError: as of `score`.
    """
    check_exists(key, references)
    if key == "auroc":
        return 0.5
    rows = len(references)
    if train.ndim == 2:
        shares = train.mean(axis=0)
        guess = np.tile((shares > 0.5).astype(np.float64), (rows, 1))
        return score((key,), guess, references, np.tile(shares, (rows, 1)))[key]
    if not classes:
        constant = np.median(train) if key == "mae" else train.mean()
        return score((key,), np.full(rows, float(constant)), references)[key]
    counts = np.bincount(train.astype(int), minlength=classes)
    guess = np.full(rows, float(counts.argmax()))
    return score((key,), guess, references, np.tile(counts / len(train), (rows, 1)))[key]

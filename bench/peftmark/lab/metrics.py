"""Quality metrics as `evaluate` modules that need no download; scikit-learn and scipy compute."""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from typing import Any

import evaluate
import numpy as np
from datasets import Features, Value
from scipy import stats
from sklearn import metrics as sk


class GlueMetrics(evaluate.Metric):  # type: ignore[misc]
    """GLUE's own metrics: accuracy, F1, Matthews correlation, Pearson and Spearman correlation.

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
        return {key: _one(key, found, wanted) for key in str(self.config_name).split(",")}


def _one(key: str, found: np.ndarray, wanted: np.ndarray) -> float:
    if key == "accuracy":
        return float(sk.accuracy_score(wanted, found))
    if key == "f1":
        return float(sk.f1_score(wanted, found, zero_division=0.0))
    if key == "matthews_correlation":
        return float(sk.matthews_corrcoef(wanted, found))
    if key in ("pearson", "spearmanr"):
        if np.ptp(found) == 0 or np.ptp(wanted) == 0:
            return 0.0
        correlation: Any = stats.pearsonr if key == "pearson" else stats.spearmanr
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.NearConstantInputWarning)
            return float(correlation(found, wanted).statistic)
    raise ValueError(f"unknown metric {key!r}")


def score(
    keys: tuple[str, ...], predictions: np.ndarray, references: np.ndarray
) -> dict[str, float]:
    """Every metric of `keys` on the same predictions.

    Args:
        keys: metric keys of `peftmark.catalog.metrics.METRICS`.
        predictions: shape (rows,), class numbers or scores.
        references: shape (rows,), class numbers or scores.
    """
    metric = GlueMetrics(config_name=",".join(keys), keep_in_memory=True)
    result = metric.compute(predictions=predictions.tolist(), references=references.tolist())
    return {key: float(result[key]) for key in keys}


def mean_likelihood(by_row: np.ndarray, tokens: np.ndarray) -> float:
    """Log-likelihood a token over all rows.

    Args:
        by_row: log-likelihood a token of each row, shape (rows,).
        tokens: predicted tokens of each row, shape (rows,).
    """
    return float(np.average(by_row.astype(np.float64), weights=tokens))


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
    """The metric of the best constant predictor of the training labels.

    The majority class for classification, the mean for regression.
    """
    constant = float(np.bincount(train.astype(int)).argmax()) if classes else float(train.mean())
    return score((key,), np.full(len(references), constant), references)[key]

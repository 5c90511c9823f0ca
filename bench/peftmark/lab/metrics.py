"""Quality metrics as `evaluate` modules that need no download; scikit-learn and scipy compute."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
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


PREDICTED: Mapping[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "accuracy": sk.accuracy_score,
    "f1": partial(sk.f1_score, zero_division=0.0),
    "matthews_correlation": sk.matthews_corrcoef,
    "pearson": partial(_correlation, stats.pearsonr),
    "spearmanr": partial(_correlation, stats.spearmanr),
}
"""Metric of classes or scores -> its value for the references and the predictions."""


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

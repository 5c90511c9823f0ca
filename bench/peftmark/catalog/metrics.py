"""Quality metrics as plain data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Direction = Literal["higher", "lower"]


@dataclass(frozen=True)
class Metric:
    """A quality metric.

    Attributes:
        key: name in suites and results (the name `evaluate` and scikit-learn use).
        title: name in reports.
        direction: which way is better.
        low: smallest possible value; infinite where there is none.
        high: largest possible value; infinite where there is none.
        summary: one line for `peftmark list`.
    """

    key: str
    title: str
    direction: Direction
    low: float
    high: float
    summary: str


METRICS: dict[str, Metric] = {
    m.key: m
    for m in (
        Metric("accuracy", "accuracy", "higher", 0.0, 1.0, "share of rows classified correctly"),
        Metric("f1", "F1", "higher", 0.0, 1.0, "harmonic mean of precision and recall, class 1"),
        Metric(
            "matthews_correlation",
            "MCC",
            "higher",
            -1.0,
            1.0,
            "Matthews correlation; 0 for a constant prediction",
        ),
        Metric("pearson", "Pearson r", "higher", -1.0, 1.0, "linear correlation with the scores"),
        Metric("spearmanr", "Spearman ρ", "higher", -1.0, 1.0, "rank correlation with the scores"),
        Metric("exact_match", "exact match", "higher", 0.0, 1.0, "share of answers that are right"),
        Metric(
            "rouge_l",
            "ROUGE-L",
            "higher",
            0.0,
            1.0,
            "longest common subsequence with the answer, F",
        ),
        Metric(
            "log_likelihood",
            "log-likelihood",
            "higher",
            -math.inf,
            0.0,
            "of a token given those before it, in nats: minus the logarithm of perplexity",
        ),
        Metric("perplexity", "perplexity", "lower", 1.0, math.inf, "of a text's tokens"),
        Metric(
            "completion_perplexity",
            "completion perplexity",
            "lower",
            1.0,
            math.inf,
            "of the right answer's tokens given the prompt",
        ),
    )
}

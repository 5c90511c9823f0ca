"""Quality metrics as plain data."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from peftmark.catalog.task import Task, TaskKind

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
        kinds: kinds of task that it scores (a classification may also be read as a ranking).
        classes: classes that a task has to have; None for any number.
        beside: whether it only stands beside another metric, never first.
    """

    key: str
    title: str
    direction: Direction
    low: float
    high: float
    summary: str
    kinds: tuple[TaskKind, ...]
    classes: int | None = None
    beside: bool = False


_CLASSES: tuple[TaskKind, ...] = ("classification",)
_SCORES: tuple[TaskKind, ...] = ("regression",)
_ANSWERS: tuple[TaskKind, ...] = ("instruction",)
_TEXT: tuple[TaskKind, ...] = ("language",)

METRICS: dict[str, Metric] = {
    m.key: m
    for m in (
        Metric(
            "accuracy",
            "accuracy",
            "higher",
            0.0,
            1.0,
            "share of rows classified correctly",
            _CLASSES,
        ),
        Metric(
            "f1",
            "F1",
            "higher",
            0.0,
            1.0,
            "harmonic mean of precision and recall, class 1",
            _CLASSES,
            classes=2,
        ),
        Metric(
            "matthews_correlation",
            "MCC",
            "higher",
            -1.0,
            1.0,
            "Matthews correlation; 0 for a constant prediction",
            _CLASSES,
        ),
        Metric(
            "pearson",
            "Pearson r",
            "higher",
            -1.0,
            1.0,
            "linear correlation with the scores",
            _SCORES,
        ),
        Metric(
            "spearmanr",
            "Spearman ρ",
            "higher",
            -1.0,
            1.0,
            "rank correlation with the scores",
            _SCORES,
        ),
        Metric(
            "exact_match",
            "exact match",
            "higher",
            0.0,
            1.0,
            "share of answers that are right",
            _ANSWERS,
        ),
        Metric(
            "rouge_l",
            "ROUGE-L",
            "higher",
            0.0,
            1.0,
            "longest common subsequence with the answer, F",
            _ANSWERS,
        ),
        Metric(
            "log_likelihood",
            "log-likelihood",
            "higher",
            -math.inf,
            0.0,
            "of a token given those before it, in nats: minus the logarithm of perplexity",
            _TEXT,
        ),
        Metric(
            "perplexity",
            "perplexity",
            "lower",
            1.0,
            math.inf,
            "of a text's tokens",
            _TEXT,
            beside=True,
        ),
        Metric(
            "completion_perplexity",
            "completion perplexity",
            "lower",
            1.0,
            math.inf,
            "of the right answer's tokens given the prompt",
            _ANSWERS,
            beside=True,
        ),
    )
}


def metric_faults(task: Task) -> Iterator[str]:
    """What is wrong with the metrics of a task; nothing if each can be computed on it."""
    for key in (task.metric, *task.also):
        metric = METRICS.get(key)
        if metric is None:
            yield f"unknown metric {key!r}; there are {', '.join(METRICS)}"
            continue
        if task.kind not in metric.kinds:
            fit = ", ".join(m.key for m in METRICS.values() if task.kind in m.kinds)
            yield f"metric {key} does not score a task of kind {task.kind}; those that do: {fit}"
        if metric.classes not in (None, len(task.labels)):
            yield f"metric {key} is for {metric.classes} classes, the task has {len(task.labels)}"
        if metric.beside and key == task.metric:
            yield f"metric {key} only stands beside another; name it in also"

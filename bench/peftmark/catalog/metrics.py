"""Quality metrics as plain data: those of the catalogue, and functions of one's own by name."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Literal, get_args

from peftmark.catalog import absent
from peftmark.catalog.task import Task, TaskKind
from peftmark.core.amounts import places

Direction = Literal["higher", "lower"]
Unit = Literal["", "nats", "perplexity", "of the labels", "of its own"]

OWN = re.compile(
    r"(?P<module>[^\W\d]\w*(?:\.[^\W\d]\w*)*):(?P<function>[^\W\d]\w*)(?P<lower>:lower)?"
)
"""Name of a metric of one's own."""
OWN_FORM = "package.module:function, or package.module:function:lower where lower is better"


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
        probabilities: whether it reads probabilities, and not only what is predicted.
        unit: what its values are in; empty for shares and correlations, of which 0.01 is a point.
        code: `module:function` of a plug-in's; empty for peftmark's own (`peftmark.lab.metrics`).
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
    probabilities: bool = False
    unit: Unit = ""
    code: str = ""

    @property
    def best(self) -> float:
        """The best possible value; infinite where there is none."""
        return self.high if self.direction == "higher" else self.low

    @property
    def sign(self) -> float:
        """1 if more is better, else −1."""
        return 1.0 if self.direction == "higher" else -1.0

    @property
    def own(self) -> bool:
        """Whether it is a function of the user's."""
        return self.unit == "of its own"


_CLASSES: tuple[TaskKind, ...] = ("classification",)
_CHOSEN: tuple[TaskKind, ...] = ("classification", "multiple-choice")
_LABELS: tuple[TaskKind, ...] = ("multi-label",)
_EITHER: tuple[TaskKind, ...] = ("classification", "multi-label")
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
            _CHOSEN,
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
            "macro_f1",
            "macro F1",
            "higher",
            0.0,
            1.0,
            "mean over classes of F1, each class with the same weight",
            _EITHER,
        ),
        Metric(
            "weighted_f1",
            "weighted F1",
            "higher",
            0.0,
            1.0,
            "mean over classes of F1, weighted by their rows",
            _CLASSES,
        ),
        Metric(
            "micro_f1",
            "micro F1",
            "higher",
            0.0,
            1.0,
            "F1 of all labels of all rows taken together",
            _LABELS,
        ),
        Metric(
            "subset_accuracy",
            "subset accuracy",
            "higher",
            0.0,
            1.0,
            "share of rows whose labels are all right",
            _LABELS,
        ),
        Metric(
            "balanced_accuracy",
            "balanced accuracy",
            "higher",
            0.0,
            1.0,
            "mean over classes of the share of their rows that is found",
            _CLASSES,
        ),
        Metric(
            "auroc",
            "AUROC",
            "higher",
            0.0,
            1.0,
            "area under the ROC curve; of several classes the mean, each against the rest",
            _EITHER,
            probabilities=True,
        ),
        Metric(
            "log_loss",
            "log loss",
            "lower",
            0.0,
            math.inf,
            "minus the mean logarithm of the right class's probability, in nats",
            _CLASSES,
            probabilities=True,
            unit="nats",
        ),
        Metric(
            "calibration_error",
            "calibration error",
            "lower",
            0.0,
            1.0,
            "expected gap of probability and accuracy, 15 bins",
            _CLASSES,
            beside=True,
            probabilities=True,
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
            "rmse",
            "RMSE",
            "lower",
            0.0,
            math.inf,
            "root of the mean squared error, in the unit of the scores",
            _SCORES,
            unit="of the labels",
        ),
        Metric(
            "mae",
            "MAE",
            "lower",
            0.0,
            math.inf,
            "mean absolute error, in the unit of the scores",
            _SCORES,
            unit="of the labels",
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
            unit="nats",
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
            unit="perplexity",
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
            unit="perplexity",
        ),
    )
}


def metric_of(key: str) -> Metric | None:
    """A metric of the catalogue, one of a plug-in as stored rows have it, or the one of one's own
    that a key names; None for neither.

    A function of one's own is named `package.module:function`, with `:lower` behind it where lower
    is better. Nothing is known of its range. Nothing is imported here.
    """
    return METRICS.get(key) or absent.seen("metric", key) or _own(key)


def is_users(key: str) -> bool:
    """Whether a metric's code is no part of peftmark: one of one's own, or a plug-in's."""
    known = metric_of(key)
    return known is not None and (known.own or bool(known.code))


@cache
def _own(key: str) -> Metric | None:
    named = OWN.fullmatch(key)
    if named is None:
        return None
    direction: Direction = "lower" if named["lower"] else "higher"
    kinds: tuple[TaskKind, ...] = get_args(TaskKind)
    summary = f"a function of your own, {named['module']}.{named['function']}"
    limits = (-math.inf, math.inf)
    return Metric(key, named["function"], direction, *limits, summary, kinds, unit="of its own")


def metric_title(key: str) -> str:
    """A metric's name in reports; the key itself of one that nobody knows."""
    known = metric_of(key)
    return known.title if known is not None else key


def decimals(key: str, value: float) -> int:
    """Digits after the point that a metric's value, or a difference of two, is shown with: three of
    one with a lowest and a highest value, else as many as its size supports.

    Args:
        key: empty for what is on the scale of no one metric.
    """
    known = metric_of(key)
    if known is None or (math.isfinite(known.low) and math.isfinite(known.high)):
        return 3
    return places(value)


def sign_of(key: str) -> float:
    """1 for a metric of which more is better, −1 for the others; unknown ones are taken as 1."""
    known = metric_of(key)
    return known.sign if known is not None else 1.0


def metric_faults(task: Task) -> Iterator[str]:
    """What is wrong with the metrics of a task; nothing if each can be computed on it."""
    for key in (task.metric, *task.also):
        metric = metric_of(key)
        if metric is None:
            known = f"{', '.join(METRICS)}, and functions of your own, {OWN_FORM}"
            yield f"unknown metric {key!r}; there are {known}"
            continue
        if task.kind not in metric.kinds:
            fit = ", ".join(m.key for m in METRICS.values() if task.kind in m.kinds)
            yield f"metric {key} does not score a task of kind {task.kind}; those that do: {fit}"
        if metric.classes not in (None, len(task.labels)):
            yield f"metric {key} is for {metric.classes} classes, the task has {len(task.labels)}"
        if metric.beside and key == task.metric:
            yield f"metric {key} only stands beside another; name it in also"

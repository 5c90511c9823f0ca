"""What a model says of held-out rows, and how good that is."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from peftmark.catalog.task import Task
from peftmark.lab import metrics
from peftmark.lab.data.batches import Batch
from peftmark.lab.data.causal_rows import (
    ABSENT,
    Answers,
    choice_likelihoods,
    row_likelihoods,
    write,
)
from peftmark.lab.data.held_out import HeldOut
from peftmark.lab.number_types import autocast
from peftmark.lab.step import Diverged
from peftmark.record.job import Job

CONSTANT = 1e-3
"""Standard deviation of standardised scores below which a regressor predicts a constant."""


@dataclass(frozen=True)
class Written:
    """Answers that a model wrote.

    Attributes:
        texts: in the order of the rows.
        tokens: tokens written, those of the end of text among them.
        seconds: wall seconds it took.
    """

    texts: tuple[str, ...] = ()
    tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Scores:
    """Metrics on a held-out set.

    Attributes:
        metrics: metric key -> value.
        constant: whether all predictions are the same (for scores: all but the same).
        predictions: shape (rows,): class numbers or scores; of several labels (rows, classes) of 0
            and 1; where text is written or read, what each row contributes to the primary metric,
            of which a metric of one's own says nothing.
        written: the answers, where there are some.
    """

    metrics: dict[str, float]
    constant: bool
    predictions: np.ndarray
    written: Written = Written()


class Standardised(Protocol):
    """What regression scores were standardised with; `Work` and `Kept` are such."""

    @property
    def mean(self) -> float:
        """Of the training rows' scores; 0 for other tasks."""

    @property
    def scale(self) -> float:
        """Their standard deviation; 1 for other tasks."""


def outputs_of(model: nn.Module, batch: Batch, job: Job, device: torch.device) -> torch.Tensor:
    """What a model says of each row of a batch, in fp32.

    Shape (rows, classes or 1): logits, or log-likelihoods a token of each class's words, of each of
    a row's choices or of the row's own predicted tokens.
    """
    with autocast(job, device):
        if batch.asked:
            with _as_written(job):
                return choice_likelihoods(model, batch)
        if batch.text:
            return row_likelihoods(model, batch)[:, None]
        logits: torch.Tensor = model(**batch.inputs).logits
    return logits.float()


def _as_written(job: Job) -> AbstractContextManager[Any]:
    """Compiled layers run as written inside: where a model goes on from keys and values, whose
    length grows by a token a pass."""
    # Not asked for where nothing is compiled: it loads the compiler.
    stance: Any = torch.compiler.set_stance
    return stance("force_eager") if job.recipe.compile else nullcontext()


def all_outputs(
    model: nn.Module, batches: Sequence[Batch], job: Job, device: torch.device
) -> torch.Tensor:
    """`outputs_of` every batch in evaluation mode, on the CPU."""
    training = model.training
    model.eval()
    with torch.inference_mode():
        parts = [outputs_of(model, batch.to(device), job, device).cpu() for batch in batches]
    model.train(training)
    # Rows of one batch may have more choices than those of another.
    width = max(part.shape[1] for part in parts)
    return torch.cat(
        [nn.functional.pad(part, (0, width - part.shape[1]), value=ABSENT) for part in parts]
    )


def evaluate(
    model: nn.Module, held: HeldOut, work: Standardised, task: Task, job: Job, device: torch.device
) -> Scores:
    """Score the model on held-out rows.

    Raises:
        Diverged: outputs that are not finite.
    """
    outputs = all_outputs(model, held.batches, job, device).numpy()
    probabilities = None
    if not np.isfinite(outputs).all():
        raise Diverged("the outputs on the held-out rows are not finite")
    keys = (task.metric, *task.also)
    if task.kind == "language":
        found = metrics.of_text(outputs[:, 0], held.references)
        # No text is the same to a model at every token.
        scores = metrics.with_own(keys, found, held.references, outputs[:, 0])
        return Scores(scores, False, outputs[:, 0])
    if held.answers is not None:
        return _written(model, outputs[:, 0], held, keys, job, device)
    if task.kind == "regression":
        predictions = outputs[:, 0] * work.scale + work.mean
        constant = bool(outputs[:, 0].std() < CONSTANT)
    elif task.kind == "multi-label":
        probabilities = metrics.sigmoid(outputs)
        predictions = (outputs >= 0).astype(np.int64)  # where the sigmoid is 0.5
        constant = bool((predictions == predictions[:1]).all())
    else:
        probabilities = metrics.softmax(outputs)
        predictions = outputs.argmax(axis=1)
        constant = len(np.unique(predictions)) == 1
    predicted = predictions.astype(np.float64)
    scores = metrics.score(keys, predicted, held.references, probabilities)
    return Scores(scores, constant, predictions)


def _written(
    model: nn.Module,
    likelihoods: np.ndarray,
    held: HeldOut,
    keys: tuple[str, ...],
    job: Job,
    device: torch.device,
) -> Scores:
    asked = held.answers
    assert asked is not None
    written = write_answers(model, asked, job, device)
    by_row = metrics.answers(written.texts, asked.wanted, asked.pattern)
    found = metrics.of_answers(by_row, likelihoods, held.tokens)
    texts = (np.array(one, dtype=object) for one in (asked.wanted, written.texts))
    return Scores(
        metrics.with_own(keys, found, *texts),
        len(set(written.texts)) == 1,
        by_row.get(keys[0], np.zeros(0)),
        written,
    )


def write_answers(model: nn.Module, asked: Answers, job: Job, device: torch.device) -> Written:
    """Have the model write every answer."""
    training = model.training
    model.eval()
    tokens: list[list[int]] = []
    start = time.perf_counter()
    with (
        torch.inference_mode(),
        autocast(job, device),
        _as_written(job),
    ):
        for batch in asked.batches:
            tokens += write(model, batch.to(device), asked.reader, asked.new_tokens)
    seconds = time.perf_counter() - start  # the tokens are on the CPU: nothing is pending
    model.train(training)
    return Written(asked.reader.texts(tokens), sum(map(len, tokens)), seconds)

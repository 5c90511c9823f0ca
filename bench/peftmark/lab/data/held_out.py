"""Rows that are scored and never trained on, as batches with their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from peftmark.catalog.task import SPOKEN, Example, Task
from peftmark.lab.data.batches import Batch, Encoder, evaluation_batches, subset
from peftmark.lab.data.causal_rows import Answers, Reader, predicted_tokens, right_answer
from peftmark.record.fields_batch_latency import BATCH_LATENCY
from peftmark.record.job import Job

LATENCY_BATCHES = 8
LATENCY_ROWS = 8
LATENCY_SPOKEN = (2, 4)
"""Batches and their rows for a causal language model, which takes many times longer for a row."""
BY_ROWS_FROM = 64
"""Rows that the batches of latency by rows are cut from."""
BY_ROWS_BATCHES, BY_ROWS_SPOKEN = 3, 1
"""How many batches of a size there are, and for a causal language model."""


@dataclass(frozen=True)
class HeldOut:
    """Rows that are scored and never trained on.

    Attributes:
        batches: padded batches, in order of length.
        references: labels in that order, shape (rows,), of several labels (rows, classes) ones and
            zeros; where text is written ones, where it is read the tokens of each row that are
            predicted.
        answers: prompts whose answers are written, in that order; None for other tasks.
        examples: of labelled rows, the rows themselves in that order.
    """

    batches: list[Batch]
    references: np.ndarray
    answers: Answers | None = None
    examples: Sequence[Example] = ()

    @property
    def alike(self) -> bool:
        """Whether every row has the same label, or wants the same answer."""
        if self.answers is not None:
            return len(set(self.answers.wanted)) == 1
        return bool((self.references == self.references[:1]).all())

    @property
    def tokens(self) -> np.ndarray:
        """Tokens of each row that are predicted, shape (rows,), where text is."""
        return np.concatenate([predicted_tokens(batch) for batch in self.batches])


def label_of(row: Example, task: Task) -> Any:
    """A row's label; of several labels a one for each class it has, and zeros."""
    if task.kind != "multi-label":
        return row.label
    return [float(at in row.tags) for at in range(len(task.labels))]


def labels_of(rows: Sequence[Example], task: Task) -> np.ndarray:
    """Labels of rows, shape (rows,), or (rows, classes) ones and zeros."""
    return np.array([label_of(row, task) for row in rows], dtype=np.float64)


def held_out(
    encoder: Encoder | Reader, rows: Sequence[Example], size: int, task: Task, job: Job
) -> HeldOut:
    """Rows as a held-out set in batches of a size, as the job's model reads the task."""
    if isinstance(encoder, Encoder):
        batches, ordered = evaluation_batches(
            encoder.encode, encoder.batch, rows, size, lambda row: label_of(row, task)
        )
    elif task.kind in ("ranking", "multiple-choice"):
        batches, ordered = evaluation_batches(encoder.prompts, encoder.asking, rows, size)
    else:
        batches, ordered = evaluation_batches(encoder.encode, encoder.batch, rows, size)
        if task.kind == "language":
            held = HeldOut(batches, np.zeros(0))
            return replace(held, references=held.tokens.astype(np.float64))
        return HeldOut(batches, np.ones(len(rows)), _answers(encoder, ordered, size, task, job))
    return HeldOut(batches, labels_of(ordered, task), examples=ordered)


def _answers(reader: Reader, rows: Sequence[Example], size: int, task: Task, job: Job) -> Answers:
    asked = reader.prompts(rows)
    parts = [asked[i : i + size] for i in range(0, len(asked), size)]
    assert job.causal is not None and job.causal.new_tokens is not None
    return Answers(
        [reader.asking(part) for part in parts],
        tuple(map(right_answer, rows)),
        reader,
        job.causal.new_tokens,
        task.answer,
    )


def latency_set(
    encoder: Encoder | Reader, rows: Sequence[Example], task: Task, job: Job
) -> tuple[list[Batch], list[Sequence[Example]]]:
    """Batches of every length there is, the same for every cell of a task, and the labelled rows of
    each."""
    spoken = task.kind in SPOKEN
    most, size = LATENCY_SPOKEN if spoken else (LATENCY_BATCHES, LATENCY_ROWS)
    held = held_out(encoder, rows, size, task, job)
    batches = held.batches
    full = [i for i, batch in enumerate(batches) if len(batch.labels) == size]
    full = full or list(range(len(batches)))
    places = np.linspace(0, len(full) - 1, min(most, len(full))).round().astype(int)
    picks = [full[i] for i in places]
    parts = [held.examples[size * i : size * (i + 1)] for i in picks] if held.examples else []
    return [batches[i] for i in picks], parts


def latency_by_rows(
    encoder: Encoder | Reader, rows: Sequence[Example], task: Task, job: Job
) -> dict[int, list[Batch]]:
    """Rows of a batch -> batches of so many, as `BATCH_LATENCY` has them.

    The smaller ones are the first rows of the larger, which are spread over the lengths that there
    are (of one, its middle). Sizes that there are too few rows for are absent.
    """
    most = BY_ROWS_SPOKEN if task.kind in SPOKEN else BY_ROWS_BATCHES
    sizes = [size for size in BATCH_LATENCY if size <= len(rows)]
    held = held_out(encoder, subset(rows, BY_ROWS_FROM), max(sizes), task, job).batches
    full = [batch for batch in held if len(batch.labels) == max(sizes)]
    ends = np.linspace(0, len(full) - 1, most + 2)[1:-1].round().astype(int)
    picks = [full[i] for i in dict.fromkeys(ends)]
    return {size: [batch.parts(size)[0] for batch in picks] for size in sizes}

"""The rows of one job as batches: training batches in drawn order, held-out sets, their labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.data import Row, TaskData, overlap
from bench.lab import metrics
from bench.lab.batches import (
    Batch,
    Encoder,
    draw_rows,
    evaluation_batches,
    group_by_length,
    subset,
)
from bench.lab.seeds import generator
from bench.record import Job
from bench.tasks import Task


@dataclass(frozen=True)
class HeldOut:
    """Rows that are scored and never trained on.

    Attributes:
        batches: padded batches, in order of length.
        references: labels in that order, shape (rows,).
    """

    batches: list[Batch]
    references: np.ndarray


@dataclass(frozen=True)
class Work:
    """Batches and labels of one job.

    Attributes:
        order: row numbers of every training batch.
        train: the padded training batch of a step, from 0; made when asked for.
        preview: the first n batches that a method may look at before it is built: training rows
            in a drawn order of their own.
        longest: tokens of the longest row of each training batch.
        train_rows: rows the batches were drawn from.
        eval: the rows that report; in a tuning trial the selection rows, so that tuning never
            sees the evaluation split.
        selection: the rows that pick the best step; None if the recipe cuts none.
        selection_rows: rows cut from the training split.
        latency: the fixed batches that inference is timed on.
        mean, scale: standardisation of regression scores, from the training rows used.
        baseline: primary metric of the best constant predictor on `eval`.
        padding_share: share of the training tokens that are padding.
        overlap_rows: evaluation rows whose texts also stand in the training split.
    """

    order: list[list[int]]
    train: Callable[[int], Batch]
    preview: Callable[[int], list[Batch]]
    longest: list[int]
    train_rows: int
    eval: HeldOut
    selection: HeldOut | None
    selection_rows: int
    latency: list[Batch]
    mean: float
    scale: float
    baseline: float
    padding_share: float
    overlap_rows: int


LATENCY_BATCHES = 8
LATENCY_ROWS = 8


def prepare_work(
    job: Job, task: Task, data: TaskData, tokenizer: Any, folder: Path, cache: Path | None = None
) -> Work:
    """Cut, draw, tokenise and batch the rows of a job.

    Args:
        folder: files of the tokenizer.
        cache: where token lists are kept; None to tokenise anew.
    """
    recipe = job.recipe
    rest, cut = cut_selection(data.train, recipe.selection_rows)
    rows = subset(rest, recipe.train_rows)
    labels = np.array([row.label for row in rows], dtype=np.float64)
    # Regression scores are standardised: on raw 0-5 scores most of the first steps go into
    # finding the mean. Correlations don't depend on it.
    regression = task.kind == "regression"
    mean, scale = (float(labels.mean()), float(labels.std())) if regression else (0.0, 1.0)
    encoder = Encoder(tokenizer, recipe.max_length, torch.float32 if regression else torch.int64)
    if cache is not None:
        encoder.remember(data, folder, cache)

    # Two generators, so that a longer run begins with the batches of a shorter one.
    drawn = draw_rows(len(rows), recipe.steps * recipe.batch_size, generator(job.seed, "order"))
    used = sorted({int(i) for i in drawn})
    encoded = dict(zip(used, encoder.encode([rows[i] for i in used]), strict=True))
    lengths = {i: len(item["input_ids"]) for i, item in encoded.items()}
    order = group_by_length(
        drawn, lengths, recipe.batch_size, recipe.window_batches, generator(job.seed, "windows")
    )
    longest = [max(lengths[i] for i in batch) for batch in order]
    padded = sum(len(batch) * length for batch, length in zip(order, longest, strict=True))
    real = sum(lengths[i] for batch in order for i in batch)

    def targets(numbers: Sequence[int]) -> list[float]:
        values = [(float(labels[i]) - mean) / scale for i in numbers]
        return values if regression else [int(v) for v in values]

    def batch(step: int) -> Batch:
        numbers = order[step]
        return encoder.batch([encoded[i] for i in numbers], targets(numbers))

    def preview(count: int) -> list[Batch]:
        size = recipe.batch_size
        numbers = draw_rows(len(rows), count * size, generator(job.seed, "preview")).tolist()
        parts = [numbers[i : i + size] for i in range(0, len(numbers), size)]
        return [encoder.batch(encoder.encode([rows[i] for i in p]), targets(p)) for p in parts]

    def hold_out(held: Sequence[Row]) -> HeldOut:
        batches, ordered = evaluation_batches(encoder, held, recipe.eval_batch_size)
        return HeldOut(batches, np.array([row.label for row in ordered], dtype=np.float64))

    trial = job.purpose == "tuning"
    held = cut if trial else subset(data.eval, recipe.eval_rows)
    evaluated = hold_out(held)
    return Work(
        order=order,
        train=batch,
        preview=preview,
        longest=longest,
        train_rows=len(rows),
        eval=evaluated,
        selection=hold_out(cut) if cut and not trial else None,
        selection_rows=len(cut),
        latency=_latency_set(encoder, held),
        mean=mean,
        scale=scale,
        baseline=metrics.baseline(task.metric, labels, evaluated.references, len(task.labels)),
        padding_share=1 - real / padded,
        overlap_rows=overlap(data),
    )


def cut_selection(rows: Sequence[Row], count: int) -> tuple[Sequence[Row], Sequence[Row]]:
    """Cut a selection split from training rows: the same rows for every seed and method.

    Returns:
        (rows left to train on, selection rows). A row whose text equals a selection row's is in
        neither.
    """
    if count == 0:
        return rows, ()
    cut = subset(rows, count)
    texts = {(row.text, row.pair) for row in cut}
    return [row for row in rows if (row.text, row.pair) not in texts], cut


def _latency_set(encoder: Encoder, rows: Sequence[Row]) -> list[Batch]:
    """Batches of every length there is, the same for every cell of a task."""
    batches, _ = evaluation_batches(encoder, rows, LATENCY_ROWS)
    full = [batch for batch in batches if len(batch.labels) == LATENCY_ROWS] or batches
    picks = np.linspace(0, len(full) - 1, min(LATENCY_BATCHES, len(full))).round().astype(int)
    return [full[i] for i in picks]

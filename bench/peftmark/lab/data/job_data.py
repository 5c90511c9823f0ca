"""The rows of one job as batches: training batches in drawn order, held-out sets, their labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peftmark.catalog.prompts import prompt_of
from peftmark.catalog.task import SPOKEN, Example, Task, TaskKind, read_by
from peftmark.lab.data.batches import (
    Batch,
    Encoded,
    Encoder,
    draw_rows,
    group_by_length,
    subset,
)
from peftmark.lab.data.causal_rows import (
    FEWEST_WORDS,
    Reader,
)
from peftmark.lab.data.constant_guess import constant_guess
from peftmark.lab.data.conversations import Conversations
from peftmark.lab.data.held_out import (
    HeldOut,
    held_out,
    labels_of,
    latency_by_rows,
    latency_set,
)
from peftmark.lab.models import Unsupported
from peftmark.lab.rng import generator
from peftmark.record.job import Job
from peftmark.sources.rows import TaskData, overlap


@dataclass(frozen=True)
class Work:
    """Batches and labels of one job.

    Attributes:
        order: row numbers of every training batch.
        train: the padded training batch of a step, from 0; made when asked for.
        preview: the first n batches that a method may look at before it is built: training rows
            in a drawn order of their own.
        longest: tokens that each training batch is padded to: those of its longest row, or of the
            recipe's multiple; where rows are packed those of its longest pass.
        train_rows: rows the batches were drawn from.
        eval: the rows that report; in a tuning trial the selection rows, so that tuning never
            sees the evaluation split.
        selection: the rows that pick the best step; None if the recipe cuts none.
        selection_rows: rows cut from the training split.
        latency: the fixed batches that inference is timed on.
        latency_examples: of labelled rows, those of each of them.
        latency_by_rows: rows of a batch -> batches of so many rows that inference is timed on.
        examples: the rows that may be trained on, those of selection left out.
        hold_out: rows as a held-out set is, for a method that reads them outside of a step.
        mean, scale: standardisation of regression scores, from the training rows used.
        baseline: primary metric of the best constant predictor on `eval`; None where a metric of
            one's own has no value for it, and then `baseline_reason` says why.
        padding_share: share of the training tokens that are padding.
        cut_share: share of the rows in all training batches that are longer than `max_length`.
        class_rows: class -> training rows of it; empty without classes.
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
    latency_examples: list[Sequence[Example]]
    latency_by_rows: dict[int, list[Batch]]
    examples: Sequence[Example]
    hold_out: Callable[[Sequence[Example]], HeldOut]
    mean: float
    scale: float
    baseline: float | None
    padding_share: float
    cut_share: float
    class_rows: dict[str, int]
    overlap_rows: int
    baseline_reason: str = ""


@dataclass(frozen=True)
class _Drawn:
    """The rows of every training batch.

    Attributes:
        order: row numbers of each batch.
        encoded: row number -> its tokens.
        longest: tokens that each batch is padded to, or of its longest packed pass.
        packed: whether rows stand end to end, without padding.
    """

    order: list[list[int]]
    encoded: dict[int, Encoded]
    longest: list[int]
    packed: bool = False

    @property
    def padding_share(self) -> float:
        """Share of the tokens that are padding."""
        if self.packed:
            return 0.0
        widths = zip(self.order, self.longest, strict=True)
        padded = sum(len(batch) * longest for batch, longest in widths)
        real = sum(len(self.encoded[i]["input_ids"]) for batch in self.order for i in batch)
        return 1 - real / padded


@dataclass(frozen=True)
class _Targets:
    """What the loss takes for the labels of the training rows.

    Attributes:
        labels: as the rows have them, shape (rows,), or (rows, classes) ones and zeros.
        mean, scale: standardisation of regression scores; 0 and 1 for other tasks.
        kind: of the task.
    """

    labels: np.ndarray
    mean: float
    scale: float
    kind: TaskKind

    def of(self, numbers: Sequence[int]) -> list[Any]:
        """Targets of the rows with these numbers."""
        if self.kind == "multi-label":
            return [self.labels[i].tolist() for i in numbers]
        values = [(float(self.labels[i]) - self.mean) / self.scale for i in numbers]
        return values if self.kind == "regression" else [int(v) for v in values]


def task_of(job: Job) -> Task:
    """The job's task as its model reads it.

    Raises:
        Unsupported: if it can't.
    """
    task = job.task_facts
    kind = read_by(task, job.model_facts.causal)
    if kind is None:
        raise Unsupported(f"{job.model_facts.read_as}s can't be put to the task {task.key}")
    return replace(task, kind=kind, fingerprint=_known_fingerprint(job))


def _known_fingerprint(job: Job) -> str | None:
    known = job.data_fingerprint
    return known if len(known) == 64 else None


def prepare_work(
    job: Job, task: Task, data: TaskData, tokenizer: Any, folder: Path, cache: Path | None = None
) -> Work:
    """Cut, draw, tokenise and batch the rows of a job.

    Args:
        task: as the job's model reads it.
        folder: files of the tokenizer.
        cache: where token lists are kept; None to tokenise anew.

    Raises:
        Unsupported: no rows to train on or to score, or rows that the tokenizer can't show.
    """
    recipe = job.recipe
    encoder = encoder_of(job, task, tokenizer, any(row.turns for row in data.train))
    data = readable(data, task, encoder)
    rest, cut = cut_selection(data.train, recipe.selection_rows)
    rows = subset(rest, recipe.train_rows)
    trial = job.purpose == "tuning"
    held = cut if trial else subset(data.eval, recipe.eval_rows)
    _check_some(rows, held, data, job)
    targets = _targets(rows, task)
    if cache is not None and isinstance(encoder, Encoder):
        encoder.remember(data, folder, cache)

    drawn = _drawn(rows, encoder, job)

    def batch(step: int) -> Batch:
        numbers = drawn.order[step]
        return _joined(encoder, drawn, numbers, targets.of(numbers))

    def hold_out(held: Sequence[Example]) -> HeldOut:
        return held_out(encoder, held, recipe.eval_batch_size, task, job)

    evaluated = hold_out(held)
    baseline, why = constant_guess(encoder, task, rows, targets.labels, held, evaluated)
    latency, latency_examples = latency_set(encoder, held, task, job)
    return Work(
        order=drawn.order,
        train=batch,
        preview=lambda count: _preview(count, job, rows, encoder, targets),
        longest=drawn.longest,
        train_rows=len(rows),
        eval=evaluated,
        selection=hold_out(cut) if cut and not trial else None,
        selection_rows=len(cut),
        latency=latency,
        latency_examples=latency_examples,
        latency_by_rows={} if trial else latency_by_rows(encoder, held, task, job),
        examples=rows,
        hold_out=hold_out,
        mean=targets.mean,
        scale=targets.scale,
        baseline=baseline,
        padding_share=drawn.padding_share,
        cut_share=_cut_share(rows, drawn, encoder),
        class_rows=_class_rows(targets.labels, task),
        overlap_rows=overlap(data),
        baseline_reason=why,
    )


def _drawn(rows: Sequence[Example], encoder: Encoder | Reader, job: Job) -> _Drawn:
    """Draw and tokenise the rows of every training batch.

    Two generators, so that a longer run begins with the batches of a shorter one.
    """
    recipe = job.recipe
    drawn = draw_rows(len(rows), recipe.steps * recipe.batch_size, generator(job.seed, "order"))
    used = sorted({int(i) for i in drawn})
    encoded = dict(zip(used, encoder.encode([rows[i] for i in used]), strict=True))
    lengths = {i: len(item["input_ids"]) for i, item in encoded.items()}
    order = group_by_length(
        drawn, lengths, recipe.batch_size, recipe.window_batches, generator(job.seed, "windows")
    )
    if recipe.packing:
        size = recipe.device_rows
        passes = [[batch[at : at + size] for at in range(0, len(batch), size)] for batch in order]
        most = [max(sum(lengths[i] for i in one) for one in of) for of in passes]
        return _Drawn(order, encoded, most, packed=True)
    widths = [encoder.length(max(lengths[i] for i in batch)) for batch in order]
    return _Drawn(order, encoded, widths)


def _joined(
    encoder: Encoder | Reader, drawn: _Drawn, numbers: Sequence[int], wanted: Sequence[Any]
) -> Batch:
    """The training batch of the rows with these numbers."""
    rows = [drawn.encoded[i] for i in numbers]
    if drawn.packed and isinstance(encoder, Reader):
        return encoder.packed(rows)
    return encoder.batch(rows, wanted)


def _cut_share(rows: Sequence[Example], drawn: _Drawn, encoder: Encoder | Reader) -> float:
    """Share of the rows of all batches that were longer than there is room for."""
    found = encoder.cut([rows[i] for i in drawn.encoded], list(drawn.encoded.values()))
    cut = {i for i, was in zip(drawn.encoded, found, strict=True) if was}
    taken = [i for batch in drawn.order for i in batch]
    return sum(i in cut for i in taken) / len(taken)


def _class_rows(labels: np.ndarray, task: Task) -> dict[str, int]:
    """Class -> rows of it; of several labels, rows that have it; empty for what has no classes."""
    if task.kind == "multi-label":
        return {str(i): int(count) for i, count in enumerate(labels.sum(axis=0))}
    if task.kind not in ("classification", "ranking"):
        return {}
    classes, counts = np.unique(labels, return_counts=True)
    return {str(int(c)): int(n) for c, n in zip(classes, counts, strict=True)}


def _check_some(rows: Sequence[Example], held: Sequence[Example], data: TaskData, job: Job) -> None:
    """Refuse a job that has nothing to train on or nothing to score."""
    split = f"{job.task} has {len(data.train)} rows to train on and {len(data.eval)} to score"
    taken = f"selection_rows: {job.recipe.selection_rows}"
    if not rows:
        raise Unsupported(
            f"{split}; {taken} leaves none to train on, since copies of a selection row go with it"
        )
    if not held:
        what = f"{taken} cuts none for a tuning trial" if job.purpose == "tuning" else "give more"
        raise Unsupported(f"{split}; {what}")


def _targets(rows: Sequence[Example], task: Task) -> _Targets:
    labels = labels_of(rows, task)
    # Regression scores are standardised: on raw 0-5 scores most of the first steps go into
    # finding the mean. Correlations don't depend on it.
    regression = task.kind == "regression"
    mean, scale = (float(labels.mean()), float(labels.std())) if regression else (0.0, 1.0)
    # Scores that are all the same have no scale.
    return _Targets(labels, mean, scale or 1.0, task.kind)


def _preview(
    count: int, job: Job, rows: Sequence[Example], encoder: Encoder | Reader, targets: _Targets
) -> list[Batch]:
    """The first `count` batches of training rows in a drawn order of their own."""
    size = job.recipe.batch_size
    numbers = draw_rows(len(rows), count * size, generator(job.seed, "preview")).tolist()
    parts = [numbers[i : i + size] for i in range(0, len(numbers), size)]
    return [encoder.batch(encoder.encode([rows[i] for i in p]), targets.of(p)) for p in parts]


def cut_selection(
    rows: Sequence[Example], count: int
) -> tuple[Sequence[Example], Sequence[Example]]:
    """Cut a selection split from training rows: the same rows for every seed and method.

    Returns:
        (rows left to train on, selection rows). A row that reads as a selection row does is in
        neither.
    """
    if count == 0:
        return rows, ()
    cut = subset(rows, count)
    texts = {row.read for row in cut}
    return [row for row in rows if row.read not in texts], cut


def encoder_of(
    job: Job, task: Task, tokenizer: Any, conversations: bool = False
) -> Encoder | Reader:
    """What turns the rows of a task into tokens for the job's model.

    Args:
        conversations: whether the rows are some.

    Raises:
        Unsupported: the tokenizer can't show them.
    """
    recipe = job.recipe
    if task.kind not in SPOKEN:
        kind = torch.float32 if task.kind in ("regression", "multi-label") else torch.int64
        return Encoder(tokenizer, recipe.max_length, kind, recipe.pad_to)
    asked = job.causal
    new_tokens = asked.new_tokens if asked is not None else None
    chat = Conversations(tokenizer) if conversations else None
    prompt = prompt_of(task)
    return Reader(tokenizer, recipe.max_length, prompt, new_tokens, chat, recipe.pad_to)


SURELY = 64
"""Characters from which on a text has two tokens at least, in any script."""


def readable(data: TaskData, task: Task, encoder: Encoder | Reader) -> TaskData:
    """The rows less those of a text that are headings or blank; of one's own text, less those that
    hold nothing to predict: not every script has spaces between its words."""
    if task.kind != "language":
        return data

    def long(rows: Sequence[Example]) -> tuple[Example, ...]:
        if not task.own:
            return tuple(row for row in rows if len(row.text.split()) >= FEWEST_WORDS)
        short = [row for row in rows if len(row.text) < SURELY]
        encoded = zip(short, encoder.encode(short), strict=True)
        empty = {row.text for row, one in encoded if len(one["input_ids"]) < 2}
        return tuple(row for row in rows if row.text not in empty)

    return replace(data, train=long(data.train), eval=long(data.eval))

"""The rows of one job as batches: training batches in drawn order, held-out sets, their labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from peftmark.catalog.metrics import metric_of
from peftmark.catalog.prompts import prompt_of
from peftmark.catalog.task import SPOKEN, Example, Task, TaskKind, read_by
from peftmark.lab import metrics
from peftmark.lab.data.batches import (
    Batch,
    Encoder,
    draw_rows,
    evaluation_batches,
    group_by_length,
    subset,
)
from peftmark.lab.data.causal_rows import (
    FEWEST_WORDS,
    Answers,
    Reader,
    predicted_tokens,
    right_answer,
    unigram_likelihood,
)
from peftmark.lab.data.conversations import Conversations
from peftmark.lab.models import Unsupported
from peftmark.lab.own_metric import NoValue
from peftmark.lab.rng import generator
from peftmark.record.job import Job
from peftmark.sources.rows import TaskData, overlap


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
    def tokens(self) -> np.ndarray:
        """Tokens of each row that are predicted, shape (rows,), where text is."""
        return np.concatenate([predicted_tokens(batch) for batch in self.batches])


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
        latency_examples: of labelled rows, those of each of them.
        examples: the rows that may be trained on, those of selection left out.
        hold_out: rows as a held-out set is, for a method that reads them outside of a step.
        mean, scale: standardisation of regression scores, from the training rows used.
        baseline: primary metric of the best constant predictor on `eval`; None where a metric of
            one's own has no value for it, and then `baseline_reason` says why.
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
    latency_examples: list[Sequence[Example]]
    examples: Sequence[Example]
    hold_out: Callable[[Sequence[Example]], HeldOut]
    mean: float
    scale: float
    baseline: float | None
    padding_share: float
    overlap_rows: int
    baseline_reason: str = ""


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


LATENCY_BATCHES = 8
LATENCY_ROWS = 8
LATENCY_SPOKEN = (2, 4)
"""Batches and their rows for a causal language model, which takes many times longer for a row."""


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
    data = _readable(data, task, encoder)
    rest, cut = cut_selection(data.train, recipe.selection_rows)
    rows = subset(rest, recipe.train_rows)
    trial = job.purpose == "tuning"
    held = cut if trial else subset(data.eval, recipe.eval_rows)
    _check_some(rows, held, data, job)
    targets = _targets(rows, task)
    if cache is not None and isinstance(encoder, Encoder):
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

    def batch(step: int) -> Batch:
        numbers = order[step]
        return encoder.batch([encoded[i] for i in numbers], targets.of(numbers))

    def hold_out(held: Sequence[Example]) -> HeldOut:
        return _held_out(encoder, held, recipe.eval_batch_size, task, job)

    evaluated = hold_out(held)
    baseline, why = _guess(encoder, task, rows, targets.labels, held, evaluated)
    latency, latency_examples = _latency_set(encoder, held, task, job)
    return Work(
        order=order,
        train=batch,
        preview=lambda count: _preview(count, job, rows, encoder, targets),
        longest=longest,
        train_rows=len(rows),
        eval=evaluated,
        selection=hold_out(cut) if cut and not trial else None,
        selection_rows=len(cut),
        latency=latency,
        latency_examples=latency_examples,
        examples=rows,
        hold_out=hold_out,
        mean=targets.mean,
        scale=targets.scale,
        baseline=baseline,
        padding_share=1 - real / padded,
        overlap_rows=overlap(data),
        baseline_reason=why,
    )


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


def label_of(row: Example, task: Task) -> Any:
    """A row's label; of several labels a one for each class it has, and zeros."""
    if task.kind != "multi-label":
        return row.label
    return [float(at in row.tags) for at in range(len(task.labels))]


def _labels(rows: Sequence[Example], task: Task) -> np.ndarray:
    """Labels of rows, shape (rows,), or (rows, classes) ones and zeros."""
    return np.array([label_of(row, task) for row in rows], dtype=np.float64)


def _targets(rows: Sequence[Example], task: Task) -> _Targets:
    labels = _labels(rows, task)
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
        return Encoder(tokenizer, recipe.max_length, kind)
    asked = job.causal
    new_tokens = asked.new_tokens if asked is not None else None
    chat = Conversations(tokenizer) if conversations else None
    return Reader(tokenizer, recipe.max_length, prompt_of(task), new_tokens, chat)


SURELY = 64
"""Characters from which on a text has two tokens at least, in any script."""


def _readable(data: TaskData, task: Task, encoder: Encoder | Reader) -> TaskData:
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


def _held_out(
    encoder: Encoder | Reader, rows: Sequence[Example], size: int, task: Task, job: Job
) -> HeldOut:
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
    return HeldOut(batches, _labels(ordered, task), examples=ordered)


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


def _guess(
    encoder: Encoder | Reader,
    task: Task,
    rows: Sequence[Example],
    labels: np.ndarray,
    evaluated: Sequence[Example],
    held: HeldOut,
) -> tuple[float | None, str]:
    """`_baseline`, or None and why a metric of one's own has no value for it."""
    try:
        return _baseline(encoder, task, rows, labels, evaluated, held), ""
    except NoValue as error:
        return None, f"of the constant guess: {error.what}"


def _baseline(
    encoder: Encoder | Reader,
    task: Task,
    rows: Sequence[Example],
    labels: np.ndarray,
    evaluated: Sequence[Example],
    held: HeldOut,
) -> float:
    """The primary metric of a predictor that looks at no row: the majority class, the mean score,
    the commonest answer, or how often each token stands in the training rows."""
    known = metric_of(task.metric)
    own = known is not None and known.own
    if task.kind == "language":
        if own:
            raise NoValue("a metric of your own has no constant guess at a text")
        assert isinstance(encoder, Reader)
        return unigram_likelihood(
            encoder.encode(rows), encoder.encode(evaluated), encoder.vocabulary
        )
    if held.answers is not None:
        wanted, pattern = held.answers.wanted, held.answers.pattern
        # The first of equally common ones; where a part of an answer counts, by that part.
        texts = [right_answer(row) for row in rows]
        parts = {text: metrics.what_counts(text, pattern) for text in texts}
        common = Counter(parts[text] for text in texts).most_common(1)[0][0]
        answer = next(text for text, part in parts.items() if part == common)
        if own:
            told = (np.array(texts, dtype=object) for texts in (wanted, [answer] * len(wanted)))
            return metrics.with_own((task.metric,), {}, *told)[task.metric]
        by_row = metrics.answers([answer] * len(wanted), wanted, pattern)
        return float(by_row[task.metric].mean())
    # Of choices the place that is right most often.
    classes = max((len(row.choices) for row in rows), default=0) or len(task.labels)
    return metrics.baseline(task.metric, labels, held.references, classes)


def _latency_set(
    encoder: Encoder | Reader, rows: Sequence[Example], task: Task, job: Job
) -> tuple[list[Batch], list[Sequence[Example]]]:
    """Batches of every length there is, the same for every cell of a task, and the labelled rows of
    each."""
    spoken = task.kind in SPOKEN
    most, size = LATENCY_SPOKEN if spoken else (LATENCY_BATCHES, LATENCY_ROWS)
    held = _held_out(encoder, rows, size, task, job)
    batches = held.batches
    full = [i for i, batch in enumerate(batches) if len(batch.labels) == size]
    full = full or list(range(len(batches)))
    places = np.linspace(0, len(full) - 1, min(most, len(full))).round().astype(int)
    picks = [full[i] for i in places]
    parts = [held.examples[size * i : size * (i + 1)] for i in picks] if held.examples else []
    return [batches[i] for i in picks], parts

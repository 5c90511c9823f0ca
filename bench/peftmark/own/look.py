"""What a look at a task's rows shows: counts, classes, lengths and the score of a constant guess.

Numbers alone: no text of a row is in it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from peftmark.catalog.metrics import decimals
from peftmark.catalog.task import Example, Task
from peftmark.core.errors import UserError
from peftmark.core.files import refuse_special
from peftmark.core.shown import plain, plural
from peftmark.own.read import OwnRows
from peftmark.own.warn import class_counts, copies
from peftmark.sources.rows import overlap

MOST_ENCODED = 2_000
"""Rows whose tokens are counted, evenly over all: more take longer than a look may."""
MAX_LENGTH = 128
"""Tokens of a row where nobody says how many; what most shipped suites take."""


@dataclass(frozen=True)
class Lengths:
    """Lengths of rows, the texts of a row together.

    Attributes:
        unit: words or tokens.
        rows: how many rows were counted.
        low: the shortest; then the median, the 95th percentile and the longest.
        max_length: the most tokens that a row may have; None where nothing is cut.
        cut: share of the rows that are longer.
    """

    unit: str
    rows: int
    low: int
    median: int
    p95: int
    high: int
    max_length: int | None = None
    cut: float = 0.0


@dataclass(frozen=True)
class Look:
    """What is known of a task's rows without training on them.

    Attributes:
        task: with kind, classes, metrics and counts.
        files: where the rows are from.
        classes: (name, training rows, evaluation rows) of each class.
        copies: training rows, and evaluation rows, that repeat another of their split.
        overlap: evaluation rows whose text stands in training too.
        words: lengths in words.
        tokens: lengths in tokens; None without a tokenizer.
        constant: what a constant guess scores on the evaluation rows, by metric.
        guess: what that guess is, in words; empty where there is none.
        scores: lowest, mean and highest score of training; None without scores.
        notes: what was done with the rows and what to beware of.
    """

    task: Task
    files: tuple[str, ...]
    classes: tuple[tuple[str, int, int], ...]
    copies: tuple[int, int]
    overlap: int
    words: Lengths
    tokens: Lengths | None
    constant: Mapping[str, float]
    guess: str
    scores: tuple[float, float, float] | None
    notes: tuple[str, ...]


def look(own: OwnRows, tokenizer: Path | None = None, max_length: int = MAX_LENGTH) -> Look:
    """Look at a task's rows.

    Args:
        tokenizer: a `tokenizer.json`; None for words alone.
        max_length: the most tokens that a row may have.

    Raises:
        UserError: the file is no tokenizer.
    """
    task, data = own.task, own.data
    rows = (*data.train, *data.eval)
    counts = [class_counts(task, part) for part in (data.train, data.eval)]
    guess, constant = _constant(task, data.train, data.eval)
    scores = [float(row.label) for row in data.train] if task.kind == "regression" else []
    return Look(
        task=task,
        files=own.files,
        classes=tuple(zip(task.labels, *counts, strict=True)),
        copies=(copies(data.train), copies(data.eval)),
        overlap=overlap(data),
        words=_lengths("words", [sum(len(t.split()) for t in texts_of(row)) for row in rows]),
        tokens=None if tokenizer is None else _tokens(tokenizer, rows, max_length),
        constant=constant,
        guess=guess,
        scores=(min(scores), sum(scores) / len(scores), max(scores)) if scores else None,
        notes=own.notes,
    )


def texts_of(row: Example) -> list[str]:
    """Every text of a row."""
    texts = [row.text, row.pair, *row.choices, *(content for _, content in row.turns)]
    return [text for text in texts if text]


def tokenizer_in(cache: Path, packages: Sequence[str]) -> Path | None:
    """The tokenizer of a model whose package is in the cache; None if none is.

    Args:
        packages: names and versions of the packages that hold it, as folders of the cache.
    """
    files = (cache / "packages" / name / "tokenizer.json" for name in packages)
    return next((file for file in files if file.is_file()), None)


# --- lengths --------------------------------------------------------------------------------------


def _lengths(unit: str, counts: Sequence[int], max_length: int | None = None) -> Lengths:
    ranked = sorted(counts)

    def at(share: float) -> int:
        return ranked[min(len(ranked) - 1, math.ceil(share * len(ranked)) - 1)]

    cut = 0.0
    if max_length is not None:
        cut = sum(count > max_length for count in counts) / len(counts)
    return Lengths(unit, len(ranked), ranked[0], at(0.5), at(0.95), ranked[-1], max_length, cut)


def _tokens(file: Path, rows: Sequence[Example], max_length: int) -> Lengths:
    from tokenizers import Tokenizer

    refuse_special(file)
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises plain exceptions of its own
        what = f"{plain(str(file))}: no tokenizer"
        raise UserError(what, "Name a tokenizer.json as models on the hub have them.") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    step = max(1, math.ceil(len(rows) / MOST_ENCODED))
    shown = [_encoded(row) for row in rows[::step]]
    counts = [len(one.ids) for one in tokenizer.encode_batch(shown)]
    return _lengths("tokens", counts, max_length)


def _encoded(row: Example) -> str | tuple[str, str]:
    """What is cut together: two texts as a pair, else all texts of the row."""
    if row.pair and not row.choices:
        return (row.text, row.pair)
    return "\n".join(texts_of(row))


# --- the constant guess ---------------------------------------------------------------------------


def _constant(
    task: Task, train: Sequence[Example], evaluation: Sequence[Example]
) -> tuple[str, dict[str, float]]:
    """What the best guess that looks at no text is, and what it scores."""
    if task.kind == "regression":
        mean = sum(float(row.label) for row in train) / len(train)
        square = sum((float(row.label) - mean) ** 2 for row in evaluation) / len(evaluation)
        return f"the mean of training, {mean:.4g}", {"rmse": math.sqrt(square)}
    if task.kind == "classification":
        counts = class_counts(task, train)
        best = counts.index(max(counts))
        right = sum(row.label == best for row in evaluation)
        share = right / len(evaluation)
        # F1 of the class that is guessed; of the others it is 0.
        f1 = 2 * right / (len(evaluation) + right)
        present = len({row.label for row in evaluation} | {best})
        return f"always {task.labels[best]}", {"accuracy": share, "macro_f1": f1 / present}
    if task.kind == "multi-label":
        counts = class_counts(task, train)
        often = {n for n, count in enumerate(counts) if 2 * count > len(train)}
        hits = sum(len(often & set(row.tags)) for row in evaluation)
        wanted = sum(len(row.tags) for row in evaluation)
        total = wanted + len(often) * len(evaluation)
        names = " and ".join(task.labels[n] for n in sorted(often)) or "no label"
        return f"always {names}", {"micro_f1": 2 * hits / total if total else 0.0}
    if task.kind == "multiple-choice":
        places = Counter(row.label for row in train)
        place = min(places, key=lambda place: (-places[place], place))
        share = sum(row.label == place for row in evaluation) / len(evaluation)
        return f"always choice {int(place) + 1}", {"accuracy": share}
    return "", {}


# --- words ----------------------------------------------------------------------------------------


def lines(found: Look) -> Iterator[str]:
    """A look as lines of text."""
    task = found.task
    yield f"{plain(task.title)}: {task.kind} of {', '.join(map(plain, found.files))}"
    yield f"  rows      {task.train_rows:,} to train on, {task.eval_rows:,} to evaluate"
    yield f"  metric    {', '.join((task.metric, *task.also))}"
    if found.classes:
        yield f"  classes   {len(found.classes)}"
        width = max(len(name) for name, _, _ in found.classes[:MOST_CLASSES])
        for name, train, evaluation in found.classes[:MOST_CLASSES]:
            share = train / task.train_rows
            yield f"    {name:<{width}}  {train:>7,} + {evaluation:<6,} {share:>6.1%} of training"
        if len(found.classes) > MOST_CLASSES:
            yield f"    and {len(found.classes) - MOST_CLASSES:,} more"
    if found.scores:
        low, mean, high = found.scores
        yield f"  scores    {low:.4g} to {high:.4g}, mean {mean:.4g}"
    yield f"  copies    {found.copies[0]:,} in training, {found.copies[1]:,} in evaluation"
    stand = plural(found.overlap, "evaluation row stands", "evaluation rows stand")
    yield f"  overlap   {stand} in training too"
    yield f"  words     {_length_words(found.words)}"
    if found.tokens is not None:
        yield f"  tokens    {_length_words(found.tokens)}"
    if found.guess:
        scored = ", ".join(
            f"{key} {value:.{decimals(key, value)}f}" for key, value in found.constant.items()
        )
        yield f"  constant  {plain(found.guess)}: {scored}"
    for note in found.notes:
        yield f"  note: {note}."


MOST_CLASSES = 20
"""Classes that are listed; a look at more is a look at a file."""


def _length_words(found: Lengths) -> str:
    text = (
        f"{found.low:,} to {found.high:,} a row, half up to {found.median:,}, 95% up to "
        f"{found.p95:,}"
    )
    if found.max_length is not None:
        text += f"; {found.cut:.1%} are longer than {found.max_length:,} and cut"
        text += f" (of {plural(found.rows, 'row')})"
    return text

"""What a careful colleague would say of a task's rows before training on them."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence

from peftmark.catalog.task import SPOKEN, Example, Task
from peftmark.core.shown import plural, quoted, quoted_list
from peftmark.sources.rows import TaskData, overlap

FEW_OF_CLASS = 5
"""Training rows of a class below which it is called rare (assumption)."""
FEW_TO_EVALUATE = 100
"""Evaluation rows below which one row moves a score by more than a point."""
UNEVEN = 3.0
"""Largest class over smallest from which accuracy says little of the small ones."""


def warnings(task: Task, data: TaskData) -> Iterator[str]:
    """Warnings in words, without any text of a row."""
    both = (*data.train, *data.eval)
    yield from _duplicates(data)
    yield from contradictions(task, both)
    yield from _classes(task, data)
    if task.kind not in SPOKEN and len({(row.label, row.tags) for row in data.eval}) == 1:
        yield (
            "every evaluation row has the same label: a model that always says it is right, and "
            "nothing tells what it makes of others"
        )
    if len(data.eval) < FEW_TO_EVALUATE:
        yield (
            f"{plural(len(data.eval), 'evaluation row')}: one of them is "
            f"{1 / len(data.eval):.1%} of a score, so only large differences can be shown"
        )


def _duplicates(data: TaskData) -> Iterator[str]:
    for what, rows in (("training", data.train), ("evaluation", data.eval)):
        if count := copies(rows):
            rows_repeat = plural(count, f"{what} row repeats", f"{what} rows repeat")
            yield f"{rows_repeat} the text of another one"
    if both := overlap(data):
        stand = "stands" if both == 1 else "stand"
        yield (
            f"{both:,} of {plural(len(data.eval), 'evaluation row')} {stand} in training too: "
            "what is learnt by heart scores as well"
        )


def contradictions(task: Task, rows: Sequence[Example]) -> Iterator[str]:
    """Texts that have several labels, and the best score that this leaves possible."""
    if task.kind not in ("classification", "regression", "multi-label"):
        return
    first: dict[object, object] = {}
    several: dict[object, Counter[object]] = {}
    said = [(row.read, row.tags if task.kind == "multi-label" else row.label) for row in rows]
    for text, label in said:
        if first.setdefault(text, label) != label:
            several[text] = Counter()
    for text, label in said if several else ():
        if text in several:
            several[text][label] += 1
    split = list(several.values())
    if not split:
        return
    texts = plural(len(split), "text has", "texts have")
    if task.kind == "regression":
        square = sum(_squares(labels) for labels in split)
        best = f"a root mean squared error of {math.sqrt(square / len(rows)):.3g}"
        yield f"{texts} more than one score: the best possible on all rows is {best}"
        return
    lost = sum(sum(labels.values()) - max(labels.values()) for labels in split)
    right = (len(rows) - lost) / len(rows)
    yield (
        f"{texts} more than one label: the best accuracy possible on all rows is {right:.1%} "
        f"({len(rows) - lost:,} of {len(rows):,})"
    )


def copies(rows: Sequence[Example]) -> int:
    """Rows whose text stands earlier among them."""
    return len(rows) - len({row.read for row in rows})


def _squares(scores: Counter[object]) -> float:
    """Sum of the squared distances of a text's scores from their mean."""
    values = [float(score) for score in scores.elements()]  # type: ignore[arg-type]
    mean = sum(values) / len(values)
    return sum((value - mean) ** 2 for value in values)


def class_counts(task: Task, rows: Sequence[Example]) -> list[int]:
    """Rows of each class, in the order of the classes."""
    if task.kind == "multi-label":
        counts = Counter(tag for row in rows for tag in row.tags)
    else:
        counts = Counter([int(row.label) for row in rows])
    return [counts[number] for number in range(len(task.labels))]


def uneven(counts: Sequence[int]) -> float:
    """The largest class over the smallest; infinite where one has no rows."""
    return max(counts) / min(counts) if min(counts) else math.inf


def _classes(task: Task, data: TaskData) -> Iterator[str]:
    if not task.labels:
        return
    train, evaluation = class_counts(task, data.train), class_counts(task, data.eval)
    numbered = list(zip(task.labels, train, evaluation, strict=True))
    single = [name for name, t, e in numbered if t + e == 1]
    if single:
        yield (
            f"class {quoted_list(single, 6)}: a single row, which can't be in both splits; it "
            "trains, and nothing tells whether it was learnt"
        )
    without = [name for name, t, e in numbered if not e and name not in single]
    if without:
        yield f"class {quoted_list(without, 6)}: no evaluation row"
    untrained = [name for name, t, _ in numbered if not t]
    if untrained:
        yield f"class {quoted_list(untrained, 6)}: no training row"
    rare = [
        f"{quoted(name)} ({t:,})"
        for name, t, _ in numbered
        if 0 < t < FEW_OF_CLASS and name not in single
    ]
    if rare:
        more = f" and {len(rare) - 6} more" if len(rare) > 6 else ""
        yield f"few training rows: {', '.join(rare[:6])}{more}"
    ratio = uneven(train)
    if task.kind == "classification" and UNEVEN < ratio < math.inf:
        yield (
            f"the largest class has {ratio:,.1f} times the rows of the smallest: accuracy says "
            "little of the small one"
        )
    if task.kind == "multi-label" and all(len(row.tags) == 1 for row in (*data.train, *data.eval)):
        yield "every row has exactly one label: kind classification would fit as well"

"""From checked rows to examples: class names become numbers, in the order of the classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from peftmark.catalog.task import Example
from peftmark.core.shown import quoted, quoted_list
from peftmark.own.declared import OwnTask
from peftmark.own.labels import clashes, in_order, spellings
from peftmark.own.rows import Part, sheet_error

MOST_CLASSES_OF_ROWS = 0.5
"""More classes than this share of the rows are no classes but names of rows (assumption)."""
FEW_ROWS = 8
"""Rows up to which a class for every second one may be meant (assumption)."""


def classes_of(task: OwnTask, train: Part, evaluation: Part | None) -> tuple[str, ...]:
    """The classes of a task in order; empty for kinds without classes.

    Raises:
        UserError: spellings of one class, a label that isn't declared, a single class, a label a
            row, or a label that only evaluation rows have.
    """
    if task.kind not in ("classification", "multi-label"):
        return ()
    words = _words(task, train)
    if task.labels is None and len(task.label or ()) > 1:
        return tuple(task.label or ())
    _check_spelling(task, [train, *([evaluation] if evaluation else [])])
    names = task.labels or in_order(word.strip() for word in words)
    _check_known(task, train, names, "training")
    if evaluation is not None:
        _check_known(task, evaluation, names, "evaluation")
    _check_number(task, train, words)
    return names


def examples_of(task: OwnTask, part: Part, names: Sequence[str]) -> list[Example]:
    """The rows of a part as examples."""
    numbers = {name: number for number, name in enumerate(names)}
    if task.kind == "classification":
        known: dict[str, int] = {word: numbers[word.strip()] for word in set(part.values)}
        return [
            Example(text[0] or "", text[1] if len(text) > 1 else None, known[word])
            for text, word in zip(part.texts, part.values, strict=True)
        ]
    return [
        _example(task, text, value, numbers)
        for text, value in zip(part.texts, part.values, strict=True)
    ]


def _example(
    task: OwnTask, text: tuple[str | None, ...], value: Any, numbers: dict[str, int]
) -> Example:
    if task.messages is not None:
        return Example("", None, 0, turns=value)
    first, pair = text[0] or "", text[1] if len(text) > 1 else None
    if task.kind == "multi-label":
        return Example(first, pair, 0, tags=tuple(sorted(numbers[tag] for tag in value)))
    if task.kind == "multiple-choice":
        return Example(first, None, value[1], choices=value[0])
    return Example(first, pair, value if task.kind == "regression" else 0)


def check_values(task: OwnTask, part: Part) -> None:
    """Refuse rows from which nothing can be learnt: one score, the same labels in every row.

    Raises:
        UserError: which value it is.
    """
    if task.kind not in ("regression", "multi-label", "multiple-choice"):
        return
    values = set(part.values)
    if task.kind == "regression" and len(values) == 1:
        what = f"{quoted(_name(task))} is {part.values[0]:g} in every row: nothing can be learnt"
        raise sheet_error(part.sheet, what, "Name the column of the scores.")
    if task.kind == "multi-label" and len(values) == 1:
        what = f"{quoted(_name(task))}: every row has the same labels: nothing can be learnt"
        raise sheet_error(part.sheet, what, "Name the column of the labels.")


def _name(task: OwnTask) -> str:
    return ", ".join(task.label or ())


def _words(task: OwnTask, part: Part) -> list[str]:
    if task.kind == "classification":
        return list(part.values)
    return [tag for tags in part.values for tag in tags]


def _check_spelling(task: OwnTask, parts: Sequence[Part]) -> None:
    declared = set(task.labels or ())
    groups = clashes(
        word for part in parts for word in set(_words(task, part)) if word.strip() not in declared
    )
    if not groups:
        return
    counts: Counter[str] = Counter(word for part in parts for word in _words(task, part))
    fewer = {w for group in groups for w in group if w != max(group, key=lambda g: counts[g])}
    part = next(part for part in parts if fewer & set(_words(task, part)))
    rows = [row for row, v in zip(part.rows, part.values, strict=True) if fewer & {*_tags(v)}]
    raise part.sheet.refused(
        rows,
        f"{quoted(_name(task))}: labels that differ only in case, spaces or punctuation: "
        f"{spellings(groups)}",
        "Write each class one way; if they are classes of their own, declare them all: "
        "labels: [...].",
    )


def _tags(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)


def _check_known(task: OwnTask, part: Part, names: Sequence[str], split: str) -> None:
    wanted = set(names)
    unknown = {w for w in set(_words(task, part)) if w.strip() not in wanted}
    if not unknown:
        return
    rows = [row for row, v in zip(part.rows, part.values, strict=True) if unknown & {*_tags(v)}]
    said = "is not declared" if task.labels else "stands in no training row"
    raise part.sheet.refused(
        rows,
        f"label {quoted_list(sorted(unknown), 4)} of {split} rows {said}; the classes are "
        f"{quoted_list(names)}",
        "Fix or take out these rows, or declare every class: labels: [...].",
    )


def _check_number(task: OwnTask, part: Part, words: Sequence[str]) -> None:
    found, rows, name = {word.strip() for word in words}, len(part.rows), quoted(_name(task))
    if len(found) < 2:
        what = f"{name}: one class only, {quoted_list(sorted(found))}: nothing can be learnt"
        if not found:
            what = f"{name}: no row has a label"
        remedy = "Name the column of the labels, or add rows of other classes."
        raise sheet_error(part.sheet, what, remedy)
    if rows > FEW_ROWS and len(found) > MOST_CLASSES_OF_ROWS * rows:
        raise sheet_error(
            part.sheet,
            f"{name}: {len(found):,} classes in {rows:,} rows: they name the rows, there is "
            "nothing to learn",
            "Name the column of the classes; if these are numbers to predict, kind: regression.",
        )
    if task.labels and task.kind == "classification":
        lacking = [name for name in task.labels if name not in found]
        if lacking:
            what = f"no row of training has the declared label {quoted_list(lacking, 6)}"
            raise sheet_error(part.sheet, what, "Take it out of labels, or add rows that have it.")

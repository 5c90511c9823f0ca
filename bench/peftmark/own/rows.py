"""From a table to rows that a task can use: texts and labels, checked, in the file's order.

Whatever is wrong is refused with file and lines, or dropped where the declaration says so.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from peftmark.core.errors import UserError
from peftmark.core.shown import plain, quoted
from peftmark.core.texts import number, shows_nothing
from peftmark.own.choices import read_choices
from peftmark.own.conversations import Odd, Turns, turns_of
from peftmark.own.declared import LONGEST_NAME, OwnTask
from peftmark.own.labels import as_number, hidden, label_word, missing
from peftmark.own.table import Sheet, check_kinds

BREAK = "\r\n"
_SURROGATE = re.compile("[\ud800-\udfff]")
_TRUTH = {"0": False, "1": True, "false": False, "true": True}


@dataclass(frozen=True)
class Part:
    """The rows of a sheet that are used.

    Attributes:
        rows: their numbers in the sheet, from 0.
        texts: one or two a row; none of a conversation.
        values: what beside the texts a row has: a label as it is written, labels, a score, choices
            with the right one's number, turns; None where the kind has nothing.
        dropped: how many rows were left out, by reason.
        cut_rows: numbers of rows that lost turns after the assistant's last.
    """

    sheet: Sheet
    rows: Sequence[int]
    texts: Sequence[tuple[str | None, ...]]
    values: Sequence[Any]
    dropped: Mapping[str, int] = field(default_factory=dict)
    cut_rows: Sequence[int] = ()


def read_part(sheet: Sheet, task: OwnTask) -> Part:
    """Texts and labels of a sheet's rows.

    Raises:
        UserError: rows that are not what they should be, with file and lines, and what to do.
    """
    if not len(sheet):
        remedy = "Give a file with rows."
        raise sheet_error(sheet, "there are no rows", remedy)
    cut: Sequence[int] = ()
    if task.messages is not None:
        turns, cut = _conversations(sheet, task.messages)
        texts: list[tuple[str | None, ...]] = [()] * len(sheet)
        values: Sequence[Any] = turns
    else:
        texts = _texts(sheet, task)
        values = READERS[task.kind](sheet, task)
    reasons = {
        "empty": {row for row, text in enumerate(texts) if None in text},
        "unlabelled": {row for row, value in enumerate(values) if value is None}
        if task.kind in LABELLED
        else set(),
    }
    _refuse_or_drop(sheet, task, reasons)
    out = reasons["empty"] | reasons["unlabelled"]
    kept = [row for row in range(len(sheet)) if row not in out]
    if not kept:
        raise sheet_error(sheet, "no rows are left", "Every row is empty or without a label.")
    dropped = {
        "empty": len(reasons["empty"]),
        "unlabelled": len(reasons["unlabelled"] - reasons["empty"]),
    }
    return Part(
        sheet,
        kept,
        [texts[row] for row in kept],
        [values[row] for row in kept],
        {reason: count for reason, count in dropped.items() if count},
        cut,
    )


def sheet_error(sheet: Sheet, what: str, remedy: str) -> UserError:
    """The error for a sheet as a whole."""
    return UserError(f"{sheet.files}: {what}", remedy)


def _refuse_or_drop(sheet: Sheet, task: OwnTask, reasons: Mapping[str, set[int]]) -> None:
    said = {"empty": "a text is empty", "unlabelled": "the label is missing"}
    for reason, rows in reasons.items():
        if rows and reason not in task.drop:
            extra = ""
            if reason == "unlabelled" and task.kind == "classification":
                extra = " If it is the name of a class, declare the classes: labels: [...]."
            raise sheet.refused(
                rows,
                f"{said[reason]} ({len(rows):,} of {len(sheet):,} rows)",
                f"Fix these rows, or leave them out and have them counted: drop: [{reason}]."
                f"{extra}",
            )


# --- texts ----------------------------------------------------------------------------------------


def _texts(sheet: Sheet, task: OwnTask) -> list[tuple[str | None, ...]]:
    shown = shown_texts(sheet, task)
    answer = task.output or task.completion
    if answer is None:
        return shown
    return [(*row, said) for row, said in zip(shown, _column(sheet, answer), strict=True)]


def shown_texts(sheet: Sheet, task: OwnTask) -> list[tuple[str | None, ...]]:
    """What a model is shown of each row, one or two texts, without the answer that it is to give;
    None for a text that is empty."""
    if task.instruction is not None:
        asked = _column(sheet, task.instruction)
        about = _column(sheet, task.input) if task.input else [None] * len(sheet)
        return [
            (None if text is None else text if more is None else f"{text}\n\n{more}",)
            for text, more in zip(asked, about, strict=True)
        ]
    names = task.text or ((task.prompt,) if task.prompt else ())
    return list(zip(*(_column(sheet, name) for name in names), strict=True))


def _column(sheet: Sheet, name: str) -> list[str | None]:
    """A column of text as it stands, with line feeds alone; None where there is nothing."""
    check_kinds(sheet, name, ("text",))
    values = sheet.column(name)
    _refuse_characters(sheet, name, values)
    return [
        None
        if value is None or shows_nothing(value)
        else value.replace(BREAK, "\n")
        if BREAK in value
        else value
        for value in values
    ]


def _refuse_characters(sheet: Sheet, name: str, values: Sequence[str | None]) -> None:
    rows = [row for row, value in enumerate(values) if value and _odd(value)]
    if rows:
        raise sheet.refused(
            rows,
            f"{quoted(name)} holds half of a surrogate pair",
            "Take it out, or write the character that it was meant to be.",
        )


def _odd(text: str) -> bool:
    return not text.isascii() and _SURROGATE.search(text) is not None


# --- labels ---------------------------------------------------------------------------------------


def _classes(sheet: Sheet, task: OwnTask) -> list[str | None]:
    """Labels as they are written; None for missing ones."""
    assert task.label is not None
    name, declared = task.label[0], task.labels or ()
    check_kinds(sheet, name, ("text", "a number", "true or false"))
    values = sheet.column(name)
    known = {value: label_word(value) for value in set(values)} if _hashable(values) else {}
    words = [known[value] if value in known else label_word(value) for value in values]
    spelled: set[str | None] = set(words)
    none = {word for word in spelled if missing(word, declared)}
    if hidden(spelled, declared):
        none |= {word for word in spelled if word is not None and as_number(word) == -1}
    _refuse_odd_labels(sheet, [(word,) for word in words])
    return [None if word in none else word for word in words]


def _hashable(values: Sequence[object]) -> bool:
    # 1, 1.0 and True are one key of a dictionary, and not one label.
    return {type(value) for value in values} == {str}


def _refuse_odd_labels(sheet: Sheet, labels: Sequence[Sequence[str | None]]) -> None:
    """Refuse labels that a report can't show; `labels` are those of each row."""
    spelled = {word.strip() for words in labels for word in words if word is not None}
    unprintable = {word for word in spelled if plain(word) != word}
    odd = unprintable or {word for word in spelled if len(word) > LONGEST_NAME}
    if not odd:
        return
    rows = [row for row, words in enumerate(labels) if any(w and w.strip() in odd for w in words)]
    shown = f"label {quoted(min(odd))}"
    if unprintable:
        what = f"{shown} holds characters that can't be printed"
        raise sheet.refused(rows, what, "Take them out: labels are shown in reports.")
    what = f"{shown} has {len(min(odd)):,} characters; the most are {LONGEST_NAME}"
    raise sheet.refused(rows, what, "Is this the column of the labels? If so, write shorter ones.")


def _several(sheet: Sheet, task: OwnTask) -> list[tuple[str, ...] | None]:
    """The labels of each row; None where they are missing."""
    assert task.label is not None
    if len(task.label) > 1:
        return _from_columns(sheet, task.label)
    name, declared = task.label[0], task.labels or ()
    check_kinds(sheet, name, ("text", "a list"))
    found: list[tuple[str, ...] | None] = []
    for row, value in enumerate(sheet.column(name)):
        items = value.split(task.separator_of_labels) if isinstance(value, str) else value
        if items is None or (items != [""] and len(items) == 1 and missing(items[0], declared)):
            found.append(None)
            continue
        words = [label_word(item) for item in items if not isinstance(item, list | dict)]
        if len(words) < len(items) or None in words:
            what = f"{quoted(name)}: a label is not a word or a number"
            raise sheet.refused([row], what, "Write a list of words.")
        named = (word.strip() for word in words if word and not shows_nothing(word))
        found.append(tuple(dict.fromkeys(named)))
    _refuse_odd_labels(sheet, [tags or () for tags in found])
    return found


def _from_columns(sheet: Sheet, names: Sequence[str]) -> list[tuple[str, ...] | None]:
    """Labels from columns of 0 and 1 that are named after them."""
    columns = []
    odd = [name for name in names if plain(name) != name]
    if odd:
        what = f"column {quoted(odd[0])} has characters in its name that can't be printed"
        raise sheet_error(sheet, what, "Rename it: a class is named after it.")
    if long := [name for name in names if len(name) > LONGEST_NAME]:
        what = f"the name of column {quoted(long[0])} has more than {LONGEST_NAME} characters"
        raise sheet_error(sheet, what, "Rename it: a class is named after it.")
    for name in names:
        check_kinds(sheet, name, ("text", "a number", "true or false"))
        words = [label_word(value) for value in sheet.column(name)]
        known = [None if missing(word, ()) else _truth(str(word)) for word in words]
        wrong = [r for r, k in enumerate(known) if k is None and not missing(words[r], ())]
        if wrong:
            what = f"{quoted(name)} is {quoted(words[wrong[0]])} where 0 or 1 belongs"
            raise sheet.refused(wrong, what, "Write 0 or 1, or true or false, in every row.")
        columns.append(known)
    return [
        None if None in row else tuple(n for n, on in zip(names, row, strict=True) if on)
        for row in zip(*columns, strict=True)
    ]


def _truth(word: str) -> bool | None:
    value = as_number(word)
    key = str(int(value)) if value in (0.0, 1.0) else word.strip().casefold()
    return _TRUTH.get(key)


def _scores(sheet: Sheet, task: OwnTask) -> list[float | None]:
    """Scores; None for missing ones."""
    assert task.label is not None
    name = task.label[0]
    check_kinds(sheet, name, ("text", "a number"))
    values = sheet.column(name)
    scores: list[float | None] = []
    wrong: list[int] = []
    for row, value in enumerate(values):
        word = value if isinstance(value, str) else None
        # Whole numbers of any length go through words: too large ones become infinite.
        score = value if isinstance(value, float) else number(str(value))
        if (word is not None and missing(word, ())) or score is None:
            scores.append(None)
            if word is not None and not missing(word, ()):
                wrong.append(row)
        elif math.isnan(score):
            scores.append(None)
        else:
            scores.append(float(score))
            if math.isinf(score):
                wrong.append(row)
    if wrong:
        what = f"{quoted(name)} is {quoted(values[wrong[0]])} where a finite number belongs"
        remedy = "Write numbers with a decimal point and without thousands' separators."
        raise sheet.refused(wrong, what, remedy)
    return scores


def _choices(sheet: Sheet, task: OwnTask) -> Sequence[Any]:
    assert task.choices is not None
    assert task.answer is not None
    found = read_choices(sheet, task.choices, task.answer)
    odd = [row for row, one in enumerate(found) if one and any(map(_odd, one[0]))]
    if odd:
        what = "a choice holds half of a surrogate pair"
        raise sheet.refused(odd, what, "Take it out.")
    return found


def _nothing(sheet: Sheet, task: OwnTask) -> list[None]:
    return [None] * len(sheet)


READERS: dict[str, Callable[[Sheet, OwnTask], Sequence[Any]]] = {
    "classification": _classes,
    "multi-label": _several,
    "regression": _scores,
    "multiple-choice": _choices,
    "instruction": _nothing,
    "language": _nothing,
}
LABELLED = ("classification", "multi-label", "regression", "multiple-choice")


# --- conversations --------------------------------------------------------------------------------


def _conversations(sheet: Sheet, name: str) -> tuple[list[Turns], list[int]]:
    """The turns of every row up to the assistant's last, and rows that lost turns after it."""
    check_kinds(sheet, name, ("a list", "text"))
    found: list[Turns] = []
    rows: dict[str, list[int]] = {}
    cut: list[int] = []
    for row, value in enumerate(sheet.column(name)):
        try:
            turns = turns_of(value)
            if any(_odd(content) for _, content in turns):
                raise Odd("a turn holds half of a surrogate pair")
            last = max((i for i, turn in enumerate(turns) if turn[0] == "assistant"), default=-1)
            if last < 0:
                raise Odd(
                    "a conversation has no turn of the assistant's: there is nothing to learn"
                )
            if last + 1 < len(turns):
                cut.append(row)
            found.append(tuple((r, c.replace(BREAK, "\n")) for r, c in turns[: last + 1]))
        except Odd as error:
            rows.setdefault(str(error), []).append(row)
    if rows:
        what = next(iter(rows))
        remedy = (
            'A turn is {"role": "user", "content": "..."} or {"from": "human", "value": "..."}; '
            "fix these rows, or take them out."
        )
        raise sheet.refused(rows[what], f"{quoted(name)}: {what}", remedy)
    return found, cut

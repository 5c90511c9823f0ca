"""Multiple choice: the choices of every row, and which of them is right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from peftmark.core.shown import quoted
from peftmark.own.conversations import Odd, choices_of, numbers_start
from peftmark.own.labels import label_word, missing
from peftmark.own.table import Sheet, check_kinds

Choice = tuple[tuple[str, ...], int]
"""The choices of a row and the number of the right one, from 0."""


def read_choices(sheet: Sheet, columns: Sequence[str], answer: str) -> list[Choice | None]:
    """Choices and answer of every row; None where the answer is missing.

    Raises:
        UserError: rows whose choices or answers are not what they should be.
    """
    options = read_options(sheet, columns)
    check_kinds(sheet, answer, ("text", "a number"))
    words = [label_word(value) for value in sheet.column(answer)]
    known = {row: str(word).strip() for row, word in enumerate(words) if not missing(word, ())}
    right: dict[int, int | None] = {}
    for row, word in known.items():
        texts, keys = options[row]
        stripped = [text.strip() for text in texts]
        right[row] = (
            stripped.index(word)
            if word in stripped and isinstance(sheet.column(answer)[row], str)
            else keys.index(word)
            if word in keys
            else None
        )
    open_rows = {row: word for row, word in known.items() if right[row] is None}
    right |= _by_place(sheet, answer, open_rows, options, len(open_rows) == len(known))
    return [
        (texts, number) if (number := right.get(row)) is not None else None
        for row, (texts, _) in enumerate(options)
    ]


def read_options(
    sheet: Sheet, columns: Sequence[str]
) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """The choices of every row, and the keys they are called by.

    Raises:
        UserError: rows whose choices are not what they should be.
    """
    if len(columns) == 1:
        check_kinds(sheet, columns[0], ("a list", "an object"))
        values: Sequence[Any] = sheet.column(columns[0])
    else:
        for name in columns:
            check_kinds(sheet, name, ("text",))
        # Rows may have fewer choices than others: the last columns are empty there.
        rows = zip(*(sheet.column(name) for name in columns), strict=True)
        values = [_without_end(list(row)) for row in rows]
    options, odd = [], dict[str, list[int]]()
    for row, value in enumerate(values):
        try:
            options.append(choices_of(value))
        except Odd as error:
            odd.setdefault(str(error), []).append(row)
    if odd:
        what, rows_of = next(iter(odd.items()))
        remedy = "Each row needs two or more different choices: fix it, or take it out."
        raise sheet.refused(rows_of, what, remedy)
    return options


def _without_end(row: list[Any]) -> list[Any]:
    while row and (row[-1] is None or row[-1] == ""):
        row.pop()
    return row


def _by_place(
    sheet: Sheet,
    answer: str,
    words: dict[int, str],
    options: Sequence[tuple[tuple[str, ...], tuple[str, ...]]],
    all_of_them: bool,
) -> dict[int, int]:
    """Answers that are letters or numbers of the choices.

    Args:
        all_of_them: whether no row's answer is the text of a choice; else those here are wrong.
    """
    wrong = "it is neither number, letter nor text of one of its choices"
    remedy = "Write the right choice's text, its letter (A is the first), or its number."
    if not words:
        return {}
    if not all_of_them:
        raise sheet.refused(words, f"{quoted(answer)}: {wrong}", remedy)
    counts = {row: len(options[row][0]) for row in words}
    letters = {row: ord(word.upper()) - ord("A") for row, word in words.items() if len(word) == 1}
    if len(letters) == len(words) and all(word.isalpha() for word in words.values()):
        found = letters
    else:
        odd = [row for row, word in words.items() if not (word.isascii() and word.isdecimal())]
        if odd:
            raise sheet.refused(odd, f"{quoted(answer)}: {wrong}", remedy)
        found = {row: int(word) for row, word in words.items()}
        start = numbers_start(list(found.values()), list(counts.values()))
        if start is None:
            what = f"{quoted(answer)}: nothing tells whether its numbers count from 0 or from 1"
            raise sheet.refused(list(found)[:1], what, "Write letters, or the choices' texts.")
        found = {row: number - start for row, number in found.items()}
    outside = [row for row, number in found.items() if not 0 <= number < counts[row]]
    if outside:
        raise sheet.refused(outside, f"{quoted(answer)} names a choice that is not there", remedy)
    return found

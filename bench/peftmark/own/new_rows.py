"""Rows without labels, for a model that was trained: read as its task's rows were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from peftmark.catalog.task import Example, Task
from peftmark.core.errors import UserError
from peftmark.own.choices import read_options
from peftmark.own.conversations import Odd, turns_of
from peftmark.own.declared import OwnTask
from peftmark.own.rows import BREAK, sheet_error, shown_texts
from peftmark.own.table import Sheet, below_each_other, check_kinds
from peftmark.own.tables import read_table

EMPTY = "a text is empty"


@dataclass(frozen=True)
class NewRows:
    """Rows of one file.

    Attributes:
        sheet: as they were read.
        rows: a row each; None for one that can't be read.
        unread: why -> their numbers, from 0.
    """

    sheet: Sheet
    rows: Sequence[Example | None]
    unread: Mapping[str, Sequence[int]]

    @property
    def lines(self) -> Sequence[int]:
        """Where each row starts in the file."""
        return self.sheet.parts[0].lines

    def told(self) -> list[str]:
        """Which rows can't be read, with their lines, a sentence each without a full stop."""
        return [f"{self.sheet.where(rows)}: {why}" for why, rows in self.unread.items()]


def read_new(path: Path, declared: OwnTask) -> NewRows:
    """Read rows of a file by the columns of a task; columns of labels may be missing.

    Raises:
        UserError: the file can't be read, a column is missing, or no row can be read.
    """
    sheet = below_each_other([read_table(path, declared.separator, declared.encoding)])
    if not len(sheet):
        raise sheet_error(sheet, "there are no rows", "Give a file with rows.")
    read = _conversations if declared.messages is not None else _texts
    rows, unread = read(sheet, declared)
    found = NewRows(sheet, rows, unread)
    if not any(rows):
        raise UserError(found.told()[0], "Give rows that can be read.")
    return found


def _texts(sheet: Sheet, declared: OwnTask) -> tuple[list[Example | None], dict[str, list[int]]]:
    texts = shown_texts(sheet, declared)
    several = declared.choices is not None
    options = read_options(sheet, declared.choices or ()) if several else [((), ())] * len(texts)
    rows = [
        None if None in text else Example(*_two(text), 0, choices=choices)
        for text, (choices, _) in zip(texts, options, strict=True)
    ]
    empty = [at for at, row in enumerate(rows) if row is None]
    return rows, {EMPTY: empty} if empty else {}


def _two(texts: Sequence[str | None]) -> tuple[str, str | None]:
    return texts[0] or "", texts[1] if len(texts) > 1 else None


def _conversations(
    sheet: Sheet, declared: OwnTask
) -> tuple[list[Example | None], dict[str, list[int]]]:
    """Conversations up to where the assistant is asked: its own last turn, or their end."""
    assert declared.messages is not None
    check_kinds(sheet, declared.messages, ("a list", "text"))
    rows: list[Example | None] = []
    unread: dict[str, list[int]] = {}
    for at, value in enumerate(sheet.column(declared.messages)):
        try:
            turns = [(role, said.replace(BREAK, "\n")) for role, said in turns_of(value)]
            if not turns:
                raise Odd("a conversation has no turns")
        except Odd as error:
            unread.setdefault(str(error), []).append(at)
            rows.append(None)
            continue
        asked = turns if turns[-1][0] == "assistant" else [*turns, ("assistant", "")]
        rows.append(Example("", None, 0, turns=tuple(asked)))
    return rows, unread


def columns_of(task: Task) -> OwnTask:
    """The columns of a task of the catalogue, as a suite would declare them."""
    fields = task.fields
    given: dict[str, object] = {"kind": task.kind, "train": "-"}
    if task.kind == "instruction":
        names = ("instruction", "input", "output") if len(fields) > 2 else ("prompt", "completion")
        given |= dict(zip(names, fields, strict=True))
    elif task.kind == "language":
        given |= {"text": fields[:1]}
    else:
        given |= {"text": fields, "label": task.label_field or "label"}
    return OwnTask.model_validate(given)

"""Tables as they were read, by column, with the line that every row came from."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from peftmark.core.errors import UserError
from peftmark.core.shown import numbered, plain, quoted, quoted_list


def refuse(file: str, place: str, what: str, remedy: str) -> UserError:
    """The error for a file that isn't what it should be.

    Args:
        place: such as "line 19"; empty for the file as a whole.
    """
    where = f"{plain(file)}, {place}" if place else plain(file)
    return UserError(f"{where}: {what}", remedy)


@dataclass(frozen=True)
class Table:
    """Rows of one file.

    Attributes:
        file: its name, for messages.
        columns: values by column, all of one length; in text formats without types all are text
            as it stands, elsewhere None is what is missing.
        lines: where each row starts: a line of a text file, from 1, else a row number from 1.
        unit: what `lines` counts, "line" or "row".
    """

    file: str
    columns: Mapping[str, Sequence[Any]]
    lines: Sequence[int]
    unit: str


@dataclass(frozen=True)
class Sheet:
    """One or more tables of the same columns, below each other.

    Attributes:
        parts: the tables.
        columns: values by column over all of them.
    """

    parts: tuple[Table, ...]
    columns: Mapping[str, Sequence[Any]]

    def __len__(self) -> int:
        return sum(len(part.lines) for part in self.parts)

    @property
    def files(self) -> str:
        """The names of the files."""
        return ", ".join(plain(part.file) for part in self.parts)

    def where(self, rows: Iterable[int]) -> str:
        """File and lines of rows (numbers from 0 over all parts), up to twelve lines of a file."""
        wanted, said, start = sorted(rows), [], 0
        for part in self.parts:
            end = start + len(part.lines)
            lines = [part.lines[row - start] for row in wanted if start <= row < end]
            if lines:
                said.append(f"{plain(part.file)}, {numbered(part.unit, lines)}")
            start = end
        return "; ".join(said)

    def refused(self, rows: Iterable[int], what: str, remedy: str) -> UserError:
        """The error for rows that are not what they should be."""
        return UserError(f"{self.where(rows)}: {what}", remedy)

    def column(self, name: str) -> Sequence[Any]:
        """Values of a column.

        Raises:
            UserError: there is none of that name; those that there are, are named.
        """
        if name not in self.columns:
            names = list(self.columns)
            close = difflib.get_close_matches(name, names, n=1)
            hint = f" (did you mean {quoted(close[0])}?)" if close else ""
            raise refuse(
                self.parts[0].file,
                "",
                f"there is no column {quoted(name)}{hint}",
                f"Its columns: {quoted_list([n[:40] for n in names])}.",
            )
        return self.columns[name]


def below_each_other(tables: Sequence[Table]) -> Sheet:
    """Tables as one.

    Raises:
        UserError: their columns differ; the first difference is named.
    """
    first = tables[0]
    for other in tables[1:]:
        apart = sorted(set(first.columns) ^ set(other.columns))
        if apart:
            has = first if apart[0] in first.columns else other
            raise refuse(
                other.file,
                "",
                f"its columns are not those of {plain(first.file)}: only {plain(has.file)} has "
                f"{quoted_list(apart)}",
                "Files that are read together need the same columns.",
            )
    if len(tables) == 1:
        return Sheet((first,), first.columns)
    names = first.columns
    return Sheet(tuple(tables), {n: [v for t in tables for v in t.columns[n]] for n in names})


def kind_of(value: object) -> str:
    """What a value is, in words; whole numbers and others are numbers alike; empty for None."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true or false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "text"
    if isinstance(value, list):
        return "a list"
    return "an object" if isinstance(value, dict) else f"of type {type(value).__name__}"


def check_kinds(sheet: Sheet, name: str, allowed: Sequence[str]) -> None:
    """Refuse a column whose values are not of an allowed kind, or of several kinds.

    Args:
        allowed: kinds in the words of `kind_of`.

    Raises:
        UserError: with the line of the first value that is not.
    """
    values = sheet.column(name)
    if {type(value) for value in values} == {str} and "text" in allowed:
        return
    since: tuple[str, int] | None = None
    for row, kind in _kinds(values):
        since = since or (kind, row)
        if kind != since[0]:
            what = f"{quoted(name)} is {kind}, and {since[0]} in {sheet.where([since[1]])}"
            raise sheet.refused([row], what, "Write a column the same way in every row.")
        if kind not in allowed:
            what = f"{quoted(name)} is {kind} where {' or '.join(allowed)} belongs"
            raise sheet.refused([row], what, "Write it so in every row, or name another column.")


def _kinds(values: Sequence[object]) -> Iterator[tuple[int, str]]:
    for row, value in enumerate(values):
        if value is not None:
            yield row, kind_of(value)

"""Rows of a task and how to read them from one file, in each of the forms they come in.

Rows come out as stripped text and a class number or score. A file that is not what it should be
is named with its line; nothing is skipped in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from peftmark.catalog.task import Example, Task
from peftmark.core.errors import AssetError
from peftmark.core.shown import quoted
from peftmark.core.texts import number, read_json, shows_nothing

SCORE_DIGITS = 3
"""Decimals of a score. GLUE writes three; the hub's 32-bit floats and the few long decimals of
the original means agree with it only after rounding."""


Splits = tuple[list[Example], list[Example]]
"""Training rows and evaluation rows."""


def malformed(path: Path, line: int, found: str, expected: str) -> AssetError:
    """The error for a file that isn't what it should be; line 0 for the file as a whole."""
    where = f"{path}, line {line}" if line else str(path)
    return AssetError(f"{where}: {found}", f"Expected {expected}. Fix or replace the file.")


def read_lines(path: Path, encoding: str = "utf-8-sig") -> Iterator[tuple[int, str]]:
    """Numbered lines without their ends; only a line feed ends a line, as in GLUE's files."""
    try:
        data = path.read_bytes()
        text = data.decode(encoding)
    except OSError as error:
        raise AssetError(
            f"{path} can't be read: {error.strerror or error}", "Check the file and its rights."
        ) from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        found = f"byte 0x{data[error.start]:02x} is not UTF-8"
        raise malformed(path, line, found, "text in UTF-8") from error
    if not text:
        raise malformed(path, 0, "the file is empty", "a table of rows")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise malformed(path, line, "a NUL character", "text in UTF-8")
    for line_number, line_text in enumerate(text.removesuffix("\n").split("\n"), 1):
        yield line_number, line_text.removesuffix("\r")


def read_rows(path: Path, task: Task) -> list[Example]:
    """Rows of one split in GLUE's TSV form, as Parquet or as JSON lines, by the file's ending.

    For a task with `cuts` these are the published rows, scores and all.

    Raises:
        AssetError: the file can't be read or is malformed; names file, line and expectation.
    """
    reader = {".tsv": _tsv, ".jsonl": _jsonl, ".parquet": _parquet}[path.suffix]
    rows = [make_row(path, line, values, task) for line, values in reader(path, task)]
    if not rows:
        raise malformed(path, 0, "the file has no rows", "at least one row")
    return rows


def _columns(names: Sequence[str], path: Path, task: Task, line: int = 1) -> list[int]:
    """Positions of the texts and the label, by GLUE's names or the hub's."""
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise malformed(path, line, f"two columns are named {quoted(twice)}", "each name once")
    for form in _forms(task):
        if all(name in names for name in form):
            return [names.index(name) for name in form]
    expected = column_names(task)
    found = f"columns are {', '.join(map(repr, names))[:300]}"
    raise malformed(path, line, found, f"columns {expected}")


def _forms(task: Task) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """GLUE's columns of a task, and the hub's."""
    hub = task.hub_fields or task.fields
    if not task.label_field:
        return task.fields, hub
    return (*task.fields, task.label_field), (*hub, "label")


def column_names(task: Task) -> str:
    """The columns that a file of a task may have, in words."""
    return " or ".join(", ".join(form) for form in dict.fromkeys(_forms(task)))


def _tsv(path: Path, task: Task) -> Iterator[tuple[int, list[object]]]:
    names: Sequence[str] = task.header
    where: list[int] = _columns(names, path, task) if names else []
    for line, text in read_lines(path):
        cells = text.split("\t")
        if line == 1 and (not names or {"sentence", "label"} <= set(cells)):
            names = [cell.strip() for cell in cells]
            where = _columns(names, path, task)
            continue
        if len(cells) != len(names):
            if task.loose and len(cells) < len(names):
                continue
            found = f"{len(cells)} columns" if text else "a blank line"
            raise malformed(path, line, found, f"{len(names)} columns: {', '.join(names)}")
        yield line, [cells[i] for i in where]


def _jsonl(path: Path, task: Task) -> Iterator[tuple[int, list[object]]]:
    for line, text in read_lines(path):
        try:
            value = read_json(text)
        except (ValueError, RecursionError) as error:
            raise malformed(path, line, f"not JSON ({error})", "one object a line") from error
        if not isinstance(value, dict):
            raise malformed(path, line, f"found {text[:80]}", "one object a line")
        names = list(value)
        yield line, [value[names[i]] for i in _columns(names, path, task, line)]


def _parquet(path: Path, task: Task) -> Iterator[tuple[int, list[object]]]:
    import pandas as pd

    try:
        table = pd.read_parquet(path)
    except Exception as error:  # the engine's own kinds
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        found = f"not readable as Parquet ({reason})"
        raise malformed(path, 0, found, "a Parquet table") from error
    where = _columns([str(name) for name in table.columns], path, task)
    columns = [table.iloc[:, i].tolist() for i in where]
    for line, values in enumerate(zip(*columns, strict=True), 1):
        yield line, list(values)


def make_row(path: Path, line: int, values: Sequence[object], task: Task) -> Example:
    """A row from its texts and, of a task with labels, the label behind them."""
    count = len(values) - bool(task.label_field)
    texts = [
        # What an instruction is about may be nothing.
        _text(path, line, value, blank=task.loose or 0 < place < count - 1)
        for place, value in enumerate(values[:count])
    ]
    label = _label(path, line, values[-1], task) if task.label_field else 0
    if len(texts) > 2:  # an instruction, what it is about, and the answer
        texts = ["\n\n".join(text for text in texts[:-1] if text), texts[-1]]
    return Example(texts[0], texts[1] if len(texts) > 1 else None, label)


def _text(path: Path, line: int, value: object, *, blank: bool) -> str:
    if not isinstance(value, str):
        raise malformed(path, line, f"text is {repr(value)[:80]}", "text")
    text = value.strip()
    if "\0" in text or (not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text)):
        raise malformed(path, line, f"text is {text[:80]!r}", "text without NUL or surrogates")
    if shows_nothing(text) and not blank:
        raise malformed(path, line, "a text is empty", "text in every text column")
    return text


def _label(path: Path, line: int, value: object, task: Task) -> int | float:
    shown = repr(value)[:80]
    known = isinstance(value, str | int | float) and not isinstance(value, bool)
    if task.bounds:
        low, high = task.bounds
        score = _score(value) if known else None
        if score is None or not low <= score <= high:
            raise malformed(path, line, f"score is {shown}", f"a number from {low} to {high}")
        return round(score, SCORE_DIGITS)
    if known:
        # Parquet gives whole numbers as floats when one is missing.
        label = f"{value:g}" if isinstance(value, float) else str(value)
        if label in task.labels:
            return task.labels.index(label)
        if label in map(str, range(len(task.labels))):
            return int(label)
    names = ", ".join(f"{i} or {name}" for i, name in enumerate(task.labels))
    raise malformed(path, line, f"label is {shown}", f"one of {names}")


def _score(value: object) -> float | None:
    """A score, as a number or written as one; None if it is neither."""
    if isinstance(value, str):
        return number(value)
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        return None

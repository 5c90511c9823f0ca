"""CSV, TSV and JSON: text files, each row with its line.

Nothing is guessed: what can be read in two ways is refused with the remedy.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from peftmark.core.errors import UserError
from peftmark.core.shown import numbered, plural, quoted
from peftmark.core.texts import JSON, read_json, shows_nothing
from peftmark.own.table import Table, kind_of, refuse

MOST_BYTES = 2**31
"""Largest file that is read, unpacked; more belongs into Parquet or several files."""
MOST_LOOKED_AT = 4096
"""Bytes from which the encoding is told."""
SEPARATORS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar"}
PACKED: Mapping[str, Callable[[Path], BufferedIOBase]] = {
    "gz": gzip.GzipFile,
    "bz2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
}
COMPRESSED = {
    "gz": b"\x1f\x8b\x08",
    "bz2": b"BZh",
    "xz": b"\xfd7zXZ\x00",
    "zst": b"\x28\xb5\x2f\xfd",
    "zip": b"PK\x03\x04",
    "7z": b"7z\xbc\xaf\x27\x1c",
}
"""Kind of a compressed file -> how it begins."""
NO_BREAKS = "Quote texts that hold the separator or newlines; a quote inside is written twice."


def read_text_file(
    path: Path, form: str, pack: str, separator: str | None, encoding: str | None
) -> Table:
    """Rows of a text file.

    Args:
        form: csv, tsv or jsonl (lines, or one array).
        pack: a key of `PACKED`; empty for none.
        separator: of a CSV file; None for what its form says.
        encoding: its name; None for UTF-8, with or without a mark at its start.

    Raises:
        UserError: with the line of what is malformed.
    """
    text = _text(path, _bytes(path, pack), encoding)
    if form == "jsonl":
        return _json(path, text)
    return _separated(path, text, separator or ("\t" if form == "tsv" else ","), separator)


def _bytes(path: Path, pack: str) -> bytes:
    opened: Callable[[Path], BufferedIOBase] = PACKED.get(pack, lambda p: p.open("rb"))
    try:
        with opened(path) as file:
            raw = file.read(MOST_BYTES + 1)
    except (EOFError, lzma.LZMAError, zlib.error, gzip.BadGzipFile, ValueError) as error:
        raise refuse(str(path), "", f"it is no whole .{pack} file", "Pack it again.") from error
    except OSError as error:
        if pack and error.errno is None:  # what bz2 says of damage
            raise refuse(str(path), "", f"it is no whole .{pack} file", "Pack it again.") from error
        what = f"it can't be read: {error.strerror or error}"
        raise refuse(str(path), "", what, "Check its name and rights.") from error
    if len(raw) > MOST_BYTES:
        raise refuse(str(path), "", "it has more than 2 GiB", "Use Parquet, or several files.")
    kind = next((kind for kind, start in COMPRESSED.items() if raw.startswith(start)), "")
    if kind and not pack:
        remedy = f"Name it {path.name}.{kind}, or unpack it." if kind in PACKED else "Unpack it."
        raise refuse(str(path), "", f"it is compressed ({kind})", remedy)
    if not raw.strip():
        raise refuse(str(path), "", "it is empty", "Give a file with a header and rows.")
    return raw


def _text(path: Path, raw: bytes, encoding: str | None) -> str:
    codec = encoding or "utf-8-sig"
    if encoding and codecs.lookup(encoding).name == "utf-8":
        codec = "utf-8-sig"
    try:
        text = raw.decode(codec)
    except UnicodeDecodeError as error:
        if wide := _wide(raw, encoding):
            raise _of_wide(path, wide, encoding) from error
        line = raw.count(b"\n", 0, error.start) + 1
        guess = "latin-1"
        raise refuse(
            str(path),
            f"line {line}",
            f"byte 0x{raw[error.start]:02x} is not {encoding or 'UTF-8'}",
            f"Say which encoding it has, such as encoding: {guess}, or convert it: "
            "iconv -f LATIN1 -t UTF-8.",
        ) from error
    except UnicodeError as error:
        what = f"it is not {encoding}: {error}"
        raise refuse(str(path), "", what, "Name the encoding that it has.") from error
    if "\0" in text:
        if wide := _wide(raw, encoding):
            raise _of_wide(path, wide, encoding)
        line = text.count("\n", 0, text.index("\0")) + 1
        raise refuse(
            str(path),
            f"line {line}",
            "it holds a NUL character",
            "Take it out.",
        )
    return text


def _wide(raw: bytes, said: str | None) -> str:
    """The encoding of two bytes a character that a file is in, by the mark at its start or its NULs
    at every other place; empty if it is in none, or was said to be in one."""
    if said is not None and codecs.lookup(said).name.startswith("utf-16"):
        return ""
    if raw.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    start = raw[:MOST_LOOKED_AT]
    for name, nuls, others in (
        ("utf-16-le", start[1::2], start[::2]),
        ("utf-16-be", start[::2], start[1::2]),
    ):
        if 2 * nuls.count(0) > len(nuls) and not others.count(0):
            return name
    return ""


def _of_wide(path: Path, wide: str, encoding: str | None) -> UserError:
    shown = wide.upper() if wide in ("utf-16", "utf-32") else f"UTF-16 ({wide})"
    return refuse(
        str(path),
        "",
        f"it is {shown}, and not {encoding or 'UTF-8'}",
        f"Say so (encoding: {wide} in a suite, --encoding {wide} as an option), or convert it: "
        f"iconv -f {wide.upper().replace('16-', '16')} -t UTF-8.",
    )


# --- separated values -----------------------------------------------------------------------------


def _separated(path: Path, text: str, separator: str, said: str | None) -> Table:
    """Rows of a CSV or TSV file; pandas reads the values, `csv` says on which lines they start."""
    import pandas as pd

    head, lines = _starts(path, text, separator, said)
    try:
        frame = pd.read_csv(
            io.StringIO(text, newline=""),
            sep=separator,
            dtype=object,
            keep_default_na=False,
            na_filter=False,
            header=0,
            names=head,
            index_col=False,
            skip_blank_lines=True,
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as error:
        what = "its quotes don't close where rows end"
        raise refuse(str(path), "", what, NO_BREAKS) from error
    if len(lines) != len(frame):
        raise refuse(str(path), "", "its quotes don't close where rows end", NO_BREAKS)
    return Table(str(path), {name: frame[name].tolist() for name in head}, lines, "line")


def _starts(
    path: Path, text: str, separator: str, said: str | None
) -> tuple[list[str], Sequence[int]]:
    """The header, and the line on which each row after it starts.

    Raises:
        UserError: rows have more or fewer fields than the header, or quotes are wrong.
    """
    starts: list[int] = []
    ragged: dict[int, int] = {}
    head: list[str] = []
    for line, fields in _records(path, text, separator):
        if not head:
            head = _header(path, line, fields, separator, said)
            continue
        starts.append(line)
        if len(fields) != len(head):
            ragged[line] = len(fields)
    if ragged:
        first, count = next(iter(ragged.items()))
        others = f" ({numbered('line', list(ragged))} alike)" if len(ragged) > 1 else ""
        what = f"it has {plural(count, 'field')}, the header {len(head)}{others}"
        raise refuse(str(path), f"line {first}", what, NO_BREAKS)
    return head, starts


def _records(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Line and fields of every record that is not blank."""
    before, limit = 0, csv.field_size_limit(MOST_BYTES)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
        for fields in reader:
            if len(fields) > 1 or (fields and fields[0].strip()):
                yield before + 1, fields
            elif fields and fields[0] == "" and text and reader.line_num > before:
                # A quoted nothing alone on its line is a row of one column; pandas says so too.
                yield before + 1, fields
            before = reader.line_num
    except csv.Error as error:
        end = "end of data" in str(error)
        raise refuse(
            str(path),
            f"line {before + 1}",
            "a quote is opened there and never closed"
            if end
            else "text follows a closing quote, or a line ends where none may",
            NO_BREAKS,
        ) from error
    finally:
        csv.field_size_limit(limit)


def _header(
    path: Path, line: int, fields: Sequence[str], separator: str, said: str | None
) -> list[str]:
    # A name that nobody can see is none.
    head = ["" if shows_nothing(name) else name.strip() for name in fields]
    place = f"line {line}"
    if not any(head):
        remedy = "Name the columns in the first line."
        raise refuse(str(path), place, "there is no header", remedy)
    for name in head:
        if head.count(name) > 1:
            at = [str(i + 1) for i, other in enumerate(head) if other == name]
            which = f"are both named {quoted(name)}" if name else "have no name"
            remedy = "Give each column a name of its own."
            raise refuse(str(path), place, f"columns {' and '.join(at)} {which}", remedy)
    others = [s for s in SEPARATORS if s != separator and len(head) == 1 and s in head[0]]
    if others and said is None:
        raise refuse(
            str(path),
            place,
            f"one column found, {quoted(head[0])}, which holds a {SEPARATORS[others[0]]}",
            f"If that separates the columns, say so: separator: {json.dumps(others[0])} in a "
            "suite, --separator on the command line.",
        )
    return head


# --- JSON -----------------------------------------------------------------------------------------


def _json(path: Path, text: str) -> Table:
    """Objects, one a line or all in one array."""
    whole = text.lstrip().startswith("[")
    rows, lines = [], []
    for line, value in _array(path, text) if whole else _lines(path, text):
        if not isinstance(value, dict):
            what = f"{kind_of(value) or 'null'} where an object belongs"
            remedy = 'Write one object for each row, such as {"text": "...", "label": "..."}.'
            raise refuse(str(path), f"line {line}", what, remedy)
        rows.append(value)
        lines.append(line)
    names = dict.fromkeys(name for row in rows for name in row)
    return Table(str(path), {n: [row.get(n) for row in rows] for n in names}, lines, "line")


def _lines(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line or line.isspace():
            continue
        try:
            value = read_json(line)
        except (ValueError, RecursionError) as error:
            raise _no_json(path, number, error) from error
        yield number, value


def _array(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    at, line = text.index("[") + 1, text.count("\n", 0, text.index("[")) + 1
    space = re.compile(r"[\s,]*")
    while True:
        end = space.match(text, at)
        assert end is not None
        line += text.count("\n", at, end.end())
        at = end.end()
        if text[at : at + 1] == "]":
            if text[at + 1 :].strip():
                raise _no_json(path, line, ValueError("more follows the array"))
            return
        try:
            value, after = JSON.raw_decode(text, at)
        except (ValueError, RecursionError) as error:
            raise _no_json(path, line, error) from error
        yield line, value
        line, at = line + text.count("\n", at, after), after


def _no_json(path: Path, line: int, error: Exception) -> UserError:
    said = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    if isinstance(error, json.JSONDecodeError):
        said = f"{error.msg.removesuffix(' starting at')} at column {error.colno}"
    return refuse(
        str(path),
        f"line {line}",
        f"no JSON: {said}",
        "Fix the line: one JSON object a line, or one array of objects.",
    )

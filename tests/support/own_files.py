"""Files as people have them, written by the tests: a few hundred tickets, and what goes wrong."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

CLASSES = ("bug", "praise", "refund")
COUNT = 240
Row = Sequence[object]


def tickets(count: int = COUNT) -> list[tuple[str, str]]:
    """Texts with one of three classes, all different."""
    said = ("the app crashes on page", "I love the lamp number", "pay me back invoice")
    return [(f"{said[n % 3]} {n}", CLASSES[n % 3]) for n in range(count)]


def separated(head: Row, rows: Iterable[Row], separator: str = ",", end: str = "\n") -> str:
    """Rows as the text of a CSV file."""
    text = io.StringIO()
    csv.writer(text, delimiter=separator, lineterminator=end).writerows([head, *rows])
    return text.getvalue()


def lines(rows: Iterable[object]) -> str:
    """Rows as JSON lines."""
    return "".join(json.dumps(row) + "\n" for row in rows)


def labelled(change: Callable[[int, str, str], tuple[str, str]] | None = None) -> str:
    """The tickets as CSV, each changed as the function says."""
    rows = tickets()
    if change is not None:
        rows = [change(n, text, label) for n, (text, label) in enumerate(rows)]
    return separated(("body", "category"), rows)


def chat(last_user: int = -1) -> str:
    """Conversations of two assistant turns; one row may end with the user's."""
    rows = []
    for n, (text, label) in enumerate(tickets()):
        turns = [
            ("system", "You sort tickets."),
            ("user", text),
            ("assistant", label),
            ("user", "sure?"),
            ("assistant", f"Yes, {label}."),
        ]
        if n == last_user:
            turns.append(("user", "thanks"))
        rows.append({"messages": [{"role": role, "content": said} for role, said in turns]})
    return lines(rows)


def write(folder: Path, name: str, content: str | bytes) -> Path:
    """A file in a folder, packed if its name says so."""
    data = content if isinstance(content, bytes) else content.encode()
    path = folder / name
    path.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return path

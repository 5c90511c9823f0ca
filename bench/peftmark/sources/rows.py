"""The rows of a task and what stands for them, whatever they were read from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from peftmark.catalog.task import Example

MORE = ("tags", "choices", "turns")
"""Fields that only some rows have."""

_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True)
class TaskData:
    """Both splits of a task.

    Attributes:
        source: where the rows came from, for people.
        fingerprint: SHA-256 over the rows, see `fingerprint`.
    """

    train: tuple[Example, ...]
    eval: tuple[Example, ...]
    source: str
    fingerprint: str


def fingerprint(train: Iterable[Example], evaluation: Iterable[Example]) -> str:
    """SHA-256 over the rows of both splits in order, as canonical JSON lines.

    A line is `["text","pair" or null,label]` in UTF-8, scores in Python's shortest form, and an
    object with tags, choices or turns after them where a row has some; each split starts with its
    name, so that moving a row between them changes the result.
    """
    digest = hashlib.sha256()
    for name, rows in (("train", train), ("eval", evaluation)):
        digest.update(f'"{name}"\n'.encode())
        for row in rows:
            line = _ENCODER.encode(row_values(row))
            digest.update(line.encode() + b"\n")
    return digest.hexdigest()


def row_values(row: Example) -> list[Any]:
    """A row as the JSON that its fingerprint is made of."""
    more = {name: getattr(row, name) for name in MORE if getattr(row, name)}
    return [row.text, row.pair, row.label, *([more] if more else [])]


def overlap(data: TaskData) -> int:
    """Number of evaluation rows whose texts also stand in the training split."""
    seen = {row.read for row in data.train}
    return sum(row.read in seen for row in data.eval)

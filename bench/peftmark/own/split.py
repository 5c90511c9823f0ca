"""A split where nobody made one: drawn by a hash of the rows, so that it doesn't move.

Copies of a row stand on one side. Of each class the rows with the smallest hashes evaluate, as many
as its share asks for: a row that is added or taken out moves at most a row at the border of its
class, and the order of the file moves none.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Sequence

from peftmark.catalog.task import Example

SALT = b"peftmark split 1\n"


def draw(rows: Sequence[Example], share: float, by_label: bool) -> tuple[list[int], list[int]]:
    """Which rows train and which evaluate, each in the order of the file.

    Args:
        share: of the rows of each class that evaluates, in ]0, 1[.
        by_label: whether classes are split each by itself; else all rows together.

    Returns:
        numbers of the rows. A class whose rows are all copies of one stays in training whole; where
        that holds for all rows, nothing evaluates.
    """
    copies: dict[object, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        copies[row.read].append(number)
    classes: dict[object, list[list[int]]] = defaultdict(list)
    for group in copies.values():
        # Copies with several labels count where most of them are.
        label = rows[group[0]].label
        if by_label and len(group) > 1:
            counts = Counter(rows[number].label for number in group)
            label = min(counts, key=lambda one: (-counts[one], one))
        classes[label if by_label else None].append(group)
    chosen: set[int] = set()
    for groups in classes.values():
        chosen.update(_of_class(rows, groups, share))
    everything = range(len(rows))
    return [n for n in everything if n not in chosen], [n for n in everything if n in chosen]


def _of_class(rows: Sequence[Example], groups: Sequence[list[int]], share: float) -> list[int]:
    """The evaluation rows of one class: at least one group, never all."""
    quota = max(1, round(share * sum(map(len, groups))))
    ranked = sorted(groups, key=lambda group: content_hash(rows[group[0]]))
    chosen: list[int] = []
    for group in ranked[: len(groups) - 1]:
        if len(chosen) >= quota:
            break
        chosen.extend(group)
    return chosen


def content_hash(row: Example) -> str:
    """SHA-256 over what a model is shown of a row; labels don't count."""
    if row.choices or row.turns:
        content = json.dumps(row.read, ensure_ascii=False)
    else:
        content = row.text if row.pair is None else f"{row.text}\0{row.pair}"
    return hashlib.sha256(SALT + content.encode()).hexdigest()

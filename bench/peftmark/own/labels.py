"""Labels as people write them: which are the same, which are missing, in what order classes are."""

from __future__ import annotations

import math
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from peftmark.core.shown import quoted
from peftmark.core.texts import number, shows_nothing

MISSING = frozenset({"NaN", "nan", "NA", "N/A", "n/a", "None", "null", "NULL", "<NA>", "#N/A", ""})
"""How programs write that a label is missing; where one is a class, `labels:` declares it."""


def label_word(value: object) -> str | None:
    """A label as a word; None for one that is missing. Text stays as it stands."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() else repr(value)
    return str(value)


def as_number(word: str) -> float | None:
    """The number that a word is; None if it is none."""
    return number(word.strip())


def missing(label: object, declared: Sequence[str]) -> bool:
    """Whether a label is none."""
    word = label_word(label)
    if word is None or word.strip() in declared:
        return word is None
    return word.strip() in MISSING or shows_nothing(word)


def hidden(words: Iterable[str | None], declared: Sequence[str]) -> bool:
    """Whether -1 among these labels stands for no label: all others are numbers from 0."""
    if "-1" in declared:
        return False
    known = {word.strip() for word in words if word is not None and word.strip() not in MISSING}
    numbers = [as_number(word) for word in known - {"-1", "-1.0"}]
    return all(n is not None and n >= 0 for n in numbers)


def in_order(words: Iterable[str]) -> tuple[str, ...]:
    """Class names sorted: numbers by value, others by their characters (false before true)."""
    names = set(words)
    numbers = {name: as_number(name) for name in names}
    if None not in numbers.values():
        return tuple(sorted(names, key=lambda name: (numbers[name] or 0.0, name)))
    return tuple(sorted(names))


def clashes(words: Iterable[str]) -> list[list[str]]:
    """Spellings that differ only in case, spaces or punctuation, in groups of those alike."""
    counts = Counter(words)
    groups: dict[object, list[str]] = defaultdict(list)
    for word in sorted(counts):
        groups[_folded(word)].append(word)
    return [group for group in groups.values() if len(group) > 1]


def _folded(word: str) -> object:
    value = as_number(word)
    if value is not None:
        return value
    text = unicodedata.normalize("NFKC", word).casefold()
    return "".join(c for c in text if c.isalnum()) or word.strip()


def spellings(groups: Sequence[Sequence[str]], most: int = 4) -> str:
    """Groups of spellings in words."""
    more = f"; and {len(groups) - most} more" if len(groups) > most else ""
    return "; ".join(", ".join(map(quoted, group[:6])) for group in groups[:most]) + more

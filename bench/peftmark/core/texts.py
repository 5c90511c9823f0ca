"""Texts that people wrote, read strictly: numbers, JSON, and whether there is anything to see.

Python's own `int` and `float` take more than anybody means: `0_3`, digits of every script, spaces,
`nan`. What is read here is what it looks like, or refused by whoever asks.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable
from typing import Any

from peftmark.core.shown import quoted

_WHOLE = re.compile(r"[0-9]{1,18}")
_NUMBER = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
# Letters and marks that take no ink, though Unicode doesn't call them format characters: fillers of
# Hangul, the blank of braille, the joiner of graphemes, vowels of Khmer that stand for nothing, and
# selectors of variants.
_NO_INK = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)


def whole_number(text: str) -> int | None:
    """A whole number from 0, in the digits 0 to 9 alone; None if the text is none."""
    return int(text) if _WHOLE.fullmatch(text) else None


def number(text: str) -> float | None:
    """A decimal number, with or without an exponent, and nothing around it; None if it is none."""
    return float(text) if _NUMBER.fullmatch(text) else None


def shows_nothing(text: str) -> bool:
    """Whether a text has no character with ink: empty, spaces, and what nobody can see, such as
    spaces of no width, marks of direction or byte order, soft hyphens and the blank of braille."""
    if text.isascii():
        return not text or text.isspace() or not any(" " < c < "\x7f" for c in text)
    return all(
        c.isspace() or unicodedata.category(c) in ("Cc", "Cf") or _NO_INK.match(c) for c in text
    )


def keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON whose keys stand in it once.

    Raises:
        ValueError: one stands twice.
    """
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {quoted(twice)} stands twice in one object")
    return found


JSON = json.JSONDecoder(object_pairs_hook=keys_once)
"""Reads JSON in which no object has a key twice; ValueError for everything else."""
read_json: Callable[[str], Any] = JSON.decode

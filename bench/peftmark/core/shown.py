"""How strings that a user wrote are shown: no control character of theirs reaches a terminal, and
no password that stands in a URL reaches a message, a log, a row or a page."""

from __future__ import annotations

import re
from collections.abc import Sequence

_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but the tab and the line's end
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u206f"  # that turn the direction of writing
    "\u00ad\u180e\u200b-\u200d\u2060-\u2065\ufeff"  # of no width
    "\u2028\u2029\ufff9-\ufffb\U000e0000-\U000e0fff\ud800-\udfff]"  # others that nobody sees
)
MARK = "\N{REPLACEMENT CHARACTER}"
MOST_CHARACTERS = 60
MOST_PLACES = 12


def quoted(value: object, most: int = MOST_CHARACTERS) -> str:
    """A value in quotes on one line, what can't be printed escaped, cut after `most` characters."""
    return short(repr(value), most)


def short(text: str, most: int = MOST_CHARACTERS) -> str:
    """A text, cut after `most` characters."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


# The second is a password that holds a slash; a port isn't one. The third is a proxy as people name
# it, without a scheme. What follows a question mark may be a key or a signature.
_SECRETS = tuple(
    (re.compile(pattern, re.ASCII), kept)
    for pattern, kept in (
        (r"(://)[^\s/@'\"<>]*@", r"\1"),
        (r"(://)[^\s/@:'\"<>]*:(?![0-9]+(?:/|\s|$))[^\s@'\"<>]*@", r"\1"),
        (r"(^|[\s'\"(=])[^\s/@:'\"(=]+:[^\s/@:'\"]+@(?=[\w.-]+(?::[0-9]|[.]))", r"\1"),
        (r"([a-z][a-z0-9+.-]*://[^\s'\"<>?#]*)[?][^\s'\"<>]*", r"\1"),
    )
)


def without_secrets(text: str) -> str:
    """A text whose URLs have lost user, password and query: the one way by which addresses of hubs,
    indexes, proxies and buckets come into messages."""
    if "@" not in text and "?" not in text:
        return text
    for pattern, kept in _SECRETS:
        text = pattern.sub(kept, text)
    return text


def plain(text: str) -> str:
    """A string on one line, with a mark in place of what can't be printed."""
    return "".join(c if c.isprintable() else MARK for c in text)


def visible(text: str) -> str:
    """A text of any number of lines, with a mark in place of each character that would act on a
    terminal or a page, or show the text as another one than it is."""
    return _UNSEEN.sub(MARK, text)


def quoted_list(values: Sequence[object], most: int = MOST_PLACES) -> str:
    """Values in quotes, the first `most` of them and how many more."""
    more = f" and {len(values) - most:,} more" if len(values) > most else ""
    return ", ".join(map(quoted, values[:most])) + more


def plural(n: int, noun: str, many: str = "") -> str:
    """`1 seed`, `2 seeds`."""
    return f"{n:,} {noun if n == 1 else many or noun + 's'}"


def numbered(unit: str, places: Sequence[int], most: int = MOST_PLACES) -> str:
    """Places in words, such as "lines 7, 9 and 40 more"."""
    shown = ", ".join(f"{place:,}" for place in places[:most])
    more = f" and {len(places) - most:,} more" if len(places) > most else ""
    return f"{unit}{'' if len(places) == 1 else 's'} {shown}{more}"

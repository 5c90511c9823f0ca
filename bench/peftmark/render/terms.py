"""What a page says of a method's or task's name in a line, and where the name can be tapped.

A name is a button that opens its line, which the page holds once: natively, without a script.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from html import escape

_CLOSING = re.compile(r"[,.;:)!?]+")
ARXIV = re.compile(r"arXiv (\d{4}\.\d{4,5}|[a-z-]+/\d{7})")


@dataclass(frozen=True)
class Term:
    """A name that not every reader knows.

    Attributes:
        key: what its line is called on the page; letters, digits and hyphens.
        title: the name by itself.
        text: what it is, in a line.
        paper: where it is from; empty where nothing is known.
        names: what stands for it on the page, such as "LoRA r8" and "QLoRA r8".
    """

    key: str
    title: str
    text: str
    paper: str
    names: tuple[str, ...]

    @property
    def line(self) -> str:
        """All of it but the title, as plain text."""
        return ". ".join(filter(None, (self.text, self.paper)))


def keys_of(terms: Collection[Term]) -> dict[str, str]:
    """Name -> the key of its line."""
    return {name: term.key for term in terms for name in (term.title, *term.names)}


def button(name: str, keys: Mapping[str, str]) -> str:
    """A known name as a button that opens its line, as HTML."""
    key = escape(keys[name], quote=True)
    return f'<button class="term" popovertarget="what-{key}">{escape(name)}</button>'


def in_text(text: str, keys: Mapping[str, str]) -> str:
    """A sentence as HTML, each known name in it a button where it first stands."""
    if not keys:
        return escape(text)
    seen: set[str] = set()
    parts = _names(tuple(keys)).split(text)
    for i in range(1, len(parts), 2):
        name = parts[i]
        parts[i] = escape(name) if name in seen else button(name, keys)
        if name not in seen and (after := _CLOSING.match(parts[i + 1])):
            # A browser may break a line behind a button, which is no place to begin one with ",".
            parts[i] = f'<span class="whole">{parts[i]}{escape(after[0])}</span>'
            parts[i + 1] = parts[i + 1][after.end() :]
        seen.add(name)
    parts[::2] = map(escape, parts[::2])
    return "".join(parts)


@cache
def _names(names: tuple[str, ...]) -> re.Pattern[str]:
    """Any of some names as whole words, the longest first."""
    ordered = sorted(names, key=len, reverse=True)
    return re.compile(rf"(?<![\w+-])({'|'.join(map(re.escape, ordered))})(?![\w-])")


def paper(text: str) -> str:
    """A source as HTML, its arXiv numbers as links, which nothing follows unasked."""
    link = r'<a href="https://arxiv.org/abs/\1">arXiv \1</a>'
    return ARXIV.sub(link, escape(text))

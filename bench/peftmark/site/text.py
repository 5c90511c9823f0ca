"""Markdown and HTML of the site's own pages, every text escaped."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from peftmark.core.shown import visible
from peftmark.render.markdown import escape as escape
from peftmark.render.page import Entry, Grid

MADE = "<!-- Made by `make site` from published rows and code. -->"


def page(*blocks: str, hide: Sequence[str] = (), searched: bool = True) -> str:
    """A page of blocks with an empty line between them; those that are empty are left out.

    Args:
        hide: what gives its room to a wide page: navigation, toc (the list of headings) or both.
        searched: whether the search finds what is on it.
    """
    facts = [f"hide: {json.dumps(list(hide))}"] if hide else []
    facts += [] if searched else ["search: {exclude: true}"]
    head = "\n".join(["---", *facts, "---", "", ""]) if facts else ""
    return head + "\n\n".join([*filter(None, blocks), MADE]) + "\n"


def link(text: str, address: str) -> str:
    """A link to a page or file of the site."""
    return f"[{escape(text)}]({quote(address, safe='/#._-~')})"


def sentences(texts: Iterable[str]) -> str:
    """Texts as a list, escaped."""
    return "\n".join(f"- {escape(text)}" for text in texts)


def plain(text: str) -> str:
    """Text in HTML, as it is."""
    return html.escape(visible(" ".join(text.split())))


@dataclass(frozen=True)
class Cell:
    """What stands at one place of a table.

    Attributes:
        text: what it says, as plain text.
        note: a small second line.
        address: where it leads; empty for no link.
        sort: what it sorts by; None for its text.
        look: a class of its own, such as that of a verdict.
    """

    text: str
    note: str = ""
    address: str = ""
    sort: float | None = None
    look: str = ""


def table(
    head: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    caption: str,
    *,
    hints: Sequence[str] = (),
    numeric: Sequence[int] = (),
    filtered: bool = False,
) -> str:
    """A table in a frame that scrolls by itself; its script sorts it and, if asked, filters it.

    Args:
        head: titles of the columns; the first column names the row.
        hints: a small line below each title; none for no such lines.
        numeric: columns whose figures stand right.
        filtered: whether a field to filter rows stands above it.
    """
    titles = "".join(
        f'<th scope="col"{_class(["num"] if i in numeric else [])}>{plain(title)}'
        f"{f'<small>{plain(hint)}</small>' if hint else ''}</th>"
        for i, (title, hint) in enumerate(zip(head, hints or [""] * len(head), strict=True))
    )
    body = "\n".join(f"<tr>{_row(row, numeric)}</tr>" for row in rows)
    mark = " data-filter" if filtered else ""
    return (
        f'<div class="pm-frame" role="region" tabindex="0" aria-label="{plain(caption)}"{mark} '
        "data-search-exclude>\n"
        f'<table class="pm-table"><caption>{plain(caption)}</caption>\n'
        f"<thead><tr>{titles}</tr></thead>\n<tbody>\n{body}\n</tbody></table>\n</div>"
    )


def _row(row: Sequence[Cell], numeric: Sequence[int]) -> str:
    return "".join(_cell(cell, i == 0, i in numeric) for i, cell in enumerate(row))


def _cell(cell: Cell, first: bool, numeric: bool) -> str:
    text = plain(cell.text)
    if cell.address:
        # MkDocs turns links to pages into those to their HTML in Markdown alone.
        address = re.sub(r"\.md(?=#|$)", ".html", quote(cell.address, safe="/#._-~"))
        text = f'<a href="{html.escape(address)}">{text}</a>'
    if cell.look:
        text = f'<span class="pm-{cell.look}">{text}</span>'
    if cell.note:
        text += f"<small>{plain(cell.note)}</small>"
    tag = 'th scope="row"' if first else "td"
    sort = "" if cell.sort is None else f' data-sort="{cell.sort:.6g}"'
    return f"<{tag}{_class(['num'] if numeric else [])}{sort}>{text}</{tag.split()[0]}>"


def _class(names: Sequence[str]) -> str:
    return f' class="{" ".join(names)}"' if names else ""


def grid(found: Grid) -> str:
    """A table of a report."""
    numeric = [i for i, column in enumerate(found.columns) if column.numeric]
    rows = [[_entry(entry) for entry in row] for row in found.rows]
    made = table(
        [column.title for column in found.columns],
        rows,
        found.caption,
        hints=[column.hint for column in found.columns],
        numeric=numeric,
    )
    return f"{made}\n\n{escape(found.note)}" if found.note else made


def _entry(entry: Entry) -> Cell:
    return Cell(entry.text, entry.note, sort=entry.sort, look=look_of(entry.text))


LOOKS = {
    "higher": "good",
    "reproduced": "good",
    "confirmed on paper": "good",
    "lower": "bad",
    "contradicted": "bad",
    "refuted on paper": "bad",
    "equivalent": "even",
    "undecided": "open",
    "no interval": "open",
}
"""Word of a verdict -> how it looks; colour is never all that tells it."""


def look_of(text: str) -> str:
    """How a verdict looks; empty for any other text."""
    found = (look for word, look in LOOKS.items() if text == word or text.startswith(f"{word} "))
    return next(found, "")

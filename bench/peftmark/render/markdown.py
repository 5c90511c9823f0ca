"""A page as GitHub-flavoured Markdown with its pictures beside it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from peftmark.core.shown import visible
from peftmark.render.page import (
    Block,
    Column,
    Entry,
    Figure,
    Figures,
    FirstScreen,
    Grid,
    Page,
    Paragraph,
    Tile,
)

PICTURES = "figures"

MOST_CHARACTERS = 60_000
"""What a comment on a pull request takes is 65,536; some room is left for a wrapper."""

MOST_ROWS = 100
FIRST = ("coverage", "validity", "claims", "choice")
"""Sections that are kept longest: what failed, what can't be trusted, what it all means."""


@dataclass(frozen=True)
class _Piece:
    """A part of the text; those of the highest rank are left out first, from the end."""

    text: str
    rank: int


def render(page: Page, most: int = MOST_CHARACTERS) -> str:
    """The Markdown text; pictures are expected as `figures/<name>.svg`.

    Args:
        page: what to show.
        most: characters at most. Folded tables go first, then pictures, then other tables; what is
            at the top of the page and the worst news stay.
    """
    first = page.first
    pieces = [_Piece(_top(page) if first is None else _first(page, first), 0)]
    pieces += (_Piece(_block(b), 0) for b in page.opening)
    for section in page.sections:
        pieces.append(_Piece(f"## {escape(section.title)}\n\n{escape(section.lead)}", 0))
        blocks = (*section.picture, *section.blocks)
        pieces += (_Piece(_block(b), _rank(section.key, b)) for b in blocks)
    pieces += [_Piece(_lines(page), 3)] if page.terms else []
    kept, left_out = _fit(pieces, most - 200)
    if left_out:
        kept.append(
            f"{left_out} tables and pictures are left out to keep this short; index.html beside "
            "it has them all."
        )
    text = "\n\n".join(kept) + "\n"
    if len(text) <= most:
        return text
    ending = "\n\nCut here to keep this short; index.html beside it has it all.\n"
    return text[: most - len(ending)].rpartition("\n")[0] + ending


def _rank(key: str, block: Block) -> int:
    if isinstance(block, Figure | Figures):
        return 3
    if isinstance(block, Grid) and block.folded:
        return 4
    return 1 if key in FIRST or isinstance(block, Paragraph) else 2


def _fit(pieces: list[_Piece], most: int) -> tuple[list[str], int]:
    """The texts that fit in their order, and how many do not."""
    size = sum(len(p.text) + 2 for p in pieces)
    dropped: set[int] = set()
    for i in sorted(range(len(pieces)), key=lambda i: (-pieces[i].rank, -i)):
        if size <= most or pieces[i].rank == 0:
            break
        dropped.add(i)
        size -= len(pieces[i].text) + 2
    return [p.text for i, p in enumerate(pieces) if i not in dropped], len(dropped)


def _top(page: Page) -> str:
    parts = [f"# {escape(page.title)}", _facts(page), escape(page.finding)]
    parts += [f"> **{escape(alarm)}**" for alarm in page.alarms]
    return "\n\n".join(filter(None, (*parts, _warning(page), _notes(page), _links(page))))


def _first(page: Page, first: FirstScreen) -> str:
    """The answer, its caveat, one chart and one table, as on the first screen of the page."""
    parts = [f"# {escape(page.title)}", escape(first.scope)]
    parts += [f"> **{escape(alarm)}**" for alarm in page.alarms]
    parts += [f"**{escape(first.answer)}**"]
    parts += ["\n".join(f"- {escape(reason)}" for reason in first.reasons), escape(first.caveat)]
    parts += [_figure(chart.figure) for chart in first.charts[:1]]
    parts += [_grid(first.table)] if first.table else []
    parts.append("\n".join(_tile(tile) for tile in first.tiles))
    parts += [_warning(page), _notes(page), _facts(page), _links(page)]
    parts += [_figure(chart.figure) for chart in first.charts[1:]]
    return "\n\n".join(filter(None, parts))


def _tile(tile: Tile) -> str:
    signs = "; ".join(f"{sign.mark} {sign.text}" for sign in tile.signs)
    told = "; ".join(filter(None, (tile.value, tile.note, signs)))
    return f"- **{escape(tile.title)}:** {escape(told)}"


def _lines(page: Page) -> str:
    """What the names of methods and tasks mean, a line each."""
    lines = "\n".join(f"- **{escape(t.title)}:** {escape(t.line)}" for t in page.terms)
    return f"## What the names mean\n\n{lines}"


def _facts(page: Page) -> str:
    return "\n".join(f"- **{escape(k)}:** {escape(v)}" for k, v in page.facts)


def _warning(page: Page) -> str:
    return f"> **{escape(page.warning)}**" if page.warning else ""


def _notes(page: Page) -> str:
    return "\n".join(f"- {escape(note)}" for note in page.notes)


def _links(page: Page) -> str:
    links = (f"[{escape(text)}](<{address}>)" for text, address in page.links)
    return " · ".join(links)


def escape(text: str) -> str:
    """Text that Markdown shows as it is: on one line, no markup, no mentions."""
    line = visible(" ".join(text.split()))
    line = line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    line = re.sub(r"([\\`*_|\[\]#~])", r"\\\1", line)
    line = re.sub(r"^([-+]|\d+[.)])(?=\s)", lambda m: f"{m[1][:-1]}\\{m[1][-1]}", line)
    return re.sub(r"(?<!\w)@(?=\w)", "@\u200b", line)


def _block(block: Block) -> str:
    if isinstance(block, Paragraph):
        return escape(block.text)
    if isinstance(block, Figure):
        return _figure(block)
    if isinstance(block, Figures):
        return "\n\n".join(_figure(figure) for figure in block.figures)
    return _grid(block)


def _figure(figure: Figure) -> str:
    title = f"{escape(figure.title)}: " if figure.title else ""
    finding = escape(figure.finding)
    image = f"![{finding}]({PICTURES}/{figure.name}.svg)"
    return f"**{title}{finding}**{_small(figure.note)}\n\n{image}"


def _small(note: str) -> str:
    return f" {escape(note)}" if note else ""


def _grid(grid: Grid) -> str:
    lines = [
        _line([_head(c) for c in grid.columns]),
        _line(["---:" if c.numeric else "---" for c in grid.columns]),
        *(_line([_entry(e) for e in row]) for row in grid.rows[:MOST_ROWS]),
    ]
    table = "\n".join(lines)
    if len(grid.rows) > MOST_ROWS:
        table += f"\n\n{len(grid.rows) - MOST_ROWS:,} more rows are in index.html."
    if grid.note:
        table += f"\n\n{escape(grid.note)}"
    if grid.folded or grid.is_long:
        summary = f"<summary>{escape(grid.caption)}</summary>"
        return f"<details>{summary}\n\n{table}\n\n</details>"
    return f"**{escape(grid.caption)}**\n\n{table}"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _head(column: Column) -> str:
    return escape(column.title) + (f"<br>{escape(column.hint)}" if column.hint else "")


def _entry(entry: Entry) -> str:
    text = escape(entry.text)
    if entry.kind == "code":
        text = f"<code>{text}</code>"
    return f"{text}<br>{escape(entry.note)}" if entry.note else text

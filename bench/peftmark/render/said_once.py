"""The number of seeds said once for a page, not in every entry of its tables."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from peftmark.render.page import Block, Entry, Grid, Page, Section

COUNT = re.compile(r"n = \d+")


def said_once(page: Page) -> Page:
    """The page without "n = 3" in the entries, where 3 is the commonest count, and with a fact
    that says it. Entries that rest on another count, or have more to say of theirs, keep it."""
    if page.first is None:
        return page
    counts = Counter(
        part for g in _grids(page) for row in g.rows for e in row for part in _counts(e)
    )
    if not counts:
        return page
    usual = max(counts, key=lambda part: (counts[part], part))
    table = page.first.table
    first = replace(page.first, table=None if table is None else _grid(table, usual))
    told = ("seeds of a figure", f"{usual} where nothing else is said")
    sections = tuple(_section(s, usual) for s in page.sections)
    return replace(page, first=first, sections=sections, facts=(*page.facts, told))


def _grids(page: Page) -> Iterable[Grid]:
    if page.first is not None and page.first.table is not None:
        yield page.first.table
    for section in page.sections:
        yield from section.grids()


def _counts(entry: Entry) -> list[str]:
    if not entry.note.count("n = "):
        return []
    return [part for part in entry.note.split("; ") if COUNT.fullmatch(part)]


def _section(section: Section, usual: str) -> Section:
    blocks = tuple(_block(b, usual) for b in section.blocks)
    picture = tuple(_grid(b, usual) if isinstance(b, Grid) else b for b in section.picture)
    return replace(section, blocks=blocks, picture=picture)


def _block(block: Block, usual: str) -> Block:
    return _grid(block, usual) if isinstance(block, Grid) else block


def _grid(grid: Grid, usual: str) -> Grid:
    if not any(usual in e.note for row in grid.rows for e in row):
        return grid
    rows = tuple(tuple(_entry(e, usual) for e in row) for row in grid.rows)
    return replace(grid, rows=rows)


def _entry(entry: Entry, usual: str) -> Entry:
    if usual not in entry.note:
        return entry
    parts = entry.note.split("; ")
    return replace(entry, note="; ".join(part for part in parts if part != usual))

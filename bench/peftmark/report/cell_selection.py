"""Which cells a picture shows where there are more than a reader can take in.

Tables always have every cell; a picture that leaves some out says so.
"""

from __future__ import annotations

from collections.abc import Sequence

from peftmark.analysis.table import ResultTable, overall_score
from peftmark.catalog.methods import Cell, method_of
from peftmark.render import words
from peftmark.render.page import marks

MOST_LINES = 6
MOST = 20
"""Cells of a chart with one row a cell, and those that have learning curves."""


def picks(table: ResultTable, most: int = MOST) -> tuple[Cell, ...]:
    """At most `most` cells in the order of the table; all of them if they are no more.

    The reference and the reference lines come first, then the best of each series (`page.marks`),
    the best of each method, and the best of what is left, by mean score over tasks.
    """
    return of(table, table.cells, most)


def of(table: ResultTable, cells: Sequence[Cell], most: int) -> tuple[Cell, ...]:
    """The same for some cells of the table."""
    if len(cells) <= most:
        return tuple(cells)
    look = marks(table.cells)
    by_score = sorted(cells, key=lambda cell: _score(table, cell), reverse=True)
    order: dict[Cell, tuple[int, float]] = {}
    series: set[str] = set()
    methods: set[str] = set()
    for place, cell in enumerate(by_score):
        family, method = look[cell].series, cell.method
        known = method_of(method)
        if cell == table.reference:
            tier = 0
        elif known is not None and known.family == "reference":
            tier = 1
        else:
            tier = 2 if family not in series else 3 if method not in methods else 4
        order[cell] = (tier, place)
        series.add(family)
        methods.add(method)
    kept = sorted(order, key=lambda cell: order[cell])[:most]
    return tuple(cell for cell in cells if cell in kept)


def panels(table: ResultTable, cells: Sequence[Cell]) -> list[list[Cell]]:
    """Groups of at most six lines; the reference stands in every group."""
    lead = [c for c in cells if c == table.reference]
    rest = [c for c in cells if c != table.reference]
    size = MOST_LINES - len(lead)
    groups = [lead + rest[i : i + size] for i in range(0, len(rest), size)]
    return groups or ([lead] if lead else [])


def _score(table: ResultTable, cell: Cell) -> float:
    estimate = overall_score(table, cell).estimate
    return estimate.mean if estimate else float("-inf")


def left_out(table: ResultTable, shown: int, where: str) -> str:
    """A sentence on the cells that a picture leaves out; empty if it leaves none out."""
    if shown >= len(table.cells):
        return ""
    return (
        f"Drawn: {shown} of {words.plural(len(table.cells), 'cell')}, the reference lines and the "
        f"best of each family and method; all are in {where}."
    )

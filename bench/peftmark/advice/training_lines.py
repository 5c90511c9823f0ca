"""That cells saw other amounts of training than one another, in words beside their scores."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from peftmark.analysis.table import ResultTable
from peftmark.analysis.training import unlike, unlike_yardstick, yardstick
from peftmark.catalog.methods import Cell
from peftmark.render import words


def saw(table: ResultTable, cell: Cell, tasks: Sequence[str] = ()) -> str:
    """How many times the reference's rows a cell saw, such as "saw 4.3× the rows of LoRA r8".

    Args:
        tasks: some of the table's; empty for all.

    Returns:
        Empty where it saw as much on every task.
    """
    names = tasks or table.tasks
    found = {t: f for t in names if (f := unlike_yardstick(table, cell, t)) is not None}
    bases = dict.fromkeys(yardstick(table, t) for t in found)
    of = words.listing([words.title(base) for base in bases if base is not None])
    where = f" on {words.some(list(found))}" if len(found) < len(names) else ""
    return f"saw {_times(list(found.values()))} the rows of {of}{where}" if found else ""


def saw_beside(table: ResultTable, cell: Cell, other: Cell) -> str:
    """The same of two cells, the first against the second."""
    found = unlike(table, cell, other)
    return f"saw {_times(list(found.values()))} the rows" if found else ""


def sentence(table: ResultTable, cells: Collection[Cell] = ()) -> str:
    """Which cells saw other amounts, for a lead or a note; empty if all saw as much.

    Args:
        cells: of whom to speak; empty for all.
    """
    told = [
        f"{words.title(cell)} {text}"
        for cell in table.cells
        if (not cells or cell in cells) and (text := saw(table, cell))
    ]
    if not told:
        return ""
    return f"Unequal training: {words.some(told)}; these scores are not of the methods alone."


def _times(factors: Sequence[float]) -> str:
    ends = dict.fromkeys(words.times(f) for f in (min(factors), max(factors)))
    return " to ".join(ends)

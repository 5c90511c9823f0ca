"""Tables of a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def aligned(
    head: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()
) -> list[str]:
    """Lines of equal columns; those of numbers stand to the right.

    Args:
        rows: one of fewer cells than the head ends in a sentence, which no column has to hold.
    """
    size = len(head)
    widths = [
        max(len(row[i]) for row in (head, *rows) if len(row) == size or i < len(row) - 1)
        for i in range(size)
    ]
    return [_line(row, widths, numbers) for row in (head, *rows)]


def _line(row: Sequence[str], widths: Sequence[int], numbers: Sequence[int]) -> str:
    cells = [
        cell.rjust(width) if i in numbers else cell.ljust(width)
        for i, (cell, width) in enumerate(zip(row, widths, strict=False))
    ]
    if len(row) < len(widths):
        return "  ".join([*cells[:-1], row[-1]])
    line = "  ".join(cells)
    return line if len(row) - 1 in numbers else line.rstrip()

"""What a run adds seeds for, and which cells still need some.

The verdicts are those that reports show (`peftmark.analysis.comparison`), each of which pays for
every look; that a cell got no more seeds changes none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from peftmark.analysis.comparison import (
    ALPHA,
    Difference,
    against_reference,
    margin_of,
    pair_of,
    seed_by_seed,
    shown_higher,
)
from peftmark.analysis.sequential import looks_beyond, seen
from peftmark.analysis.stats import holm
from peftmark.analysis.table import TO_COME, ResultTable, overall_score
from peftmark.catalog.methods import Cell

DECIDED = ("higher", "lower", "equivalent")


def open_cells(table: ResultTable, question: str, cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """The cells that need more seeds; none if the question is answered.

    Args:
        question: `reference`: how every cell stands beside the reference. `best`: which cell is
            first. `equivalence`: which cells lie within the margin of the reference.
        cells: that had seeds added so far. What ended without any score needs none.
    """
    if question == "best":
        return _contenders(table, cells)
    open_ = open_beside_reference(table, question)
    left = tuple(c for c in cells if c != table.reference and c in open_)
    return (table.reference, *left) if left else ()


def open_beside_reference(table: ResultTable, question: str) -> list[Cell]:
    """The cells whose standing beside the reference is not told."""
    found = against_reference(table)
    apart = _beyond(table, found) if question == "equivalence" else {}
    left = []
    for cell in table.others:
        one = found.get(cell)
        if one is None:
            decided = _ended(table, cell)
        elif question == "equivalence":
            decided = one.equivalent or apart[cell]
        else:
            decided = one.verdict in DECIDED
        if not decided:
            left.append(cell)
    return left


def beyond_margin(table: ResultTable) -> list[Cell]:
    """The cells that are shown to differ from the reference by more than the margin."""
    return [cell for cell, shown in _beyond(table, against_reference(table)).items() if shown]


def _beyond(table: ResultTable, found: Mapping[Cell, Difference]) -> dict[Cell, bool]:
    """Whether each difference is shown to be larger than the margin, as one family."""
    margin = margin_of(table)
    if margin is None:
        return dict.fromkeys(found, False)
    p = {
        cell: looks_beyond(
            seed_by_seed(one.score), seen(table, cell, table.reference) or (), margin
        )
        for cell, one in found.items()
    }
    adjusted = holm(list(p.values()))
    return {cell: q is not None and q <= ALPHA for cell, q in zip(p, adjusted, strict=True)}


def _contenders(table: ResultTable, cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """The cells that may still be first; none if only one is left, or all of them are shown to be
    equivalent."""
    left = contenders(table, cells)
    pairs = [(a, b) for i, a in enumerate(left) for b in left[i + 1 :]]
    if all((one := pair_of(table, a, b)) is not None and one.equivalent for a, b in pairs):
        return ()
    return left


def contenders(table: ResultTable, cells: Sequence[Cell]) -> tuple[Cell, ...]:
    """The cells that no other is shown to score higher than."""
    scored = [c for c in table.cells if overall_score(table, c).by_seed]
    return tuple(
        cell
        for cell in cells
        if not (cell not in scored and _ended(table, cell))
        and not any(shown_higher(table, other, cell) for other in scored)
    )


def _ended(table: ResultTable, cell: Cell) -> bool:
    return all(slot.status not in TO_COME for slot in table.of(cell))

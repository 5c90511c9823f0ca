"""The order of cells, the same on every page and in every table."""

from __future__ import annotations

from collections.abc import Collection

from peftmark.catalog.methods import METHODS, Cell, method_of
from peftmark.catalog.quantizations import QUANTIZATIONS


def ordered(cells: Collection[Cell], reference: Cell) -> tuple[Cell, ...]:
    """Cells as every table has them: the reference first, reference lines last."""
    return tuple(sorted(cells, key=lambda c: _cell_order(c, reference)))


def _cell_order(cell: Cell, reference: Cell) -> tuple[object, ...]:
    return cell != reference, *shown_order(cell)


def shown_order(cell: Cell) -> tuple[object, ...]:
    """What every page lists cells by: lines that others are held to come last."""
    method = method_of(cell.method)
    is_line = method is not None and method.family == "reference"
    return is_line, *catalogue_order(cell)


def catalogue_order(cell: Cell) -> tuple[object, ...]:
    """What cells sort by: methods and quantizations as in the catalogue, unknown ones last."""
    method, size, quantization, variant = cell
    known, formats = list(METHODS), list(QUANTIZATIONS)
    return (
        known.index(method) if method in known else len(known),
        method,
        formats.index(quantization) if quantization in formats else len(formats),
        quantization,
        size or 0,
        variant,
    )

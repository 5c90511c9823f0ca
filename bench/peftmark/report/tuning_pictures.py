"""Pictures of trials: the score over each setting that was tuned, one for each task."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from peftmark.analysis.table import ResultTable
from peftmark.catalog.methods import Cell
from peftmark.render import words
from peftmark.render.chart_specs import Mark, Sweep, SweepLine
from peftmark.render.page import Figure, marks
from peftmark.report import cell_selection
from peftmark.report.quality import metric_of
from peftmark.suite.trials import RATE, Choice

NEAR = "within one point of the best"
"""A score this close to the best counts as good as the best; `scale.point` of the metric."""


def knobs_of(found: Iterable[Choice]) -> list[str]:
    """Every setting that was varied for some cell, the learning rate first."""
    names = dict.fromkeys(knob for choice in found for knob in choice.knobs)
    return sorted(names, key=lambda name: name != RATE)


def pictures(
    table: ResultTable,
    found: Mapping[Cell, Choice],
    knob: str,
    tolerance: float | None,
) -> list[Figure]:
    """The score over one setting on one task: a line a cell, in panels of a few.

    Args:
        found: cell -> what its trials on the task say.
        tolerance: one point of the task's metric; None where it has none.
    """
    chosen = {
        cell: choice
        for cell in cell_selection.picks(table)
        if (choice := found.get(cell)) and choice.chosen is not None and knob in choice.knobs
    }
    if not chosen:
        return []
    task = next(iter(chosen.values())).task
    key, index = metric_of(table, task), table.tasks.index(task)
    names = _names_of(chosen, knob)
    look = marks(table.cells)
    lines = {c: _line(look[c], choice, knob, names, tolerance) for c, choice in chosen.items()}
    axis = f"{words.metric_title(key)} on selection rows, {words.direction(key)}"
    several = any(len(choice.knobs) > 1 for choice in chosen.values())
    note = (
        f"One point a value, after {_lengths(chosen)}"
        f"{', the best over the others tried' if several else ''}; the ring marks what was chosen, "
        f"a broad line what is {NEAR}. What failed is a gap."
    )
    stem = "rates" if knob == RATE else f"tuned-{knob.rpartition('.')[2].replace('_', '-')}"
    figures = []
    for part, cells in enumerate(cell_selection.panels(table, list(lines))):
        drawing = Sweep(tuple(lines[c] for c in cells), axis, words.knob(knob), tuple(names))
        name = f"{stem}-{index}" + (f"-{part}" if part else "")
        text = _finding({cell: chosen[cell] for cell in cells}, knob)
        title = task if knob == RATE else f"{task}, {words.knob(knob)}"
        figures.append(Figure(name, text, drawing, note, title=title))
    return figures


def _lengths(chosen: Mapping[Cell, Choice]) -> str:
    """How long the first trials were, of each cell where they differ."""
    lengths: dict[int, list[str]] = {}
    for cell, choice in chosen.items():
        lengths.setdefault(choice.first_steps, []).append(words.title(cell))
    if len(lengths) == 1:
        return f"{next(iter(lengths))} steps"
    told = [f"{steps} steps ({words.some(names, 3)})" for steps, names in lengths.items()]
    return f"{words.listing(told)}, so levels are not compared"


def _names_of(chosen: Mapping[Cell, Choice], knob: str) -> list[str]:
    """The values of all cells in their order; empty for those that a log scale has room for."""
    values = list(dict.fromkeys(v for c in chosen.values() for v, _ in c.along(knob)))
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) == len(values):
        if min(numbers) > 0:
            return []
        values = sorted(values)
    return [words.knob_value(knob, value) for value in values]


def _line(
    mark: Mark, choice: Choice, knob: str, names: Sequence[str], tolerance: float | None
) -> SweepLine:
    def place(value: Any) -> float:
        return float(names.index(words.knob_value(knob, value)) if names else value)

    assert choice.chosen is not None
    flat = () if tolerance is None else tuple(map(place, choice.flat(knob, tolerance)))
    points = sorted((place(value), score) for value, score in choice.along(knob))
    return SweepLine(mark, tuple(points), place(choice.chosen[choice.knobs.index(knob)]), flat)


def _finding(chosen: Mapping[Cell, Choice], knob: str) -> str:
    told = []
    for cell, choice in chosen.items():
        assert choice.chosen is not None
        value = choice.chosen[choice.knobs.index(knob)]
        told.append(f"{words.title(cell)} {words.knob_value(knob, value)}")
    return f"Chosen: {words.listing(told)}."

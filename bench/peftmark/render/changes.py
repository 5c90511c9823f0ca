"""Charts of what changed, for pages that hold runs against each other: a row a cell, and a line
where nothing changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from peftmark.analysis.stats import Estimate
from peftmark.render.chart_specs import DotRow, Dots, Mark
from peftmark.render.page import CostChart, Figure

MOST, FEWER = 13, 6
"""Rows that a first screen has room for, in a wide window and on a phone."""
PHONE_WIDTH = 380


@dataclass(frozen=True)
class Change:
    """What changed of one cell.

    Attributes:
        values: single changes, such as one a seed; empty where they aren't known.
        estimate: their mean, with an interval where there is one; None where nothing is known.
        missing: why there is none.
        told: whether it is shown to differ, so that it is drawn before others.
    """

    mark: Mark
    values: tuple[float, ...] = ()
    estimate: Estimate | None = None
    missing: str = ""
    told: bool = False


@dataclass(frozen=True)
class ChangeChart:
    """One chart of changes.

    Attributes:
        label: what changed, as on its button: score, memory or time.
        finding: what it shows, in words from the data.
        axis: what is drawn, with its unit.
        line: where nothing changed: 0 for differences, 1 for ratios.
        note: how to read it.
    """

    label: str
    finding: str
    axis: str
    line: float
    note: str = ""

    def of(self, changes: Sequence[Change]) -> CostChart:
        """The chart, with fewer rows on a phone."""
        wide, phone = (self._figure(changes, most, width) for most, width in SIZES)
        return CostChart(self.label, wide, phone)

    def _figure(self, changes: Sequence[Change], most: int, width: int) -> Figure:
        chosen = _largest(changes, most, self.line)
        rows = tuple(DotRow(c.mark, c.values, c.estimate, c.missing) for c in chosen)
        left_out = len(changes) - len(rows)
        more = f" {left_out} more with smaller changes are in the table." if left_out else ""
        name = f"changed-{self.label}{'-phone' if width == PHONE_WIDTH else ''}"
        drawing = Dots(rows, self.axis, self.line, "no change", width)
        return Figure(name, self.finding, drawing, f"{self.note}{more}".strip())


SIZES = ((MOST, 640), (FEWER, PHONE_WIDTH))
"""Rows and width in pixels of the two pictures of a chart."""


def _largest(changes: Sequence[Change], most: int, line: float) -> list[Change]:
    """Those that are shown to differ, then the largest changes; in the order of the cells."""

    def size(change: Change) -> tuple[bool, float]:
        far = abs(change.estimate.mean - line) if change.estimate else -1.0
        return change.told, far

    kept = sorted(range(len(changes)), key=lambda i: size(changes[i]), reverse=True)[:most]
    return [changes[i] for i in sorted(kept)]

"""How often and how fast a cell reached the target of a task; nothing is imputed."""

from __future__ import annotations

import math
from dataclasses import dataclass

from peftmark.analysis.stats import KmPoint, kaplan_meier, median
from peftmark.analysis.table import ResultTable
from peftmark.catalog.methods import Cell
from peftmark.record.outcome import Outcome


@dataclass(frozen=True)
class Wait:
    """One run on its way to the target.

    Attributes:
        step: first evaluated step at or past the target, or the last one if it was not reached.
        seconds: training seconds by then; None where another machine's clock took them.
        reached: which it was.
    """

    step: int
    seconds: float | None
    reached: bool


@dataclass(frozen=True)
class Reach:
    """How often and how fast a cell reached the target on one task. Nothing is imputed.

    A run that ends short of the target is right-censored: it says that the target takes longer.

    Attributes:
        target: the metric value that counts; None if the suite sets none.
        waits: the ok runs for which it is known, in the order of the seeds.
        planned: runs planned.
    """

    target: float | None
    waits: tuple[Wait, ...]
    planned: int

    @property
    def reached(self) -> int:
        """Runs that reached it."""
        return sum(w.reached for w in self.waits)

    @property
    def finished(self) -> int:
        """Runs for which it is known."""
        return len(self.waits)

    @property
    def steps(self) -> tuple[int, ...]:
        """Steps to the target of the runs that reached it, sorted."""
        return tuple(sorted(w.step for w in self.waits if w.reached))

    @property
    def curve(self) -> tuple[KmPoint, ...]:
        """Kaplan-Meier estimate of the share of runs that are not there yet, by step."""
        return kaplan_meier([w.step for w in self.waits], [w.reached for w in self.waits])

    @property
    def median(self) -> float | None:
        """Step by which half of the runs are there, censored runs counted; None if never."""
        return median(self.curve)

    @property
    def seconds(self) -> float | None:
        """The same in training seconds, of the runs on the table's main machine."""
        timed = [(w.seconds, w.reached) for w in self.waits if w.seconds is not None]
        return median(kaplan_meier([s for s, _ in timed], [r for _, r in timed]))


def reach(table: ResultTable, cell: Cell, task: str) -> Reach:
    """Steps and time to the target of one cell on one task."""
    slots = table.of(cell, task)
    ended = [s.record.outcome for s in slots if s.record is not None and s.record.ok]
    waits = [_wait(o) for o in ended if o.target_reached is not None and o.curve]
    target = slots[0].job.target if slots else None
    return Reach(target, tuple(waits), len(slots))


def _wait(outcome: Outcome) -> Wait:
    reached = outcome.steps_to_target if outcome.target_reached else None
    point = next((p for p in outcome.curve if p.step == reached), outcome.curve[-1])
    seconds = point.seconds if math.isfinite(point.seconds) else None
    return Wait(reached or point.step, seconds, reached is not None)

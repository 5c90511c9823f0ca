"""Energy relative to the reference: counted by a meter, or what stands in for it, under its name.

Energy is only what a meter counted. Where no run has any, the processor's seconds of a run on the
CPU stand in, as a processor that works for longer takes more; they are called what they are. Watts
turn them into joules and cancel out in a ratio: they are stated by whoever knows the machine, and
never assumed. A GPU's energy has no stand-in, as its processor's seconds say nothing of it.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from peftmark.analysis.table import Ratio, ResultTable, ratio
from peftmark.catalog.methods import Cell
from peftmark.record.fields import title
from peftmark.record.job import Record
from peftmark.render import words
from peftmark.report import measures

COUNTED = measures.ENERGY
SECONDS = "cpu_seconds"
STAND_IN = "stands in for energy"


@dataclass(frozen=True)
class Basis:
    """What the axis of energy is made of.

    Attributes:
        name: what it is, short.
        meaning: what its values are.
        field: the field of the rows that it is read from.
        read: the figure of a row.
        role: what it is in place of; empty for energy itself.
        watts: that turn a stand-in's seconds into joules; None where nobody stated any, or where
            joules were counted.
    """

    name: str
    meaning: str
    field: str
    read: Callable[[Record], float | None]
    role: str = ""
    watts: float | None = None

    @property
    def title(self) -> str:
        """The axis's title, such as "processor time (stands in for energy)"."""
        return f"{self.name} ({self.role})" if self.role else self.name


def basis(table: ResultTable, watts: float | None = None) -> Basis:
    """What the rows allow: energy where any run has it, else its stand-in.

    Args:
        watts: that a working processor takes, as stated; None where nobody did.
    """
    rows = [r for r in table.rows if r.ok]
    counted = any(COUNTED.read(r) is not None for r in rows)
    seconds = any(r.outcome.cpu_seconds is not None for r in rows)
    on_cpu = {r.job.device for r in rows} == {"cpu"}
    if counted or not seconds or not on_cpu:
        name = COUNTED.field(rows[0]) if rows else COUNTED.name
        return Basis(COUNTED.title, f"{title(name)}, ratio to the reference", name, COUNTED.read)
    meaning = f"{title(SECONDS)} of the timed steps, ratio to the reference"
    if watts is None:
        return Basis("processor time", meaning, SECONDS, _seconds, STAND_IN)
    name = f"processor seconds × {watts:g} W"
    meaning = f"{meaning}; the watts are stated, not measured"
    return Basis(name, meaning, SECONDS, _seconds, STAND_IN, watts)


def _seconds(record: Record) -> float | None:
    return record.outcome.cpu_seconds


def energy_ratio(table: ResultTable, cell: Cell) -> Ratio:
    """A cell's energy, or what stands in for it, relative to the reference."""
    return ratio(table, cell, basis(table).read)


def remarks(table: ResultTable, cell: Cell, of: Basis) -> list[str]:
    """Joules by the stated watts, mean over the runs; or what weakens a meter's figures."""
    runs = [s.record for s in table.of(cell) if s.ok and s.record is not None]
    if of.field != SECONDS:
        return list(COUNTED.notes(runs))
    found = [seconds for r in runs if (seconds := of.read(r)) is not None]
    if of.watts is None or not found:
        return []
    return [f"{words.short(of.watts * statistics.fmean(found))} J"]

"""Rows of several machines as one table: which of them count, and what of them may be pooled.

A job that ran on two machines is two rows and one run: the same seed twice tells nothing new about
seeds. Scores and counts of different machines may stand in one mean; what a clock, an allocator or
a power meter gave may not, and is null in rows of any machine but the table's main one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from peftmark.record.fields import FIELDS
from peftmark.record.job import Record
from peftmark.record.machine_kind import machine_keys, machine_names
from peftmark.record.outcome import OUTCOME_FIELDS, Outcome

OF_ONE_MACHINE = tuple(f.key for f in FIELDS.values() if not f.pooled and f.key in OUTCOME_FIELDS)
"""Fields of an outcome that say something of the machine it was measured on."""
EXACT_PEAK = "live_bytes"
"""What measured a peak that is the same on every machine."""

ELSEWHERE = "measured on another machine"
"""What the reason of such a null begins with."""

ByMachine = Mapping[str, Mapping[str, Record]]
"""Key of a machine -> job id -> its row there."""


@dataclass(frozen=True)
class Machines:
    """Where the rows of a table were made.

    Attributes:
        by_machine: the rows of planned jobs as they are stored; the main machine first.
        names: key of a machine -> its name.
    """

    by_machine: ByMachine = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def several(self) -> bool:
        """Whether there are rows of more than one."""
        return len(self.by_machine) > 1

    @property
    def main(self) -> str:
        """The machine with most finished rows, whose times the table shows; of equals the one that
        ended last. Empty without a row."""
        return next(iter(self.by_machine), "")

    @property
    def shared(self) -> tuple[str, ...]:
        """Jobs with a finished row on more than one machine."""
        seen: dict[str, int] = {}
        for rows in self.by_machine.values():
            for job_id, row in rows.items():
                seen[job_id] = seen.get(job_id, 0) + row.ok
        return tuple(job_id for job_id, times in seen.items() if times > 1)


def by_machine(rows: Iterable[Record]) -> dict[str, dict[str, Record]]:
    """Rows by the key of their machine and by job, as they come.

    Raises:
        ValueError: two rows of one job on one machine.
    """
    rows = list(rows)
    found: dict[str, dict[str, Record]] = {}
    for row, key in zip(rows, machine_keys([r.environment for r in rows]), strict=True):
        mine = found.setdefault(key, {})
        if row.job.job_id in mine:
            raise ValueError("two rows for the same job: pick one attempt a job first")
        mine[row.job.job_id] = row
    return found


def machines_of(rows: Sequence[Record]) -> Machines:
    """The machines of a table's rows, at most one row a job and machine."""
    found = by_machine(rows)
    order = sorted(found, key=lambda key: _weight(found[key].values()), reverse=True)
    names = machine_names(row.environment for row in rows)
    return Machines({key: found[key] for key in order}, names)


def sentence(machines: Machines) -> str:
    """What of several machines is pooled and what is not; empty for one machine."""
    if not machines.several:
        return ""
    finished = {
        key: {i for i, r in rows.items() if r.ok} for key, rows in machines.by_machine.items()
    }
    counts = ", ".join(f"{machines.names[key]} ({len(jobs):,})" for key, jobs in finished.items())
    mine, every = len(finished[machines.main]), len(set().union(*finished.values()))
    return (
        f"Rows of {len(finished)} machines, with as many finished: {counts}. Scores and counts are "
        "of all of them, a seed that ran on several once; times, energy and memory as an allocator "
        f"or the system saw it are of {machines.names[machines.main]} alone, {mine:,} of {every:,} "
        "finished jobs."
    )


def _weight(rows: Iterable[Record]) -> tuple[int, str]:
    several = list(rows)
    return sum(row.ok for row in several), max(row.finished_at for row in several)


def together(machines: Machines) -> dict[str, Record]:
    """Job id -> the row that counts: the main machine's, else the newest finished one of another,
    without what only holds on that other machine."""
    if not machines.several:
        return dict(machines.by_machine.get(machines.main, {}))
    chosen: dict[str, tuple[str, Record]] = {}
    for key, rows in machines.by_machine.items():
        for job_id, row in rows.items():
            known = chosen.get(job_id)
            if known is None or _counts_before(row, known[1], known[0] == machines.main):
                chosen[job_id] = key, row
    return {
        job_id: row if key == machines.main else elsewhere(row, machines.names[key])
        for job_id, (key, row) in chosen.items()
    }


def _counts_before(row: Record, known: Record, known_is_main: bool) -> bool:
    """Whether a row of another machine stands for its job in place of one that is known."""
    if row.ok != known.ok:
        return row.ok
    return not known_is_main and row.finished_at > known.finished_at


def elsewhere(row: Record, machine: str) -> Record:
    """A row less what only holds on the machine that it was made on.

    Args:
        machine: its name, for the reason of each null.
    """
    why = f"{ELSEWHERE}: {machine}"
    outcome = row.outcome
    names = [name for name in OF_ONE_MACHINE if getattr(outcome, name) is not None]
    if outcome.peak_memory_bytes is not None and outcome.peak_memory_source != EXACT_PEAK:
        names.append("peak_memory_bytes")
    empty = {name: _empty(name) for name in names}
    curve = tuple(replace(point, seconds=math.nan) for point in outcome.curve)
    reasons = outcome.null_reasons | dict.fromkeys(names, why)
    nvml = row.nvml_process_bytes is not None or row.nvml_device_bytes is not None
    return replace(
        row,
        outcome=replace(outcome, **empty, curve=curve, null_reasons=reasons),
        nvml_process_bytes=None,
        nvml_device_bytes=None,
        nvml_reason=why if nvml else row.nvml_reason,
    )


_BARE = Outcome("ok")


def _empty(name: str) -> Any:
    """What stands in a field without a value."""
    return getattr(_BARE, name)

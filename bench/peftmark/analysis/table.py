"""From stored rows to figures per cell and task.

A cell is one (method, size, quantization, variant). Only rows of purpose "report" and status ok
enter a figure; every figure carries how many of the planned runs it rests on, so an incomplete one
can be marked.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from peftmark.analysis import scale
from peftmark.analysis.machines import Machines, machines_of, together
from peftmark.analysis.order import ordered
from peftmark.analysis.scale import MEAN as MEAN
from peftmark.analysis.scale import SHARE as SHARE
from peftmark.analysis.scale import Scale, scale_of
from peftmark.analysis.stats import Estimate, Limits, geometric_mean, t_interval
from peftmark.catalog.methods import Cell
from peftmark.record.job import Job, Purpose, Record

Read = Callable[[Record], float | None]
"""Reads one number from a row; None where the row doesn't have it."""

NOT_RUN = "not run"
TO_COME = (NOT_RUN, "interrupted")
"""Statuses of jobs that the next run makes: whoever stopped a run made none of its jobs fail."""


@dataclass(frozen=True)
class Slot:
    """One planned job and its row, if there is one."""

    job: Job
    record: Record | None

    @property
    def status(self) -> str:
        """Status of the row, or "not run"."""
        return self.record.outcome.status if self.record else NOT_RUN

    @cached_property
    def ok(self) -> bool:
        """Whether the slot may enter figures."""
        return self.record is not None and self.record.ok

    def value(self, read: Read) -> float | None:
        """What `read` finds in an ok row; None for failed and missing rows and for non-numbers."""
        if self.record is None or not self.ok:
            return None
        value = read(self.record)
        return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True)
class ResultTable:
    """Every planned job with its row.

    Attributes:
        slots: the jobs of purpose "report", which alone enter figures, sorted by cell, task and
            seed in the order of `cells` and `tasks`.
        cells: the reference first, then methods in the catalogue's order, reference lines last.
        tasks: in the order of the plan.
        reference: the cell the others are compared with; it may be missing from `cells`.
        strays: rows left out because no planned job has their id.
        jobs: the planned jobs of every purpose, in the order of the plan.
        records: job id -> row of every planned job that has one; of a machine that isn't the main
            one less its times and the like (`peftmark.analysis.machines`).
        machines: where the rows were made.
        most_seeds: of a run that adds seeds until it is decided, how many there may be; None where
            their number was fixed.
    """

    slots: tuple[Slot, ...]
    cells: tuple[Cell, ...]
    tasks: tuple[str, ...]
    reference: Cell
    strays: int
    jobs: tuple[Job, ...]
    records: Mapping[str, Record]
    machines: Machines
    most_seeds: int | None = None

    def of(self, cell: Cell | None = None, task: str | None = None) -> tuple[Slot, ...]:
        """The slots of a cell, of a task, or of both."""
        return self._slots.get((cell, task), ())

    @cached_property
    def _slots(self) -> dict[tuple[Cell | None, str | None], tuple[Slot, ...]]:
        """The slots by cell and task, by either and all together."""
        found: dict[tuple[Cell | None, str | None], list[Slot]] = {}
        for slot in self.slots:
            for cell in (slot.job.cell, None):
                for task in (slot.job.task, None):
                    found.setdefault((cell, task), []).append(slot)
        return {key: tuple(slots) for key, slots in found.items()}

    @cached_property
    def scores(self) -> dict[tuple[Cell, str, Read, int], Score]:
        """Scores that `task_score` has read: sections ask for the same ones again and again."""
        return {}

    @cached_property
    def beaten(self) -> dict[tuple[Cell, str], bool]:
        """Whether a cell beats a constant guess on a task, as `guess.beats` has found it."""
        return {}

    @cached_property
    def pairs(self) -> dict[tuple[Cell, Cell], Any]:
        """Judged pairs of cells that `comparison` has made: several sections ask for them."""
        return {}

    @cached_property
    def scale(self) -> Scale:
        """What the tasks are averaged on, wherever an overall score is shown; higher is better.

        The primary metrics as they are; where one of them has no bounds, such as a log-likelihood,
        or is better the lower it is, the `quality` of each, since a nat and a point of accuracy
        have nothing in common. A metric without a best possible value has no quality.
        """
        return scale_of({job.task: job.metric for job in self.jobs})

    @property
    def read(self) -> Read:
        """What is averaged over the tasks of `scale`."""
        return READ[self.scale.kind]

    @property
    def averaged(self) -> str:
        """What an overall score is, in words."""
        return self.scale.text

    @property
    def others(self) -> tuple[Cell, ...]:
        """Every cell but the reference."""
        return tuple(c for c in self.cells if c != self.reference)

    @property
    def rows(self) -> tuple[Record, ...]:
        """Every row of purpose "report"."""
        return tuple(s.record for s in self.slots if s.record is not None)

    @property
    def extras(self) -> tuple[Record, ...]:
        """Every row of a planned job of another purpose, in the order of the plan."""
        found = (self.records.get(j.job_id) for j in self.jobs if j.purpose != "report")
        return tuple(r for r in found if r is not None)

    @property
    def unsupported(self) -> tuple[Cell, ...]:
        """Cells but the reference whose every row, of any purpose, says that they can't run."""
        statuses: dict[Cell, set[str]] = {}
        for row in self.records.values():
            statuses.setdefault(row.job.cell, set()).add(row.outcome.status)
        return tuple(c for c in self.others if statuses.get(c) == {"unsupported"})

    def without(self, cells: Collection[Cell]) -> ResultTable:
        """The same table less some cells; `jobs` and `records` keep theirs."""
        slots = tuple(s for s in self.slots if s.job.cell not in cells)
        return replace(self, slots=slots, cells=tuple(c for c in self.cells if c not in cells))

    def counts(self) -> Counter[str]:
        """Number of planned jobs of purpose "report" by status, "not run" included."""
        return Counter(s.status for s in self.slots)

    @property
    def failed(self) -> int:
        """Planned jobs of purpose "report" that ended and didn't finish."""
        return len(self.slots) - self.counts()["ok"] - self.left

    @property
    def left(self) -> int:
        """Those that are still to come: not run yet, or stopped by whoever ran them."""
        counts = self.counts()
        return sum(counts[status] for status in TO_COME)

    def planned(self, purpose: Purpose) -> tuple[Slot, ...]:
        """Every planned job of a purpose with its row, in the order of the plan."""
        jobs = (j for j in self.jobs if j.purpose == purpose)
        return tuple(Slot(j, self.records.get(j.job_id)) for j in jobs)

    def example(self, task: str) -> Job:
        """Some planned job of a task, for what all its jobs share."""
        return next(j for j in self.jobs if j.task == task)


def build(records: Sequence[Record], planned: Sequence[Job], reference: Cell) -> ResultTable:
    """Match rows to planned jobs.

    Args:
        records: at most one row a job and machine, in any order.
        planned: every job of the suite's profile, of every purpose.
        reference: the cell the others are compared with.
    """
    jobs = {j.job_id: j for j in planned}
    strays = sum(r.job.job_id not in jobs for r in records)
    machines = machines_of([r for r in records if r.job.job_id in jobs])
    rows = together(machines)
    reported = [j for j in jobs.values() if j.purpose == "report"]
    keys = Counter((j.cell, j.task, j.seed) for j in reported)
    if any(n > 1 for n in keys.values()):
        raise ValueError("two planned jobs share cell, task and seed")
    cells = ordered({j.cell for j in planned}, reference)
    tasks = tuple(dict.fromkeys(j.task for j in planned))
    reported.sort(key=lambda j: (cells.index(j.cell), tasks.index(j.task), j.seed))
    slots = tuple(Slot(j, rows.get(j.job_id)) for j in reported)
    kept = {job_id: rows[job_id] for job_id in jobs if job_id in rows}
    most = max((r.most_seeds or 0 for r in kept.values()), default=0) or None
    every = tuple(jobs.values())
    return ResultTable(slots, cells, tasks, reference, strays, every, kept, machines, most)


@dataclass(frozen=True)
class Score:
    """One figure per seed, and how many seeds were planned.

    Attributes:
        by_seed: (seed, value), sorted by seed; over several tasks the mean of the tasks' values.
        planned: seeds planned.
        by_task: where there are several tasks, the values of each in the order of the seeds.
        limits: what the values lie within; None where nothing is known to bound them.
    """

    by_seed: tuple[tuple[int, float], ...]
    planned: int
    by_task: tuple[tuple[float, ...], ...] = ()
    limits: Limits | None = field(default=None, compare=False)

    @property
    def values(self) -> tuple[float, ...]:
        """The values in the order of the seeds."""
        return tuple(v for _, v in self.by_seed)

    @property
    def strata(self) -> tuple[tuple[float, ...], ...]:
        """The values of each task, of one or several."""
        return self.by_task or (self.values,)

    @property
    def estimate(self) -> Estimate | None:
        """Mean and 95 % t interval over seeds, for these tasks; None without a value."""
        return t_interval(self.values).within(self.limits) if self.by_seed else None

    @property
    def complete(self) -> bool:
        """Whether every planned seed is in."""
        return len(self.by_seed) == self.planned > 0


def metric_value(record: Record) -> float | None:
    """The primary metric after the last step."""
    return record.outcome.metric_value


def quality(record: Record) -> float | None:
    """The primary metric as a share of the way from the baseline predictor to the best possible."""
    outcome = record.outcome
    return scale.share(record.job.metric, outcome.metric_value, outcome.baseline_value)


def gain(record: Record) -> float | None:
    """By how much the primary metric is better than the baseline predictor's, in its unit."""
    outcome = record.outcome
    return scale.gain(record.job.metric, outcome.metric_value, outcome.baseline_value)


READ: dict[scale.Kind, Read] = {"value": metric_value, "share": quality, "gain": gain}
"""Scale -> what is averaged over tasks on it."""


def forgetting(record: Record) -> float | None:
    """By how much training raised the perplexity of text that has nothing to do with the task.

    Returns:
        After over before, less 1: 0.1 is ten per cent, below 0 it fell; None for encoders.
    """
    before = record.outcome.unrelated_perplexity_before
    after = record.outcome.unrelated_perplexity_after
    return None if before is None or after is None or before <= 0 else after / before - 1


def task_score(
    table: ResultTable, cell: Cell, task: str, read: Read = metric_value, *, planned: int = 0
) -> Score:
    """A cell's figure on one task."""
    key = (cell, task, read, planned)
    if key not in table.scores:
        slots = table.of(cell, task)
        found = [(s.job.seed, v) for s in slots if (v := s.value(read)) is not None]
        limits = scale.limits_of(table.example(task).metric) if read is metric_value else None
        table.scores[key] = Score(tuple(found), planned or len(slots), limits=limits)
    return table.scores[key]


def overall_score(table: ResultTable, cell: Cell, read: Read | None = None) -> Score:
    """A cell's mean over tasks within each seed, for seeds that are ok on every planned task.

    Args:
        read: None for what the table averages (`ResultTable.read`). That and `quality` are of the
            tasks of its scale, anything else of all.
    """
    of_scale = read is None or read is quality
    tasks = table.scale.tasks if of_scale else table.tasks
    read = read or table.read
    by_task = [dict(task_score(table, cell, task, read).by_seed) for task in tasks]
    seeds = sorted({s.job.seed for s in table.of(cell)})
    full = [seed for seed in seeds if all(seed in values for values in by_task)]
    strata = tuple(tuple(values[seed] for seed in full) for values in by_task) if full else ()
    limits = table.scale.limits if read is table.read else None
    return _over_tasks(full, strata, len(seeds), limits)


def _over_tasks(
    seeds: Sequence[int],
    strata: tuple[tuple[float, ...], ...],
    planned: int,
    limits: Limits | None,
) -> Score:
    means = (statistics.fmean(values) for values in zip(*strata, strict=True))
    by_seed = tuple(zip(seeds, means, strict=True)) if strata else ()
    return Score(by_seed, planned, strata if len(strata) > 1 else (), limits)


def difference(score: Score, reference: Score) -> Score:
    """Paired differences, score less reference, over the seeds that both have, task by task."""
    mine = {seed: i for i, (seed, _) in enumerate(score.by_seed)}
    theirs = {seed: i for i, (seed, _) in enumerate(reference.by_seed)}
    planned = min(score.planned, reference.planned)  # a decided cell gets no more seeds
    seeds = [seed for seed in mine if seed in theirs]
    if not seeds:
        return Score((), planned)
    strata = tuple(
        tuple(a[mine[seed]] - b[theirs[seed]] for seed in seeds)
        for a, b in zip(score.strata, reference.strata, strict=True)
    )
    return _over_tasks(seeds, strata, planned, scale.of_difference(score.limits))


@dataclass(frozen=True)
class Ratio:
    """A cell's figure relative to the reference cell.

    Attributes:
        value: geometric mean over pairs of the same task and seed; None if unknown.
        pairs: pairs it rests on.
        planned: pairs planned.
        reason: why the value is unknown.
    """

    value: float | None
    pairs: int
    planned: int
    reason: str = ""


def ratio(
    table: ResultTable,
    cell: Cell,
    read: Read,
    *,
    same: Callable[[Record], object] | None = None,
    every: bool = False,
) -> Ratio:
    """Ratio to the reference cell on the same task and seed, averaged geometrically.

    Args:
        table: the rows.
        cell: the cell that is the numerator.
        read: the figure to compare.
        same: a fact both rows of a pair must share, such as what measured the figure.
        every: refuse an average unless every ok pair has the figure.
    """
    mine = table.of(cell)
    theirs = {(s.job.task, s.job.seed): s for s in table.of(table.reference)}
    planned = len(mine)
    both = [(s, t) for s in mine if (t := theirs.get((s.job.task, s.job.seed))) and s.ok and t.ok]
    if not both:
        side = "no run finished" if not any(s.ok for s in mine) else "no finished reference run"
        return Ratio(None, 0, planned, side)
    values = [(s.value(read), t.value(read)) for s, t in both]
    if same is not None:
        known = [p for p, v in zip(both, values, strict=True) if None not in v]
        if any(same(s.record) != same(t.record) for s, t in known if s.record and t.record):
            return Ratio(None, 0, planned, "measured differently from the reference")
    usable = [a / b for a, b in values if a is not None and b is not None and a > 0 and b > 0]
    if not usable or (every and len(usable) < len(both)):
        return Ratio(None, len(usable), planned, _why_no_ratio(values, len(usable), every))
    return Ratio(geometric_mean(usable), len(usable), planned)


def _why_no_ratio(values: list[tuple[float | None, float | None]], usable: int, every: bool) -> str:
    if any(a == 0 or b == 0 for a, b in values):
        return "0 has no ratio"
    return f"{usable}/{len(values)} pairs" if every else "not recorded"

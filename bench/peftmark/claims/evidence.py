"""The rows that a test of a claim asks for: which there are, and whether they may be compared."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from peftmark.analysis.scale import bounded, shares_unit
from peftmark.analysis.table import NOT_RUN, ResultTable, Slot
from peftmark.analysis.training import SAME, rows_seen
from peftmark.analysis.validity import FLAG_KINDS, Flag, flags
from peftmark.catalog.methods import Cell, cell_title, method_of
from peftmark.catalog.metrics import metric_title, sign_of
from peftmark.claims.comparisons import Order
from peftmark.claims.ledger import ClaimTest
from peftmark.claims.measures import Measure
from peftmark.record.fields import title
from peftmark.record.job import Record
from peftmark.record.recipe import FORM

Values = Mapping[str, Mapping[int, float]]
"""Task -> seed -> value of one cell."""


@dataclass(frozen=True)
class Evidence:
    """The rows of one profile, ready to be asked.

    Attributes:
        slots: (cell, task) -> planned jobs of purpose "report" with their rows.
        cells: every cell of the profile, those without such jobs yet too.
        tasks: in the order of the plan.
        trials: planned jobs of purpose "tuning" with their rows, in the order of the plan.
        suspects: job id -> what is suspect about its row.
        level: confidence level of each interval.
    """

    suite: str
    profile: str
    slots: Mapping[tuple[Cell, str], Sequence[Slot]]
    cells: frozenset[Cell]
    tasks: tuple[str, ...]
    trials: tuple[Slot, ...] = ()
    suspects: Mapping[str, Sequence[Flag]] = field(default_factory=dict)
    level: float = 0.95

    @staticmethod
    def of(table: ResultTable) -> Evidence:
        """The evidence of a table, of cells it left out as unsupported too."""
        slots: dict[tuple[Cell, str], list[Slot]] = {}
        for slot in table.planned("report"):
            slots.setdefault((slot.job.cell, slot.job.task), []).append(slot)
        suspects: dict[str, list[Flag]] = {}
        for flag in flags(table.jobs, table.records):
            suspects.setdefault(flag.job.job_id, []).append(flag)
        job = table.jobs[0]
        cells = frozenset(j.cell for j in table.jobs)
        tasks = tuple(dict.fromkeys(j.task for j in table.jobs))
        trials = table.planned("tuning")
        return Evidence(job.suite, job.profile, slots, cells, tasks, trials, suspects)

    def belongs(self, test: ClaimTest) -> bool:
        """Whether the test is one of this suite and profile."""
        return test.belongs_to(self.suite, self.profile)

    def has(self, test: ClaimTest) -> bool:
        """Whether the profile plans what the test compares."""
        return self.belongs(test) and not self.lacks(test)

    def lacks(self, test: ClaimTest) -> str:
        """What the test compares that the profile doesn't plan, in words; empty if it has all."""
        tasks = [task for task in test.tasks or () if task not in self.tasks]
        if tasks:
            noun = "task" if len(tasks) == 1 else "tasks"
            return f"profile {self.profile} has no {noun} {', '.join(tasks)}"
        cells = [cell_title(*cell) for cell in test.cells if cell not in self.cells]
        return f"profile {self.profile} has no cell {', '.join(cells)}" if cells else ""


def gap(slots: Mapping[Cell, Sequence[Slot]], tasks: Sequence[str]) -> str:
    """Which planned runs are not there, in words; empty if all are."""
    parts = []
    for cell, found in slots.items():
        if {s.job.task for s in found} != set(tasks):
            parts.append(f"{cell_title(*cell)} waits for its tuning trials")
            continue
        broken = Counter(s.status for s in found if not s.ok)
        if broken:
            counts = ", ".join(
                f"{n} {name if name == NOT_RUN else name.replace('_', ' ')}"
                for name, n in sorted(broken.items())
            )
            ok = len(found) - broken.total()
            parts.append(f"{cell_title(*cell)} has {ok} of {len(found)} runs ({counts})")
    return "; ".join(parts)


def _by_task(rows: Sequence[Record], of: Callable[[Record], int]) -> dict[str, dict[Cell, int]]:
    """Task -> cell -> the largest figure of its runs, of cells that go through steps."""
    found: dict[str, dict[Cell, int]] = {}
    for row in rows:
        method = method_of(row.job.method)
        if method is None or method.trains:
            cells = found.setdefault(row.job.task, {})
            cells[row.job.cell] = max(cells.get(row.job.cell, 0), of(row))
    return found


def _unequal(by_task: Mapping[str, Mapping[Cell, int]], said: str) -> str:
    """A sentence of the first task on which two cells' figures differ; empty if none do.

    Args:
        said: what stands between the two cells, with the factor as {}.
    """
    for task, cells in by_task.items():
        most, least = max(cells, key=lambda c: cells[c]), min(cells, key=lambda c: cells[c])
        factor = cells[most] / cells[least]
        if factor > 1 + SAME:
            between = said.format(f"{factor:.3g}")
            return f"on {task} {cell_title(*most)} {between} {cell_title(*least)}"
    return ""


def unequal_training(rows: Sequence[Record]) -> str:
    """Which cells trained on more rows than others, in words; empty if all on the same number."""
    seen = _by_task(rows, lambda row: int(rows_seen(row) or 0))
    told = _unequal(seen, "trained on {} times as many rows as")
    return f"{told} (steps times batch)" if told else ""


def unequal_steps(rows: Sequence[Record]) -> str:
    """Which cells took more optimizer steps for the same rows, in words; empty if none did."""
    taken = _by_task(rows, lambda row: row.outcome.steps or row.job.recipe.steps)
    told = _unequal(taken, "took {} times the steps of")
    return f"{told} for the same rows" if told else ""


def obstacle(test: ClaimTest, rows: Sequence[Record]) -> str:
    """Why figures of these rows can't be compared; empty if they can."""
    if own := sorted({row.job.task_title for row in rows if row.job.own is not None}):
        return f"a claim is of published data, and here are rows of {' and '.join(own)}"
    measures = dict.fromkeys(test.measures())
    for name in dict.fromkeys([*FORM, *(name for m in measures for name in m.same)]):
        by_task: dict[str, set[object]] = {}
        for row in rows:
            if name not in FORM or name in row.job.form:
                by_task.setdefault(row.job.task, set()).add(getattr(row.job.recipe, name))
        for task, found in by_task.items():
            if len(found) > 1:
                told = " and ".join(sorted(map(str, found)))
                return f"the recipes differ in {name} on {task}: {told}"
    if any(m.of_training for m in measures) and (fault := unequal_training(rows)):
        return fault
    peak = "peak_memory_bytes"
    if any(m.key == peak for m in measures):
        meters = sorted({r.outcome.peak_memory_source or "an unknown meter" for r in rows})
        if len(meters) > 1 or meters == ["an unknown meter"]:
            return f"{title(peak)} was measured by {' and by '.join(meters)}"
    if any(m.kind == "time" for m in measures):
        machines = {str([r.environment.machine.get(k) for k in ("cpu", "gpus")]) for r in rows}
        if len(machines) > 1:
            return "the rows were timed on different machines"
    metrics = {r.job.metric for r in rows if any(m.kind == "score" for m in measures)}
    titles = " and ".join(sorted(metric_title(m) for m in metrics))
    if any(sign_of(m) < 0 for m in metrics) and not isinstance(test.compared, Order):
        return f"a claimed difference of scores is one where higher is better, unlike {titles}"
    several = len({r.job.task for r in rows}) > 1
    if several and any(m.kind == "loss" for m in measures):
        return "a mean of training losses over tasks means nothing: each has its own unit"
    if len(metrics) > 1 and not all(map(bounded, metrics)):
        return f"a mean of {titles} over tasks means nothing"
    if several and not all(map(shares_unit, metrics)):
        return f"a mean of {titles} over tasks means nothing: each has its own unit"
    return ""


def missing(cell: Cell, measure: Measure, slots: Sequence[Slot]) -> str:
    """Why a finished run lacks the figure; empty if none does."""
    if measure.kind == "steps":
        reached = [bool(s.record and s.record.outcome.target_reached) for s in slots]
        if not all(reached):
            count = f"{sum(reached)} of {len(slots)} runs"
            return f"{cell_title(*cell)} reached the target in {count}, so its steps are censored"
    lacking = [s for s in slots if s.value(measure.value) is None]
    if not lacking:
        return ""
    record = lacking[0].record
    reason = measure.reason(record) if record else ""
    count = f"{len(lacking)} of {len(slots)} runs"
    return f"{cell_title(*cell)} has no {measure.title} in {count}: {reason or 'not recorded'}"


def values_of(slots: Sequence[Slot], measure: Measure, *, oriented: bool = False) -> Values:
    """The figures of a cell whose runs all have one.

    Args:
        oriented: turn the sign of scores that are better the lower they are.
    """
    turns = oriented and measure.kind == "score"
    found: dict[str, dict[int, float]] = {}
    for slot in slots:
        value = slot.value(measure.value)
        assert value is not None
        sign = sign_of(slot.job.metric) if turns else 1.0
        found.setdefault(slot.job.task, {})[slot.job.seed] = sign * value
    return found


def notes(
    test: ClaimTest, rows: Sequence[Record], suspects: Mapping[str, Sequence[Flag]]
) -> tuple[str, ...]:
    """What is suspect about rows, and where they were timed."""
    found = [flag for row in rows for flag in suspects.get(row.job.job_id, ())]
    counts = Counter((flag.kind, flag.job.cell) for flag in found)
    timed = any(m.kind == "time" for m in test.measures())
    on_cpu = timed and any(row.job.device == "cpu" for row in rows)
    steps = unequal_steps(rows) if any(m.of_training for m in test.measures()) else ""
    added = any(row.most_seeds for row in rows)
    return (
        ("timed on a CPU",) * on_cpu
        + ("seeds were added until it was decided, and the interval pays for the looks",) * added
        + ((steps,) if steps else ())
        + tuple(
            f"{n} {'run' if n == 1 else 'runs'} of {cell_title(*cell)} {FLAG_KINDS[kind]}"
            for (kind, cell), n in counts.items()
        )
    )

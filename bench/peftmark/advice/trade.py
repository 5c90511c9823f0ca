"""What each cell of a table scores and costs, and which cells make the front of that trade.

Scores are what the table averages over tasks within each seed (`table.overall_score`), over the
seeds that are ok on every task. Costs are absolute, as their units mean something ("below
500 MiB"), and averaged geometrically over the same tasks and seeds, as they differ between tasks by
factors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from peftmark.analysis.comparison import shown_higher
from peftmark.analysis.floor import below_floor
from peftmark.analysis.machines import ELSEWHERE
from peftmark.analysis.pareto import Point, Standing, Values, standings
from peftmark.analysis.stats import Estimate, compare
from peftmark.analysis.table import (
    NOT_RUN,
    Read,
    ResultTable,
    forgetting,
    overall_score,
    task_score,
)
from peftmark.catalog.methods import Cell
from peftmark.core.amounts import count_text, seconds_text, size_text
from peftmark.record.fields import title
from peftmark.record.job import Record


@dataclass(frozen=True)
class Cost:
    """A figure of which less is better.

    Attributes:
        name: the field of `Outcome` that it is read from, for its title and the reason of a gap.
        exact: whether it is a count, which no clock or scheduler disturbs.
        text: the figure with its unit.
        meter: what measured it in a row; None where that can't differ.
        made: its own title, where it is made from several fields.
    """

    key: str
    name: str
    read: Read
    exact: bool
    text: Callable[[float], str]
    meter: Callable[[Record], str | None] | None = None
    made: str = ""

    @property
    def title(self) -> str:
        """Its name without an article, such as "peak memory"."""
        return self.made or title(self.name)

    @property
    def figure(self) -> str:
        """What scripts call it: its field, or its key where it is made from several."""
        return self.key if self.made else self.name


MEMORY = Cost(
    "memory",
    "peak_memory_bytes",
    lambda r: r.outcome.peak_memory_bytes,
    True,
    size_text,
    lambda r: r.outcome.peak_memory_source,
)
TIME = Cost(
    "time",
    "train_seconds",
    lambda r: r.outcome.train_seconds,
    False,
    seconds_text,
    lambda r: device(r),
)
PARAMETERS = Cost(
    "parameters",
    "trainable_parameters",
    lambda r: r.outcome.trainable_parameters,
    True,
    count_text,
)


FORGETTING = Cost(
    "forgetting",
    "unrelated_perplexity_after",
    # Over before, not less 1: costs are averaged by their logarithms, and this may be below 0.
    lambda r: None if (f := forgetting(r)) is None else 1 + f,
    False,
    lambda ratio: forgetting_text(ratio - 1),
    made="forgetting",
)


def forgetting_text(value: float) -> str:
    """By how much the perplexity of unrelated text rose, such as "+3.2 %"."""
    text = f"{100 * abs(value):.1f}\u00a0%"
    return text if text[:3] == "0.0" else f"{'−' if value < 0 else '+'}{text}"


def device(record: Record) -> str:
    """The machine that a time was taken on."""
    machine = record.environment.machine
    on_gpu = record.job.device != "cpu"
    used = ", ".join(machine.get("gpus") or ()) if on_gpu else machine.get("cpu")
    return f"{used or 'a machine not recorded'}, {record.job.threads} threads"


def meters(table: ResultTable, cost: Cost) -> tuple[str, ...]:
    """What measured a cost in the ok rows that have it, each once."""
    if cost.meter is None:
        return ()
    rows = [s.record for s in table.slots if s.record is not None and s.value(cost.read)]
    return tuple(sorted({cost.meter(r) or "source not recorded" for r in rows}))


def fault(table: ResultTable, cost: Cost) -> str:
    """Why a cost can't be set side by side over all cells; empty if it can."""
    rows = [s.record for s in table.slots if s.ok and s.record is not None]
    if not rows:
        return "no run finished"
    if not any((cost.read(r) or 0) > 0 for r in rows):
        reasons = dict.fromkeys(text for r in rows if (text := r.null_reason(cost.name)))
        return "; ".join(reasons) or "not recorded"
    found = meters(table, cost)
    if any(_only_elsewhere(table, cell, cost) for cell in table.cells):
        found = tuple(table.machines.names.values())
    return f"measured by different meters: {'; '.join(found)}" if len(found) > 1 else ""


def _only_elsewhere(table: ResultTable, cell: Cell, cost: Cost) -> bool:
    """Whether a cell has the cost from other machines than the table's main one alone."""
    rows = [s.record for s in table.of(cell) if s.ok and s.record is not None]
    return bool(rows) and all(is_elsewhere(r, cost) for r in rows)


def is_elsewhere(record: Record, cost: Cost) -> bool:
    """Whether a row has no such cost because another machine than the table's main one made it."""
    return record.null_reason(cost.name).startswith(ELSEWHERE)


def scores(table: ResultTable, cell: Cell, tasks: Sequence[str] = ()) -> Values:
    """Scores of a cell by task and seed, for the seeds that are ok on every one of the tasks.

    Args:
        tasks: some of the table's; empty for all that it averages.
    """
    names = tasks or table.scale.tasks
    by_task = {t: dict(task_score(table, cell, t, table.read).by_seed) for t in names}
    whole = [s for s in next(iter(by_task.values()), {}) if all(s in v for v in by_task.values())]
    return {t: {s: v[s] for s in whole} for t, v in by_task.items()} if whole else {}


def point(table: ResultTable, cell: Cell, cost: Cost, tasks: Sequence[str] = ()) -> Point | None:
    """A cell's scores and costs on the seeds that have both on every task; None without one."""
    found = scores(table, cell, tasks)
    costs = {t: dict(task_score(table, cell, t, cost.read).by_seed) for t in found}
    seeds = [
        s for s in next(iter(found.values()), {}) if all(costs[t].get(s, 0) > 0 for t in costs)
    ]
    if not seeds:
        return None
    return Point(
        {t: {s: found[t][s] for s in seeds} for t in found},
        {t: {s: costs[t][s] for s in seeds} for t in found},
        cost.exact,
    )


@dataclass(frozen=True)
class Spot:
    """A cell in the trade of score against one cost.

    Attributes:
        score: mean over tasks with its interval over seeds.
        cost: geometric mean over tasks and seeds.
        limits: its 95 % interval; None below two seeds.
        by: the cell that puts it off the front; None if it isn't off.
    """

    cell: Cell
    point: Point
    score: Estimate
    cost: float
    limits: tuple[float, float] | None
    standing: Standing
    by: Cell | None


@dataclass(frozen=True)
class Front:
    """The trade of score against one cost.

    Attributes:
        spots: cells that have both, in the order of the table.
        missing: cells without, and why.
        fault: why the cost can't be compared at all; then there are no spots.
    """

    cost: Cost
    spots: tuple[Spot, ...] = ()
    missing: dict[Cell, str] = field(default_factory=dict)
    fault: str = ""

    @property
    def choices(self) -> tuple[Spot, ...]:
        """The spots that are not below the quality floor."""
        return tuple(s for s in self.spots if s.standing != "below the floor")

    def of(self, standing: Standing) -> tuple[Spot, ...]:
        """The spots of one standing, cheapest first."""
        return tuple(
            sorted((s for s in self.spots if s.standing == standing), key=lambda s: s.cost)
        )


def front(table: ResultTable, cost: Cost, cells: Sequence[Cell] | None = None) -> Front:
    """The trade among some cells of a table, or among all of them."""
    if problem := fault(table, cost):
        return Front(cost, fault=problem)
    missing: dict[Cell, str] = {}
    found: list[tuple[Cell, Point]] = []
    for cell in table.cells if cells is None else cells:
        at = point(table, cell, cost)
        if at is not None:
            found.append((cell, at))
        elif overall_score(table, cell).by_seed:
            missing[cell] = why_no_cost(table, cell, cost)
        else:
            missing[cell] = why_no_score(table, cell)
    places = standings(
        [at for _, at in found], lambda a, b: shown_higher(table, found[a][0], found[b][0])
    )
    spots = tuple(
        Spot(
            cell,
            at,
            score_of(at.scores).within(table.scale.limits),
            at.cost,
            at.cost_range,
            place.standing,
            None if place.by is None else found[place.by][0],
        )
        for (cell, at), place in zip(found, places, strict=True)
    )
    return Front(cost, spots, missing)


def choice_front(table: ResultTable, cost: Cost) -> Front:
    """The trade among the cells above the quality floor; the others are spots on no front."""
    floor = below_floor(table)
    above = front(table, cost, [c for c in table.cells if c not in floor])
    low = front(table, cost, [c for c in table.cells if c in floor])
    spots = {s.cell: s for s in above.spots}
    spots |= {s.cell: replace(s, standing="below the floor", by=None) for s in low.spots}
    ordered = tuple(spots[c] for c in table.cells if c in spots)
    return replace(above, spots=ordered, missing=above.missing | low.missing)


def score_of(values: Values) -> Estimate:
    """Mean over tasks with its interval over seeds, as `table.Score` has it.

    Args:
        values: the same seeds on every task, at least one.
    """
    by_task = list(values.values())
    return compare([[v[seed] for seed in by_task[0]] for v in by_task]).estimate


def why_no_cost(table: ResultTable, cell: Cell, cost: Cost) -> str:
    """Why a cell has a score and no cost."""
    rows = [s.record for s in table.of(cell) if s.ok and s.record]
    if any(cost.read(r) == 0 for r in rows):
        return "0 has no place on a scale of ratios"
    reasons = dict.fromkeys(r.null_reason(cost.name) for r in rows)
    known = [text for text in reasons if text not in ("", "not recorded")]
    return "; ".join(known) or f"{cost.title} not recorded on every task"


def why_no_score(table: ResultTable, cell: Cell) -> str:
    """Why a cell has no score over all tasks."""
    if why := table.scale.why_none:
        return why
    for task in table.scale.tasks:
        slots = table.of(cell, task)
        if not any(s.value(table.read) is not None for s in slots):
            ends = dict.fromkeys(
                "no score of the baseline predictor" if s.ok else s.status.replace("_", " ")
                for s in slots
            )
            return f"{task}: {', '.join(ends) or NOT_RUN}"
    return "no seed finished every task"

"""One measured cell held against what a user asks for. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from peftmark.advice.money import costs_of
from peftmark.advice.trade import (
    Cost,
    fault,
    is_elsewhere,
    point,
    score_of,
    scores,
    why_no_score,
)
from peftmark.analysis.comparison import ALPHA, Difference, pair_of
from peftmark.analysis.pareto import gain
from peftmark.analysis.scale import POINT, of_difference
from peftmark.analysis.stats import Comparison, Estimate, bound, seeds_to_decide
from peftmark.analysis.table import ResultTable
from peftmark.catalog.methods import Cell, cell_title
from peftmark.core.amounts import Price, places
from peftmark.render.words import nothing_shown, seeds_that_decide

Keeps = Literal["best", "shown", "possible", "dropped", "not asked"]


@dataclass(frozen=True)
class Wish:
    """What the user asks for; None and "" ask nothing.

    Attributes:
        memory: bytes at most.
        rows: training rows that the user has.
        task: classification, regression, instruction, language or the key of a task.
        max_drop: points at most below the best measured cell; a point is 0.01 of the metric, or
            of what the table averages in its place.
        parameters: trainable parameters at most, head included.
        seconds: training time at most.
        model: key of the model.
        least: the cost that decides among cells that fit (a key of `costs`); None for the first
            of memory, time, parameters and money that has a limit, else memory.
        price: what an hour of the machine costs.
        money: price of a run at most, in the currency of `price`.
    """

    memory: float | None = None
    rows: int | None = None
    task: str = ""
    max_drop: float | None = None
    parameters: int | None = None
    seconds: float | None = None
    model: str = ""
    least: str | None = None
    price: Price | None = None
    money: float | None = None

    @property
    def costs(self) -> dict[str, Cost]:
        """What is compared, by key."""
        return costs_of(self.price)

    @property
    def limits(self) -> dict[str, float]:
        """Cost -> its limit, of those that have one."""
        given = {"memory": self.memory, "time": self.seconds, "parameters": self.parameters}
        given["money"] = self.money
        return {key: limit for key, limit in given.items() if limit is not None}

    @property
    def cost(self) -> Cost:
        """The cost that decides among cells that fit."""
        return self.costs[self.least or next(iter(self.limits), "memory")]


@dataclass(frozen=True)
class Candidate:
    """A cell held against the constraints.

    Attributes:
        score: mean over tasks with its interval over seeds; None without one.
        behind: the paired comparison with the best cell; None for the best itself, and where
            nothing can be compared.
        keeps: whether it stays within the allowed drop.
        figures: cost -> the geometric mean over tasks and seeds, as in the trade and wherever a
            cost is shown; None where it is unknown.
        largest: cost -> the largest over its tasks, which limits are held against: memory and
            parameters of any run, time as the mean over seeds; None if a run lacks it.
        over: why it breaks a limit, as parts of a sentence.
        unknown: what isn't known of it that a constraint needs, likewise.
        seeds: seeds that finished every task.
        ok: jobs that finished.
        jobs: jobs with a row.
        by: the cell that is shown to score more for no more; None if there is none.
        in_points: whether a difference of scores means anything in points.
        low: why it is below the quality floor (`peftmark.analysis.floor`) and not shown to stay
            within an allowed drop: no price makes it a choice, whatever few seeds leave undecided.
            Empty where it isn't.
        perhaps: whether it may stay within the allowed drop by its own interval too, or by its
            mean where it has none: of many cells a loss may be clear and yet not shown.
    """

    cell: Cell
    score: Estimate | None
    behind: Comparison | None
    keeps: Keeps
    figures: Mapping[str, float | None]
    largest: Mapping[str, float | None]
    over: tuple[str, ...]
    unknown: tuple[str, ...]
    seeds: int
    ok: int
    jobs: int
    by: Cell | None = None
    in_points: bool = True
    low: str = ""
    perhaps: bool = False

    @property
    def title(self) -> str:
        """The cell's name."""
        return cell_title(*self.cell)

    @property
    def trains(self) -> bool:
        """Whether it is a way to train at all, which alone can be recommended."""
        return self.cell.trains

    @property
    def fits(self) -> bool:
        """Whether nothing speaks against it."""
        wrong = self.over or self.unknown or self.low or self.keeps == "dropped"
        return self.trains and not wrong


def candidate(table: ResultTable, cell: Cell, best: Cell, wish: Wish, low: str = "") -> Candidate:
    """Hold a cell against a wish.

    Args:
        table: the rows that count.
        best: the cell with the highest mean score among them.
        low: why the cell is below the quality floor; empty if it isn't.
    """
    slots = [s for s in table.of(cell) if s.record is not None]
    mine = scores(table, cell)
    behind = gain(mine, scores(table, best)) if mine and cell != best else None
    if behind is not None:
        behind = behind.within(of_difference(table.scale.limits))
    figures, most = {}, {}
    for key, cost in wish.costs.items():
        at, most[key] = point(table, cell, cost), largest(table, cell, cost)
        figures[key] = None if at is None or most[key] is None else at.cost
    over, unknown = [], [] if mine else [why_no_score(table, cell)]
    for key, limit in wish.limits.items():
        cost, value = wish.costs[key], most[key]
        problem = fault(table, cost)
        if key == "memory" and ran_out(table, cell):
            unknown.append("a run ended out of memory")
        elif problem or value is None:
            unknown.append(f"{cost.title}: {problem or 'not recorded in every run'}")
        elif value > limit:
            over.append(f"{cost.title} {cost.text(value)}{of_a_task(table)}")
    judged = pair_of(table, cell, best)
    keeps = _keeps(cell == best, behind, wish.max_drop, judged)
    if mine and wish.max_drop is not None and cell != best and behind is None:
        unknown.append("no seed shared with the best cell")
    return Candidate(
        cell,
        score_of(mine).within(table.scale.limits) if mine else None,
        behind,
        keeps,
        figures,
        most,
        tuple(over),
        tuple(unknown),
        len(next(iter(mine.values()), {})),
        sum(s.ok for s in slots),
        len(slots),
        in_points=table.scale.in_points,
        low="" if keeps == "shown" else low,
        perhaps=keeps == "possible" and not _is_far(behind, wish.max_drop),
    )


def largest(table: ResultTable, cell: Cell, cost: Cost) -> float | None:
    """A cell's largest figure of any ok run; of times, the mean over seeds of its slowest task.

    What only holds on one machine is that of the table's main one, in every run that it made.
    """
    found = []
    for task in table.tasks:
        rows = [s for s in table.of(cell, task) if s.ok]
        here = [s for s in rows if s.record is not None and not is_elsewhere(s.record, cost)]
        values = [s.value(cost.read) for s in here]
        known = [v for v in values if v is not None]
        if not known or len(known) < len(values):
            return None
        found.append(max(known) if cost.exact else sum(known) / len(known))
    return max(found, default=None)


def ran_out(table: ResultTable, cell: Cell) -> bool:
    """Whether a run of a cell ended out of memory, so that its largest figure isn't known."""
    return any(s.status == "out_of_memory" for s in table.of(cell))


def of_a_task(table: ResultTable) -> str:
    """What follows the largest figure of a cell; empty where it has one task."""
    return " on its largest task" if len(table.tasks) > 1 else ""


def _keeps(
    is_best: bool, behind: Comparison | None, max_drop: float | None, judged: Difference | None
) -> Keeps:
    """Where a drop stands; without a standard error nothing is shown either way.

    Args:
        judged: what is shown of the cell and the best one, as one of a family of pairs: a loss is
            shown only where a difference is, and that it stays small only at the family's level.
    """
    if max_drop is None:
        return "not asked"
    if is_best:
        return "best"
    if behind is None or behind.se is None or judged is None:
        return "possible"
    drop, apart = max_drop * POINT, judged.verdict in ("higher", "lower")
    ends = bound(behind, 1 - 2 * ALPHA / max(1, judged.family))
    if behind.estimate.low >= -drop and ends is not None and ends[0] >= -drop:
        return "shown"
    return "dropped" if apart and behind.estimate.high < -drop else "possible"


def _is_far(behind: Comparison | None, max_drop: float | None) -> bool:
    """Whether a cell's whole interval, or its mean where it has none, loses more than allowed."""
    if behind is None or max_drop is None:
        return False
    reach = behind.estimate.mean if behind.se is None else behind.estimate.high
    return reach < -max_drop * POINT


def seeds_wanted(candidate: Candidate, wish: Wish) -> str:
    """About how many seeds would decide whether a cell stays within the drop; may be empty."""
    c = candidate.behind
    if c is None or wish.max_drop is None or c.se is None:
        return ""
    n = seeds_to_decide(c, effect=c.estimate.mean + wish.max_drop * POINT)
    return f" ({seeds_that_decide(n)})"


def to_the_best(in_points: bool) -> str:
    """What `short_standing` gives, as the title of a column."""
    return "points to the best" if in_points else "difference to the best"


def standing_text(c: Candidate) -> str:
    """How a cell's score stands to the best one, such as "0.6 points below it"."""
    if c.behind is None:
        return "the best measured score"
    e = c.behind.estimate
    mean = points_text(e.mean)
    if c.behind.se is None:
        return f"{mean} it, without an interval (n = {c.behind.n})"
    if e.says_nothing:
        return f"{mean} it, but {nothing_shown(e.n, signed=True)}"
    return f"{mean} it (95\u00a0% interval {_signed(e.low)} to {_signed(e.high)})"


def points_text(difference: float) -> str:
    """A difference of scores in points, such as "0.4 points below"."""
    value = _signed(difference).lstrip("−+")
    if value == "0.0":
        return "0.0 points from"
    return f"{value} points {'below' if difference < 0 else 'above'}"


def points(value: float) -> str:
    """A number of points, such as "1 point"."""
    return f"{value:g} point{'' if value == 1 else 's'}"


def short_standing(c: Candidate) -> str:
    """The same for a table, such as "−0.6 (−0.8 to −0.3)"; in the metric's unit where that has no
    points."""
    if c.behind is None:
        return "best"
    e, shown = c.behind.estimate, _signed if c.in_points else _plain
    if c.behind.se is None:
        return shown(e.mean)
    if e.says_nothing:
        return f"{shown(e.mean)}, but {nothing_shown(e.n, signed=True)}"
    return f"{shown(e.mean)} ({shown(e.low)} to {shown(e.high)})"


def _signed(difference: float) -> str:
    value = f"{abs(difference) / POINT:.1f}"
    return value if value == "0.0" else f"{'−' if difference < 0 else '+'}{value}"


def _plain(difference: float) -> str:
    value = f"{abs(difference):.{places(difference)}f}"
    return value if not float(value) else f"{'−' if difference < 0 else '+'}{value}"

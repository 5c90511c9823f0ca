"""Every run held against the first: paired by seed, judged together as a report judges methods.

Runs are paired as the gate pairs them: ok on both sides and asked for the same. Verdicts are those
of reports (higher, lower, equivalent, undecided, no interval), Holm over all methods of all runs,
and over all of them on single tasks; "identical" is what gave the same bits, of which nothing is
left to test.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from peftmark.analysis.comparison import MARGIN, Difference, judge
from peftmark.analysis.order import shown_order
from peftmark.analysis.scale import Scale, gain, limits_of, of_difference, point, scale_of, share
from peftmark.analysis.stats import geometric_mean
from peftmark.analysis.table import Score
from peftmark.catalog.methods import Cell
from peftmark.catalog.metrics import sign_of
from peftmark.compare.runs import Run
from peftmark.gate.judge import compare
from peftmark.gate.matching import Matched, Pair, match
from peftmark.gate.result import Gate
from peftmark.gate.run_lines import Line

Read = Callable[[Line], float | None]
Place = tuple[int, Cell, str]
"""Number of a run, cell, and task; no task for all of them."""


@dataclass(frozen=True)
class Compared:
    """What is known of the runs.

    Attributes:
        runs: as named; the others are held against the first.
        matched: their pairs with the first; of the first, with itself.
        gates: what the gate's checks find of each, without a policy; of the first None.
        scale: what tasks are averaged on.
        found: differences to the first, and their verdicts; without those of the same bits.
    """

    runs: tuple[Run, ...]
    matched: tuple[Matched, ...]
    gates: tuple[Gate | None, ...]
    scale: Scale
    found: Mapping[Place, Difference]

    @property
    def others(self) -> range:
        """Numbers of all runs but the first."""
        return range(1, len(self.runs))

    @cached_property
    def cells(self) -> tuple[Cell, ...]:
        """Every cell of any run, in the order of every page."""
        lines = [line for run in self.runs for line in run.side.lines]
        return tuple(sorted(dict.fromkeys(x.cell for x in lines), key=shown_order))

    @cached_property
    def tasks(self) -> dict[str, str]:
        """Every task of any run, and its metric."""
        return _tasks(self.runs)

    def pairs(self, number: int, cell: Cell, task: str = "") -> tuple[Pair, ...]:
        """The pairs of a run with the first; without a task those of all that are averaged."""
        pairs = self.matched[number].of(cell, task or None)
        return pairs if task else tuple(p for p in pairs if p.before.task in self.scale.tasks)

    def identical(self, place: Place) -> bool:
        """Whether all pairs gave the same bits."""
        pairs = self.pairs(*place)
        return bool(pairs) and all(p.identical for p in pairs)

    def verdict(self, place: Place) -> str:
        """What is shown of a difference; empty where nothing could be compared."""
        if self.identical(place):
            return "identical"
        return self.found[place].verdict if place in self.found else ""

    def score(self, number: int, cell: Cell) -> Score:
        """A run's own score over the averaged tasks that it has of a cell."""
        lines = [x for x in self.runs[number].side.lines if x.cell == cell]
        mine = [x for x in lines if x.task in self.scale.tasks]
        planned = len({line.seed for line in lines})
        by_task: dict[str, dict[int, float]] = {line.task: {} for line in mine}
        for line in mine:
            value = reader(self.scale)(line) if line.ok else None
            if value is not None:
                by_task[line.task][line.seed] = value
        return _score(list(by_task.values()), planned, self.scale.limits)


def hold(runs: tuple[Run, ...]) -> Compared:
    """Hold every run against the first."""
    first = runs[0].side
    matched = tuple(match(first, run.side) for run in runs)
    gates = (None, *(compare(run.side, first) for run in runs[1:]))
    empty = Compared(runs, matched, gates, scale_of(_tasks(runs)), {})
    overall, single = {}, {}
    for number in empty.others:
        for cell in empty.cells:
            place = (number, cell, "")
            if not empty.identical(place):
                overall[place] = _difference(empty.pairs(*place), empty.scale)
            for task in empty.tasks:
                place = (number, cell, task)
                if not empty.identical(place):
                    single[place] = _difference(empty.pairs(*place), None)
    signs = {task: sign_of(metric) for task, metric in empty.tasks.items()}
    found = judge(overall, lambda _: MARGIN if empty.scale.in_points else None)
    found |= judge(single, lambda key: _margin(empty.pairs(*key)), lambda key: signs[key[2]])
    return Compared(runs, matched, gates, empty.scale, found)


def _tasks(runs: Sequence[Run]) -> dict[str, str]:
    return {line.task: line.metric for run in runs for line in run.side.lines}


def reader(scale: Scale) -> Read:
    """What is averaged of a run on a scale."""
    if scale.kind == "value":
        return lambda line: line.value
    worth = share if scale.kind == "share" else gain
    return lambda line: worth(line.metric, line.value, line.baseline_value)


def _margin(pairs: Sequence[Pair]) -> float | None:
    """What counts as equivalent on a task; None where nothing does."""
    points = [point(p.before.metric, p.before.baseline_value) for p in pairs]
    known = [found for found in points if found is not None]
    return statistics.fmean(known) if known and len(known) == len(points) else None


def _difference(pairs: Sequence[Pair], scale: Scale | None) -> Score:
    """Paired differences over the seeds that every task of the pairs has.

    Args:
        scale: what tasks are averaged on; None for one task in its own metric.
    """
    read = reader(scale) if scale is not None else (lambda line: line.value)
    by_task: dict[str, dict[int, float]] = {p.before.task: {} for p in pairs}
    for p in pairs:
        before, after = read(p.before), read(p.after)
        if before is not None and after is not None:
            by_task[p.before.task][p.before.seed] = after - before
    metric = pairs[0].before.metric if pairs else ""
    limits = scale.limits if scale is not None else limits_of(metric)
    planned = len({p.before.seed for p in pairs})
    return _score(list(by_task.values()), planned, of_difference(limits))


def _score(
    by_task: Sequence[Mapping[int, float]], planned: int, limits: tuple[float, float] | None
) -> Score:
    """Means over tasks of the seeds that every task has."""
    seeds = sorted(set.intersection(*map(set, by_task))) if by_task else []
    if not seeds:
        return Score((), planned)
    strata = tuple(tuple(values[seed] for seed in seeds) for values in by_task)
    means = [statistics.fmean(values) for values in zip(*strata, strict=True)]
    several = strata if len(strata) > 1 else ()
    return Score(tuple(zip(seeds, means, strict=True)), planned, several, limits)


# --- costs --------------------------------------------------------------------------------------


def ratios(pairs: Sequence[Pair], key: str) -> tuple[list[float], str]:
    """After over before of a cost, pair by pair, and why there is none.

    Args:
        key: memory (the peak that rows are headed by, on the same kind of device), time (median
            step, on the same kind of machine) or parameters (trained ones).
    """
    if not pairs:
        return [], "no run to compare"
    usable = [p for p in pairs if COSTS[key][1](p)]
    if not usable:
        return [], f"made on another kind of {'device' if key == 'memory' else 'machine'}"
    read = COSTS[key][0]
    both = [(read(p.before), read(p.after)) for p in usable]
    found = [after / before for before, after in both if before and after]
    return found, "" if found else "not measured"


def ratio(pairs: Sequence[Pair], key: str) -> float | None:
    """The geometric mean of the same; None if unknown."""
    found, _ = ratios(pairs, key)
    return geometric_mean(found) if found else None


def _trained(line: Line) -> float | None:
    value = line.counts.get("trainable_parameters")
    return value if isinstance(value, int) else None


COSTS: Mapping[str, tuple[Read, Callable[[Pair], bool]]] = {
    "memory": (lambda line: line.peak, lambda p: p.before.device == p.after.device),
    "time": (lambda line: line.step_seconds, lambda p: p.same_machine),
    "parameters": (_trained, lambda p: True),
}
"""Cost -> what is read of a run, and whether the two of a pair may be compared in it."""

"""How often the statistics of `analysis.stats` are right, measured on data whose truth is known.

The functions under test are the very ones that reports call. Runs are normal but where a table
says otherwise. "SD" is the standard deviation of a paired difference on a task; there is one
difference a seed and task, and the columns are numbers of seeds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit

from peftmark.analysis.stats import Comparison, Estimate, compare, equivalent, holm, t_interval
from peftmark.core.errors import UserError

SEEDS = (3, 5, 10)
ALPHA = 0.05
CELLS = 6
COLLAPSES, FALLS = 0.1, (5.0, 20.0)
CORRELATION = 0.3

Generator = np.random.Generator
Scores = NDArray[np.float64]
Differences = Sequence[Sequence[float]]
Compare = Callable[[Differences], Comparison]
Family = Mapping[tuple[int, int], Comparison]
Measure = Callable[[Generator, int, int], "Share"]
"""From a generator, a number of seeds and a number of repetitions to a share."""


@dataclass(frozen=True)
class Tasks:
    """How paired differences vary.

    Attributes:
        spreads: SD on each task, in any unit.
        correlation: of one seed's differences on two tasks.
    """

    spreads: tuple[float, ...]
    correlation: float = 0.0


ONE, EQUAL, EIGHT = "1 task", "4 tasks, equal spread", "8 tasks, equal spread"
UNEQUAL, LUCK = "4 tasks, spread 5 : 1 : 1 : 1", "4 tasks, shared luck"
TASKS: dict[str, Tasks] = {
    ONE: Tasks((1.0,)),
    EQUAL: Tasks((1.0,) * 4),
    EIGHT: Tasks((1.0,) * 8),
    UNEQUAL: Tasks((5.0, 1.0, 1.0, 1.0)),
    LUCK: Tasks((1.0,) * 4, CORRELATION),
}


@dataclass(frozen=True)
class Share:
    """How often something happened."""

    hits: int
    of: int

    @property
    def error(self) -> float:
        """Standard error of the share; not 0 where it happened never or always."""
        p = (self.hits + 1) / (self.of + 2)
        return math.sqrt(p * (1 - p) / self.of)

    def __str__(self) -> str:
        return f"{100 * self.hits / self.of:.1f} % ± {100 * self.error:.1f}"


@dataclass(frozen=True)
class Table:
    """One table of shares.

    Attributes:
        text: what the shares are of.
        rows: label -> a share for each of `SEEDS`.
    """

    title: str
    text: str
    rows: dict[str, tuple[Share, ...]]


def simulation_text(suites: int = 3000, draws: int = 20_000, seed: int = 1) -> str:
    """The simulation's tables as Markdown, the same text for the same arguments.

    Args:
        suites: simulated suites, or single comparisons, behind each other number.
        draws: simulated comparisons behind each number on coverage and equivalence.
        seed: of everything drawn.

    Raises:
        UserError: a size below 1 or a negative seed.
    """
    if suites < 1 or draws < 1 or seed < 0:
        raise UserError(
            f"cannot simulate {suites} suites and {draws} draws with seed {seed}",
            "Both sizes must be at least 1 and the seed at least 0.",
        )
    head = (
        f"Seed {seed}, {suites:,} suites, {draws:,} draws. Coverage and equivalence rest on the "
        "draws, the other tables on the suites or as many single comparisons. After ± stands one "
        "standard error of the simulation itself. Shared luck: one seed's differences on two "
        f"tasks correlate by {CORRELATION}."
    )
    return "\n\n".join([head, *map(_markdown, simulate(suites, draws, seed))]) + "\n"


def simulate(suites: int, draws: int, seed: int) -> Iterator[Table]:
    """All tables; arguments as for `simulation_text`. Each number has a stream of its own."""
    plans: list[tuple[str, str, int, Mapping[str, Measure]]] = [
        (
            "Coverage",
            "How often the 95 % interval holds the true mean: of one cell's score, by "
            "`t_interval` on its mean over tasks at each seed, and of a difference, by `compare`.",
            draws,
            _coverage(),
        ),
        (
            "Family-wise false alarms",
            f"Suites of {CELLS} cells in which nothing differs: in how many Holm's correction "
            f"still leaves a p of at most {ALPHA}. All pairs: every two cells, over all tasks. "
            "Reference: every other cell against the first, on each task.",
            suites,
            _alarms(),
        ),
        (
            "Power",
            "How often a true gain, the same on every task, is found with the right sign and a p "
            f"of at most {ALPHA}. Alone: one comparison without correction. In the families "
            "above one cell gains and its comparison with one other cell, in the last family on "
            "one task, is looked at after correction.",
            suites,
            _power(),
        ),
        (
            "Equivalence",
            "How often a comparison is called equivalent: wrongly where the true difference is "
            "the margin itself, rightly where it is 0.",
            draws,
            _equivalence(),
        ),
        (
            "Runs that collapse",
            f"{100 * COLLAPSES:.0f} % of runs lose that many SD: of one method's runs for the "
            "coverage of the 95 % interval of a difference, whose true mean includes them; of all "
            "runs for false alarms, by family.",
            suites,
            _collapses(),
        ),
        (
            "If tasks were taken as independent",
            "The same with the standard error from the sum of the tasks' variances and degrees of "
            "freedom by Welch and Satterthwaite, which `compare` does not use.",
            suites,
            _as_independent(),
        ),
    ]
    for number, (title, text, size, rows) in enumerate(plans):
        shares = {}
        for place, (label, measure) in enumerate(rows.items()):
            streams = [np.random.default_rng([seed, number, place, n]) for n in SEEDS]
            shares[label] = tuple(
                measure(rng, n, size) for rng, n in zip(streams, SEEDS, strict=True)
            )
        yield Table(title, text, shares)


def _markdown(table: Table) -> str:
    head = [f"| | {' | '.join(f'{n} seeds' for n in SEEDS)} |", "|---|" + "---|" * len(SEEDS)]
    rows = [f"| {label} | {' | '.join(map(str, shares))} |" for label, shares in table.rows.items()]
    return "\n".join([f"### {table.title}", "", table.text, "", *head, *rows])


def _share(happened: Iterable[bool]) -> Share:
    found = list(happened)
    return Share(sum(found), len(found))


def independent(tasks: Differences) -> Comparison:
    """What `compare` would be if tasks were independent (Welch, 1947), for tasks with a spread."""
    values = np.asarray(tasks)
    n, mean, parts = values.shape[1], float(values.mean()), values.var(axis=1, ddof=1)
    se = math.sqrt(parts.sum() / n) / len(values)
    df = float(parts.sum() ** 2 / (parts**2).sum()) * (n - 1)
    half_width = float(stdtrit(df, 0.975)) * se
    p = 2 * float(stdtr(df, -abs(mean) / se))
    return Comparison(Estimate(mean, half_width, n), p, se, df, n)


def noise(rng: Generator, tasks: Tasks, count: int, n: int) -> Scores:
    """Deviations with these SDs and this correlation: count x tasks x seeds."""
    own = rng.standard_normal((count, len(tasks.spreads), n))
    luck = rng.standard_normal((count, 1, n))
    mixed = math.sqrt(1 - tasks.correlation) * own + math.sqrt(tasks.correlation) * luck
    found: Scores = mixed * np.asarray(tasks.spreads)[:, None]
    return found


def _suite(rng: Generator, tasks: Tasks, n: int, fall: float = 0.0) -> Scores:
    """Scores whose paired differences vary so: cells x tasks x seeds.

    What a seed adds to all cells alike would cancel in every pair, so it is left out.
    """
    scores: Scores = noise(rng, tasks, CELLS, n) / math.sqrt(2)
    return scores - fall * (rng.random(scores.shape) < COLLAPSES) if fall else scores


def _holds(estimate: Estimate, truth: float = 0.0) -> bool:
    return estimate.half_width is not None and estimate.low <= truth <= estimate.high


def _covers(label: str, by: Compare, fall: float = 0.0) -> Measure:
    """Coverage of a difference of which one side's runs may fall."""

    def measure(rng: Generator, n: int, draws: int) -> Share:
        drawn = noise(rng, TASKS[label], draws, n)
        if fall:
            drawn = drawn - fall * (rng.random(drawn.shape) < COLLAPSES)
        return _share(_holds(by(d.tolist()).estimate, -fall * COLLAPSES) for d in drawn)

    return measure


def _coverage() -> dict[str, Measure]:
    def of_t(label: str) -> Measure:
        return lambda rng, n, draws: _share(
            _holds(t_interval(score.mean(axis=0).tolist()))
            for score in noise(rng, TASKS[label], draws, n)
        )

    scores = {f"score, {label}": of_t(label) for label in TASKS}
    return scores | {f"difference, {label}": _covers(label, compare) for label in TASKS}


def _all_pairs(suite: Scores, by: Compare) -> Family:
    return {(i, j): by((suite[i] - suite[j]).tolist()) for i, j in combinations(range(CELLS), 2)}


def _against_reference(suite: Scores, by: Compare) -> Family:
    """Keys are (cell, task)."""
    return {
        (i, task): by([difference.tolist()])
        for i in range(1, CELLS)
        for task, difference in enumerate(suite[i] - suite[0])
    }


# Name -> the comparisons of a suite, and the one that the table of power looks at.
FAMILIES: dict[str, tuple[Callable[[Scores, Compare], Family], tuple[int, int]]] = {
    "all pairs": (_all_pairs, (0, 1)),
    "reference": (_against_reference, (1, 0)),
}


def _found(family: Family) -> set[tuple[int, int]]:
    """The comparisons that Holm's correction leaves at most at `ALPHA`."""
    adjusted = holm([c.p for c in family.values()])
    return {key for key, p in zip(family, adjusted, strict=True) if p is not None and p <= ALPHA}


def _raises_alarm(name: str, label: str, by: Compare, fall: float = 0.0) -> Measure:
    compared, _ = FAMILIES[name]
    return lambda rng, n, suites: _share(
        bool(_found(compared(_suite(rng, TASKS[label], n, fall), by))) for _ in range(suites)
    )


def _alarms() -> dict[str, Measure]:
    return {
        f"{name}, {label}": _raises_alarm(name, label, compare)
        for name in FAMILIES
        for label in (EQUAL, UNEQUAL, LUCK)
    }


def _finds_alone(gain: float, label: str, by: Compare) -> Measure:
    def measure(rng: Generator, n: int, draws: int) -> Share:
        found = (by((d + gain).tolist()) for d in noise(rng, TASKS[label], draws, n))
        return _share(c.p is not None and c.p <= ALPHA and c.estimate.mean > 0 for c in found)

    return measure


def _finds(gain: float, name: str, by: Compare) -> Measure:
    compared, key = FAMILIES[name]

    def measure(rng: Generator, n: int, suites: int) -> Share:
        found = []
        for _ in range(suites):
            suite = _suite(rng, TASKS[EQUAL], n)
            suite[key[0]] += gain
            family = compared(suite, by)
            found.append(key in _found(family) and family[key].estimate.mean > 0)
        return _share(found)

    return measure


def _power() -> dict[str, Measure]:
    rows: dict[str, Measure] = {}
    for gain in (1.0, 2.0):
        for label in (ONE, EQUAL, LUCK):
            rows[f"gain of {gain:.0f} SD, {label}, alone"] = _finds_alone(gain, label, compare)
        for name in FAMILIES:
            rows[f"gain of {gain:.0f} SD, {EQUAL}, {name}"] = _finds(gain, name, compare)
    return rows


def _equivalence() -> dict[str, Measure]:
    def row(label: str, margin: float, truth: float) -> Measure:
        return lambda rng, n, draws: _share(
            equivalent(compare((d + truth).tolist()), margin)
            for d in noise(rng, TASKS[label], draws, n)
        )

    rows: dict[str, Measure] = {}
    for size in (1.0, 2.0):
        for label in (ONE, EQUAL, LUCK):
            name = f"margin of {size:.0f} SD, {label}"
            rows[f"wrongly, {name}"] = row(label, size, size)
            rows[f"rightly, {name}"] = row(label, size, 0.0)
    return rows


def _collapses() -> dict[str, Measure]:
    rows: dict[str, Measure] = {}
    for fall in FALLS:
        for label in (ONE, EQUAL):
            rows[f"coverage, {label}, falls by {fall:.0f} SD"] = _covers(label, compare, fall)
        for name in FAMILIES:
            label = f"false alarms, {name}, {EQUAL}, falls by {fall:.0f} SD"
            rows[label] = _raises_alarm(name, EQUAL, compare, fall)
    return rows


def _as_independent() -> dict[str, Measure]:
    by, labels = independent, (EQUAL, UNEQUAL, LUCK)
    rows = {f"coverage, {label}": _covers(label, by) for label in labels}
    for label in labels:
        rows[f"false alarms, all pairs, {label}"] = _raises_alarm("all pairs", label, by)
    for gain in (1.0, 2.0):
        name = f"power, gain of {gain:.0f} SD, {EQUAL}"
        rows[f"{name}, alone"] = _finds_alone(gain, EQUAL, by)
        rows[f"{name}, all pairs"] = _finds(gain, "all pairs", by)
    return rows

"""How often a run that adds seeds until it is decided is right, and how many seeds it saves.

The functions under test are those that runs and reports call. Suites are those of
`peftmark.analysis.simulation`: six cells, of which every other is held against the first over all
tasks; "SD" is the standard deviation of a paired difference on a task.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from peftmark.analysis.sequential import Look, looks, sequential_p
from peftmark.analysis.simulation import (
    ALPHA,
    CELLS,
    EQUAL,
    LUCK,
    ONE,
    TASKS,
    Generator,
    Scores,
    Share,
    noise,
)
from peftmark.analysis.stats import compare, holm

MOST = (12, 20, 30)
TAILS, CEILING = 3.0, 0.5


def _normal(label: str) -> Callable[[Generator, int], Scores]:
    return lambda rng, n: noise(rng, TASKS[label], CELLS, n)


def _heavy(rng: Generator, n: int) -> Scores:
    drawn: Scores = rng.standard_t(TAILS, (CELLS, len(TASKS[EQUAL].spreads), n))
    return drawn / math.sqrt(TAILS / (TAILS - 2))


def _capped(rng: Generator, n: int) -> Scores:
    scores: Scores = np.minimum(noise(rng, TASKS[EQUAL], CELLS, n), CEILING)
    return scores


NULLS: Mapping[str, Callable[[Generator, int], Scores]] = {
    EQUAL: _normal(EQUAL),
    LUCK: _normal(LUCK),
    f"4 tasks, heavy tails (t with {TAILS:.0f} degrees of freedom)": _heavy,
    f"4 tasks, scores with a ceiling at {CEILING} SD above the mean": _capped,
}


@dataclass
class Seen:
    """What simulated runs of one kind came to.

    Attributes:
        alarms: runs that call something different that isn't.
        found, fixed: runs that find the one gain there is, and that a fixed number of seeds, the
            most, would have found.
        seeds: of the gaining cell, until it was decided or none was left.
    """

    alarms: list[bool] = field(default_factory=list)
    found: list[bool] = field(default_factory=list)
    fixed: list[bool] = field(default_factory=list)
    seeds: list[int] = field(default_factory=list)


def play(suite: Scores, gain: float, most: int, seen: Seen) -> None:
    """Play a run over a suite whose second cell gains, and note how it ends."""
    differences = (suite[1:] - suite[:1]) / math.sqrt(2)
    differences[0] += gain
    by_seed = [
        [(seed, tuple(map(float, one[:, seed]))) for seed in range(most)] for one in differences
    ]
    decided: dict[int, int] = {}
    done: list[Look] = []
    p: list[float | None] = [None] * len(by_seed)
    for look in looks(range(most), most):
        done.append(look)
        for cell, values in enumerate(by_seed):
            if cell not in decided:
                p[cell] = sequential_p(values, done)
        for cell, adjusted in enumerate(holm(p)):
            if adjusted is not None and adjusted <= ALPHA and cell not in decided:
                decided[cell] = len(look.seeds)
        if len(decided) == len(by_seed):
            break
    nulls = range(1 if gain else 0, len(by_seed))
    seen.alarms.append(any(cell in decided for cell in nulls))
    if gain:
        seen.found.append(0 in decided)
        whole = holm([compare(one.tolist()).p for one in differences])
        seen.fixed.append(whole[0] is not None and whole[0] <= ALPHA)
        seen.seeds.append(decided.get(0, most))


def looks_text(suites: int = 1000, seed: int = 1) -> str:
    """The tables as Markdown, the same text for the same arguments.

    Args:
        suites: simulated runs behind each number.
        seed: of everything drawn.
    """
    head = ["| | at most 12 seeds | at most 20 | at most 30 |", "|---|---|---|---|"]
    alarms = [
        _row(f"false alarms, {name}", name, 0.0, suites, seed, _share("alarms")) for name in NULLS
    ]
    rows = []
    for gain in (1.0, 2.0):
        for label in (ONE, EQUAL):
            told = f"gain of {gain:.0f} SD, {label}"
            for name, read in READ.items():
                rows.append(_row(f"{told}: {name}", label, gain, suites, seed, read))
    return "\n".join(
        [
            f"Seed {seed}, {suites:,} runs behind each number; after ± one standard error. Nothing "
            f"differs, or one of the {CELLS - 1} cells gains on every task.",
            "",
            *head,
            *alarms,
            *rows,
        ]
    )


def _share(what: str) -> Callable[[Seen, int], str]:
    """How often something happened, by the attribute that noted it."""

    def told(seen: Seen, most: int) -> str:
        found: list[bool] = getattr(seen, what)
        return str(Share(sum(found), len(found)))

    return told


def _saved(seen: Seen, most: int) -> str:
    return f"{100 * (1 - np.mean(seen.seeds) / most):.0f} %"


READ: Mapping[str, Callable[[Seen, int], str]] = {
    "found": _share("found"),
    "found with all seeds at once": _share("fixed"),
    "seeds saved": _saved,
}


@functools.cache
def played(label: str, gain: float, most: int, suites: int, seed: int) -> Seen:
    """Simulated runs of one kind; each kind has a stream of its own."""
    draw = NULLS.get(label) or _normal(label)
    place = [*NULLS, ONE].index(label)
    rng = np.random.default_rng([seed, place, round(gain), most])
    seen = Seen()
    for _ in range(suites):
        play(draw(rng, most), gain, most, seen)
    return seen


def _row(
    text: str, label: str, gain: float, suites: int, seed: int, read: Callable[[Seen, int], str]
) -> str:
    cells = (read(played(label, gain, most, suites, seed), most) for most in MOST)
    return f"| {text} | {' | '.join(cells)} |"

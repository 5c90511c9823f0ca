"""What a run that adds seeds and stopped before the last would still tell, and at what price."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from scipy.special import stdtrit

from peftmark.analysis.comparison import (
    ALPHA,
    Difference,
    against_reference,
    margin_of,
    pair_of,
)
from peftmark.analysis.questions import contenders, open_beside_reference
from peftmark.analysis.sequential import share_at
from peftmark.analysis.stats import chance_to_tell
from peftmark.analysis.table import ResultTable, overall_score
from peftmark.catalog.methods import Cell
from peftmark.catalog.metrics import sign_of


@dataclass(frozen=True)
class Chance:
    """What the seeds that are left would tell of a pair.

    Attributes:
        cell, other: what is compared.
        power: how often they would tell it at the last look, if they are like those seen; None
            where that can't be said.
    """

    cell: Cell
    other: Cell
    power: float | None


@dataclass(frozen=True)
class More:
    """What is left of a run that adds seeds.

    Attributes:
        most: seeds that there may be.
        runs: that would come, those of what the pairs are compared with too.
        seconds: of these, one after the other, as such runs took here; None where one of them took
            nobody knows how long.
        chances: by pair, the most likely first.
    """

    most: int
    runs: int
    seconds: float | None
    chances: tuple[Chance, ...]


def more_seeds(table: ResultTable, question: str) -> More | None:
    """What is left; None where the number of seeds was fixed, all seeds ran, or all is decided."""
    most = table.most_seeds
    if most is None:
        return None
    pairs = _open(table, question)
    seconds, runs, known = 0.0, 0, True
    for cell in dict.fromkeys(cell for pair in pairs for cell in pair):
        for task in table.tasks:
            ran = [s.record for s in table.of(cell, task) if s.record is not None]
            left, took = most - len(ran), [r.wall_seconds for r in ran if r.ok]
            runs += left
            known = known and (bool(took) or not left)
            seconds += left * statistics.median(took) if took else 0.0
    if not runs:
        return None
    chances = [Chance(a, b, _power(table, a, b, question, most)) for a, b in pairs]
    chances.sort(key=lambda one: -1.0 if one.power is None else -one.power)
    return More(most, runs, seconds if known else None, tuple(chances))


def _open(table: ResultTable, question: str) -> list[tuple[Cell, Cell]]:
    """Pairs that are not told: a cell and the reference, or the cell that is ahead and another that
    may be first."""
    if question != "best":
        return [(cell, table.reference) for cell in open_beside_reference(table, question)]
    left = contenders(table, table.cells)
    way = sign_of(table.scale.metric) if table.scale.metric else 1.0
    means = {
        cell: way * statistics.mean(values)
        for cell in left
        if (values := overall_score(table, cell).values)
    }
    if len(means) < 2:
        return []
    first = max(means, key=lambda cell: means[cell])
    return [(first, cell) for cell in means if cell != first]


def _power(table: ResultTable, a: Cell, b: Cell, question: str, most: int) -> float | None:
    """How often the last look would tell a pair; looks before it may tell it too."""
    found: Difference | None
    found = pair_of(table, a, b) if question == "best" else against_reference(table).get(a)
    if found is None:
        return None
    level = ALPHA * share_at(most, most) / max(1, found.family)
    two, one = (float(stdtrit(most - 1, 1 - share)) for share in (level / 2, level))
    margin = margin_of(table)
    if question != "equivalence":
        return chance_to_tell(found.comparison, most, lambda m, e: abs(m) > two * e)
    if margin is None:
        return None
    return chance_to_tell(
        found.comparison,
        most,
        lambda m, e: (margin - abs(m) > one * e) | (abs(m) - margin > two * e),
    )

"""What guides advise on what a user has, and what the rows of an answer say to it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from peftmark.advice.branches import Advice
from peftmark.advice.guide_verdicts import Judged, judged
from peftmark.advice.rank_rule import made
from peftmark.advice.recommend import Answer
from peftmark.advice.situation import parameters_of
from peftmark.render import words


def lines(answer: Answer) -> Iterator[str]:
    """The branches that the rows say something to, a line each, and how many are left; none where
    the rows are of something else."""
    if answer.far:
        return
    found = [(one, told) for one, told, holds in _kept(answer) if holds is not False]
    known = [(one, told) for one, told in found if told.word != "not measured"]
    scale = "reduced scale" if answer.reduced else "full scale"
    if known:
        yield f"What guides advise, compared with these rows ({scale}):"
        yield from (f"- {_line(one, told)}" for one, told in known)
    left = len(found) - len(known)
    if left:
        more = "more " if known else ""
        yield f"{words.plural(left, f'{more}branch', f'{more}branches')} of guides: not measured."


def _line(advice: Advice, told: Judged) -> str:
    source = advice.source.partition(", ")[0]
    word = told.word.capitalize()
    tested = f"{advice.test.says}; " if advice.test else ""
    return (
        f"{source}, if {advice.condition}: {advice.advice}. {word}: {tested}{told.why}, "
        f"{told.seeds}."
    )


def facts(answer: Answer) -> list[dict[str, Any]]:
    """Every branch, as plain data; none where the rows are of something else."""
    if answer.far:
        return []
    return [
        {
            "source": one.source,
            "if": one.condition,
            "advice": one.advice,
            "holds": holds,
            "verdict": told.word,
            "tested": one.test.says if one.test else None,
            "why": told.why,
            "pairs": [
                {
                    "cell": p.first,
                    "against": p.second,
                    "shows": p.vote,
                    "figure": p.text,
                    "seeds": p.seeds,
                }
                for p in told.pairs
            ],
        }
        for one, told, holds in _kept(answer)
    ]


def _kept(answer: Answer) -> Iterator[tuple[Advice, Judged, bool | None]]:
    """Every branch, what the rows say to it, and whether its condition holds for the user."""
    wish, table = answer.wish, answer.table
    kinds = {t.kind for name in table.tasks if (t := table.example(name).known_task) is not None}
    writes = any(made(kind) == "generation" for kind in kinds)
    memory = None if wish.memory is None else int(wish.memory)
    for one, told in judged(table):
        yield one, told, one.when.holds(wish.rows, memory, writes, parameters_of(table))

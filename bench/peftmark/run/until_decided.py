"""`--until-decided`: seeds are added, a look at a time, until the question is answered
(`peftmark.analysis.questions`).

Which jobs a look needs follows from the rows alone, so a run that was killed, or goes on elsewhere,
comes to the same looks and the same verdicts.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from peftmark.analysis.comparison import against_reference
from peftmark.analysis.more_seeds import more_seeds
from peftmark.analysis.questions import (
    DECIDED,
    beyond_margin,
    contenders,
    open_beside_reference,
    open_cells,
)
from peftmark.analysis.sequential import looks, seen, sizes
from peftmark.analysis.table import ResultTable, build
from peftmark.catalog.methods import Cell, cell_title
from peftmark.catalog.metrics import sign_of
from peftmark.core.errors import UserError
from peftmark.record.job import Job
from peftmark.record.outcome import FIRST_LOOK
from peftmark.run.progress import clock
from peftmark.suite.added_seeds import MOST_SEED, first_jobs, seeds_up_to

if TYPE_CHECKING:
    from peftmark.run.runner import Plan
    from peftmark.suite.expand import Expanded

MOST_PAIRS = 4
"""Pairs of which it is told what more seeds would tell."""


@dataclass(frozen=True)
class Block:
    """The jobs that a look still needs.

    Attributes:
        look: its number, from 1.
        of: how many looks there may be.
        seeds: that are in by then.
        jobs: that have no row yet.
        cells: that still need seeds.
        question: what seeds are added for.
    """

    look: int
    of: int
    seeds: int
    jobs: list[Job]
    cells: tuple[Cell, ...]
    question: str = "reference"

    @property
    def text(self) -> str:
        """In words, such as "Look 2 of 6: 4 seeds, 3 cells in question"."""
        count = len(self.cells) - (self.question != "best")  # the reference isn't in question
        cells = f"{count} cell{'' if count == 1 else 's'} in question"
        return f"Look {self.look} of {self.of}: {self.seeds} seeds, {cells}"


def check(plan: Plan, most: int, question: str) -> None:
    """Whether a run may add seeds to a profile up to so many, for a question.

    Raises:
        UserError: too few seeds for a look, or rows of a run with another number or question.
    """
    if most < FIRST_LOOK:
        raise UserError(
            f"--max-seeds {most}: the first look takes {FIRST_LOOK} seeds",
            f"Give at least {FIRST_LOOK}.",
        )
    seeds = seeds_up_to(plan.suite.profiles[plan.profile].seeds, most)
    tuning = plan.suite.profiles[plan.profile].tuning
    trials = {j.seed for j in (*plan.expanded.jobs, *plan.expanded.waits) if j.purpose == "tuning"}
    if both := sorted(set(seeds) & (trials | set(tuning.seeds if tuning else ()))):
        raise UserError(
            f"--max-seeds {most}: seed {both[0]} would be reported, and trials choose settings "
            "with it",
            "Give fewer seeds, or other numbers as tuning.seeds.",
        )
    if max(seeds) >= MOST_SEED:
        raise UserError(
            f"--max-seeds {most}: seeds would go up to {max(seeds):,}, and they lie below 2^31",
            "Let the profile's seeds begin lower.",
        )
    rows = [
        r for r in plan.contents.records.values() if r.most_seeds and r.job.profile == plan.profile
    ]
    asked = {r.question or "reference" for r in rows}
    if asked - {question}:
        other = max(asked - {question})
        raise UserError(
            f"--question {question}: rows of profile {plan.profile} were made for the question "
            f"{other!r}, which decided who got seeds",
            f"Give --question {other}, or another folder with --results.",
        )
    before = {r.most_seeds for r in rows if r.most_seeds}
    if before - {most}:
        found = max(before - {most})
        raise UserError(
            f"--max-seeds {most}: rows of profile {plan.profile} were made with at most {found} "
            "seeds, and what a look may decide depends on that number",
            f"Give --max-seeds {found}, or another folder with --results.",
        )


def next_block(
    plan: Plan, most: int, done: Collection[str], question: str = "reference"
) -> Block | None:
    """The jobs that come next; None when every question is answered or no seed may be added.

    Args:
        done: ids of jobs that need no run: they have a row that counts, or this command tried them.
    """
    first = first_jobs(plan.expanded.jobs)
    seeds = seeds_up_to(plan.suite.profiles[plan.profile].seeds, most)
    reference = plan.suite.report.reference
    cells = tuple(dict.fromkeys(cell for cell, _ in first))
    planned: dict[tuple[Cell, str, int], Job] = {}
    every = looks(seeds, most)
    for look in every:
        for seed in (seed for seed in seeds if seed in look.seeds):
            for (cell, task), job in first.items():
                if cell in cells and (cell, task, seed) not in planned:
                    planned[cell, task, seed] = replace(job, seed=seed)
        jobs = list(planned.values())
        missing = [job for job in jobs if job.job_id not in done]
        if missing:
            return Block(look.number, len(every), len(look.seeds), missing, cells, question)
        table = build(list(plan.contents.records.values()), jobs, reference)
        cells = open_cells(replace(table, most_seeds=most), question, cells)
        if not cells:
            return None
    return None


def promising(expanded: Expanded, jobs: Sequence[Job]) -> list[list[Job]]:
    """The jobs of the first seed by their cells, that with the best trials first; lines that were
    not tuned cost little and come before them."""
    first = jobs[0].seed
    groups: dict[Cell, list[Job]] = {}
    for job in (job for job in jobs if job.seed == first):
        groups.setdefault(job.cell, []).append(job)

    def rank(cell: Cell) -> tuple[bool, float]:
        found = [choice for (of, _), choice in expanded.choices.items() if of == cell]
        known = [sign_of(one.metric) * one.best for one in found if one.best is not None]
        return bool(found), -sum(known) / len(known) if known else 0.0

    return [groups[cell] for cell in sorted(groups, key=rank)]


def decisions_text(table: ResultTable, question: str = "reference") -> str:
    """When each cell's question was answered, in a sentence; empty where the number of seeds was
    fixed."""
    most = table.most_seeds
    if most is None:
        return ""
    goals = {
        "reference": "each cell was told from the reference",
        "best": "all cells but those that may be first were shown to be lower than another",
        "equivalence": "each cell was shown to lie within the margin of the reference or outside",
    }
    told = _contest(table) if question == "best" else _beside_reference(table, question)
    return (
        f"seeds were added until {goals[question]}, at most {most}, and every p pays for all "
        f"looks: {'; '.join(told)}{_more(table, question)}"
    )


def _more(table: ResultTable, question: str) -> str:
    """What the seeds would tell that the hours left no room for; empty where none are left."""
    left = more_seeds(table, question)
    if left is None:
        return ""
    took = "an unknown time"
    if left.seconds is not None:
        took = f"about {clock(left.seconds)}, one after the other"
    parts = []
    for one in left.chances[:MOST_PAIRS]:
        pair = f"{cell_title(*one.cell)} and {cell_title(*one.other)}"
        chance = "can't be said" if one.power is None else f"{one.power:.0%}"
        parts.append(f"{pair}: {chance}")
    more = len(left.chances) - MOST_PAIRS
    parts += [f"{more} more pairs"] if more > 0 else []
    return (
        f". Going on to {left.most} seeds takes {left.runs} more runs ({took}); how often that "
        f"would settle a pair, if further seeds are like these: {'; '.join(parts)}"
    )


def _beside_reference(table: ResultTable, question: str) -> list[str]:
    still = open_beside_reference(table, question)
    beyond = beyond_margin(table) if question == "equivalence" else []
    told = []
    for cell, one in against_reference(table).items():
        seeds = len(one.score.by_seed)
        if cell in still:
            half = one.comparison.estimate.half_width
            size = "" if half is None else f", its difference known to ±{half:.3f} with 95 %"
            told.append(f"{cell_title(*cell)} still undecided at {seeds} seeds{size}")
            continue
        what: str = one.verdict if one.verdict in DECIDED else "equivalent"
        if question == "equivalence":
            what = "outside the margin" if cell in beyond else "equivalent"
        told.append(_at_look(table, (cell, table.reference), what, seeds))
    return told


def _contest(table: ResultTable) -> list[str]:
    left = contenders(table, table.cells)
    told = []
    for cell in table.cells:
        seeds = len({slot.job.seed for slot in table.of(cell) if slot.ok})
        if not seeds:
            told.append(f"{cell_title(*cell)} has no score")
        elif cell not in left:
            told.append(_at_look(table, (cell,), "lower than another", seeds))
        elif len(left) == 1:
            told.append(_at_look(table, (cell,), "first", seeds))
        else:
            told.append(f"{cell_title(*cell)} may be first, after {seeds} seeds")
    return told


def _at_look(table: ResultTable, cells: Sequence[Cell], what: str, seeds: int) -> str:
    """When the question of the first cell was answered.

    Args:
        cells: it, and what it is compared with, whose runs have to be there too.
    """
    of = len(sizes(table.most_seeds or seeds))
    at = len(seen(table, *cells) or ())
    return f"{cell_title(*cells[0])} {what} at look {at} of {of} ({seeds} seeds)"

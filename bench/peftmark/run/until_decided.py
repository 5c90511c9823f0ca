"""`--until-decided`: seeds are added, a look at a time, until every cell's question is answered.

The question of a cell is how it stands beside the reference: better, worse, or equivalent within
the margin (`peftmark.analysis.comparison`). Which jobs a look needs follows from the rows alone, so
a run that was killed, or goes on elsewhere, comes to the same looks and the same verdicts.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from peftmark.analysis.comparison import Difference, against_reference
from peftmark.analysis.sequential import looks, seen, sizes
from peftmark.analysis.table import ResultTable, build
from peftmark.catalog.methods import Cell, cell_title
from peftmark.core.errors import UserError
from peftmark.record.job import Job
from peftmark.record.outcome import FIRST_LOOK
from peftmark.suite.added_seeds import first_jobs

if TYPE_CHECKING:
    from peftmark.run.runner import Plan

DECIDED = ("higher", "lower", "equivalent")


@dataclass(frozen=True)
class Block:
    """The jobs that a look still needs.

    Attributes:
        look: its number, from 1.
        of: how many looks there may be.
        seeds: that are in by then.
        jobs: that have no row yet.
        cells: whose question is open, with the reference.
    """

    look: int
    of: int
    seeds: int
    jobs: list[Job]
    cells: tuple[Cell, ...]

    @property
    def text(self) -> str:
        """In words, such as "Look 2 of 6: 4 seeds, 3 cells in question"."""
        count = len(self.cells) - 1
        cells = f"{count} cell{'' if count == 1 else 's'} in question"
        return f"Look {self.look} of {self.of}: {self.seeds} seeds, {cells}"


def check(plan: Plan, most: int) -> None:
    """Whether a run may add seeds to a profile up to so many.

    Raises:
        UserError: too few seeds for a look, or rows of a run with another number.
    """
    if most < FIRST_LOOK:
        raise UserError(
            f"--max-seeds {most}: the first look takes {FIRST_LOOK} seeds",
            f"Give at least {FIRST_LOOK}.",
        )
    before = {
        r.most_seeds
        for r in plan.contents.records.values()
        if r.most_seeds and r.job.profile == plan.profile
    }
    if before - {most}:
        found = max(before - {most})
        raise UserError(
            f"--max-seeds {most}: rows of profile {plan.profile} were made with at most {found} "
            "seeds, and what a look may decide depends on that number",
            f"Give --max-seeds {found}, or another folder with --results.",
        )


def next_block(plan: Plan, most: int, done: Collection[str]) -> Block | None:
    """The jobs that come next; None when every question is answered or no seed may be added.

    Args:
        done: ids of jobs that need no run: they have a row that counts, or this command tried them.
    """
    first, seeds = first_jobs(plan.expanded.jobs), _seeds(plan, most)
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
            return Block(look.number, len(every), len(look.seeds), missing, cells)
        table = build(list(plan.contents.records.values()), jobs, reference)
        found = against_reference(replace(table, most_seeds=most))
        cells = (reference, *(c for c in cells if c != reference and _open(found.get(c))))
        if len(cells) == 1:
            return None
    return None


def _open(one: Difference | None) -> bool:
    return one is None or one.verdict not in DECIDED


def _seeds(plan: Plan, most: int) -> list[int]:
    """The profile's seeds, and as many after them as there may be."""
    found = list(plan.suite.profiles[plan.profile].seeds)[:most]
    while len(found) < most:
        found.append(max(found) + 1)
    return found


def decisions_text(table: ResultTable) -> str:
    """When each cell's question was answered, in a sentence; empty where the number of seeds was
    fixed."""
    most = table.most_seeds
    if most is None:
        return ""
    of, found = len(sizes(most)), against_reference(table)
    told = []
    for cell, one in found.items():
        at = len(seen(table, cell) or ())
        seeds = len(one.score.by_seed)
        name = cell_title(*cell)
        if not _open(one):
            told.append(f"{name} {one.verdict} at look {at} of {of} ({seeds} seeds)")
            continue
        half = one.comparison.estimate.half_width
        size = "" if half is None else f", its difference known to ±{half:.3f} with 95 %"
        told.append(f"{name} still undecided at {seeds} seeds{size}")
    return (
        f"seeds were added until each cell was told from the reference, at most {most}, and every "
        f"p pays for all looks: {'; '.join(told)}"
    )

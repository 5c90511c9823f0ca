"""Learning rates chosen by trials: the same number for every method, scored on selection rows.

A profile with `tuning` runs every rate of a method's grid as a trial on each cell and task. The
rows of those trials say here which rate a cell's reported jobs train with, and how much the choice
mattered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from peftmark.catalog.methods import Cell
from peftmark.catalog.metrics import sign_of
from peftmark.record.job import Job, Record

SLACK = 1e-9
"""Rounding of differences such as 0.80 - 0.79, which is above 0.01 in binary."""


@dataclass(frozen=True)
class Choice:
    """The trials of one cell on one task, and what they say.

    Attributes:
        rates: the grid, ascending.
        scores: mean metric on the selection rows over the tuning seeds, one a rate; None if any
            trial of that rate is not ok.
        chosen: the rate with the best score, the smaller one on a tie; None without any score.
        missing: trials that are still to be made: without a row, or stopped by the user.
    """

    cell: Cell
    task: str
    rates: tuple[float, ...]
    scores: tuple[float | None, ...]
    chosen: float | None
    missing: int

    def within(self, tolerance: float) -> float | None:
        """Share of the grid that scores as well as the best rate, or nearly.

        Args:
            tolerance: largest distance to the best score, in units of the metric.

        Returns:
            A share between 1/len(rates) and 1; a rate without score counts as too far. None if
            no rate has a score.
        """
        if self.chosen is None:
            return None
        best = self.scores[self.rates.index(self.chosen)] or 0.0
        near = [s for s in self.scores if s is not None and abs(s - best) <= tolerance + SLACK]
        return len(near) / len(self.rates)


def trials(jobs: Iterable[Job]) -> list[Job]:
    """The trials among the jobs."""
    return [job for job in jobs if job.purpose == "tuning"]


def choices(jobs: Sequence[Job], records: Mapping[str, Record]) -> dict[tuple[Cell, str], Choice]:
    """What the trials among the jobs say, by cell and task in the order of the jobs.

    Args:
        jobs: jobs of one profile; other purposes than tuning are passed over.
        records: job id -> the record that counts.
    """
    grids: dict[tuple[Cell, str], dict[float, list[Job]]] = {}
    for job in trials(jobs):
        grid = grids.setdefault((job.cell, job.task), {})
        grid.setdefault(job.recipe.learning_rate, []).append(job)
    return {key: _choice(*key, grid, records) for key, grid in grids.items()}


def _choice(
    cell: Cell, task: str, grid: Mapping[float, Sequence[Job]], records: Mapping[str, Record]
) -> Choice:
    rates = tuple(sorted(grid))
    scores = tuple(_score(grid[rate], records) for rate in rates)
    jobs = [job for rate in rates for job in grid[rate]]
    sign = sign_of(jobs[0].metric)
    found = [(sign * s, -r) for r, s in zip(rates, scores, strict=True) if s is not None]
    return Choice(
        cell=cell,
        task=task,
        rates=rates,
        scores=scores,
        chosen=-max(found)[1] if found else None,
        missing=sum(_to_be_made(records.get(job.job_id)) for job in jobs),
    )


def _score(jobs: Sequence[Job], records: Mapping[str, Record]) -> float | None:
    found = [records.get(job.job_id) for job in jobs]
    values = [r.outcome.metric_value for r in found if r is not None and r.ok]
    known = [value for value in values if value is not None]
    return fmean(known) if len(known) == len(jobs) else None


def _to_be_made(record: Record | None) -> bool:
    return record is None or record.outcome.status == "interrupted"

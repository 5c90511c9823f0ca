"""What a run shows while it goes: jobs, scores as they come, and what can be said so far."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from peftmark.analysis.comparison import against_reference
from peftmark.analysis.table import TO_COME, ResultTable, build
from peftmark.catalog.methods import Cell, cell_title
from peftmark.record.job import Job, Record
from peftmark.render import words
from peftmark.render.live import Curves, Line, LivePage
from peftmark.render.series import series_of

REFRESH = 5
"""Seconds after which a browser reads the page again."""
MOST_TASKS, MOST_SAID, MOST_RUNNING = 8, 12, 8


@dataclass
class Going:
    """A job that runs: what its worker told so far."""

    job: Job
    step: int = 0
    points: list[tuple[int, float]] = field(default_factory=list)


def live_page(
    title: str,
    planned: Sequence[Job],
    records: Mapping[str, Record],
    going: Mapping[str, Going],
    reference: Cell,
    state: str,
    refresh: int = REFRESH,
) -> LivePage:
    """The page of a run at one moment.

    Args:
        planned: every job of the profile.
        records: job id -> its row, of those that ended.
        going: job id -> what is known of those that run.
        state: how many jobs are done, and what is left.
        refresh: seconds after which a browser reads the page again; 0 for never.
    """
    known = [records[job.job_id] for job in planned if job.job_id in records]
    table = build(known, planned, reference)
    running = [
        f"{_named(one.job)}, step {one.step} of {one.job.recipe.steps}" for one in going.values()
    ]
    more = [f"{len(running) - MOST_RUNNING} more"] if len(running) > MOST_RUNNING else []
    return LivePage(
        title=title,
        refresh=refresh,
        state=state,
        tasks=table.tasks,
        board=[
            (cell_title(*cell), [_signs(table, cell, task, going) for task in table.tasks])
            for cell in table.cells
        ],
        running=[*running[:MOST_RUNNING], *more],
        curves=list(_curves(table, going)),
        said=list(_said(table))[:MOST_SAID],
    )


def _named(job: Job) -> str:
    purpose = {"tuning": ", trial", "repeat": ", repeat"}.get(job.purpose, "")
    return f"{cell_title(*job.cell)} on {job.task}, seed {job.seed}{purpose}"


def _signs(table: ResultTable, cell: Cell, task: str, going: Mapping[str, Going]) -> str:
    """A sign a seed of a cell on a task."""
    found = []
    for slot in table.of(cell, task):
        if slot.job.job_id in going:
            found.append("◐")
        else:
            found.append("○" if slot.status in TO_COME else "●" if slot.ok else "✕")
    return " ".join(found) or "-"


def _curves(table: ResultTable, going: Mapping[str, Going]) -> Iterator[Curves]:
    """The scores of each task by step, of runs that ended and that go on."""
    for task in table.tasks[:MOST_TASKS]:
        lines = []
        for slot in table.of(None, task):
            if slot.job.job_id in going:
                points = going[slot.job.job_id].points
            else:
                curve = slot.record.outcome.curve if slot.record is not None else ()
                points = [(p.step, p.metric) for p in curve]
            if points:
                lines.append(Line(_named(slot.job), series_of(slot.job.cell), points))
        if lines:
            metric = table.example(task).metric
            scores = [score for line in lines for _, score in line.points]
            low, high = (words.score(metric, end) for end in (min(scores), max(scores)))
            steps = max(line.points[-1][0] for line in lines)
            name = f"{task}, {words.metric_title(metric)}"
            yield Curves(name, max(steps, table.example(task).recipe.steps), lines, low, high)


def _said(table: ResultTable) -> Iterator[str]:
    """What can be said of each cell against the reference by the seeds that every task has now.

    To look again after every job is to test again and again, so nothing here is a verdict.
    """
    name = cell_title(*table.reference)
    found = against_reference(table)
    planned = len({slot.job.seed for slot in table.slots})
    for cell in table.others:
        difference = found.get(cell)
        done = len(difference.score.by_seed) if difference is not None else 0
        seeds = f"{done} of {words.plural(planned, 'seed')} in"
        if difference is None:
            yield f"{cell_title(*cell)}: nothing can be said yet ({seeds})."
        elif difference.verdict == "no interval":
            why = "one seed" if done == 1 else "the same difference at every seed"
            yield f"{cell_title(*cell)}: {why} can't show a difference to {name} ({seeds})."
        elif difference.verdict in ("higher", "lower"):
            yield f"{cell_title(*cell)}: {difference.verdict} than {name} so far ({seeds})."
        elif difference.verdict == "equivalent":
            yield f"{cell_title(*cell)}: within a point of {name} so far ({seeds})."
        else:
            yield f"{cell_title(*cell)}: not told apart from {name} so far ({seeds})."
    yield "The report at the end decides; these lines are looked at after every job."

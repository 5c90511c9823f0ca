"""`--hours`: blocks of equal seeds for all cells, while the next is predicted to end in time.

Where not even the first seed of every task fits, those of its tasks run that do, the shortest
first, so that hours too few for the whole suite still compare all cells somewhere.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from peftmark.catalog.methods import cell_title
from peftmark.core.errors import UserError
from peftmark.duration.estimates import Estimate, Key, corrected, key_of, wall_seconds
from peftmark.record.job import Job, Record
from peftmark.run.expected import costs_here, expected, measured_costs
from peftmark.run.own_models import keep_own_models
from peftmark.run.progress import clock as shown

if TYPE_CHECKING:
    from peftmark.run.runner import Plan


class TimeBudget:
    """Hours that a run may take, from when this is made.

    Args:
        hours: above 0.
        tell: is told in a sentence what runs next, and what is left out.
        clock: seconds that only rise.

    Attributes:
        left_out: ids of jobs that didn't fit.
    """

    def __init__(
        self,
        hours: float,
        tell: Callable[[str], None],
        clock: Callable[[], float] | None = None,
    ) -> None:
        self._seconds, self._tell = 3600 * hours, tell
        self._clock = clock or time.monotonic
        self._start = self._clock()
        self._found: Mapping[Key, Estimate] = {}
        self._ended: list[Record] = []
        self._tasks: set[str] | None = None
        self.left_out: set[str] = set()

    def admit(self, plan: Plan) -> None:
        """Predict what the jobs of a plan take, before anything is written.

        Raises:
            UserError: not even the first block fits, or a job's time can't be predicted.
        """
        if not plan.to_run:
            return
        self._predict(plan)
        trials = [job for job in plan.to_run if job.purpose == "tuning"]
        first = by_seed(trials or plan.to_run)[0]
        # Trials alone answer nothing: those of later rounds, and a job of each cell and task that
        # uses what they choose, have to fit too.
        later = [job for job in plan.expanded.waits if job.purpose == "tuning"]
        reported = (job for job in plan.expanded.waits if job.purpose != "tuning")
        later += {key_of(job): job for job in reported}.values()
        needed, left = self._needed(plan, first) + self._needed(plan, later), self._left()
        if needed <= left:
            return
        self._tasks = self._fitting(plan, first, later, left)
        tasks = list(dict.fromkeys(job.task for job in first))
        shortest = f"{_named(first)} alone takes about {shown(needed)} here"
        if not self._tasks:
            raise UserError(
                f"--hours: {shortest} with {plan.venue.at_once} at once, and "
                f"{shown(max(0.0, left))} are left of {shown(self._seconds)}"
                + (", too few for any of its tasks" if len(tasks) > 1 else ""),
                "Give more hours, or a profile or suite that takes less (peftmark plan).",
            )
        chosen = [task for task in tasks if task in self._tasks]
        self._tell(
            f"{shortest}, and {shown(left)} are left: of its {len(tasks)} tasks only "
            f"{', '.join(chosen)} run"
        )

    def _fitting(
        self, plan: Plan, first: Sequence[Job], later: Sequence[Job], left: float
    ) -> set[str]:
        """As many tasks of a block as fit together, the shortest first."""

        def needed(tasks: set[str]) -> float:
            return sum(
                self._needed(plan, [job for job in jobs if job.task in tasks])
                for jobs in (first, later)
            )

        found: set[str] = set()
        for task in sorted({job.task for job in first}, key=lambda task: (needed({task}), task)):
            if needed(found | {task}) <= left:
                found.add(task)
        return found

    def blocks(self, plan: Plan, jobs: Sequence[Job]) -> Iterator[list[Job]]:
        """The jobs that fit, a seed after the other; each block by what those before it took.

        Raises:
            UserError: a job's time can't be predicted.
        """
        if not jobs:
            return
        if not {key_of(job) for job in jobs} <= self._found.keys():
            self._predict(plan)  # jobs with the rates that trials chose
        waiting = by_seed(jobs)
        if self._tasks is not None:
            others = [job for job in jobs if job.task not in self._tasks]
            self.left_out |= {job.job_id for job in others}
            waiting = by_seed([job for job in jobs if job.task in self._tasks])
        while waiting:
            block = waiting[0]
            needed, left = self._needed(plan, block), self._left()
            if needed > left:
                self._leave(plan, waiting, needed, left)
                return
            self._tell(f"{_named(block)}: about {shown(needed)} of {shown(left)} left")
            yield waiting.pop(0)

    def takes(self, plan: Plan, block: Sequence[Job]) -> bool:
        """Whether jobs that belong together are predicted to end in time, which is told.

        Raises:
            UserError: a job's time can't be predicted.
        """
        if not {key_of(job) for job in block} <= self._found.keys():
            self._predict(plan)
        needed, left = self._needed(plan, block), self._left()
        if needed > left:
            self._tell(
                f"Left out: {_named(block)}, which would take about {shown(needed)}; "
                f"{shown(max(0.0, left))} are left"
            )
        return needed <= left

    def fitting(self, plan: Plan, groups: Sequence[Sequence[Job]]) -> list[Job]:
        """The jobs of the first groups that are predicted to end in time, which is told.

        Raises:
            UserError: a job's time can't be predicted.
        """
        left, found = self._left(), list[Job]()
        for group in groups:
            if self._needed(plan, [*found, *group]) <= left:
                found += group
        if found:
            self._tell(f"{_named(found)} of those fit: {', '.join(_cells(found))}")
        return found

    def heard(self, record: Record) -> None:
        """A job ended here."""
        self._ended.append(record)

    def _predict(self, plan: Plan) -> None:
        costs = costs_here(plan)
        if costs is None:
            self._tell("This machine is measured first, once, in some 20 seconds")
            costs = measured_costs(plan)
        keep_own_models(plan.own_files, plan.places.cache)  # as the run does next
        self._found = expected(plan, costs)

    def _needed(self, plan: Plan, block: Sequence[Job]) -> float:
        """Seconds that a block takes, by all that is known now."""
        if not block:
            return 0.0
        records = [*plan.contents.records.values(), *self._ended]
        found = corrected(self._found, records)
        told = [found[key_of(job)] for job in block]
        known_ones = [one.seconds for one in told if one.seconds is not None]
        if not known_ones:
            raise UserError(
                f"--hours: nobody knows how long {_named(block)} takes: {told[0].reason}",
                "Run without --hours, or choose jobs whose time is predicted (peftmark plan).",
            )
        # Of a job that nobody can tell the mean of the others is the best guess there is.
        mean = statistics.fmean(known_ones)
        seconds = [mean if one.seconds is None else one.seconds for one in told]
        return wall_seconds(seconds, plan.venue.workers)

    def _left(self) -> float:
        return self._seconds - (self._clock() - self._start)

    def _leave(
        self, plan: Plan, waiting: Sequence[Sequence[Job]], needed: float, left: float
    ) -> None:
        """Say what is left out."""
        first = waiting[0]
        self.left_out |= {job.job_id for block in waiting for job in block}
        rest = [job for block in waiting for job in block]
        whole = self._needed(plan, rest)
        self._tell(
            f"Left out: {_named(rest)}, about {shown(whole)} more; {_named(first)} takes about "
            f"{shown(needed)}, and {shown(max(0.0, left))} are left"
        )


def by_seed(jobs: Sequence[Job]) -> list[list[Job]]:
    """Jobs by their seed, in the order in which the seeds come."""
    found: dict[int, list[Job]] = {}
    for job in jobs:
        found.setdefault(job.seed, []).append(job)
    return list(found.values())


def _cells(jobs: Sequence[Job]) -> list[str]:
    return list(dict.fromkeys(cell_title(*job.cell) for job in jobs))


def _named(jobs: Sequence[Job]) -> str:
    seeds = list(dict.fromkeys(job.seed for job in jobs))
    what = "trials of seed" if jobs[0].purpose == "tuning" else "seed"
    many = f"{what}{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    return f"{many} ({len(jobs)} job{'' if len(jobs) == 1 else 's'})"

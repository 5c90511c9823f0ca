"""`--hours`: blocks of equal seeds for all cells, while the next is predicted to end in time."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from peftmark.core.errors import UserError
from peftmark.duration.estimates import Estimate, Key, corrected, key_of, wall_seconds
from peftmark.duration.rates import calibrated, known
from peftmark.record.job import Job, Record
from peftmark.run.expected import expected
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
        self, hours: float, tell: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._seconds, self._tell, self._clock = 3600 * hours, tell, clock
        self._start = clock()
        self._found: Mapping[Key, Estimate] = {}
        self._ended: list[Record] = []
        self.left_out: set[str] = set()

    def admit(self, plan: Plan) -> None:
        """Predict what the jobs of a plan take, before anything is written.

        Raises:
            UserError: not even the first block fits, or a job's time can't be predicted.
        """
        trials = [job for job in plan.to_run if job.purpose == "tuning"]
        jobs = trials or plan.to_run
        if not jobs:
            return
        self._predict(plan)
        first = by_seed(jobs)[0]
        needed, left = self._needed(plan, first), self._left()
        if needed > left:
            raise UserError(
                f"--hours: {_named(first)} alone takes about {shown(needed)} here with "
                f"{plan.venue.at_once} at once, and {shown(max(0.0, left))} are left of "
                f"{shown(self._seconds)}",
                "Give more hours, or a profile or suite that takes less (peftmark plan).",
            )

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
        while waiting:
            block = waiting[0]
            needed, left = self._needed(plan, block), self._left()
            if needed > left:
                self._leave(plan, waiting, needed, left)
                return
            self._tell(f"{_named(block)}: about {shown(needed)} of {shown(left)} left")
            yield waiting.pop(0)

    def heard(self, record: Record) -> None:
        """A job ended here."""
        self._ended.append(record)

    def _predict(self, plan: Plan) -> None:
        rates = known(plan.places.cache)
        if rates is None:
            self._tell("This machine is measured first, once, in some 20 seconds")
            rates = calibrated(plan.places.cache)
        keep_own_models(plan.own_files, plan.places.cache)  # as the run does next
        self._found = expected(plan, rates)

    def _needed(self, plan: Plan, block: Sequence[Job]) -> float:
        """Seconds that a block takes, by all that is known now."""
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
        return wall_seconds(seconds, plan.venue.at_once)

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


def _named(jobs: Sequence[Job]) -> str:
    seeds = list(dict.fromkeys(job.seed for job in jobs))
    what = "trials of seed" if jobs[0].purpose == "tuning" else "seed"
    many = f"{what}{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    return f"{many} ({len(jobs)} job{'' if len(jobs) == 1 else 's'})"

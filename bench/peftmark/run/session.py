"""A whole run of a suite: fetch, trials of learning rates, then the jobs; whoever watches is told.

The command line and `peftmark.run` go through here; they differ in who watches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from peftmark.analysis.machines import by_machine
from peftmark.analysis.validity import Flag, Repeat, flags, repeatability
from peftmark.core.errors import Exit
from peftmark.executors.contract import Finished
from peftmark.record.job import Job, Record
from peftmark.run import runner
from peftmark.run.keep import need_of, read_rules
from peftmark.run.runner import Plan, Selection
from peftmark.run.stop import Stop
from peftmark.sources.manifest import check_mirror
from peftmark.suite.expand import Planned
from peftmark.suite.load import needed_models, needed_tasks

if TYPE_CHECKING:
    from peftmark.run.time_budget import TimeBudget


class Stage(Protocol):
    """Who is told while some jobs run."""

    def event(self, job: Job, message: dict[str, Any]) -> None:
        """A worker's message: a phase, a step, or a metric."""

    def finished(self, record: Record, done: Finished) -> None:
        """A job ended, or one try of it; the row is stored."""


class Watcher(Protocol):
    """Who is told how a run goes."""

    def planned(self, plan: Plan) -> None:
        """What would run is known; nothing is fetched or written yet."""

    def fetching(self) -> None:
        """Models and rows are about to be fetched."""

    def fetched(self, sources: Mapping[str, str]) -> None:
        """Asset -> where it came from."""

    def looking(self, text: str) -> None:
        """Seeds are about to be added; for which look, in words."""

    def stage(self, plan: Plan, jobs: Sequence[Job], trials: bool) -> AbstractContextManager[Stage]:
        """Around the trials of learning rates, or the jobs that use what they chose."""


@dataclass(frozen=True)
class Summary:
    """How the selected jobs stand after a run.

    Attributes:
        jobs: status, or "not run" -> number of jobs.
        waiting: jobs that are not known yet, since trials of their learning rate are missing.
        results: the file of all rows; of a run that was stopped the folder of its parts.
        repeat: what became of the job that runs twice; None if none was selected, or if the run was
            stopped.
        flags: what is suspect about finished jobs; of a run that was stopped nobody looked.
        notes: what a person should know, a sentence each.
        code: what the command line exits with: 0 if everything asked for was done, 6 if jobs
            are missing or failed, 7 if the same code gave other numbers (`Exit`).
    """

    suite: str
    profile: str
    jobs: dict[str, int]
    waiting: int
    results: Path
    repeat: Repeat | None
    flags: list[Flag]
    notes: list[str]
    code: Exit

    @property
    def ok(self) -> bool:
        """Whether everything asked for was done and may be trusted."""
        return self.code == Exit.OK


def carry_out(
    selection: Selection, watcher: Watcher, stop: Stop, budget: TimeBudget | None = None
) -> tuple[Plan, Summary]:
    """Run what has no result yet.

    Args:
        budget: hours that the run may take; None for as long as it takes.

    Whoever stops a run waits for it: its rows are stored, and not read again.

    Returns:
        the plan as it stands after the run, with every row, or of a run that was stopped with the
        rows from before; and how its jobs stand.

    Raises:
        UserError: anything wrong with the suite, its models and rows, or the results folder.
    """
    plan = _with_room(runner.make_plan(selection), selection)
    selection = _as_profile_says(selection, plan)
    if selection.most_seeds is not None:
        from peftmark.run.until_decided import check

        check(plan, selection.most_seeds, selection.question)
    watcher.planned(plan)
    if budget is not None:
        budget.admit(plan)
    wanted = _wanted(plan, selection)
    if wanted.to_run:  # before anything is written
        if selection.mirror is not None:
            profile = plan.suite.profiles[plan.profile]
            models = needed_models(profile, plan.suite.methods(plan.profile))
            check_mirror(selection.mirror, models, needed_tasks(profile))
        watcher.fetching()
        watcher.fetched(runner.fetch(wanted))
    with plan.store.lock():
        # Once more, now that no other run can finish jobs; the profile stays the chosen one.
        selection = replace(selection, profile=plan.profile)
        plan.store.quarantine(plan.store.read().damaged)
        run = _Run(selection, watcher, stop, budget)
        with stop.watching():
            plan = run.everything(plan)
        if stop.asked():
            plan.store.leave()
            return plan, _stopped(plan, run.ended)
        plan.store.rebuild()
    plan = runner.make_plan(selection, before=plan)
    return plan, _summary(plan, selection, budget.left_out if budget is not None else ())


def _as_profile_says(selection: Selection, plan: Plan) -> Selection:
    """The selection with what a profile says of seeds that are added, where nobody chose jobs."""
    decide = plan.suite.profiles[plan.profile].decide
    if decide is None or selection.most_seeds is not None or selection.only or selection.again:
        return selection
    return replace(selection, most_seeds=decide.max_seeds, question=decide.question)


def _wanted(plan: Plan, selection: Selection) -> Plan:
    """The plan with all jobs whose models and rows may be needed: seeds may be added to any."""
    if selection.most_seeds is None:
        return plan
    return replace(plan, planned=[Planned(job, "run", "") for job in plan.jobs])


def _with_room(plan: Plan, selection: Selection) -> Plan:
    """The plan with a note of the disk that kept adapters will take.

    Raises:
        UserError: there is less room; or nothing is what is to be kept.
    """
    if not plan.to_run:
        return plan
    rules = read_rules(selection.keep, plan.known_jobs)
    need = need_of(plan.to_run, rules, plan.contents.records.values())
    need.check(selection.results)
    told = need.told(plan.store.adapters.folder)
    return replace(plan, notes=[*plan.notes, told]) if told else plan


@dataclass(frozen=True)
class _Run:
    """Jobs of one command as they run.

    Attributes:
        budget: hours that it may take; None for as long as it takes.
        ended: job id -> status, of each that ended.
    """

    selection: Selection
    watcher: Watcher
    stop: Stop
    budget: TimeBudget | None
    ended: dict[str, str] = field(default_factory=dict)

    def everything(self, plan: Plan) -> Plan:
        """Run the trials, then the jobs that use what they chose; the plan with these."""
        plan = self._trials(plan)
        if self.stop.asked():
            pass
        elif self.selection.most_seeds is not None:
            self._looks(plan)
        else:
            self._blocks(plan, [job for job in plan.to_run if job.purpose != "tuning"])
        return plan

    def _trials(self, plan: Plan) -> Plan:
        """Run the trials, a round after the other; the plan with what they chose."""
        tried: set[str] = set()  # once a command, however a trial ends
        while not self.stop.asked():
            plan = runner.make_plan(self.selection, before=plan)
            jobs = [j for j in plan.to_run if j.purpose == "tuning" and j.job_id not in tried]
            if not jobs:
                break
            self._blocks(plan, jobs)
            tried |= {job.job_id for job in jobs}
        return plan

    def _looks(self, plan: Plan) -> None:
        """Run the jobs of one look after the other, until all is decided, or time or seeds are up;
        with the first the repeat."""
        # Statistics are loaded where a run looks, and by no other.
        from peftmark.run.until_decided import next_block, promising

        chosen = self.selection
        assert chosen.most_seeds is not None
        tried: set[str] = set()  # once a command, however a job ends
        while not self.stop.asked():
            records = plan.contents.records
            done = tried | {job_id for job_id, record in records.items() if record.settled}
            block = next_block(plan, chosen.most_seeds, done, chosen.question)
            repeats = [
                j for j in plan.to_run if j.purpose == "repeat" and j.job_id not in self.ended
            ]
            jobs, look = [*(block.jobs if block else ()), *repeats], block.look if block else None
            if not jobs or (self.budget is not None and not self.budget.takes(plan, jobs)):
                if block is not None and block.look == 1 and self.budget is not None:
                    # Some seeds answer something, or some cells; none nothing.
                    self._blocks(plan, block.jobs, look)
                    if not any(job.job_id in self.ended for job in block.jobs):
                        some = self.budget.fitting(plan, promising(plan.expanded, block.jobs))
                        self._jobs(plan, some, look)
                return
            if block is not None:
                self.watcher.looking(block.text)
            tried |= {job.job_id for job in jobs}
            self._jobs(plan, jobs, look)
            if block is None:
                return
            plan = runner.make_plan(chosen, before=plan)

    def _blocks(self, plan: Plan, jobs: Sequence[Job], look: int | None = None) -> None:
        """Run jobs, or as many seeds of them as there is time for."""
        for block in [jobs] if self.budget is None else self.budget.blocks(plan, jobs):
            self._jobs(plan, block, look)

    def _jobs(self, plan: Plan, jobs: Sequence[Job], look: int | None = None) -> None:
        """Run trials, or jobs that use what they chose.

        Args:
            look: that they are run for; None where the number of seeds is fixed.
        """
        if not jobs or self.stop.asked():
            return
        chosen = replace(self.selection, look=look)
        with self.watcher.stage(plan, jobs, jobs[0].purpose == "tuning") as told:
            for record, done in runner.execute(plan, jobs, chosen, told.event, self.stop):
                told.finished(record, done)
                self.ended[record.job.job_id] = record.outcome.status
                if self.budget is not None:
                    self.budget.heard(record)


def _counts(plan: Plan, ended: Mapping[str, str]) -> dict[str, int]:
    """Status, or "not run" -> number of jobs of a plan, some of which ended since it was made."""
    known: dict[str, str] = {
        job_id: record.outcome.status for job_id, record in plan.contents.records.items()
    }
    # The last ok attempt counts.
    known |= {job_id: s for job_id, s in ended.items() if known.get(job_id) != "ok"}
    return dict(Counter(known.get(job.job_id, "not run") for job in plan.jobs))


def _stopped(plan: Plan, ended: Mapping[str, str]) -> Summary:
    """How the jobs stand of a run that was stopped."""
    return Summary(
        suite=plan.suite.name,
        profile=plan.profile,
        jobs=_counts(plan, ended),
        waiting=plan.expanded.waiting,
        results=plan.store.parts,
        repeat=None,
        flags=[],
        notes=plan.notes,
        code=Exit.INCOMPLETE,
    )


def _summary(plan: Plan, selection: Selection, left_out: Collection[str] = ()) -> Summary:
    """How the jobs of a plan stand whose rows are all read.

    Args:
        left_out: ids of jobs that nobody expects, since they take longer than there is time.
    """
    records = plan.contents.records
    repeat = repeatability(plan.jobs, records, by_machine(plan.contents.rows))
    waiting = 0 if selection.only else plan.expanded.waiting
    asked = [job for job in plan.jobs if job.job_id not in left_out]
    settled = sum(r is not None and r.settled for r in (records.get(j.job_id) for j in asked))
    code = Exit.OK if settled == len(asked) + waiting else Exit.INCOMPLETE
    if repeat is not None and repeat.verdict == "different":
        code = Exit.NOT_REPEATABLE
    return Summary(
        suite=plan.suite.name,
        profile=plan.profile,
        jobs=_counts(plan, {}),
        waiting=plan.expanded.waiting,
        results=plan.store.derived,
        repeat=repeat,
        flags=flags(plan.jobs, records),
        notes=plan.notes,
        code=code,
    )

"""As many seeds as fit into the hours, equal ones for all cells."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from factory import FULL, LORA, make_matrix
from peftmark.core.errors import UserError
from peftmark.duration.estimates import Estimate, key_of
from peftmark.duration.rates import Rates
from peftmark.run import time_budget
from peftmark.run.time_budget import TimeBudget, by_seed

ROWS = make_matrix([LORA, FULL], ["sst2", "stsb"], range(5))
JOBS = [row.job for row in sorted(ROWS, key=lambda row: row.job.seed)]


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def plan_of(jobs, done=(), waits=()):
    return SimpleNamespace(
        jobs=list(jobs),
        expanded=SimpleNamespace(waits=list(waits)),
        to_run=list(jobs),
        places=SimpleNamespace(cache=None),
        own_files={},
        contents=SimpleNamespace(records={row.job.job_id: row for row in done}),
        venue=SimpleNamespace(at_once=2, workers=2),
    )


@pytest.fixture
def made(monkeypatch):
    """A budget on a clock of its own; every job is predicted to take 100 s, so a seed takes 200."""
    clock, said = Clock(), []
    monkeypatch.setattr(time_budget, "costs_here", lambda plan: Rates({}, (0.0, 0.0, 0.0)))
    monkeypatch.setattr(
        time_budget,
        "expected",
        lambda plan, _: {
            key_of(job): Estimate({"train": 100.0}) for job in (*plan.jobs, *plan.expanded.waits)
        },
    )

    def budget(seconds):
        return TimeBudget(seconds / 3600, said.append, clock)

    return budget, clock, said


def here(job, seconds):
    row = next(row for row in ROWS if row.job == job)
    machine = time_budget.corrected.__globals__["machine"]()
    environment = replace(row.environment, machine=machine)
    return replace(row, wall_seconds=seconds, environment=environment)


def play(budget, clock, plan, seconds):
    """Run what the budget gives, each job taking so long; the seeds that ran."""
    ran = []
    for block in budget.blocks(plan, plan.to_run):
        ran.append(block[0].seed)
        for job in block:
            budget.heard(here(job, seconds))
        clock.now += seconds * len(block) / plan.venue.at_once
    return ran


def test_whole_seeds_run_as_long_as_the_next_is_predicted_to_end_in_time(made):
    budget, clock, said = made
    one, plan = budget(650), plan_of(JOBS)
    one.admit(plan)
    assert play(one, clock, plan, 100.0) == [0, 1, 2]
    assert one.left_out == {job.job_id for job in JOBS if job.seed > 2}
    assert said[0] == "seed 0 (4 jobs): about 3:20 of 10:50 left"
    assert said[-1] == (
        "Left out: seeds 3, 4 (8 jobs), about 6:40 more; seed 3 (4 jobs) takes about 3:20, "
        "and 0:50 are left"
    )


def test_what_jobs_took_corrects_what_the_next_are_said_to(made):
    budget, clock, _ = made
    slow, plan = budget(1000), plan_of(JOBS)
    slow.admit(plan)
    assert play(slow, clock, plan, 180.0) == [0, 1], "a third would end at 1080"
    clock.now = 0.0
    fast = budget(1000)
    fast.admit(plan)
    assert play(fast, clock, plan, 60.0) == [0, 1, 2, 3, 4]
    assert fast.left_out == set()


def test_hours_too_few_for_one_seed_are_refused_before_anything_runs(made):
    budget, _, _ = made
    with pytest.raises(
        UserError,
        match=r"seed 0 \(4 jobs\) alone takes about 3:20 here .*too few for any of its tasks",
    ):
        budget(90).admit(plan_of(JOBS))


def test_hours_too_few_for_every_task_run_those_that_fit(made, monkeypatch):
    budget, _, said = made
    seconds = {"sst2": 100.0, "stsb": 60.0}
    found = {key_of(job): Estimate({"train": seconds[job.task]}) for job in JOBS}
    monkeypatch.setattr(time_budget, "expected", lambda *_: found)
    one, plan = budget(150), plan_of(JOBS)
    one.admit(plan)
    assert said == [
        "seed 0 (4 jobs) alone takes about 2:40 here, and 2:30 are left: of its 2 tasks only "
        "stsb run"
    ]
    ran = [job for block in one.blocks(plan, plan.to_run) for job in block]
    assert {(job.task, job.seed) for job in ran} == {("stsb", seed) for seed in range(5)}
    assert one.left_out == {job.job_id for job in JOBS if job.task == "sst2"}


def test_trials_count_with_the_jobs_that_use_what_they_choose(made):
    budget, _, _ = made
    trials = [replace(job, purpose="tuning") for job in JOBS if job.seed == 0]
    with pytest.raises(UserError, match="trials of seed 0"):
        budget(190).admit(plan_of(trials, waits=JOBS))
    budget(401).admit(plan_of(trials, waits=JOBS))


def test_trials_of_later_rounds_count_too(made):
    budget, _, said = made
    trials = [replace(job, purpose="tuning") for job in JOBS if job.seed == 0]
    later = [replace(job, purpose="tuning") for job in JOBS if job.seed == 1]
    plan = plan_of(trials, waits=[*later, *JOBS])
    budget(601).admit(plan)
    assert said == []
    budget(590).admit(plan)
    assert "trials of seed 0 (4 jobs) alone takes about 10:00 here" in said[0]


def test_rows_from_before_count_and_nothing_to_run_is_no_fault(made):
    budget, clock, _ = made
    budget(1).admit(plan_of([]))
    assert list(budget(1).blocks(plan_of([]), [])) == []
    done = [here(job, 30.0) for job in JOBS if job.seed == 0]
    plan = plan_of([job for job in JOBS if job.seed > 0], done)
    one = budget(130)
    one.admit(plan)
    assert play(one, clock, plan, 30.0) == [1, 2], "60 s a seed, as rows say, and not 200"


def test_trials_are_a_block_of_their_own_and_come_first(made):
    budget, _, _ = made
    trials = [replace(job, purpose="tuning") for job in JOBS if job.seed == 0]
    plan = plan_of([*trials, *JOBS])
    with pytest.raises(UserError, match="trials of seed 0"):
        budget(90).admit(plan)
    one = budget(450)
    one.admit(plan)
    assert next(one.blocks(plan, trials)) == trials


def test_jobs_whose_time_nobody_knows_are_refused_with_the_reason(made, monkeypatch):
    budget, _, _ = made
    unknown = {key_of(job): Estimate(reason="the rates are those of the CPU") for job in JOBS}
    monkeypatch.setattr(time_budget, "expected", lambda *_: unknown)
    with pytest.raises(
        UserError, match=r"how long seed 0 .* takes: the rates are those of the CPU"
    ):
        budget(9999).admit(plan_of(JOBS))


def test_a_job_that_nobody_can_tell_counts_as_the_mean_of_the_others(made, monkeypatch):
    budget, _, said = made
    found = {key_of(job): Estimate({"train": 100.0}) for job in JOBS}
    found[key_of(JOBS[0])] = Estimate(reason="it takes no training step")
    monkeypatch.setattr(time_budget, "expected", lambda *_: found)
    one, plan = budget(250), plan_of(JOBS)
    one.admit(plan)
    next(one.blocks(plan, plan.to_run))
    assert said == ["seed 0 (4 jobs): about 3:20 of 4:10 left"]


def test_a_machine_that_nobody_measured_is_measured_first(made, monkeypatch):
    budget, _, said = made
    measured = []
    monkeypatch.setattr(time_budget, "costs_here", lambda plan: None)
    monkeypatch.setattr(
        time_budget, "measured_costs", lambda plan: measured.append(1) or Rates({}, (0.0, 0.0, 0.0))
    )
    budget(9999).admit(plan_of(JOBS))
    assert measured == [1] and "measured first" in said[0]


def test_seeds_stay_in_their_order():
    assert [block[0].seed for block in by_seed([*JOBS[8:], *JOBS[:8]])] == [2, 3, 4, 0, 1]

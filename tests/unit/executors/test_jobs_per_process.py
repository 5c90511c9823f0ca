"""Several jobs in one process: what is shared, and that no job's end harms another."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest

from factory import make_job
from peftmark.cli import parser
from peftmark.core.errors import UserError
from peftmark.executors import process, protocol
from peftmark.executors.contract import Order
from peftmark.executors.in_turn import OF_A_PROCESS, RAN_OTHERS, TRIALS_PER_PROCESS, most_jobs
from peftmark.executors.select import Where, choose
from peftmark.executors.slots import Slot
from peftmark.sources.assets import Places
from waiting import wait_for
from watched import Watched


@pytest.fixture(autouse=True)
def short_grace(monkeypatch):
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(protocol, "ANSWER_SECONDS", 600.0)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run seeds in turn, each in its way; returns how each ended, by seed."""
    watched = Watched()
    monkeypatch.setattr(process, "time", watched.clock)
    (tmp_path / "logs").mkdir()

    def start(
        ways=None,
        seeds=7,
        most=20,
        slots=1,
        limit=None,
        retries=0,
        worker="in_turn",
        ended=None,
        device=None,
    ):
        (tmp_path / "logs" / "ways").write_text(json.dumps(ways or {}))
        order = Order(
            jobs=[(make_job(seed=seed), 1) for seed in range(seeds)],
            places=Places(None, ("package",), tmp_path / "cache"),
            logs=tmp_path / "logs",
            seconds_limit=limit,
            retries=retries,
            worker=f"fake_worker:{worker}",
        )
        found = watched.run(order, [Slot(device)] * slots, jobs_per_process=most, ended=ended)
        start.attempts = found
        assert not any(map(alive, processes(found)))
        assert not (tmp_path / "scratch").exists()
        return {one.job.seed: one for one in found if not one.again}

    return start


def alive(pid):
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state not in "ZX"


def processes(attempts):
    """The process of each attempt that told it."""
    told = [one.outcome.data_source for one in attempts]
    return [json.loads(text)[0] for text in told if text]


def before(found):
    return [found[seed].outcome.jobs_before for seed in sorted(found)]


pytestmark = pytest.mark.heavy


def test_a_process_takes_so_many_jobs_and_is_renewed_then(run):
    found = run(seeds=5, most=2)
    assert before(found) == [0, 1, 0, 1, 0]
    assert sorted(Counter(processes(found.values())).values()) == [1, 2, 2]
    assert {one.outcome.status for one in found.values()} == {"ok"}


@pytest.mark.parametrize("most", [None, 1])
def test_unless_it_is_said_otherwise_each_job_has_a_process_of_its_own(run, most):
    found = run(seeds=3, most=most)
    assert before(found) == [0, 0, 0]
    assert len(set(processes(found.values()))) == 3


def test_figures_of_the_whole_process_are_those_of_its_first_job_alone(run):
    found = run(seeds=3)
    first, later = found[0].outcome, [found[seed].outcome for seed in (1, 2)]
    assert [getattr(first, name) for name in OF_A_PROCESS] == [7, 6, 5]
    assert not set(OF_A_PROCESS) & first.null_reasons.keys()
    for outcome in later:
        assert [getattr(outcome, name) for name in OF_A_PROCESS] == [None] * 3
        assert {outcome.null_reasons[name] for name in OF_A_PROCESS} == {RAN_OTHERS}
        assert outcome.start_seconds is not None
    assert [found[seed].outcome.live_bytes for seed in range(3)] == [0, 1, 2]


def test_what_nvml_sees_of_a_process_is_of_its_first_job_alone(run):
    found = run(seeds=2, device="GPU-of-nobody")
    reasons = [found[seed].nvml_reason for seed in (0, 1)]
    assert reasons[0] != RAN_OTHERS and reasons[1] == RAN_OTHERS
    assert (found[1].nvml_process_bytes, found[1].nvml_device_bytes) == (None, None)


def test_each_job_has_its_own_log_and_an_empty_folder(run, tmp_path):
    found = run(seeds=3)
    assert [json.loads(one.outcome.data_source)[1] for one in found.values()] == [0, 0, 0]
    for seed in range(3):
        log = tmp_path / "logs" / f"{make_job(seed=seed).job_id}.1.log"
        assert log.read_text() == f"printed by seed {seed}\n"


@pytest.mark.parametrize(
    ("way", "status", "reason"),
    [
        ("raises", "diverged", "the loss was nan"),
        ("dies", "crashed", "killed by SIGKILL"),
        ("ends", "diverged", "3"),
        ("nan", "invalid", "not a finite number"),
        ("hangs", "timed_out", "over the limit"),
    ],
)
def test_the_end_of_the_seventh_harms_no_other(run, way, status, reason):
    found = run({"6": way}, seeds=9, limit=50.0 if way == "hangs" else None)
    assert found[6].outcome.status == status
    assert reason in found[6].outcome.status_reason
    others = {seed: one.outcome.status for seed, one in found.items() if seed != 6}
    assert set(others.values()) == {"ok"} and len(others) == 8
    assert before(found) == [0, 1, 2, 3, 4, 5, 6, 0, 1], "the next has a new process"


def test_after_a_killed_worker_a_new_process_goes_on_and_the_job_is_tried_again(run):
    run({"2": "dies"}, seeds=4, retries=1)
    tried = [(one.job.seed, one.attempt, one.outcome.jobs_before) for one in run.attempts]
    assert tried == [(0, 1, 0), (1, 1, 1), (2, 1, 2), (3, 1, 0), (2, 2, 1)]


def test_a_process_that_is_killed_while_it_waits_costs_no_job(run):
    def kill(one):
        if one.job.seed == 1:
            (pid,) = processes([one])
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: not Path(f"/proc/{pid}").exists())  # with all its threads

    found = run(seeds=4, ended=kill)
    assert {one.outcome.status for one in found.values()} == {"ok"}
    assert before(found) == [0, 1, 0, 1]


def test_a_process_in_which_something_is_left_takes_no_other_job(run, tmp_path):
    found = run({"1": "leaves a thread"}, seeds=4)
    assert {one.outcome.status for one in found.values()} == {"ok"}
    assert before(found) == [0, 1, 0, 1]
    log = (tmp_path / "logs" / f"{make_job(seed=1).job_id}.1.log").read_text()
    assert log.endswith("The process takes no other job: a thread goes on\n")


@pytest.mark.parametrize(
    "worker", ["talks_when_ready", "talks_before_it_takes", "takes_with_an_outcome"]
)
def test_what_a_process_says_between_two_jobs_is_put_down_to_none(run, worker):
    found = run(seeds=3, worker=worker)
    assert {one.outcome.status for one in found.values()} == {"ok"}
    assert before(found) == [0, 0, 0]


def test_a_job_that_a_waiting_process_never_takes_goes_to_another(run, monkeypatch):
    monkeypatch.setattr(protocol, "ANSWER_SECONDS", 0.1)
    found = run(seeds=3, worker="never_takes")
    assert {one.outcome.status for one in found.values()} == {"ok"}
    assert before(found) == [0, 0, 0]


def test_each_slot_has_a_process_of_its_own(run):
    found = run(seeds=8, slots=2)
    assert len(set(processes(found.values()))) == 2
    assert {one.outcome.status for one in found.values()} == {"ok"}


def test_the_repeat_never_shares_a_process_and_on_a_gpu_trials_do():
    report, trial, repeat = (make_job(purpose=p) for p in ("report", "tuning", "repeat"))
    assert [most_jobs(job, False, None) for job in (report, trial, repeat)] == [1, 1, 1]
    assert [most_jobs(job, True, None) for job in (report, trial, repeat)] == [
        1, TRIALS_PER_PROCESS, 1
    ]  # fmt: skip
    assert [most_jobs(job, True, 5) for job in (report, trial, repeat)] == [5, 5, 1]


def test_it_is_for_jobs_on_this_machine_alone(capsys):
    where = Where(executor="slurm", slurm="time=5", jobs_per_process=3)
    with pytest.raises(UserError, match="--jobs-per-process says nothing to the executor slurm"):
        choose(where, 1)
    with pytest.raises(SystemExit) as left:
        parser.main(["run", "smoke", "--jobs-per-process", "0"])
    assert left.value.code == 2
    assert "a whole number from 1" in capsys.readouterr().err

"""The local executor: however a worker ends, its job has an outcome and the others go on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from calls import calls_of
from factory import make_job
from peftmark.executors import oom_kills, process, worker_files
from peftmark.executors.contract import Order
from peftmark.executors.local import run_jobs
from peftmark.executors.slots import Slot
from peftmark.sources.assets import Places
from places import SUPPORT
from waiting import wait_for
from watched import OVER, Watched

pytestmark = pytest.mark.heavy


@pytest.fixture(autouse=True)
def short_grace(monkeypatch):
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.5)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run jobs of these seeds with a fake worker; returns outcomes by seed, each job once."""
    watched = Watched()
    monkeypatch.setattr(process, "time", watched.clock)

    def start(
        worker,
        seeds=(0,),
        slots=2,
        limit=None,
        stop=lambda: False,
        listener=None,
        jobs=None,
        room=None,
        retries=0,
    ):
        order = Order(
            jobs=jobs or [(make_job(seed=seed), 1) for seed in seeds],
            places=Places(None, ("package",), tmp_path / "cache"),
            logs=tmp_path / "logs",
            seconds_limit=limit,
            retries=retries,
            stop=stop,
            listener=listener or (lambda job, message: None),
            worker=f"fake_worker:{worker}",
        )
        watched.events.clear()
        attempts = watched.run(order, [Slot()] * slots, room)
        finished = [f for f in attempts if not f.again]
        start.attempts = attempts
        assert all(count == 1 for count in Counter(f.job.seed for f in finished).values())
        assert all(f.wall_seconds >= 0 and f.started_at <= f.finished_at for f in finished)
        assert {(f.nvml_process_bytes, f.nvml_device_bytes, f.nvml_reason) for f in finished} <= {
            (None, None, "the job ran on the CPU")
        }
        return {f.job.seed: f.outcome for f in finished}

    start.watched = watched
    return start


def log_of(tmp_path, seed=0):
    return (tmp_path / "logs" / f"{make_job(seed=seed).job_id}.1.log").read_bytes()


def alive(pid):
    """Whether a process runs; a zombie does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):  # gone before, or while it was read
        return False
    return state not in "ZX"


# --- one worker, each way to end ----------------------------------------------------------------


def test_a_good_worker_reports_progress_and_its_outcome(run, tmp_path):
    told = []
    outcome = run("ok", listener=lambda job, message: told.append((job.seed, message)))[0]
    assert (outcome.status, outcome.metric_value, outcome.steps) == ("ok", 0.5, 120)
    assert told == [
        (0, {"phase": "start"}),
        (0, {"phase": "train"}),
        (0, {"step": 1, "steps": 120, "metric": 0.25}),
    ]
    assert log_of(tmp_path) == b"some words for the log\n"
    assert outcome.model_source == "1", "a worker computes with one thread"
    places = json.loads(outcome.data_source)
    del places["hashes"]
    assert places == {"mirror": None, "sources": ["package"], "cache": str(tmp_path / "cache")}


@pytest.mark.parametrize(
    ("worker", "status", "reason"),
    [
        ("raises", "crashed", "the worker ended with exit code 1 and no outcome, in phase start"),
        ("exits", "crashed", "the worker ended with exit code 3 and no outcome, in phase model"),
        ("dies", "crashed", "the worker was killed by SIGKILL, at step 7 of 120"),
        ("dies_of_a_nameless_signal", "crashed", "the worker was killed by signal 37, in phase "),
        ("no_such_function", "crashed", "the worker ended with exit code 1 and no outcome, in "),
        ("nan", "invalid", "the metric is not a finite number"),
        ("floods", "ok", ""),
        ("floods_the_pipe", "ok", ""),
    ],
)
def test_each_way_to_end_has_its_status_and_reason(run, worker, status, reason):
    outcome = run(worker)[0]
    assert outcome.status == status
    assert outcome.status_reason.startswith(reason)


def test_what_a_worker_prints_is_in_its_log_cut_in_the_middle_when_it_floods(run, tmp_path, capfd):
    run("floods", seeds=(0, 1))
    run("raises", seeds=(2,))
    for seed in (0, 1):
        log = log_of(tmp_path, seed)
        assert len(log) < 1.01 * worker_files.MAX_LOG_BYTES
        assert log.count(b"bytes cut here]") == 1
        assert log.startswith(b"\xff\xfe\x00\x1b[2J")
        assert b"from a child\n" in log
        assert b"an error\n" in log
    assert b"ValueError: no such thing" in log_of(tmp_path, 2)
    assert capfd.readouterr() == ("", "")


def test_a_hanging_worker_is_stopped_at_the_limit_with_its_last_step(run):
    clock, ended = run.watched.clock, []
    begun = clock.now
    clock.at_sleep = lambda: ended.append(clock.now - begun)
    outcome = run("hangs", limit=1.0)[0]
    assert outcome.status == "timed_out"
    assert outcome.status_reason == "over the limit of 1 s a job, at step 3 of 120"
    assert ended == [1.0 + OVER], "once it is over the limit, and not before"
    assert run.attempts[0].wall_seconds >= 1.0 + OVER


def test_a_worker_that_ignores_sigterm_is_killed_after_the_grace(run):
    assert run("ignores_sigterm", limit=1.0)[0].status == "timed_out"


def test_a_child_of_a_worker_that_keeps_the_pipe_open_holds_nothing_up(run):
    outcome = run("leaves_a_child")[0]
    assert outcome.status == "ok"
    assert alive(outcome.data_source), "nobody waited for its end"
    os.kill(int(outcome.data_source), signal.SIGKILL)


def test_a_kill_by_the_kernel_for_memory_is_told_apart(run, monkeypatch, tmp_path):
    events = tmp_path / "memory.events"
    events.write_text("low 0\noom 4\noom_kill 4\n")
    monkeypatch.setattr(oom_kills, "_OOM_COUNTERS", (tmp_path / "absent", events))

    def kernel_kills(job, message):
        if message.get("step"):
            events.write_text("low 0\noom 5\noom_kill 5\n")

    outcome = run("dies", listener=kernel_kills)[0]
    assert outcome.status == "out_of_memory"
    assert outcome.status_reason.endswith("at step 7 of 120")
    assert run("dies")[0].status == "crashed", "an old kill does not count again"


# --- the real worker around a recipe that loads nothing -----------------------------------------


def test_the_real_worker_runs_its_recipe_and_tells_the_outcome(run, tmp_path):
    outcome = run("real_ok")[0]
    assert outcome.status == "ok"
    assert json.loads(outcome.data_source) == [["package"], ""]
    assert log_of(tmp_path) == b"printed by the recipe\n"


def test_the_real_worker_turns_an_exception_into_a_status_and_logs_it(run, tmp_path):
    outcome = run("real_diverged")[0]
    assert (outcome.status, outcome.status_reason) == (
        "diverged",
        "the loss was nan, in phase start",
    )
    assert b"FloatingPointError: the loss was nan" in log_of(tmp_path)


# --- many workers -------------------------------------------------------------------------------


def test_a_bad_job_never_stops_the_others(run, tmp_path):
    ways = {0: "raises", 2: "exits", 4: "dies", 6: "hangs", 8: "nan"}
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "ways").write_text(json.dumps(ways))
    outcomes = run("by_seed", seeds=range(10), slots=3, limit=3.0)
    assert sorted(outcomes) == list(range(10))
    expected = {0: "crashed", 2: "crashed", 4: "crashed", 6: "timed_out", 8: "invalid"}
    assert {s: o.status for s, o in outcomes.items()} == {
        seed: expected.get(seed, "ok") for seed in range(10)
    }


def test_never_more_workers_than_slots_are_alive(run):
    assert {o.steps for o in run("counts", seeds=range(4), slots=1).values()} == {1}
    assert run.watched.most == 1
    assert max(o.steps for o in run("counts", seeds=range(7), slots=3).values()) <= 3
    assert run.watched.most == 3


@pytest.mark.parametrize(("jobs", "slots", "at_once"), [(1, 1, "1"), (1, 2, "1"), (3, 2, "2")])
def test_a_worker_knows_how_many_run_beside_it(run, jobs, slots, at_once):
    """Counters of the whole machine are shared; a fork server must not keep an old number."""
    outcomes = run("counts", seeds=range(jobs), slots=slots)
    assert {o.data_source for o in outcomes.values()} == {at_once}


def test_no_jobs_is_no_work(run):
    assert run("ok", seeds=()) == {}


def test_stopping_interrupts_what_runs_and_starts_no_more(run):
    told = []
    outcomes = run(
        "hangs",
        seeds=range(5),
        listener=lambda job, message: told.append((job.seed, message)),
        stop=lambda: len([m for _, m in told if "step" in m]) == 2,
    )
    assert {s: o.status for s, o in outcomes.items()} == {0: "interrupted", 1: "interrupted"}
    assert outcomes[0].status_reason == "stopped by the user, at step 3 of 120"
    assert {seed for seed, _ in told} == {0, 1}


def test_a_stop_before_the_first_job_starts_nothing(run):
    told = []
    assert run("ok", seeds=(0, 1), stop=lambda: True, listener=lambda *a: told.append(a)) == {}
    assert told == []


def test_a_worker_that_ctrl_c_ended_first_is_interrupted_and_not_crashed(run):
    """A terminal sends SIGINT to everyone: the worker may be gone before anyone asks."""
    told = []
    stop = lambda: any("phase" in m and m["phase"] == "model" for m in told)  # noqa: E731
    outcome = run("exits", stop=stop, listener=lambda job, message: told.append(message))[0]
    assert outcome.status == "interrupted"


def test_leaving_the_generator_early_ends_the_workers(tmp_path):
    jobs = [(make_job(seed=seed), 1) for seed in range(2)]
    (tmp_path / "ways").write_text('{"1": "hangs_with_its_number"}')
    order = Order(
        jobs, Places(None, ("package",), tmp_path), tmp_path, worker="fake_worker:by_seed"
    )
    finished = run_jobs(order, [Slot(), Slot()])
    assert next(finished).job.seed == 0
    pid = wait_for(lambda: "".join(path.read_text() for path in tmp_path.glob("*.pid")))
    assert alive(pid)
    finished.close()
    assert not alive(pid)


def test_a_job_of_two_thousand_waits_no_longer_for_its_start_than_one_of_two_hundred(tmp_path):
    """Every job held against every other took 20 s of 10,000, in which no Ctrl-C was heard."""

    def calls(count):
        jobs = [(make_job(seed=seed), 1) for seed in range(count)]
        places = Places(None, ("package",), tmp_path)
        order = Order(jobs, places, tmp_path, stop=lambda: True)
        return calls_of(lambda: list(run_jobs(order, [Slot()])))

    calls(2)  # what is made once
    few, many = calls(200), calls(2000)
    assert many < 11 * few


def test_the_environment_of_the_supervisor_stays_as_it_was(run, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    before = dict(os.environ)
    run("ok")
    assert dict(os.environ) == before


# --- the supervisor dies ------------------------------------------------------------------------

SUPERVISOR = f"""
import sys
sys.path.insert(0, {str(SUPPORT)!r})
import stand_ins
stand_ins.load_early()
from pathlib import Path
from factory import make_job
from peftmark.sources.assets import Places
from peftmark.executors.local import run_jobs
from peftmark.executors.contract import Order
from peftmark.executors.slots import Slot
folder = Path(sys.argv[1])
jobs = [(make_job(seed=seed), 1) for seed in range(3)]
places = Places(None, ("package",), folder)
order = Order(jobs, places, folder, worker="fake_worker:hangs_with_its_number")
list(run_jobs(order, [Slot()] * 3))
"""


def test_workers_do_not_outlive_a_supervisor_killed_with_9(tmp_path):
    with subprocess.Popen([sys.executable, "-c", SUPERVISOR, str(tmp_path)]) as supervisor:
        files = wait_for(lambda: (f := list(tmp_path.glob("*.pid"))) and len(f) == 3 and f)
        pids = wait_for(lambda: all(p := [f.read_text() for f in files]) and p)
        assert all(alive(pid) for pid in pids)
        supervisor.kill()
    wait_for(lambda: not any(alive(pid) for pid in pids))

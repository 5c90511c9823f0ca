"""Places for workers, the memory they share, and which jobs deserve another try."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from factory import make_job, make_outcome
from peftmark.core.errors import UserError
from peftmark.executors import local, process, slots
from peftmark.executors.contract import Order, needs_of
from peftmark.executors.local import run_jobs
from peftmark.executors.slots import DeviceRoom, Room, Slot, cpu_slots, free_memory, gpu_slots
from peftmark.machine import nvml
from peftmark.sources.assets import Places
from places import SUPPORT
from waiting import PATIENCE, wait_for
from watched import watched_in

pytestmark = pytest.mark.heavy  # they wait for workers

GIB = 2**30
TWO = (Slot(), Slot())


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run jobs of these seeds with a fake worker; returns the attempts in the order they ended."""
    watched = watched_in(tmp_path, monkeypatch)

    def start(worker, seeds=(0,), places=TWO, room=None, retries=1, **changes):
        order = Order(
            jobs=[(make_job(seed=seed), 1) for seed in seeds],
            places=Places(None, ("package",), tmp_path / "cache"),
            logs=tmp_path / "logs",
            retries=retries,
            worker=f"fake_worker:{worker}",
            **changes,
        )
        watched.events.clear()
        return watched.run(order, list(places), room)

    start.watched = watched
    return start


# --- slots --------------------------------------------------------------------------------------


def test_workers_are_bound_to_cores_only_when_they_take_all_of_them(monkeypatch):
    monkeypatch.setattr(slots, "allowed_cores", lambda: [2, 3, 6])
    monkeypatch.setattr(slots, "cpu_quota", lambda: None)
    assert cpu_slots(3) == [Slot(cores=frozenset({core})) for core in (2, 3, 6)]
    assert cpu_slots(2) == [Slot(), Slot()]
    assert cpu_slots(4) == [Slot()] * 4


@pytest.mark.parametrize(("quota", "bound"), [(3.0, True), (2.9, False)])
def test_workers_that_a_quota_has_no_time_for_are_not_bound(monkeypatch, quota, bound):
    monkeypatch.setattr(slots, "allowed_cores", lambda: [2, 3, 6])
    monkeypatch.setattr(slots, "cpu_quota", lambda: quota)
    assert [bool(slot.cores) for slot in cpu_slots(3)] == [bound] * 3


def test_one_thread_of_every_core_comes_before_their_twins(monkeypatch, tmp_path):
    monkeypatch.setattr(slots, "_CPU", tmp_path)
    for core, siblings in {0: "0-1", 1: "0-1", 2: "2,3", 3: "2,3"}.items():
        folder = tmp_path / f"cpu{core}" / "topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{siblings}\n")
    assert slots._in_order([0, 1, 2, 3, 4]) == [0, 2, 4, 1, 3]


def test_a_gpus_worker_keeps_to_the_cores_near_it_that_it_may_use(monkeypatch):
    monkeypatch.setattr(slots, "allowed_cores", lambda: [0, 1, 2])
    assert gpu_slots({"GPU-a": frozenset({2, 3}), "GPU-b": frozenset()}) == [
        Slot("GPU-a", frozenset({2})),
        Slot("GPU-b"),
    ]


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="no affinity on this system")
def test_a_worker_is_bound_to_the_cores_of_its_slot(run):
    mine = max(os.sched_getaffinity(0))
    (done,) = run("tells_its_cores", places=[Slot(cores=frozenset({mine}))])
    assert json.loads(done.outcome.data_source) == [mine]
    (done,) = run("tells_its_cores", places=[Slot()])
    assert json.loads(done.outcome.data_source) == sorted(os.sched_getaffinity(0))


# --- memory -------------------------------------------------------------------------------------


def test_free_memory_is_what_the_machine_has_or_less_where_a_container_limits_it(
    monkeypatch, tmp_path
):
    meminfo, limits = tmp_path / "meminfo", [None, 50_000, -500, None]
    meminfo.write_text("MemTotal: 9 kB\nMemAvailable:    4096 kB\n")
    monkeypatch.setattr(slots, "_MEMINFO", meminfo)
    monkeypatch.setattr(slots, "memory_left", lambda: limits.pop(0))
    assert free_memory() == 4096 * 1024
    assert free_memory() == 50_000
    assert free_memory() == 0
    meminfo.unlink()
    assert free_memory() is None


def test_jobs_share_memory_only_if_what_is_known_of_them_fits():
    small, large = make_job(), make_job(method="full", size=None)
    room = Room(4 * GIB, {needs_of(small): 1 * GIB, needs_of(large): 3 * GIB + 1})
    assert room.fits(large, [])
    assert not room.fits(large, [small])
    assert room.fits(small, [small, small])
    unknown = make_job(task="sts-b")
    assert room.fits(unknown, [large])
    room.learn(unknown, make_outcome(vmhwm_bytes=2 * GIB))
    assert not room.fits(unknown, [large])
    room.learn(unknown, make_outcome(vmhwm_bytes=None))
    assert not room.fits(unknown, [large]), "a job that ended early takes nothing back"
    assert Room(None, {needs_of(large): 3 * GIB}).fits(large, [large])
    assert needs_of(make_job(seed=1)) == needs_of(make_job(seed=2))
    wider = replace(small, recipe=replace(small.recipe, batch_size=64))
    assert needs_of(wider) != needs_of(small)


def test_jobs_that_cannot_fit_together_do_not_start_together(run):
    room = Room(10, {needs_of(make_job()): 6})
    assert {f.outcome.steps for f in run("counts", range(4), room=room)} == {1}
    assert run.watched.most == 1
    room = Room(12, {needs_of(make_job()): 6})
    assert {f.outcome.steps for f in run("counts", range(4), room=room)} <= {1, 2}
    assert run.watched.most == 2


def test_a_job_that_fits_goes_before_one_that_has_to_wait(run, tmp_path):
    order = [make_job(seed=0), make_job(seed=1), make_job(seed=2, task="sts-b")]
    room = Room(10, {needs_of(order[0]): 6})
    started = []

    def listen(job, message):
        if message.get("phase") == "start":
            started.append(job.seed)

    list(
        run_jobs(
            Order(
                [(job, 1) for job in order],
                Places(None, ("package",), tmp_path),
                tmp_path,
                listener=listen,
                worker="fake_worker:counts",
            ),
            [Slot(), Slot()],
            room,
        )
    )
    assert started == [0, 2, 1]


# --- another try --------------------------------------------------------------------------------


def ends(attempts):
    return [(f.job.seed, f.attempt, f.outcome.status, bool(f.again)) for f in attempts]


def test_a_worker_that_was_killed_is_tried_once_more_as_a_new_attempt(run):
    attempts = run("dies_once")
    assert ends(attempts) == [(0, 1, "crashed", True), (0, 2, "ok", False)]
    assert attempts[0].again == "its worker was killed"
    assert attempts[0].outcome.status_reason.startswith("the worker was killed by SIGKILL")


@pytest.mark.parametrize(
    ("worker", "retries", "tries"), [("dies", 0, 1), ("dies", 1, 2), ("dies", 3, 4)]
)
def test_tries_end(run, worker, retries, tries):
    attempts = run(worker, retries=retries)
    assert [f.attempt for f in attempts] == list(range(1, tries + 1))
    assert [bool(f.again) for f in attempts] == [True] * (tries - 1) + [False]


@pytest.mark.parametrize("worker", ["raises", "exits", "nan", "real_diverged", "out_of_memory"])
def test_what_a_job_did_itself_it_would_do_again(run, worker):
    assert len(run(worker, retries=3)) == 1


def test_the_time_limit_is_no_cause_for_another_try(run):
    attempts = run("hangs", retries=3, seconds_limit=0.5)
    assert ends(attempts) == [(0, 1, "timed_out", False)]


def test_memory_that_ran_out_beside_others_is_tried_again_alone(run):
    attempts = run("out_of_memory_beside_others", range(4), places=[Slot()] * 3)
    last = {f.job.seed: f for f in attempts if not f.again}
    assert sorted(last) == [0, 1, 2, 3]
    assert {f.outcome.status for f in last.values()} == {"ok"}
    again = [f for f in attempts if f.again]
    assert {0, 1, 2} <= {f.job.seed for f in again}, "they were alive together"
    assert all(run.watched.beside(seed, 1) for seed in (0, 1, 2))
    assert not any(run.watched.beside(f.job.seed, 2) for f in again)
    assert {f.again for f in again} == {"memory ran out beside other jobs: now alone"}
    assert {f.outcome.steps for f in last.values()} == {1}


def test_nothing_starts_beside_a_job_that_is_to_be_alone():
    alone = local._Waiting(make_job(), 2, 0, alone=True)
    other = local._Waiting(make_job(seed=1), 1, 1)

    def chosen(waiting, running):
        held = {number: (SimpleNamespace(slot=Slot()), one) for number, one in enumerate(running)}
        state = local._State(waiting, held, [Slot()], set(), Room(None, {}), DeviceRoom({}))
        found = local._next(state, lambda device: 0)
        return found and found[0]

    assert chosen([other], [alone]) is None
    assert chosen([alone], [other]) is None
    assert chosen([alone, other], [other]) is other
    assert chosen([alone, other], []) is alone


def test_no_other_try_after_a_stop(run):
    told = []
    attempts = run(
        "dies",
        retries=3,
        listener=lambda job, message: told.append(message),
        stop=lambda: any("step" in message for message in told),
    )
    assert [bool(f.again) for f in attempts] == [False]


# --- lost devices -------------------------------------------------------------------------------


def test_a_lost_gpu_is_not_used_again_and_its_job_goes_to_another(run, monkeypatch):
    monkeypatch.setattr(local.nvml, "lost", lambda uuid: uuid == "GPU-a")
    attempts = run("crashes_on_gpu_a", range(4), places=[Slot("GPU-a"), Slot("GPU-b")])
    assert [f.again for f in attempts if f.again] == ["its GPU was lost"]
    last = {f.job.seed: f.outcome for f in attempts if not f.again}
    assert {o.status for o in last.values()} == {"ok"}
    assert {o.data_source for o in last.values()} == {"GPU-b"}


def test_without_any_gpu_left_the_run_ends_with_a_message(run, monkeypatch):
    monkeypatch.setattr(local.nvml, "lost", lambda uuid: True)
    with pytest.raises(UserError, match="every GPU is lost; 3 jobs were not started") as caught:
        run("crashes_on_gpu_a", range(3), places=[Slot("GPU-a")])
    assert "nvidia-smi" in caught.value.remedy


def test_a_crash_on_a_gpu_that_answers_is_only_a_crash(run, monkeypatch):
    monkeypatch.setattr(local.nvml, "lost", lambda uuid: False)
    attempts = run("crashes_on_gpu_a", range(2), places=[Slot("GPU-a")])
    assert ends(attempts) == [(0, 1, "crashed", False), (1, 1, "crashed", False)]


def test_nothing_is_known_of_a_device_without_a_driver():
    assert nvml.lost("GPU-a") is False
    assert nvml.near_cores("GPU-a") == frozenset()


# --- ending workers -----------------------------------------------------------------------------


def test_a_worker_over_the_limit_writes_down_where_it_is(run, tmp_path):
    log = tmp_path / "logs" / f"{make_job().job_id}.1.log"
    clock = run.watched.clock
    clock.at_sleep = lambda: wait_for(lambda: "in _hang" in log.read_text())
    run("hangs", seconds_limit=0.5)
    assert clock.slept == [process.STACK_SECONDS], "it is given the time to write"
    assert "most recent call first" in log.read_text()


def test_what_a_worker_started_ends_with_it(run, tmp_path):
    run("hangs_with_a_child", seconds_limit=0.5)
    pid = int((tmp_path / "logs" / f"{make_job().job_id}.1.child").read_text())

    def gone():
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return True
        return state in "ZX"

    wait_for(gone)


@pytest.mark.heavy
def test_a_long_folder_for_temporary_files_stops_no_run(tmp_path):
    """Sockets have short paths, and a cluster's scratch folders long ones."""
    long = tmp_path / ("long" * 25)
    long.mkdir()
    code = f"""
import sys; sys.path.insert(0, {str(SUPPORT)!r})
from pathlib import Path
from factory import make_job
from peftmark.sources.assets import Places
from peftmark.executors.local import run_jobs
from peftmark.executors.contract import Order
from peftmark.executors.slots import Slot
folder = Path({str(tmp_path)!r})
order = Order([(make_job(), 1)], Places(None, ("package",), folder), folder / "logs",
              worker="fake_worker:ok")
print([done.outcome.status for done in run_jobs(order, [Slot()])])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=os.environ | {"TMPDIR": str(long)},
    )
    assert done.stdout == "['ok']\n", done.stderr
    assert list(long.iterdir()) == []

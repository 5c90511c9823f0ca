"""The server that workers are forked from, libraries that leave, and switches of Python."""

from __future__ import annotations

import importlib
import json
import os
import runpy
import subprocess
import sys

import psutil
import pytest

from factory import make_job
from peftmark.core.interpreter import NOT_PASSED_ON
from peftmark.executors import launch, process
from peftmark.executors.contract import Order
from peftmark.executors.local import run_jobs
from peftmark.executors.slots import Slot
from peftmark.sources.assets import Places
from places import SUPPORT
from waiting import PATIENCE, wait_for

pytestmark = pytest.mark.heavy
LOUD = {"PYTHONVERBOSE", "PYTHONWARNDEFAULTENCODING", "PYTHONDUMPREFS", "PYTHONMALLOCSTATS"}
SWITCHES = dict.fromkeys(set(NOT_PASSED_ON) - LOUD, "1") | {
    "PYTHONOPTIMIZE": "2",
    "PYTHONWARNINGS": "error",
    "PYTHONMALLOC": "malloc",
    "PYTHONIOENCODING": "ascii",
    "PYTHONBREAKPOINT": "0",
}
ELSEWHERE = f"""
import sys
sys.path.insert(0, {str(SUPPORT)!r})
import stand_ins
stand_ins.load_early()
import json
from pathlib import Path
from factory import make_job
from peftmark.executors import launch, process
from peftmark.executors.contract import Order
from peftmark.executors.local import run_jobs
from peftmark.executors.slots import Slot
from peftmark.sources.assets import Places
folder, worker, preload = Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
if preload:
    process.WORKER, launch.PRELOAD = worker, preload
jobs = [(make_job(seed=seed), 1) for seed in range(3)]
order = Order(jobs, Places(None, ("package",), folder), folder / "logs", retries=0, worker=worker)
ended = {{done.job.seed: done.outcome for done in run_jobs(order, [Slot()])}}
print(json.dumps([[one.status, one.status_reason, one.data_source] for one in ended.values()]))
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run seeds 0, 1 and 2 one after the other; returns how each attempt ended."""
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(launch, "WAKE_SECONDS", 0.05)

    def start(worker, retries=0):
        order = Order(
            jobs=[(make_job(seed=seed), 1) for seed in range(3)],
            places=Places(None, ("package",), tmp_path / "cache"),
            logs=tmp_path / "logs",
            retries=retries,
            worker=f"fault_worker:{worker}",
        )
        return [(d.job.seed, d.attempt, d.outcome) for d in run_jobs(order, [Slot()])]

    return start


@pytest.fixture
def elsewhere(tmp_path):
    """The same in a process of its own, with switches of Python."""

    def start(worker, preload=(), **switches):
        words = [sys.executable, "-c", ELSEWHERE, str(tmp_path), f"fault_worker:{worker}", *preload]
        path = os.pathsep.join([str(tmp_path), *sys.path])
        ended = subprocess.run(
            words,
            env={**os.environ, "PYTHONPATH": path, **switches},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return json.loads(ended.stdout), ended.stderr

    return start


LOST = "the process that the worker was forked from ended before it, at step 7 of 120"


def test_the_death_of_the_server_ends_what_it_watched_and_nothing_else(run, tmp_path):
    ended = run("kills_its_server_once")
    assert [(seed, one.status) for seed, _, one in ended] == [(0, "crashed"), (1, "ok"), (2, "ok")]
    assert ended[0][2].status_reason == LOST
    [note] = tmp_path.rglob("*.pid")
    wait_for(lambda: not psutil.pid_exists(int(note.read_text())))


def test_a_job_that_lost_its_server_is_tried_again(run):
    ended = sorted(run("kills_its_server_once", retries=1), key=lambda one: one[:2])
    assert [(seed, attempt, one.status) for seed, attempt, one in ended] == [
        (0, 1, "crashed"),
        (0, 2, "ok"),
        (1, 1, "ok"),
        (2, 1, "ok"),
    ]


def test_a_server_that_somebody_stopped_goes_on(run):
    assert [one.status for _, _, one in run("stops_its_server")] == ["ok"] * 3


@pytest.mark.parametrize(
    ("code", "how"),
    [
        ("import os; os._exit(9)", "ended with exit code 9"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "was killed by SIGKILL"),
    ],
)
def test_a_server_that_can_not_load_its_libraries_is_the_reason_of_each_row(
    elsewhere, tmp_path, code, how
):
    (tmp_path / "leaves_when_loaded.py").write_text(code)
    ended, told = elsewhere("says_its_number", ["leaves_when_loaded"])
    reason = f"no worker could be started: the process that they are forked from {how}"
    assert ended == [["crashed", reason, None]] * 3
    assert told == ""


@pytest.mark.parametrize("error", [RuntimeError, SystemExit, KeyboardInterrupt])
def test_a_library_that_raises_when_it_is_loaded_does_not_end_the_server(monkeypatch, error):
    asked = []

    def fails(name):
        asked.append(name)
        raise error

    monkeypatch.setattr(importlib, "import_module", fails)
    runpy.run_module("peftmark.lab.preload")
    assert asked == ["peftmark.lab.recipe", "peftmark.lab.methods.adalora"]


def test_whatever_a_library_raises_is_the_reason_of_its_row(run):
    told = ["SystemExit: 3", "KeyboardInterrupt: a library", "_Unreadable: an error that can't be"]
    for (_, _, one), reason in zip(run("leaves_as_the_job_says"), told, strict=True):
        assert one.status == "crashed"
        assert one.status_reason.startswith(reason)


@pytest.mark.slow
def test_switches_of_python_do_not_reach_a_job(elsewhere):
    """They are for the user's own programs, and would change what a job measures."""
    ended, _ = elsewhere("tells_its_interpreter", **SWITCHES)
    assert [status for status, *_ in ended] == ["ok"] * 3
    switches, left = json.loads(ended[0][2])
    assert switches == [0, False, [], "utf-8"]
    assert not set(left) & set(NOT_PASSED_ON)
    assert "PYTHONSAFEPATH" in left


STAY = """
import os
from peftmark.core.interpreter import passed_on, started_with
os.environ["PYTHONWARNINGS"] = "error"
before = dict(os.environ)
with started_with({"OMP_NUM_THREADS": "1"}):
    assert "PYTHONWARNINGS" not in os.environ
    assert os.environ["OMP_NUM_THREADS"] == "1"
assert dict(os.environ) == before
kept = {name: value for name, value in before.items() if name != "PYTHONWARNINGS"}
assert passed_on({"A": "1"}) == {**kept, "A": "1"}
"""


@pytest.mark.heavy
def test_the_switches_of_this_process_stay():
    """In a process of its own: Ray sets PYTHONBREAKPOINT in one that used it."""
    names = {name: os.environ[name] for name in os.environ if name not in NOT_PASSED_ON}
    done = subprocess.run(
        [sys.executable, "-c", STAY], env=names, capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.returncode == 0, done.stderr


class Dying:
    """A process whose server dies while it is asked, the first times."""

    def __init__(self, times):
        self.times, self.asked = times, 0

    def start(self):
        self.asked += 1
        if self.asked <= self.times:
            raise EOFError


def test_a_server_that_dies_while_it_is_asked_is_asked_once_more(monkeypatch):
    monkeypatch.setattr(launch, "_how_the_server_ended", lambda: "was killed by SIGKILL")
    launcher = launch.Launcher(gpu=True, preload=False)
    once, ever = Dying(1), Dying(9)
    launcher.start(once)
    with pytest.raises(launch.NotStarted, match=r"forked from was killed by SIGKILL$"):
        launcher.start(ever)
    assert (once.asked, ever.asked) == (2, 2)


def test_a_machine_without_room_for_a_process_is_the_reason_of_the_row(monkeypatch):
    def start(self):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(Dying, "start", start)
    told = "^no worker could be started: .*Resource temporarily unavailable"
    with pytest.raises(launch.NotStarted, match=told):
        launch.Launcher(gpu=True, preload=False).start(Dying(0))

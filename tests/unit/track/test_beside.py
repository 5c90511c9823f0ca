"""A tracker beside a run: whatever it does, the run goes on, its rows stay, and people are told."""

from __future__ import annotations

import json
import os
import signal
import sys

import pytest

import tracker_libraries
from factory import make_job, make_record
from peftmark.storage.store import Store
from peftmark.track import beside
from peftmark.track.beside import Beside
from peftmark.track.seam import Target
from waiting import PATIENCE, wait_for

pytestmark = pytest.mark.heavy


class Demo:
    """A results folder, and a store of MLflow's stand-in."""

    def __init__(self, folder):
        self.store = Store(folder / "results", "demo")
        self.kept = folder / "kept.json"
        self.target = Target("mlflow", str(self.kept))
        self._seeds = 0

    def beside(self, patience=PATIENCE):
        return Beside(self.target, self.store, "quick", patience)

    def add(self, count=1):
        with self.store.lock():
            for _ in range(count):
                self.store.append(make_record(job=make_job(seed=self._seeds)))
                self._seeds += 1

    def runs(self):
        """The runs of jobs that are there."""
        if not self.kept.is_file():
            return []
        runs = json.loads(self.kept.read_text())["runs"]
        return [r for r in runs if "peftmark.job" in r["tags"] and not r["removed"]]

    def parents(self):
        runs = json.loads(self.kept.read_text())["runs"]
        return [run for run in runs if "peftmark.job" not in run["tags"]]


@pytest.fixture
def demo(tmp_path, monkeypatch):
    tracker_libraries.mlflow(monkeypatch)
    monkeypatch.delenv("STAND_IN_MLFLOW", raising=False)
    return Demo(tmp_path)


def test_rows_are_sent_while_the_run_goes_on(demo):
    demo.add()
    tracker = demo.beside()
    tracker.stored()
    wait_for(lambda: [run["status"] for run in demo.runs()] == ["FINISHED"])
    demo.add()
    tracker.stored()
    wait_for(lambda: len(demo.runs()) == 2)
    page = demo.store.folder / "report.md"
    page.touch()
    [told] = tracker.finish([page], "finished")
    assert told == f"Tracked by mlflow in {demo.kept}: 2 jobs."
    [parent] = demo.parents()
    assert (parent["status"], list(parent["files"])) == ("FINISHED", ["report/report.md"])


def test_rows_of_an_earlier_run_are_not_sent_twice(demo):
    demo.add(3)
    assert demo.beside().finish([], "finished") == [f"Tracked by mlflow in {demo.kept}: 3 jobs."]
    demo.add(2)
    [told] = demo.beside().finish([], "stopped")
    assert told == f"Tracked by mlflow in {demo.kept}: 2 jobs, 3 there already."
    assert len({run["tags"]["peftmark.job"] for run in demo.runs()}) == len(demo.runs()) == 5
    assert demo.parents()[0]["status"] == "KILLED"


def test_a_run_that_is_killed_leaves_a_tracker_that_ends_by_itself(demo):
    demo.add(2)
    tracker = demo.beside()
    tracker.stored()
    process = tracker._process
    process.stdin.close()  # as the kernel does
    assert process.wait(PATIENCE) == 0
    process.stdout.close()
    tracker._last_words()
    assert [run["status"] for run in demo.runs()] == ["FINISHED"] * 2
    assert demo.parents()[0]["status"] == "KILLED"


def test_a_tracker_killed_in_the_middle_is_told_of_and_the_next_goes_on(demo, monkeypatch):
    demo.add(3)
    monkeypatch.setenv("STAND_IN_MLFLOW", "killed 2")
    [told] = demo.beside().finish([], "finished")
    assert told.startswith(f"Not tracked by mlflow: it ended with code -{signal.SIGKILL.value}: ")
    assert f"`peftmark track demo --to mlflow={demo.kept} --results " in told
    assert [run["status"] for run in demo.runs()] == ["FINISHED", "RUNNING"]
    monkeypatch.delenv("STAND_IN_MLFLOW")
    [told] = demo.beside().finish([], "finished")
    assert told == f"Tracked by mlflow in {demo.kept}: 2 jobs, 1 there already."
    assert [run["status"] for run in demo.runs()] == ["FINISHED"] * 3
    curves = [[m for m in run["metrics"] if m[0] == "curve/loss"] for run in demo.runs()]
    assert [len(curve) for curve in curves] == [6, 6, 6], "no point is there twice"


@pytest.mark.parametrize(
    ("way", "why"),
    [
        (
            "down",
            "ConnectionError: http://host:5000/api refused to answer\N{REPLACEMENT CHARACTER}",
        ),
        ("full", "OSError: [Errno 28] No space left on device"),
    ],
)
def test_a_tracker_that_takes_nothing_is_told_of_with_its_reason(demo, monkeypatch, way, why):
    demo.add(4)
    before = sorted(demo.store.folder.rglob("*"))
    monkeypatch.setenv("STAND_IN_MLFLOW", way)
    tracked, told = demo.beside().finish([], "finished")
    assert tracked == f"Tracked by mlflow in {demo.kept}: 0 jobs."
    assert why in told and "and 3 more" in told and "peftmark track demo" in told
    assert "secret" not in told
    assert sorted(demo.store.folder.rglob("*")) == before
    monkeypatch.delenv("STAND_IN_MLFLOW")
    assert "4 jobs" in demo.beside().finish([], "finished")[0]


def test_a_tracker_that_hangs_is_left_behind(demo, monkeypatch):
    demo.add(2)
    monkeypatch.setenv("STAND_IN_MLFLOW", "hangs")
    tracker = demo.beside(patience=0.5)
    for _ in range(20_000):  # more words than a pipe holds: none waits
        tracker.stored()
    process = tracker._process
    [told] = tracker.finish([], "finished")
    assert told.startswith("Not tracked by mlflow: nothing moved for 0.5 s, so it was left behind.")
    assert process.returncode == -signal.SIGKILL


def test_a_library_that_cannot_be_loaded_is_told_of(demo, monkeypatch):
    demo.add()
    monkeypatch.setenv("PYTHONPATH", os.environ["PYTHONPATH"].split(os.pathsep, 1)[-1])
    tracker = Beside(Target("mlflow", "no://where"), demo.store, "quick", PATIENCE)
    monkeypatch.setattr(beside, "MODULE", "peftmark.track.nowhere")
    [told] = tracker.finish([], "finished")
    assert "it ended with code 1: " in told and "No module named peftmark.track.nowhere" in told


def test_no_process_at_all_is_told_of(demo, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    tracker = demo.beside()
    tracker.stored()
    tracker.stored()
    [told] = tracker.finish([], "finished")
    assert told.startswith("Not tracked by mlflow: no process could be started: No such file")


def test_it_computes_only_where_nobody_else_does(demo):
    tracker = demo.beside()
    tracker.stored()
    pid = tracker._process.pid
    idle = getattr(os, "SCHED_IDLE", None)
    if idle is None:
        pytest.skip("this system has no such class")
    wait_for(lambda: os.sched_getscheduler(pid) == idle)
    tracker.finish([], "finished")

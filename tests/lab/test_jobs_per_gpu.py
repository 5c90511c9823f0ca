"""A job that shares its device: the same figures as one that doesn't, but for times."""

from __future__ import annotations

import math
from dataclasses import fields, replace

import pytest
import torch

import tiny
import tiny_worker
from peftmark.executors import process
from peftmark.executors.contract import Order, needs_of
from peftmark.executors.launch import Launcher
from peftmark.executors.local import run_jobs
from peftmark.executors.slots import Slot
from peftmark.lab import recipe, train
from peftmark.lab.measure import meters
from peftmark.lab.measure.meters import Meters
from peftmark.lab.train import _phases
from peftmark.machine.shared_device import SharedDevice
from peftmark.record.fields import FIELDS
from peftmark.record.outcome import Outcome
from peftmark.record.shared import (
    BESIDE,
    NEVER_ALONE,
    OF_ALONE,
    OF_STRETCH,
    STAGES,
    UNTIMED,
)
from peftmark.sources.assets import Places
from waiting import Clock

GIB = 2**30
CLOCKED = {*OF_ALONE, *NEVER_ALONE}
OF_PROCESS = {"vmhwm_bytes", "vmhwm_train_bytes", "rss_before_train_bytes"}
"""Of the process that runs the tests, or of the machine: another value each time."""
OTHERS = {"timed_alone", "timed_steps", "null_reasons", "energy_flags", "jobs_on_gpu",
          "start_seconds"}  # fmt: skip


@pytest.fixture
def places(tmp_path, monkeypatch):
    tiny.install(tmp_path / "mirror", monkeypatch)
    return Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")


@pytest.fixture
def run(places, tmp_path):
    """Run a job in this process; on a device of its own, or on one that is shared."""

    def start(job, timed=None):
        if timed is None:
            return recipe.run(job, places, lambda message: None)
        with SharedDevice(tmp_path / "x.lock", timed) as turns:
            return recipe.run(job, places, lambda message: None, None, turns)

    return start


def but_times(outcome):
    """Every column that no clock and no process decides."""
    kept = {f.name for f in fields(Outcome)} - CLOCKED - OF_PROCESS - OTHERS
    found = {name: getattr(outcome, name) for name in kept}
    return found | {"curve": [replace(point, seconds=0.0) for point in outcome.curve]}


def reasons_but_of_times(outcome):
    return {name: why for name, why in outcome.null_reasons.items() if name not in CLOCKED}


@pytest.mark.slow
def test_a_job_that_shares_has_the_same_figures_but_times_which_are_of_a_stretch(
    run, monkeypatch, unpredicted
):
    monkeypatch.setattr(train, "TIMED_STEPS", 12)
    job = tiny.job("lora", steps=20, eval_every=10)  # of the timed ones 6 and 6
    own, shared = run(job), run(job, timed=True)
    assert but_times(own) == but_times(shared)
    assert own.final_weights_hash and own.live_bytes and own.metric_value is not None
    assert (own.timed_steps, shared.timed_steps) == (16, 12)
    assert (own.timed_alone, shared.timed_alone) == (None, True)
    for name in OF_ALONE:
        if name not in own.null_reasons:
            assert getattr(shared, name) is not None, name
    assert shared.samples_per_second == pytest.approx(
        shared.timed_steps * job.recipe.batch_size / shared.train_seconds
    )
    assert all(math.isnan(point.seconds) for point in shared.curve)
    assert (shared.eval_seconds, shared.phase_seconds) == (None, {})
    assert {shared.null_reasons[name] for name in ("eval_seconds", "phase_seconds")} == {BESIDE}
    told = reasons_but_of_times(own)
    assert told.pop("timed_alone") == "the job ran on the CPU"
    assert reasons_but_of_times(shared) == told
    assert Outcome.from_json(shared.to_json()).phase_seconds == {}


@pytest.mark.parametrize("purpose", ["report", "tuning"])
def test_one_that_is_not_timed_tells_no_time(run, purpose, unpredicted):
    rows = 20 if purpose == "tuning" else 0
    job = tiny.job("lora", purpose=purpose, selection_rows=rows)
    own, shared = run(job), run(job, timed=False)
    assert but_times(own) == but_times(shared)
    assert (shared.timed_alone, shared.timed_steps) == (False, 0)
    for name in CLOCKED:
        assert not getattr(shared, name), name
        was_null = None if name.startswith("energy") else own.null_reasons.get(name)
        why = BESIDE if name in NEVER_ALONE else UNTIMED
        assert shared.null_reasons[name] == (was_null or why)
    numbers = {f.key for f in FIELDS.values() if f.unit == "seconds" and hasattr(shared, f.key)}
    assert not any(getattr(shared, key) for key in numbers), "another column with a time in it"


def test_a_method_in_two_stages_tells_no_time_of_its_steps(run, unpredicted):
    job = tiny.job("two-stage", steps=20)
    shared = run(job, timed=True)
    assert shared.status == "ok"
    assert {shared.null_reasons[name] for name in OF_STRETCH if name.startswith("step")} == {STAGES}
    assert shared.train_seconds is None and shared.timed_alone is False
    assert shared.latency_p50_seconds is not None


@pytest.mark.parametrize(
    ("first", "last", "timed", "found"),
    [
        (1, 20, 99, {"warm_up": (1, 5), "train": (6, 20)}),
        (1, 20, 10, {"warm_up": (1, 5), "train": (6, 15), "beside": (16, 20)}),
        (11, 20, 10, {"train": (11, 15), "beside": (16, 20)}),
        (16, 20, 10, {"beside": (16, 20)}),
        (1, 20, 0, {"warm_up": (1, 5), "beside": (6, 20)}),
        (1, 3, 10, {"warm_up": (1, 3)}),
    ],
)
def test_the_timed_steps_follow_the_warm_up(first, last, timed, found):
    phases = _phases(first, last, 5, timed)
    assert {name: (steps[0], steps[-1]) for name, steps in phases} == found


class Waits:
    """A shared device that has others wait for it by a clock."""

    shared = timed = True

    def __init__(self, clock):
        self.clock, self.told, self.pauses = clock, [], 0
        self._plain = SharedDevice()

    def pause(self):
        self.clock.now += 100.0
        self.pauses += 1

    def alone(self):
        self.clock.now += 1000.0
        self.told.append("alone")
        return self._plain.alone()


def test_waiting_for_others_is_in_no_time(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(meters, "time", clock)
    clock.process_time = lambda: clock.now
    turns = Waits(clock)
    found = Meters(torch.device("cpu"), turns)

    def steps(phase):
        with found.phase(phase):
            for _ in range(3):
                clock.now += 2.0
                found.step()

    steps("train")
    steps("train")
    assert turns.told == ["alone", "alone"]
    assert found.step_seconds() == [2.0] * 6
    assert (found.seconds["train"], found.cpu_seconds) == (12.0, 12.0)
    before = turns.pauses
    steps("beside")
    assert turns.pauses - before == 4, "before the phase, and after every step"
    assert found.step_seconds() == [2.0] * 6


# --- real workers -------------------------------------------------------------------------------


@pytest.mark.slow
def test_rows_of_workers_that_share_a_device_are_those_of_others_but_for_times(
    tmp_path, monkeypatch
):
    tiny.install(tmp_path / "mirror", monkeypatch)
    tasks = {"tiny-class": "tiny-class", "tiny-score": "tiny-score"}
    tiny_worker.name_as(tmp_path / "mirror", monkeypatch, "minilm-l6", **tasks)
    monkeypatch.setattr(process, "WORKER", "tiny_worker:main")
    # There is no CUDA that a fork could harm, and torch is loaded once.
    monkeypatch.setattr(process, "Launcher", lambda gpu, preload: Launcher(False, preload))
    cells = (("lora", "none", 0), ("lora", "nf4", 0), ("lora", "none", 1))
    jobs = [
        replace(tiny.job(method, quantization, seed=seed, steps=70), model="minilm-l6")
        for method, quantization, seed in cells
    ]

    def rows(name, slots):
        order = Order(
            jobs=[(job, 1) for job in jobs],
            places=Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache"),
            logs=tmp_path / name / "logs",
            retries=0,
            worker="tiny_worker:main",
            on_device={needs_of(job): 20 * GIB for job in jobs},
            untimed=frozenset(job.job_id for job in jobs if job.seed),
        )
        return {one.job.job_id: one.outcome for one in run_jobs(order, slots)}

    own = rows("own", [Slot("GPU-of-nobody")])
    place = Slot("GPU-of-nobody", on_device=3, memory=80 * GIB)
    shared = rows("shared", [place] * 3)
    assert {one.status for one in (*own.values(), *shared.values())} == {"ok"}
    for job in jobs:
        one, other = own[job.job_id], shared[job.job_id]
        assert but_times(one) == but_times(other)
        assert (one.jobs_on_gpu, other.jobs_on_gpu) == (1, 3)
        assert other.timed_alone is (job.seed == 0)
        assert (other.step_seconds_p50 is not None) is (job.seed == 0)

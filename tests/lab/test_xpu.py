"""A job on a GPU that torch calls `xpu`, by stand-ins for its calls: the row, nulls and reasons.

Tensors are on the CPU; what is made up is that `xpu` names it, and what `torch.xpu` says.
"""

from __future__ import annotations

import dataclasses
from itertools import count
from types import SimpleNamespace

import pytest
import torch

import tiny
from peftmark.executors.in_turn import TRIALS_PER_PROCESS, most_jobs
from peftmark.lab import recipe, worker
from peftmark.lab.afresh import Afresh
from peftmark.lab.determinism import ask_for_same_bits
from peftmark.lab.measure import meters
from peftmark.lab.measure.meters import Meters
from peftmark.machine.visible import VARIABLE
from peftmark.machine.xpu import XPU
from peftmark.record.job import Job

REAL = torch.device
GPU = torch.device("xpu")


class Named(type):
    """Makes `torch.device("xpu")` the CPU."""

    def __call__(cls, *given):
        return REAL("cpu") if given == ("xpu",) else REAL(*given)

    def __instancecheck__(cls, other):
        return isinstance(other, REAL)


class Device(metaclass=Named):
    """Stands for the type `torch.device`."""


@pytest.fixture
def xpu(monkeypatch):
    """What torch would say of one of Intel's GPUs, and what it was asked to do."""

    ticks = count()

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = next(ticks)

        def elapsed_time(self, other):
            return 1000.0 * (other.at - self.at)

    made = SimpleNamespace(waited=0, resets=0, bf16=True)

    def wait(device):
        assert device == GPU
        made.waited += 1

    def reset(device):
        made.resets += 1

    for name, value in {
        "Event": Event,
        "synchronize": wait,
        "reset_peak_memory_stats": reset,
        "max_memory_allocated": lambda device: 3_000_000,
        "max_memory_reserved": lambda device: 4_000_000,
        "is_bf16_supported": lambda including_emulation: made.bf16,
        "get_device_name": lambda device: "Example GPU",
    }.items():
        monkeypatch.setattr(torch.xpu, name, value)
    monkeypatch.setenv(VARIABLE, "")
    return made


@pytest.fixture
def on_xpu(xpu, monkeypatch):
    """A job's device is the one that the stand-ins are of, and its tensors are on the CPU."""
    monkeypatch.setattr(torch, "device", Device)
    monkeypatch.setattr(recipe, "Meters", lambda device, turns: Meters(GPU, turns))
    yield xpu
    torch.use_deterministic_algorithms(False)


def ran(places, **recipe_of):
    job = dataclasses.replace(tiny.job("lora", steps=8), device="xpu")
    job = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, **recipe_of))
    return recipe.run(job, places, lambda message: None)


def test_a_job_has_torchs_peak_and_reasons_for_what_is_not_metered(places, on_xpu):
    done = ran(places, optimizer="paged_adamw_8bit")
    assert done.status == "ok"
    assert (done.torch_allocated_bytes, done.torch_reserved_bytes) == (3_000_000, 4_000_000)
    assert (done.peak_memory_bytes, done.peak_memory_source) == (
        3_000_000,
        "torch_allocated_bytes",
    )
    assert done.step_seconds_p50 > 0
    assert done.live_bytes > 0, "followed storages are of any device"
    assert done.energy_gpu_joules is None
    assert done.null_reasons["energy_gpu_joules"] == XPU.unmetered
    assert (done.predicted_live_bytes, done.prediction_error) == (None, None)
    assert done.null_reasons["predicted_live_bytes"] == XPU.unpredicted
    assert done.timed_alone is True
    assert done.optimizer == "torch AdamW"
    assert f"plain AdamW ran: {XPU.plain_adamw}" in done.warnings
    assert on_xpu.waited > 10, "the clock is read after the device is done"
    assert on_xpu.resets >= 2, "before the warm-up and before the timed steps"
    reasons = [name for name, why in done.null_reasons.items() if why == "the job ran on the CPU"]
    assert reasons == []


def test_a_gpu_without_bf16_refuses_it(xpu):
    job = tiny.job("lora")
    low = dataclasses.replace(job, recipe=dataclasses.replace(job.recipe, precision="bf16"))
    assert recipe._slow_precision(low, GPU) == []
    xpu.bf16 = False
    with pytest.raises(recipe.Unsupported, match="no bf16 arithmetic"):
        recipe._slow_precision(low, GPU)


def test_operations_that_repeat_themselves_are_asked_for():
    try:
        ask_for_same_bits(GPU)
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)


def test_a_process_takes_one_job(xpu):
    before = Afresh()
    job = dataclasses.replace(tiny.job("lora"), device="xpu", purpose="tuning")
    assert most_jobs(job, gpu=True, given=None) == TRIALS_PER_PROCESS
    assert before.again(job) == "what a job leaves on xpu is not looked for"


def test_a_worker_hides_the_gpus_of_other_makers_alone(monkeypatch):
    monkeypatch.setenv(VARIABLE, "GPU-1")
    monkeypatch.setenv("ZE_AFFINITY_MASK", "1")
    job: Job = tiny.job("lora")
    seen = {}
    for device, name in (("cuda", "GPU-2"), ("xpu", "xpu:0")):
        worker._see_only(dataclasses.replace(job, device=device).to_json(), name)
        seen[device] = meters.os.environ[VARIABLE]
    assert seen == {"cuda": "GPU-2", "xpu": ""}
    assert meters.os.environ["ZE_AFFINITY_MASK"] == "1"

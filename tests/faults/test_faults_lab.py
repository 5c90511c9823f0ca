"""Faults of training, as docs/faults.md numbers them, met by the real worker on a tiny model."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from functools import partial

import pytest
import torch
from peft import import_utils
from safetensors import SafetensorError

import tiny
from peftmark.core.errors import UserError
from peftmark.lab import recipe, step, train, worker
from peftmark.lab.cache import keep
from peftmark.lab.errors import Unsupported
from peftmark.lab.measure import meters
from peftmark.lab.worker import classify
from peftmark.sources.assets import Places
from waiting import PATIENCE

# SHA-256 of the identity in these tests, as `keep` names its folders
LOCK = ".f9d86028c6e0d64e225186f96acb6933.lock"
CUDA_TEXT = (
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB of "
    "which 1.12 GiB is free. Including non-PyTorch memory, this process has 22.51 GiB in use."
)


@pytest.fixture
def guarded(tmp_path, monkeypatch, capfd):
    """Run a tiny job as the worker does; returns its outcome and what it told before."""
    tiny.install(tmp_path / "mirror", monkeypatch)
    places = Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")
    monkeypatch.setattr(worker, "_places", lambda text: places)

    def run(job):
        told = []
        return worker._guarded(job, "{}", told.append), told

    return run


# --- 1, 2: memory of the device -----------------------------------------------------------------


def failing(call, at):
    """The function with torch's error for a full device in place of its call number `at`."""
    calls = []

    def wrapped(*arguments, **options):
        calls.append(1)
        if len(calls) == at:
            raise torch.OutOfMemoryError(CUDA_TEXT)
        return call(*arguments, **options)

    return wrapped


@pytest.mark.slow
@pytest.mark.parametrize(
    ("where", "name", "at", "steps"),
    [
        pytest.param(recipe.Build, "prepare", 1, [], marks=pytest.mark.slow),
        pytest.param(step.Step, "__call__", 1, [], marks=pytest.mark.slow),
        (step.Step, "__call__", 9, [2, 6, 6]),
        pytest.param(train, "evaluate", 1, [2, 6], marks=pytest.mark.slow),
        pytest.param(train, "evaluate", 2, [2, 6, 6, 10, 12], marks=pytest.mark.slow),
    ],
    ids=["before any step", "first step", "midway", "first evaluation", "last evaluation"],
)
def test_a_full_device_has_a_row_wherever_it_fills(guarded, monkeypatch, where, name, at, steps):
    monkeypatch.setattr(where, name, failing(getattr(where, name), at))
    outcome, told = guarded(tiny.job())
    assert outcome.status == "out_of_memory"
    assert "Tried to allocate 2.00 GiB" in outcome.status_reason
    assert "1.12 GiB is free" in outcome.status_reason
    assert [message["step"] for message in told if "step" in message] == steps
    again, _ = guarded(tiny.job())
    assert again.status == "ok", "only the one call was to fail"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError(CUDA_TEXT),
        RuntimeError(CUDA_TEXT),
        RuntimeError("CUDA error: out of memory"),
        torch.AcceleratorError("CUDA error: out of memory\nCUDA kernel errors might be ..."),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError(
            'NVML_SUCCESS == r INTERNAL ASSERT FAILED at "CUDACachingAllocator.cpp":1016, please '
            "report a bug to PyTorch."
        ),
        RuntimeError("Error out of memory at line 380 in file /src/csrc/ops.cu"),
        RuntimeError("[enforce fail ...] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes."),
        RuntimeError("could not create a primitive"),
        RuntimeError("could not create a primitive. Run workload with ONEDNN_VERBOSE=all"),
        RuntimeError("unable to mmap 8 bytes from file <a>: Cannot allocate memory (12)"),
        ImportError("libx.so: failed to map segment: cannot allocate memory"),
        RuntimeError("std::bad_alloc"),
        RuntimeError("HIP out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("HIP error: hipErrorOutOfMemory"),
        RuntimeError("CUDA driver error: CUDA_ERROR_OUT_OF_MEMORY"),
        RuntimeError("cudaErrorMemoryAllocation in pin_memory"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("rocblas_status_memory_error"),
        RuntimeError("nvmlDeviceGetHandleByIndex: NVML_ERROR_MEMORY"),
        RuntimeError("Unable to allocate 3.2 GiB for an array with shape (4, 8)"),
        SafetensorError("Error while reading: Cannot allocate memory (os error 12)"),
        MemoryError(),
    ],
)
def test_every_disguise_of_a_full_memory_is_known(error):
    assert classify(error)[0] == "out_of_memory"


def test_memory_that_the_kernel_refuses_is_known():
    error = OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
    assert classify(error)[0] == "out_of_memory"


@pytest.mark.parametrize("cause", [MemoryError(), RuntimeError(CUDA_TEXT)])
@pytest.mark.parametrize("kind", [Unsupported, RuntimeError, partial(UserError, remedy="Mend it.")])
def test_a_full_memory_that_another_error_reports_is_known(kind, cause):
    error = kind("LoRA can't be made")
    error.__cause__ = cause
    assert classify(error)[0] == "out_of_memory"
    told = classify(kind("LoRA can't be made"))[0]
    assert told == ("unsupported" if kind is Unsupported else "crashed")


def test_what_a_user_can_mend_is_told_in_two_sentences():
    told = classify(UserError("metric a:b returned nan", "It has to return a finite number."))
    assert told == ("crashed", "metric a:b returned nan. It has to return a finite number.")


@pytest.mark.parametrize(
    "text",
    [
        "CUDA error: device-side assert triggered",
        "CUDA error: an illegal memory access",
        "memory",
        "could not create a primitive descriptor for the matmul primitive. Run workload with ...",
        "could not create a primitive descriptor for a convolution forward propagation primitive",
        "could not create a primitive for a gated mlp primitive",
        "could not create primitive attribute",
        "could not execute a primitive",
        "libgomp.so.1: cannot allocate memory in static TLS block",
        "unable to mmap 8 bytes from file <a>: Invalid argument (22)",
        "out of resource: shared memory, Required: 131072, Hardware limit: 101376",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "CUDA error: too many resources requested for launch",
    ],
)
def test_other_faults_are_no_full_memory(text):
    assert classify(RuntimeError(text))[0] == "crashed"


@pytest.mark.parametrize("kind", [ValueError, KeyError, TypeError, UserError])
def test_an_error_that_may_quote_a_row_is_no_full_memory(kind):
    assert classify(kind("'the device is out of memory' is no label"))[0] == "crashed"


# --- 5, 10: what jobs keep for each other in the cache ------------------------------------------


def test_a_cache_without_room_for_a_base_is_gone_without(tmp_path):
    def make(folder):
        raise SafetensorError("Error while serializing: I/O error: No space left on device")

    assert keep(tmp_path, "bases", {"a": 1}, make) is None
    assert [path.name for path in (tmp_path / "bases").iterdir()] == [LOCK]


KILLED = """
import os, signal, sys
from pathlib import Path
from peftmark.lab.cache import keep

def make(folder):
    (folder / "weights").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)

keep(Path(sys.argv[1]), "bases", {"a": 1}, make)
"""


def test_what_a_worker_killed_while_making_left_is_gone_after_the_next(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False, timeout=PATIENCE)
    assert done.returncode == -signal.SIGKILL
    kept = keep(tmp_path, "bases", {"a": 1}, lambda folder: {})
    assert {path.name for path in (tmp_path / "bases").iterdir()} == {LOCK, kept.folder.name}


# --- 9: numbers that are none -------------------------------------------------------------------


def test_a_batch_that_makes_the_loss_nan_ends_the_job_at_its_step(guarded, monkeypatch):
    call = step.Step.__call__

    def poisoned(self, number, batch):
        taken = call(self, number, batch)
        if number != 8:
            return taken
        return step.Taken(taken.loss * float("nan"), taken.penalty, taken.norm)

    monkeypatch.setattr(step.Step, "__call__", poisoned)
    outcome, told = guarded(tiny.job(steps=40))
    assert outcome.status == "diverged"
    assert outcome.status_reason.startswith("the training loss was nan by step 10")
    assert max(message.get("step", 0) for message in told) == 6, "the rest is not trained"
    assert outcome.target_reached is None


def test_a_learning_rate_far_too_high_ends_as_diverged(guarded):
    outcome, _ = guarded(tiny.job(learning_rate=1e30, max_grad_norm=1e30))
    assert outcome.status == "diverged"
    assert "by step 2" in outcome.status_reason


def test_a_diverged_job_tells_its_last_finite_loss(guarded):
    outcome, _ = guarded(tiny.job(learning_rate=1e30, max_grad_norm=1e30))
    assert "last finite loss" in outcome.status_reason


# --- 17: counters that go backwards -------------------------------------------------------------


class Falling:
    """An energy counter whose driver is loaded again between two readings."""

    def __init__(self, uuid=None):
        self.readings = iter([(9000.0, ""), (5.0, "")])

    def read(self):
        return next(self.readings)


def test_an_energy_counter_that_goes_backwards_is_a_null_with_a_reason(monkeypatch):
    monkeypatch.setattr(meters, "SHORTEST_SECONDS", 0.0)
    monkeypatch.setattr(meters.nvml, "EnergyCounter", Falling)
    monkeypatch.setattr(meters.nvml, "contention", lambda uuid, pid: None)
    found = meters.Meters(torch.device("cpu"))
    found._counters["gpu"] = meters._Difference(Falling())
    found._joules["gpu"] = meters.Reading(0.0)
    with found.phase("train"):
        found.step()
    gpu, _, _ = found.energy()
    assert gpu.value is None
    assert "backwards" in gpu.reason


# --- 27: a library that is not there ------------------------------------------------------------


@pytest.fixture
def no_bitsandbytes(monkeypatch):
    """A Python without the optional library."""
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    import_utils.is_bnb_available.cache_clear()
    import_utils.is_bnb_4bit_available.cache_clear()
    yield
    import_utils.is_bnb_available.cache_clear()
    import_utils.is_bnb_4bit_available.cache_clear()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("quantization", "status", "reason"),
    [
        ("nf4", "unsupported", "bitsandbytes can't be loaded: import of bitsandbytes"),
        ("none", "ok", ""),
    ],
)
def test_a_cell_whose_library_is_missing_is_unsupported_and_others_run(
    guarded, no_bitsandbytes, quantization, status, reason
):
    outcome, _ = guarded(tiny.job(quantization=quantization))
    assert outcome.status == status
    assert outcome.status_reason.startswith(reason)

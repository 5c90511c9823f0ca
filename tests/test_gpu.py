"""What only a CUDA device can confirm: `make test-gpu`."""

from __future__ import annotations

import os
import time
from dataclasses import replace

import pytest
import tiny
import torch
from factory import make_job, make_recipe

from bench import nvml
from bench.assets import Places
from bench.lab import recipe

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


@pytest.fixture
def places(tmp_path, monkeypatch):
    tiny.install(tmp_path / "mirror", monkeypatch)
    return Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")


def job(quantization="none", **changes):
    settings = replace(make_recipe(), targets="all-linear", alpha=8.0, dropout=0.1)
    if quantization == "nf4":
        settings = replace(settings, double_quantization=True)
    base = make_job(
        task="tiny-class", metric="accuracy", rank=2, quantization=quantization, device="cuda",
        recipe=settings,
    )  # fmt: skip
    return tiny.tiny_job(base, **changes)


def silent(message):
    return None


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
@pytest.mark.parametrize("optimizer", ["adamw", "paged_adamw_8bit"])
def test_cells_train_on_the_device_and_say_what_measured_memory(places, quantization, optimizer):
    done = recipe.run(job(quantization, optimizer=optimizer), places, silent)
    assert done.status == "ok"
    assert done.peak_memory_source == "torch_allocated_bytes"
    assert 0 < done.peak_memory_bytes < 2**30


def test_every_cell_draws_the_same_head(places):
    from bench.catalog import MODELS
    from bench.lab.models import anatomy, load_model
    from bench.tasks import TASKS

    folder = places.mirror / "models" / MODELS["tiny"].key
    heads = [
        load_model(folder, job(q), TASKS["tiny-class"], anatomy(folder, 2)).classifier.weight
        for q in ("none", "nf4", "int8")
    ]
    assert all(torch.equal(head, heads[0]) for head in heads)


def test_same_job_same_bits(places):
    one, two = (recipe.run(job(), places, silent) for _ in range(2))
    assert [(p.loss, p.metric) for p in one.curve] == [(p.loss, p.metric) for p in two.curve]


@pytest.fixture
def uuid():
    """The device that torch uses here."""
    found = nvml.devices()
    assert found.found and found.driver
    mine = str(torch.cuda.get_device_properties(0).uuid)
    return next(gpu.uuid for gpu in found.found if gpu.uuid.endswith(mine))


def busy(seconds, dtype=torch.float32, size=2048):
    """Multiply matrices for at least this long; returns seconds a product."""
    block = torch.randn(size, size, dtype=dtype, device="cuda")
    block @ block
    torch.cuda.synchronize()
    products, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(20):
            block @ block
        products += 20
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / products


def test_the_energy_counter_rises_with_work(uuid):
    counter = nvml.EnergyCounter(uuid)
    start, reason = counter.read()
    if start is None:
        pytest.skip(reason)
    busy(1.0)
    end, _ = counter.read()
    counter.close()
    assert 1 < end - start < 3000, "between a watt and three kilowatts"


def test_nvml_sees_the_memory_of_the_device_and_of_the_process(uuid):
    torch.cuda.empty_cache()
    with nvml.DeviceMeter(uuid, period_seconds=0.02) as meter:
        meter.pid = os.getpid()
        block = torch.empty(256 * 2**20, dtype=torch.uint8, device="cuda")
        busy(0.5)
    assert meter.device_bytes >= block.numel()
    if meter.process_bytes is None:
        assert meter.reason.startswith("process memory: ")
    else:
        assert meter.process_bytes >= block.numel()


def test_what_torch_counts_lies_within_what_nvml_counts(places, uuid):
    torch.cuda.empty_cache()
    before = torch.cuda.memory_reserved()
    with nvml.DeviceMeter(uuid, period_seconds=0.005) as meter:
        meter.pid = os.getpid()
        done = recipe.run(job(), places, silent)
    assert done.status == "ok"
    assert 0 < done.torch_allocated_bytes <= done.torch_reserved_bytes
    assert done.torch_reserved_bytes <= meter.device_bytes + before + 64 * 2**20


@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0),
    reason="no bf16 tensor cores before compute capability 8.0",
)
def test_bf16_takes_the_fast_path():
    assert busy(0.5, torch.bfloat16, 4096) < busy(0.5, torch.float32, 4096) / 2

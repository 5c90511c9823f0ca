"""What only a CUDA device can confirm: `make test-gpu`."""

from __future__ import annotations

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
    assert done.peak_memory_source == "torch max_memory_allocated, training"
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


def test_nvml_sees_the_device_and_its_memory_rise():
    found = nvml.devices()
    assert found.found and found.driver
    with nvml.PeakMemory(found.found[0].uuid, period_seconds=0.02) as meter:
        limit = time.monotonic() + 30
        while meter.peak_bytes is None and time.monotonic() < limit:
            pass  # until the idle reading stands
        block = torch.empty(256 * 2**20, dtype=torch.uint8, device="cuda")
        while (meter.peak_bytes or 0) < block.numel() and time.monotonic() < limit:
            torch.cuda.synchronize()
    assert meter.peak_bytes >= block.numel()

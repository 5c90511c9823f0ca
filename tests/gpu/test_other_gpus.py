"""What only a GPU of Intel or of AMD can confirm: `make test-gpu`, with torch built for it."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import tiny
import tiny_worker
from peftmark.executors.contract import Order
from peftmark.executors.local import run_jobs
from peftmark.executors.select import HERE, choose
from peftmark.machine import nvml
from peftmark.machine.accelerators import here
from peftmark.sources.assets import Places

MODEL = "minilm-l6"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.filterwarnings("ignore:.*does not have a deterministic implementation"),
]
INTEL = pytest.mark.skipif(not torch.xpu.is_available(), reason="no GPU of Intel's")
AMD = pytest.mark.skipif(
    torch.version.hip is None or not torch.cuda.is_available(), reason="no GPU of AMD's"
)
DEVICES = [pytest.param("xpu", marks=INTEL), pytest.param("cuda", marks=AMD)]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a job in a worker on the first of the venue's places; returns how it ended."""
    mirror = tmp_path / "mirror"
    tiny.install(mirror, monkeypatch)
    tiny_worker.name_as(mirror, monkeypatch, MODEL, **{"tiny-class": "tiny-class"})

    def start(device, quantization="none", seed=0, **recipe):
        asked = tiny.job("lora", quantization, steps=40, **recipe)
        job = replace(asked, model=MODEL, device=device, seed=seed)
        order = Order(
            jobs=[(job, 1)],
            places=Places(mirror, ("mirror",), tmp_path / "cache"),
            logs=tmp_path / "logs",
            retries=0,
            worker="tiny_worker:main",
            seconds_limit=240,
        )
        [done] = run_jobs(order, choose(HERE, 1).slots)
        return done

    return start


@pytest.mark.parametrize("device", DEVICES)
def test_the_gpu_is_found_with_its_memory_and_driver(device):
    found = nvml.devices()
    assert found.device == choose(HERE, None).device == device
    assert found.driver and found.found[0].memory_bytes


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("quantization", ["none", "nf4", "fp4", "int8"])
def test_cells_learn_there_and_their_rows_say_what_is_not_metered(
    run, device, quantization, precision
):
    done = run(device, quantization, precision=precision)
    outcome = done.outcome
    assert (outcome.status, outcome.status_reason) == ("ok", "")
    assert outcome.metric_value > outcome.baseline_value + 0.1
    assert outcome.peak_memory_source == "torch_allocated_bytes"
    assert outcome.peak_memory_bytes > 0
    assert outcome.step_seconds_p50 > 0
    assert outcome.null_reasons["energy_gpu_joules"] == here().unmetered
    assert (done.nvml_process_bytes, done.nvml_reason) == (None, here().unmetered)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
def test_a_job_again_has_the_same_bits(run, device, quantization):
    first, again = run(device, quantization).outcome, run(device, quantization).outcome
    assert first.final_weights_hash == again.final_weights_hash
    assert [p.loss for p in first.curve] == [p.loss for p in again.curve]


@AMD
@pytest.mark.parametrize("optimizer", ["paged_adamw", "paged_adamw_8bit"])
def test_bitsandbytes_optimizers_train_on_amds(run, optimizer):
    outcome = run("cuda", optimizer=optimizer).outcome
    assert outcome.status == "ok"
    assert outcome.optimizer.startswith("bitsandbytes")

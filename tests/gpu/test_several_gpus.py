"""What only two GPUs can show: one job on both, by NCCL (`make test-gpu`)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import transformers
from safetensors.torch import load_file

import tiny
import tiny_worker
from peftmark.executors.beside import SEVERAL
from peftmark.executors.contract import Order
from peftmark.executors.local import run_jobs
from peftmark.executors.slots import Slot
from peftmark.machine import nvml
from peftmark.sources.assets import Places

MODEL = "minilm-l6"

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA devices"),
]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a job on its GPUs; returns how it ended and what it kept."""
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    config = transformers.BertConfig(**tiny.SMALL | still | {"num_hidden_layers": 12})
    monkeypatch.setitem(tiny.CONFIGS, "bert", lambda: config)
    mirror = tmp_path / "mirror"
    tiny.install(mirror, monkeypatch)
    tiny_worker.name_as(mirror, monkeypatch, MODEL, **{"tiny-class": "tiny-class"})
    uuids = [gpu.uuid for gpu in nvml.devices().found]

    def start(devices, worker="team_worker:main", device="cuda", **changes):
        asked = tiny.job("lora", dropout=0.0, devices=devices, **changes)
        job = replace(asked, model=MODEL, device=device)
        order = Order(
            jobs=[(job, 1)],
            places=Places(mirror, ("mirror",), tmp_path / "cache"),
            logs=tmp_path / "logs",
            retries=0,
            worker=worker,
            seconds_limit=240,
            outbox=tmp_path / "kept",
            keep=frozenset([job.job_id]),
        )
        slots = [Slot(uuid) for uuid in uuids[:devices]] if device == "cuda" else [Slot()]
        [done] = run_jobs(order, slots)
        return done, tmp_path / "kept" / f"{job.job_id}.1" / "adapter_model.safetensors"

    return start


def test_several_gpus_give_what_one_gives(run):
    (one, its), (two, theirs) = run(1), run(2)
    assert (one.outcome.status, two.outcome.status) == ("ok", "ok"), two.outcome.status_reason
    for mine, other in zip(one.outcome.curve, two.outcome.curve, strict=True):
        assert other.loss == pytest.approx(mine.loss, abs=1e-5)
    shared = load_file(theirs)
    for name, tensor in load_file(its).items():
        torch.testing.assert_close(shared[name], tensor, rtol=0, atol=1e-5)
    assert two.outcome.summed_peak_bytes > two.outcome.torch_allocated_bytes > 0
    assert two.nvml_process_bytes is None and two.nvml_reason == SEVERAL


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_base_sharded_over_several_gpus_gives_what_a_processor_gives(run, quantization):
    """Its head and adapter are drawn on the CPU, as that job's are."""
    one, its = run(1, device="cpu", quantization=quantization)
    two, theirs = run(2, shard=True, quantization=quantization)
    assert (one.outcome.status, two.outcome.status) == ("ok", "ok"), two.outcome.status_reason
    assert two.outcome.initial_weights_hash == one.outcome.initial_weights_hash
    for mine, other in zip(one.outcome.curve, two.outcome.curve, strict=True):
        assert other.loss == pytest.approx(mine.loss, abs=1e-3)
    shared = load_file(theirs)
    for name, tensor in load_file(its).items():
        torch.testing.assert_close(shared[name], tensor, rtol=0, atol=1e-3)
    if quantization == "none":  # four-bit layers of this size hardly fill an allocator's block
        whole, _ = run(2)
        assert 0 < two.outcome.torch_allocated_bytes < whole.outcome.torch_allocated_bytes


def test_a_killed_process_of_several_gpus_ends_the_job(run):
    done, _ = run(2, "team_worker:member_dies")
    assert done.outcome.status == "crashed"
    assert done.outcome.status_reason.startswith("process 2 of 2 was killed by SIGKILL")

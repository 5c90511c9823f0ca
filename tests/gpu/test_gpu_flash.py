"""FlashAttention-2 by its own package on a CUDA device, beside torch's attention."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import tiny
import tiny_causal
from peftmark.executors.launch import WORKER_ENVIRONMENT
from peftmark.lab import recipe
from peftmark.sources.assets import Places

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture
def places(tmp_path, monkeypatch):
    pytest.importorskip("flash_attn", reason="flash-attn is not installed")
    name = "FLASH_ATTENTION_DETERMINISTIC"
    monkeypatch.setenv(name, WORKER_ENVIRONMENT[name])
    tiny_causal.install(tmp_path / "mirror", monkeypatch)
    return Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")


def job(attention):
    settings = {"dropout": 0.0, "precision": "bf16", "attention": attention}
    return replace(tiny_causal.job("lora", "tiny-answer", **settings), device="cuda")


def test_loss_and_gradients_are_near_those_of_torchs_attention(places):
    found = [tiny.loss_and_gradient(places, job(asked)) for asked in ("sdpa", "flash")]
    assert found[1] == pytest.approx(found[0], rel=1e-2)


def test_a_job_is_ok_repeats_itself_and_says_what_it_lacks(places):
    done, again = (recipe.run(job("flash"), places, lambda _: None) for _ in range(2))
    assert done.status == "ok"
    assert done.final_weights_hash == again.final_weights_hash
    assert done.predicted_live_bytes is None and done.flops_per_step is None
    assert "not counted" in done.null_reasons["flops_per_step"]

"""Liger's kernels on a CUDA device: the logits, loss and gradients of torch's own layers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import tiny
import tiny_causal
from peftmark.lab import recipe
from peftmark.sources.assets import Places

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture
def places(tmp_path, monkeypatch):
    pytest.importorskip("liger_kernel", reason="liger-kernel is not installed")
    tiny_causal.install(tmp_path / "mirror", monkeypatch)
    return Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")


def job(kernels, **changes):
    made = tiny_causal.job("lora", "tiny-answer", dropout=0.0, kernels=kernels, **changes)
    return replace(made, device="cuda")


@pytest.mark.parametrize("packing", [False, True])
def test_loss_and_gradients_are_those_of_torchs_layers(places, packing):
    # In this order: the library changes transformers' module.
    asked = [job(kernels, packing=packing) for kernels in (None, "liger")]
    found = [tiny.loss_and_gradient(places, one) for one in asked]
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_a_job_on_them_is_ok_and_says_what_it_lacks(places):
    done = recipe.run(job("liger"), places, lambda _: None)
    assert done.status == "ok"
    assert done.predicted_live_bytes is None
    assert "kernels of others" in done.null_reasons["predicted_live_bytes"]

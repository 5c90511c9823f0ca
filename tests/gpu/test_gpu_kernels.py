"""Liger's kernels on a CUDA device: the logits, loss and gradients of torch's own layers."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import tiny
import tiny_causal
from peftmark.lab import recipe
from peftmark.lab.data.job_data import task_of
from peftmark.lab.step import task_loss
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
    found = []
    for kernels in (None, "liger"):  # in this order: the library changes transformers' module
        asked = job(kernels, packing=packing)
        build = tiny.builder(places, asked)
        model = build.prepare(build.base()).model.cuda().train()
        batch = build.work.train(0).to(torch.device("cuda"))
        loss = task_loss(model, batch, task_of(asked), asked, torch.device("cuda"))
        loss.backward()
        grads = [p.grad.norm() for p in model.parameters() if p.grad is not None]
        found.append((float(loss.detach()), float(torch.stack(grads).norm())))
    assert found[1] == pytest.approx(found[0], rel=1e-3)


def test_a_job_on_them_is_ok_and_says_what_it_lacks(places):
    done = recipe.run(job("liger"), places, lambda _: None)
    assert done.status == "ok"
    assert done.predicted_live_bytes is None
    assert "kernels of others" in done.null_reasons["predicted_live_bytes"]

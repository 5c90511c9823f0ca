"""A checkpoint that is quantised already, on a CUDA device: a base like one quantised there."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import tiny
from lab.test_stored_base import store, stored_job
from peftmark.lab import recipe
from peftmark.sources.assets import Places

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture
def places(tmp_path, monkeypatch):
    tiny.install(tmp_path / "mirror", monkeypatch)
    return Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_job_on_it_is_that_of_the_weights_it_was_made_of(places, tmp_path, quantization):
    folder = store(places.mirror / "models" / "tiny", tmp_path / "mine", quantization, ["pooler"])
    plain = tiny.job(quantization=quantization, steps=4, precision="bf16")
    plain = replace(plain, device="cuda")
    done, known = (
        recipe.run(one, places, lambda _: None)
        for one in (stored_job(places, folder, plain), plain)
    )
    assert (done.status, known.status) == ("ok", "ok"), done.status_reason
    # Written on a CPU and packed there: its constants may differ in the last bit.
    assert done.metric_value == pytest.approx(known.metric_value, abs=0.05)
    assert done.total_parameters == known.total_parameters
    assert done.torch_allocated_bytes == pytest.approx(known.torch_allocated_bytes, rel=0.02)

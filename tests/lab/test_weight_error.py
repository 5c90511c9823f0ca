"""Errors of 4-bit types: by hand on small blocks, and the stored figures on packaged weights."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from peftmark.catalog.models import MODELS
from peftmark.claims.weight_errors import load_errors
from peftmark.lab.quantization.weight_error import (
    BLOCK,
    errors,
    levels_of,
    linear_weights,
    quantised,
)
from peftmark.sources.assets import Places, default_cache, model_files
from places import SUITES


def test_a_weight_becomes_the_nearest_level_times_the_largest_of_its_block():
    block = torch.zeros(BLOCK)
    block[:4] = torch.tensor([7.0, 3.4, -3.6, 0.4])
    kept = quantised(block, levels_of("int4"))
    assert kept[:5].tolist() == pytest.approx([7, 3, -4, 0, 0], abs=1e-5)


def test_blocks_have_constants_of_their_own_and_a_short_one_counts():
    weight = torch.zeros(2, BLOCK - 8)
    weight[0, 0], weight[1, -1] = 70.0, 7.0
    weight[1, -2] = 0.9
    kept = quantised(weight, levels_of("int4"))
    assert kept.shape == weight.shape
    assert kept[1, -2] == pytest.approx(1.0, abs=1e-5)  # beside 7, not beside 70
    assert not quantised(torch.zeros(3, 5), levels_of("nf4")).any()


def test_the_error_is_over_the_size_of_the_weights():
    block = torch.zeros(BLOCK)
    block[:2] = torch.tensor([7.0, 0.4])  # 0.4 becomes 0
    count, lost = errors([block, 10 * block], ["int4"])
    assert count == 2 * BLOCK
    assert lost["int4"] == pytest.approx((0.16 / 49.16) ** 0.5, rel=1e-5)


@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_it_is_what_bitsandbytes_makes_of_a_weight(kind):
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    packed, state = functional.quantize_4bit(weight, blocksize=BLOCK, quant_type=kind)
    theirs = functional.dequantize_4bit(packed, state)
    apart = (quantised(weight, levels_of(kind)) - theirs).abs() > 1e-4
    assert apart.float().mean() < 0.01  # values right between two levels


def test_the_matrices_of_the_layers_are_taken_and_nothing_else(tmp_path):
    names = ("embeddings.word", "encoder.layer.0.query.weight", "pooler.dense.weight")
    tensors = {name: torch.ones(2, 2) for name in names}
    tensors["encoder.layer.0.norm.weight"] = torch.ones(2)
    save_file(tensors, tmp_path / "m.safetensors")
    assert [w.shape for w in linear_weights(tmp_path / "m.safetensors")] == [(2, 2)]


@pytest.mark.real
def test_the_stored_figures_are_those_of_the_packaged_weights():
    stored = load_errors([SUITES])["minilm-l6"]
    folder = model_files(MODELS["minilm-l6"], Places(None, ("package",), default_cache())).path
    count, lost = errors(linear_weights(folder / "model.safetensors"), ["nf4", "fp4", "int4"])
    assert count == stored.weights
    assert lost == pytest.approx({k: stored.of(k) for k in ("nf4", "fp4", "int4")}, abs=6e-6)

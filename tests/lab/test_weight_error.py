"""Errors of 4-bit types: by hand on small blocks, and the stored figures on packaged weights."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import save_file

from peftmark.catalog.models import MODELS
from peftmark.claims.weight_errors import load_errors, load_file
from peftmark.docgen.data_types_page import KINDS, _fine_tuned, _job, _moved
from peftmark.lab.quantization.weight_error import (
    BLOCK,
    doubly,
    errors,
    largest_of,
    levels_of,
    linear_weights,
    quantised,
)
from peftmark.sources.assets import Places, default_cache, model_files
from places import ROOT, SUITES


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
    found = errors([block, 10 * block], ["int4"])
    assert found.count == 2 * BLOCK
    assert found.relative["int4"] == pytest.approx((0.16 / 49.16) ** 0.5, rel=1e-5)
    size = (101 * 49.16 / (2 * BLOCK)) ** 0.5  # root mean square of both
    assert found.largest["int4"] == pytest.approx(4 / size, rel=1e-5)
    assert found.constants == 0.0  # none was asked for


def test_doubly_quantised_constants_are_told_less_their_mean_in_8_bits():
    pytest.importorskip("bitsandbytes")
    weight = torch.zeros(2, BLOCK)
    weight[0, :2], weight[1, :2] = torch.tensor([3.0, -3.0]), torch.tensor([1.0, -1.0])
    # Mean 2, so 1 and -1 are kept; the levels of the 8-bit type end at 1 and -0.99297.
    kept = doubly(largest_of(weight)).flatten().tolist()
    assert kept == pytest.approx([3.0, 2 - 0.9929688], abs=1e-4)
    found = errors([weight], ["int4", "int4_double"])
    off = kept[1] - 1
    assert found.relative["int4"] == 0.0
    assert found.relative["int4_double"] == pytest.approx((2 * off**2 / 20) ** 0.5, rel=1e-4)
    assert found.largest["int4_double"] == pytest.approx(off / (20 / 128) ** 0.5, rel=1e-3)
    assert found.constants == pytest.approx((off**2 / 2) ** 0.5, rel=1e-3)


@pytest.mark.parametrize("double", [False, True])
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
def test_it_is_what_bitsandbytes_makes_of_a_weight(kind, double):
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = torch.randn(32, 64, generator=torch.Generator().manual_seed(0))
    packed, state = functional.quantize_4bit(
        weight, blocksize=BLOCK, quant_type=kind, compress_statistics=double
    )
    theirs = functional.dequantize_4bit(packed, state)
    kept = doubly(largest_of(weight)) if double else None
    apart = (quantised(weight, levels_of(kind), kept) - theirs).abs() > 1e-4
    assert apart.float().mean() < 0.01  # values right between two levels


def test_the_matrices_of_the_layers_are_taken_and_nothing_else(tmp_path):
    names = ("embeddings.word", "encoder.layer.0.query.weight", "pooler.dense.weight")
    tensors = {name: torch.ones(2, 2) for name in names}
    tensors["encoder.layer.0.norm.weight"] = torch.ones(2)
    save_file(tensors, tmp_path / "m.safetensors")
    assert [w.shape for w in linear_weights(tmp_path / "m.safetensors")] == [(2, 2)]


@pytest.mark.slow
@pytest.mark.real
def test_the_stored_figures_are_those_of_the_packaged_weights():
    stored = load_errors([SUITES])["minilm-l6", False]
    folder = model_files(MODELS["minilm-l6"], Places(None, ("package",), default_cache())).path
    found = errors(linear_weights(folder / "model.safetensors"), KINDS)
    assert found.count == stored.weights
    assert found.relative == pytest.approx({k: stored.of(k) for k in KINDS}, abs=6e-6)
    assert found.largest == pytest.approx(stored.largest, abs=6e-4)
    assert found.constants == pytest.approx(stored.constants, rel=0.01)


def test_what_fine_tuning_moved_is_over_the_norm_before():
    before = [torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0]])]
    after = [torch.tensor([[3.0, 0.5]]), torch.tensor([[0.0, 4.0]])]
    assert _moved(before, after) == pytest.approx(0.1)


@pytest.mark.real
@pytest.mark.slow
def test_the_stored_figures_of_fine_tuned_weights_are_those_of_their_run(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    (stored,) = load_file([SUITES]).fine_tuned.values()
    job = _job()
    assert (job.task, job.recipe.steps) == (stored.task, stored.steps)
    found = errors(linear_weights(_fine_tuned(job, tmp_path / "left")), KINDS)
    # Other processors sum in another order: weights move by less than a figure shows.
    assert found.relative == pytest.approx({k: stored.of(k) for k in KINDS}, abs=2e-4)

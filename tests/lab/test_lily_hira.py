"""Lily and HiRA, PEFT's tuners under names of their own: equations, files, and the same bits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import citizen
from citizen import base_of, build, job, logits, train
from lora_parts import QUERY, WIDE, weight
from peftmark.catalog.methods import METHODS
from peftmark.catalog.quantizations import of_family
from peftmark.lab.methods import trainable

LAYERS = ("bert.encoder.layer.0.", "bert.encoder.layer.1.")


def made(key: str, quantization: str = "none", **changes: Any) -> Any:
    """What a suite gives: every option of the row, and neither alpha nor dropout."""
    known = METHODS[key.removeprefix("peft:")]
    options = known.resolved_options(changes.pop("options", {}))
    return job(key, quantization, alpha=None, dropout=None, options=options, **changes)


def moved(prepared: Any) -> Any:
    """The model with every trained tensor moved, and its module of a name."""
    torch.manual_seed(1)
    with torch.no_grad():
        for _, p in trainable(prepared.model):
            p.add_(0.1 * torch.randn_like(p))
    return prepared.model.eval().get_base_model()


@pytest.mark.parametrize(
    ("key", "quantization"), [(k, q) for k in ("lily", "hira") for q in METHODS[k].quantizations]
)
@pytest.mark.sweep(6)
def test_method_freezes_starts_trains_and_saves(bert, tmp_path, key, quantization):
    prepared = citizen.check(bert, tmp_path, made(key, quantization))
    assert (prepared.merge is None) == (key == "lily" or quantization in of_family("quanto"))
    assert prepared.matched_rank == "r"


def after(folder: Any, made: Any) -> torch.Tensor:
    """Logits after three steps."""
    prepared = build(folder, made)[1]
    train(prepared, 3)
    return logits(prepared.model)


def test_hira_is_pefts_type_bit_for_bit_and_lily_shares_what_the_type_does_not(bert):
    assert torch.equal(after(bert, made("hira")), after(bert, made("peft:hira")))
    assert not torch.allclose(after(bert, made("lily")), after(bert, made("peft:lily")), atol=1e-4)
    for key in ("lily", "hira"):
        assert not torch.allclose(after(bert, made(key)), after(bert, job("lora")), atol=1e-4)


def test_hira_multiplies_the_weight_by_a_low_rank_matrix(bert, tmp_path):
    base, prepared, _ = build(bert, made("hira"))
    model = moved(prepared)
    layer = model.get_submodule(QUERY)
    a, b = layer.hira_A["default"], layer.hira_B["default"]
    assert (a.shape, b.shape) == ((2, 64), (64, 2))
    changed = weight(base) + weight(base) * (b @ a)
    x = torch.randn(5, 64)
    expected = nn.functional.linear(x, changed, base.get_submodule(QUERY).bias)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)
    # Of full rank, where LoRA's of as many numbers has two.
    assert torch.linalg.matrix_rank(changed - weight(base)) == 64
    trained = logits(prepared.model)
    prepared.save(tmp_path)
    assert prepared.merge is not None
    merged, _ = prepared.merge(prepared.load(base_of(bert, made("hira"))[0], tmp_path))
    torch.testing.assert_close(logits(merged), trained, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(weight(merged), changed, rtol=1e-4, atol=1e-6)


def test_lily_mixes_shared_b_by_a_router(bert):
    options = {"stride_A": 2, "num_B": 3, "scaling": 0.5}
    base, prepared, _ = build(bert, made("lily", options=options))
    model = moved(prepared)
    layers = [model.get_submodule(part + QUERY.removeprefix(LAYERS[0])) for part in LAYERS]
    a, b = layers[0].lily_A["default"].weight, layers[0].lily_B["default"].weight
    assert a is layers[1].lily_A["default"].weight  # of two neighbours
    assert b is layers[1].lily_B["default"].weight
    assert b is not model.get_submodule(WIDE).lily_B["default"].weight  # of another kind
    x = torch.randn(4, 5, 64)
    hidden = x @ a.T
    router = layers[0].lily_router["default"]
    share = torch.softmax(router(hidden), dim=-1).flatten(0, 1).mean(0)
    assert share.shape == (3,)
    mixed = (share[:, None, None] * b.reshape(3, 2, 64)).sum(0)
    expected = base.get_submodule(QUERY)(x) + 0.5 * hidden @ mixed
    torch.testing.assert_close(layers[0](x), expected, rtol=1e-4, atol=1e-5)


def test_lilys_parameters_fall_where_layers_share(bert):
    def count(key: str = "lily", **options: int) -> int:
        prepared = build(bert, made(key, options=options))[1]
        return sum(p.numel() for n, p in trainable(prepared.model) if "lily" in n)

    # Six kinds of module, 64 wide, two layers, rank 2: A, B and routers, which no layers share.
    kinds, a, b = 6, 2 * 64, 2 * 64
    assert count(stride_A=1, num_B=2) == kinds * (2 * a + 2 * b + 2 * 2 * 2)
    assert count(stride_A=2, num_B=2) == kinds * (a + 2 * b + 2 * 2 * 2)
    assert count("peft:lily", stride_A=2, num_B=2) == kinds * 2 * (a + 2 * b + 2 * 2)


def test_a_loaded_lily_shares_again(bert, tmp_path):
    prepared = build(bert, made("lily"))[1]
    train(prepared, 3)
    prepared.save(tmp_path)
    loaded: Any = prepared.load(base_of(bert, made("lily"))[0], tmp_path)
    first, second = (
        loaded.get_base_model().get_submodule(part + QUERY.removeprefix(LAYERS[0]))
        for part in LAYERS
    )
    assert first.lily_B["default"] is second.lily_B["default"]
    torch.testing.assert_close(logits(loaded), logits(prepared.model), rtol=1e-4, atol=1e-5)

"""IA3 in the lower layers and adapters in the upper ones: where each sits, and that both act."""

from __future__ import annotations

import pytest
import torch

import tiny
from citizen import build, check, job, logits, train
from peftmark.catalog.method import ANY
from peftmark.lab.methods import trainable
from peftmark.lab.methods.adapter import Bottleneck
from peftmark.lab.models import Unsupported

METHOD = "adapter-ia3"


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A folder with a tiny BERT of so many layers."""

    def make(layers):
        monkeypatch.setitem(tiny.SMALL, "num_hidden_layers", layers)
        tiny.make_model(tmp_path / "model", "bert")
        (tmp_path / "saved").mkdir(exist_ok=True)
        return tmp_path / "model"

    return make


@pytest.mark.parametrize("quantization", ANY)
def test_it_freezes_starts_at_identity_trains_and_saves(bert, tmp_path, quantization):
    check(bert, tmp_path, job(METHOD, quantization))


def test_every_architecture_has_a_place_for_it(folder, tmp_path):
    check(folder, tmp_path, job(METHOD))


@pytest.mark.parametrize(("layers", "low"), [(2, 1), (4, 2), (5, 2)])
def test_the_lower_half_scales_and_the_upper_half_has_bottlenecks(model, layers, low):
    _, prepared, parts = build(model(layers), job(METHOD, rank=6))
    names = [n for n, _ in trainable(prepared.model)]
    vectors = [n for n in names if "ia3_l" in n]
    scaled = {b.name for b in parts.blocks if any(f"{b.name}." in n for n in vectors)}
    wide = {n for n, m in prepared.model.named_modules() if isinstance(m, Bottleneck)}
    assert scaled == {b.name for b in parts.blocks[:low]}
    assert wide == {f"base_model.model.{b.ffn_out}" for b in parts.blocks[low:]}
    assert {prepared.part_of(n) for n in names if "classifier" not in n and "pooler" not in n} == {
        "IA3", "adapter",
    }  # fmt: skip
    assert len(vectors) == 3 * low


def test_one_layer_is_too_few(model):
    with pytest.raises(Unsupported, match="two layers at least"):
        build(model(1), job(METHOD))


@pytest.mark.parametrize("part", ["IA3", "adapter"])
def test_each_part_changes_what_the_model_says(bert, part):
    base, prepared, _ = build(bert, job(METHOD))
    with torch.no_grad():
        for name, p in trainable(prepared.model):
            if prepared.part_of(name) == part and ("ia3_l" in name or ".up." in name):
                p.add_(torch.randn_like(p) * 0.5)
    assert not torch.allclose(logits(prepared.model), logits(base), atol=1e-3)


def test_it_learns_other_weights_than_either_part_alone(bert):
    curves = []
    for method in (METHOD, "adapter", "ia3"):
        _, prepared, _ = build(bert, job(method))
        curves.append(tuple(train(prepared)[0]))
    assert len(set(curves)) == 3

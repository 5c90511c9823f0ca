"""IA3: its equation on every kind of layer, and what it takes to be a method."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from citizen import base_of, build, check, logits, setting_of, train
from citizen import job as job_for
from peftmark.catalog.method import ANY
from peftmark.lab.methods import prepare, trainable
from peftmark.lab.models import Unsupported


@pytest.mark.parametrize("quantization", ANY)
def test_it_freezes_starts_at_identity_trains_and_saves(bert, tmp_path, quantization):
    check(bert, tmp_path, job_for("ia3", quantization))


def test_it_sits_on_keys_values_and_feed_forward_of_every_architecture(folder, tmp_path):
    prepared = check(folder, tmp_path, job_for("ia3"))
    _, _, parts = build(folder, job_for("ia3"))
    names = [n for n, _ in trainable(prepared.model) if "ia3_l" in n]
    wanted = [n for b in parts.blocks for n in (b.key, b.value, b.ffn_out)]
    assert sorted(n.split(".ia3_l")[0].removeprefix("base_model.model.") for n in names) == sorted(
        wanted
    )


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
def test_keys_and_values_are_scaled_behind_and_feed_forward_before(bert, quantization):
    base, prepared, parts = build(bert, job_for("ia3", quantization))
    wrapped = prepared.model.get_base_model()
    x = torch.randn(3, 5, 64, generator=torch.Generator().manual_seed(1))
    scale = torch.linspace(-1, 2, 64)
    for block in parts.blocks:
        for name in (block.key, block.value, block.ffn_out):
            layer, plain = wrapped.get_submodule(name), base.get_submodule(name)
            assert torch.equal(layer.ia3_l["default"].flatten(), torch.ones(64))
            with torch.no_grad():
                layer.ia3_l["default"].copy_(scale.view_as(layer.ia3_l["default"]))
                found = layer(x)
                wanted = plain(x * scale) if name == block.ffn_out else plain(x) * scale
            torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def test_merging_folds_vectors_into_weights_and_biases(bert, tmp_path):
    job = job_for("ia3")
    _, prepared, _ = build(bert, job)
    train(prepared)
    prepared.save(tmp_path)
    loaded = prepared.load(base_of(bert, job)[0], tmp_path)
    before = logits(loaded)
    merged, target = prepared.merge(loaded)
    assert target == "fp32 weights"
    assert isinstance(merged.get_submodule("bert.encoder.layer.0.output.dense"), nn.Linear)
    torch.testing.assert_close(logits(merged), before, rtol=0, atol=1e-5)


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantised_base_is_not_merged_and_says_so(bert, quantization):
    _, prepared, _ = build(bert, job_for("ia3", quantization))
    assert prepared.merge is None
    assert "quantised" in prepared.merge_reason


def test_an_unknown_architecture_is_refused(bert):
    job = job_for("ia3")
    base, parts = base_of(bert, job)
    setting = setting_of(bert, job, parts=replace(parts, blocks=()))
    with pytest.raises(Unsupported, match="not known for the architecture of tiny"):
        prepare(base, setting)

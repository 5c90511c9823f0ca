"""BitFit, alone and with LoRA: which tensors train, and that they train in full precision."""

from __future__ import annotations

import pytest
import torch

import citizen
from citizen import build, check, inputs, logits, train
from citizen import job as job_for
from peftmark.catalog.method import ANY
from peftmark.lab.methods import trainable
from peftmark.lab.step import logits_of


def biases(model, parts):
    """Names of the trained tensors outside head and pooler, as the plain base calls them."""
    head = (*parts.head, *([parts.pooler] if parts.pooler else []))
    names = (
        n.removeprefix("base_model.model.").replace(".base_layer.", ".")
        for n, _ in trainable(model)
    )
    return sorted(
        n.replace("exact_bias", "bias")
        for n in names
        if not n.startswith(head) and "lora_" not in n
    )


@pytest.mark.parametrize("quantization", ANY)
@pytest.mark.parametrize("method", ["bitfit", "bitfit-lora"])
def test_it_freezes_starts_at_identity_trains_and_saves(bert, tmp_path, method, quantization):
    check(bert, tmp_path, job_for(method, quantization))


@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.sweep(3)
def test_every_bias_of_the_encoder_trains_and_nothing_else(folder, tmp_path, quantization):
    base, prepared, parts = build(folder, job_for("bitfit", quantization))
    head = (*parts.head, *([parts.pooler] if parts.pooler else []))
    all_biases = [n for n, _ in base.named_parameters() if n.endswith(".bias")]
    wanted = sorted(n for n in all_biases if not n.startswith(head))
    # Per layer: query, key, value, output, two norms, two feed-forward; and the embeddings' norm.
    assert len(wanted) == 2 * 8 + 1
    assert biases(prepared.model, parts) == wanted
    check(folder, tmp_path, job_for("bitfit", quantization))


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
def test_with_lora_it_is_the_same_set_of_biases(bert, quantization):
    _, alone, parts = build(bert, job_for("bitfit", quantization))
    _, both, _ = build(bert, job_for("bitfit-lora", quantization))
    assert biases(both.model, parts) == biases(alone.model, parts)
    assert set(both.ranks().values()) == {2}


def test_a_frozen_poolers_bias_stays_frozen(bert):
    _, prepared, _ = build(bert, job_for("bitfit-lora", train_pooler=False))
    assert [n for n, _ in trainable(prepared.model) if "pooler" in n] == []


@pytest.mark.parametrize("quantization", ["nf4", "fp4", "int8"])
def test_biases_of_a_quantised_base_train_in_fp32(bert, quantization):
    """bitsandbytes would cast them to bf16, which can't hold a step of 1e-5 on a bias of 1."""
    job = job_for("bitfit", quantization, precision="bf16")
    _, prepared, _ = build(bert, job)
    layer = prepared.model.get_submodule("bert.encoder.layer.1.output.dense")
    with torch.no_grad():
        layer.exact_bias.fill_(1.0)
    batch = citizen.Batch(inputs(), citizen.LABELS, 54)
    for _ in range(5):
        optimizer = torch.optim.SGD([p for _, p in trainable(prepared.model)], lr=1e-5)
        logits_of(prepared.model, batch, job, citizen.CPU)[:, 0].sum().backward()
        for _, p in trainable(prepared.model):
            p.grad.sign_()
        optimizer.step()
        optimizer.zero_grad()
    assert {p.dtype for _, p in trainable(prepared.model)} == {torch.float32}
    moved = (layer.exact_bias - 1.0).abs()
    assert 4e-5 < moved.max() < 6e-5
    assert layer.bias is None


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
def test_lora_merges_and_the_trained_biases_stay(bert, tmp_path, quantization):
    job = job_for("bitfit-lora", quantization)
    _, prepared, _ = build(bert, job)
    train(prepared)
    prepared.save(tmp_path)
    loaded = prepared.load(citizen.base_of(bert, job)[0], tmp_path)
    before = logits(loaded)
    merged, _ = prepared.merge(loaded)
    assert not [n for n, _ in merged.named_parameters() if "lora_" in n]
    torch.testing.assert_close(
        logits(merged), before, rtol=0, atol=1e-5 if quantization == "none" else 0.3
    )


def test_bitfit_alone_says_why_it_does_not_merge(bert):
    _, prepared, _ = build(bert, job_for("bitfit"))
    assert prepared.merge is None
    assert "the base's own" in prepared.merge_reason

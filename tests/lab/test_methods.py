"""Methods as PEFT citizens, on tiny models of each architecture."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import citizen
import tiny
from citizen import build, inputs, train
from citizen import job as job_for
from peftmark.catalog.methods import METHODS
from peftmark.catalog.tasks import TASKS
from peftmark.lab.measure.parameter_counts import parameters
from peftmark.lab.methods import trainable
from peftmark.lab.methods.rank_allocation import Penalty
from peftmark.lab.models import Unsupported, adapter_targets, anatomy, trained_head

CELLS = [
    (m.key, q)
    for m in METHODS.values()
    for q in m.quantizations
    if m.key in ("full", "head", "lora", "adalora")
]


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
@pytest.mark.sweep(5)
def test_head_stays_float_and_trains_on_every_architecture(folder, quantization):
    job = job_for("lora", quantization)
    _, prepared, parts = build(folder, job)
    assert set(parts.head_linears).isdisjoint(parts.encoder_linears)
    assert parts.head
    names = [name for name, _ in trainable(prepared.model)]
    for module in trained_head(parts, train_pooler=True):
        own = [n for n in names if n.startswith(f"base_model.model.{module}.")]
        assert own, f"{module} does not train"
    assert all(p.is_floating_point() for _, p in trainable(prepared.model))
    losses, missing = train(prepared)
    assert losses[-1] < losses[0]
    assert missing == []


@pytest.mark.parametrize(("method", "quantization"), CELLS)
@pytest.mark.sweep(10)
def test_method_freezes_starts_at_identity_trains_and_saves(bert, tmp_path, method, quantization):
    prepared = citizen.check(bert, tmp_path, job_for(method, quantization))
    if method == "full":
        assert all(p.requires_grad for p in prepared.model.parameters())
    if METHODS[method].size:
        assert sum(prepared.ranks().values()) == 2 * len(
            anatomy(bert, TASKS["sst-2"]).encoder_linears
        )


def test_adalora_without_its_update_is_a_fault(bert):
    _, prepared, parts = build(bert, job_for("adalora", steps=10))
    prepared.after_step = lambda step: None
    train(prepared)
    modules = len(parts.encoder_linears)
    assert sum(prepared.ranks().values()) == 4 * modules
    assert f"active rank of {4 * modules}" in prepared.fault()


def test_adalora_counts_only_active_ranks(bert):
    _, prepared, parts = build(bert, job_for("adalora", steps=10))
    everything = sum(p.numel() for _, p in trainable(prepared.model))
    assert prepared.active_parameters() == everything - pruned_at_start(prepared)
    train(prepared)
    # Every layer is 64 wide here, so a pruned rank frees 64 + 64 + 1 numbers.
    pruned = (4 - 2) * len(parts.encoder_linears)
    assert prepared.active_parameters() == everything - pruned * 129


def pruned_at_start(prepared) -> int:
    """AdaLoRA starts with singular values of zero, which look pruned."""
    return sum(
        m.lora_E["default"].numel() * 129
        for m in prepared.model.modules()
        if hasattr(m, "lora_E") and len(m.lora_E)
    )


def test_penalty_is_the_one_peft_adds_to_a_models_own_loss(bert):
    _, prepared, _ = build(bert, job_for("adalora"))
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    prepared.model.eval()
    output = prepared.model.base_model(**inputs(), labels=labels)
    task_loss = nn.functional.cross_entropy(output.logits, labels)
    ours = tiny.SCHEDULE.orthogonal_weight * Penalty(prepared.model)()
    torch.testing.assert_close(output.loss - task_loss, ours, rtol=1e-5, atol=1e-6)
    assert ours.item() > 0


@pytest.mark.slow
def test_same_seed_gives_the_same_head_whatever_the_method(bert):
    heads = []
    for method, quantization in CELLS:
        base, _, _ = build(bert, job_for(method, quantization))
        heads.append(base.classifier.weight.detach().float())
    assert all(torch.equal(head, heads[0]) for head in heads)
    other, _, _ = build(bert, replace(job_for("lora"), seed=1))
    assert not torch.equal(other.classifier.weight, heads[0])


def test_four_bit_weights_are_counted_unpacked(bert):
    plain, _, _ = build(bert, job_for("lora"))
    packed, _, _ = build(bert, job_for("lora", "nf4"))
    assert parameters(packed) == parameters(plain) == sum(p.numel() for p in plain.parameters())


def test_four_bit_cells_use_nf4_with_double_quantisation(bert):
    base, _, parts = build(bert, job_for("lora", "nf4"))
    states = [base.get_submodule(n).weight.quant_state for n in parts.encoder_linears]
    assert states
    assert all(state.quant_type == "nf4" and state.nested for state in states)


def test_targets_that_match_nothing_are_unsupported(bert):
    parts = anatomy(bert, TASKS["sst-2"])
    with pytest.raises(Unsupported, match="match no linear layer"):
        adapter_targets(job_for("lora", targets=("nowhere",)), parts)
    query_value = adapter_targets(job_for("lora", targets="query-value"), parts)
    assert len(query_value) == 4
    assert len(adapter_targets(job_for("lora", targets="attention"), parts)) == 8

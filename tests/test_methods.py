"""Methods as PEFT citizens, on tiny models of each architecture."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import tiny
import torch
from factory import make_job, make_recipe
from torch import nn

from bench.catalog import METHODS
from bench.lab.counts import parameters
from bench.lab.methods import prepare, trainable
from bench.lab.methods.adalora import orthogonality
from bench.lab.models import Unsupported, adapter_targets, anatomy, load_model, trained_head
from bench.record import AdaLoraSchedule
from bench.tasks import TASKS

SCHEDULE = AdaLoraSchedule(4, 2, 3, 1, 0.85, 0.85, 0.1)
CELLS = [(m.key, q) for m in METHODS.values() for q in m.quantizations]


@pytest.fixture(scope="module", params=sorted(tiny.CONFIGS))
def folder(request, tmp_path_factory):
    path = tmp_path_factory.mktemp(request.param)
    tiny.make_model(path, request.param)
    return path


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    path = tmp_path_factory.mktemp("bert")
    tiny.make_model(path, "bert")
    return path


def job_for(method: str, quantization: str = "none", **recipe):
    settings = {"targets": "all-linear", "alpha": 8.0, "dropout": 0.0, "adalora": None}
    if method == "adalora":
        settings["adalora"] = SCHEDULE
    if quantization in ("nf4", "fp4"):
        settings["double_quantization"] = True
    job = make_job(
        method=method,
        rank=2 if METHODS[method].takes_rank else None,
        quantization=quantization,
        recipe=replace(make_recipe(), **settings),
    )
    return tiny.tiny_job(job, **recipe)


def build(path, job):
    parts = anatomy(path, 2)
    base = load_model(path, job, TASKS["sst-2"], parts)
    return base, prepare(copy.deepcopy(base), job, parts), parts


def inputs():
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(4, 44, (6, 9), generator=generator)
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def train(prepared, steps=10):
    model = prepared.model
    optimizer = torch.optim.AdamW([p for _, p in trainable(model)], lr=5e-3)
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    model.train()
    losses = []
    for step in range(1, steps + 1):
        loss = nn.functional.cross_entropy(model(**inputs()).logits.float(), labels)
        penalty = prepared.extra_loss()
        (loss if penalty is None else loss + penalty).backward()
        optimizer.step()
        prepared.after_step(step)
        missing = [name for name, p in trainable(model) if p.grad is None]
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, missing


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
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
def test_method_freezes_starts_at_identity_trains_and_saves(bert, tmp_path, method, quantization):
    job = job_for(method, quantization, steps=10)
    base, prepared, parts = build(bert, job)
    before = {n: p.detach().clone() for n, p in prepared.model.named_parameters()}
    base.eval()
    prepared.model.eval()
    with torch.no_grad():
        wanted, found = base(**inputs()).logits, prepared.model(**inputs()).logits
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)

    losses, missing = train(prepared)
    assert losses[-1] < losses[0]
    assert missing == []
    for name, parameter in prepared.model.named_parameters():
        if "lora_E" in name:  # starts at zero, and zero again where its rank was pruned
            continue
        same = torch.equal(parameter, before[name])
        if parameter.requires_grad:
            assert not same, f"{name} should have moved"
        else:
            assert same, f"{name} should be frozen"
    prepared.save(tmp_path)
    assert list(tmp_path.glob("*.safetensors"))
    assert not list(tmp_path.glob("*.bin"))
    if method == "full":
        assert len(trainable(prepared.model)) == len(before)
    if METHODS[method].takes_rank:
        assert sum(prepared.ranks().values()) == 2 * len(parts.encoder_linears)
    assert prepared.fault() is None


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
    ours = SCHEDULE.orthogonal_weight * orthogonality(prepared.model)
    torch.testing.assert_close(output.loss - task_loss, ours, rtol=1e-5, atol=1e-6)
    assert ours.item() > 0


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
    parts = anatomy(bert, 2)
    with pytest.raises(Unsupported, match="match no linear layer"):
        adapter_targets(job_for("lora", targets=("nowhere",)), parts)
    query_value = adapter_targets(job_for("lora", targets="query-value"), parts)
    assert len(query_value) == 4
    assert len(adapter_targets(job_for("lora", targets="attention"), parts)) == 8

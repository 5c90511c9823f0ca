"""DiffPruning: the relaxed gates, their penalty, the cut, and what is saved of it."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import citizen
import tiny
from citizen import LABELS, inputs
from peftmark.lab.data.batches import Batch
from peftmark.lab.methods import diff_pruning, trainable
from peftmark.lab.methods.diff_pruning import Relaxed, Sparse, StraightThrough
from peftmark.lab.methods.reference import FILE
from peftmark.lab.models import adapter_targets

DENSITY = 0.05


def job_for(**options):
    return citizen.job("diff-pruning", options={"density": DENSITY, **options})


def relaxed(model) -> dict[str, Relaxed]:
    return {n: m for n, m in model.named_modules() if isinstance(m, Relaxed)}


def sparse(model) -> dict[str, Sparse]:
    return {n: m for n, m in model.named_modules() if isinstance(m, Sparse)}


def target_weights(parts, base, job) -> dict[str, torch.Tensor]:
    return {name: base.get_submodule(name).weight for name in adapter_targets(job, parts)}


@pytest.mark.parametrize("architecture", sorted(tiny.CONFIGS))
def test_trains_cuts_saves_and_loads_on_every_architecture(tmp_path, architecture):
    tiny.make_model(tmp_path / "model", architecture)
    (tmp_path / "saved").mkdir()
    prepared = citizen.check(tmp_path / "model", tmp_path / "saved", job_for())
    assert prepared.fault() is None


def test_random_gates_are_the_stretched_and_clipped_concrete_distribution():
    part = Relaxed(torch.zeros(40, 50))
    with torch.no_grad():
        part.log_alpha.copy_(torch.linspace(-4, 4, 2000))
        part.w.normal_()
    torch.manual_seed(3)
    weight = torch.randn(40, 50)
    torch.manual_seed(4)
    found = part.train()(weight)
    torch.manual_seed(4)
    u = torch.rand(2000).clamp(1e-4, 1 - 1e-4)
    s = torch.sigmoid(u.log() - (1 - u).log() + part.log_alpha)
    z = torch.minimum(torch.ones(2000), torch.maximum(torch.zeros(2000), s * 3.0 - 1.5))
    torch.testing.assert_close(found, weight + z.view(40, 50) * part.w)
    assert (z == 0).any()
    assert (z == 1).any()
    assert ((z > 0) & (z < 1)).any()
    torch.manual_seed(5)
    assert not torch.equal(part(weight), found)


def test_evaluation_has_no_noise():
    part = Relaxed(torch.zeros(1, 3)).eval()
    with torch.no_grad():
        part.log_alpha.copy_(torch.tensor([-1.0, math.log(2), 5.0]))
        part.w.fill_(2)
    torch.testing.assert_close(part(torch.ones(1, 3)), torch.tensor([[1.0, 2.0, 3.0]]))


@pytest.mark.parametrize(("low", "high"), [(-1.5, 1.5), (-0.1, 1.1)])
def test_the_penalty_is_how_many_gates_are_open(monkeypatch, low, high):
    monkeypatch.setattr(diff_pruning, "LOW", low)
    monkeypatch.setattr(diff_pruning, "HIGH", high)
    for log_alpha in (-2.0, 0.0, 1.0):
        part = Relaxed(torch.zeros(200, 1000))
        with torch.no_grad():
            part.log_alpha.fill_(log_alpha)
            torch.manual_seed(0)
            drawn = part.gates(torch.logit(torch.rand(200_000), eps=1e-6))
        share = float((drawn > 0).double().mean())
        assert abs(part.expected().item() / 200_000 - share) < 0.004


def test_penalty_is_weighted_closes_gates_and_ends_with_the_cut(bert):
    job = job_for(l0_weight=1e-3)
    base, prepared, parts = citizen.build(bert, job)
    count = sum(w.numel() for w in target_weights(parts, base, job).values())
    penalty = prepared.extra_loss()
    assert penalty.item() == pytest.approx(1e-3 * count / (1 + math.exp(-5)), rel=1e-5)
    penalty.backward()
    assert all((part.log_alpha.grad > 0).all() for part in relaxed(prepared.model).values())
    prepared.model.zero_grad(set_to_none=True)
    citizen.train(prepared, 10)
    assert prepared.extra_loss() is None


def test_the_largest_differences_of_all_targets_together_stay(bert):
    job = job_for()
    base, prepared, parts = citizen.build(bert, job)
    weights = target_weights(parts, base, job)
    targets = list(weights)
    with torch.no_grad():
        for scale, part in enumerate(relaxed(prepared.model).values()):
            part.w.normal_(std=1 + scale)  # so that a cut within each target would differ
            part.log_alpha.normal_(std=2)
    before = {
        name: part.difference().detach().clone()
        for name, part in zip(targets, relaxed(prepared.model).values(), strict=True)
    }
    everything = torch.cat([d.flatten().abs() for d in before.values()])
    budget = round(DENSITY * len(everything))
    threshold = everything.sort(descending=True).values[budget - 1]
    prepared.stage.begin()

    kept = 0
    for name in targets:
        now = prepared.model.get_submodule(name).weight - weights[name]
        expected = torch.where(before[name].abs() >= threshold, before[name], 0.0)
        torch.testing.assert_close(now, expected, rtol=1e-5, atol=1e-5)
        kept += len(sparse(prepared.model)[f"{name}.parametrizations.weight.0"].values)
    assert kept == budget
    assert not relaxed(prepared.model)
    counts = {len(part.values) for part in sparse(prepared.model).values()}
    assert len(counts) > 1


def test_after_the_cut_kept_values_and_head_train_and_nothing_else(bert):
    job = job_for()
    base, prepared, parts = citizen.build(bert, job)
    weights = target_weights(parts, base, job)
    citizen.train(prepared, 6)
    assert relaxed(prepared.model)  # the cut comes before step 7
    prepared.stage.begin()
    first = {n: p.detach().clone() for n, p in prepared.model.named_parameters()}
    positions = {n: part.indices.clone() for n, part in sparse(prepared.model).items()}
    names = [n for n, _ in trainable(prepared.model)]
    assert all(n.endswith(".values") or n.startswith(("classifier", "bert.pooler")) for n in names)
    prepared.stage = None
    _, missing = citizen.train(prepared, 3)
    assert missing == []
    for name, parameter in prepared.model.named_parameters():
        assert torch.equal(parameter, first[name]) == (name not in names), name
    for name, part in sparse(prepared.model).items():
        assert torch.equal(part.indices, positions[name])
    changed = sum(
        int(((prepared.model.get_submodule(name).weight - weight) != 0).sum())
        for name, weight in weights.items()
    )
    budget = round(DENSITY * sum(w.numel() for w in weights.values()))
    head = sum(p.numel() for n, p in trainable(prepared.model) if not n.endswith(".values"))
    assert budget * 0.99 < changed <= budget  # a tiny value may be lost in the sum's rounding
    assert prepared.active_parameters() == budget + head


def test_positions_and_values_alone_are_saved_and_merging_adds_them(bert, tmp_path):
    job = job_for()
    prepared = citizen.check(bert, tmp_path, job)
    saved = load_file(tmp_path / FILE)
    indices = {n: t for n, t in saved.items() if n.endswith(".indices")}
    assert {t.dtype for t in indices.values()} == {torch.int32}
    values = sum(t.numel() for n, t in saved.items() if n.endswith(".values"))
    assert values == sum(len(t) for t in indices.values())
    other = [n for n in saved if not n.endswith((".indices", ".values"))]
    assert all(n.startswith(("classifier", "bert.pooler")) for n in other)

    loaded = prepared.load(citizen.base_of(bert, job)[0], tmp_path)
    before = citizen.logits(loaded)
    merged, where = prepared.merge(loaded)
    assert where == "fp32 weights"
    assert torch.equal(citizen.logits(merged), before)
    assert not sparse(merged)
    assert {n for n, _ in merged.named_parameters()} == {
        n for n, _ in citizen.base_of(bert, job)[0].named_parameters()
    }


def test_a_density_off_its_budget_is_a_fault(bert):
    _, prepared, _ = citizen.build(bert, job_for())
    assert "0 differing weights" in prepared.fault()
    citizen.train(prepared, 10)
    assert prepared.fault() is None
    with torch.no_grad():
        next(part for part in sparse(prepared.model).values() if len(part.values)).values[0] = 0
    assert "its budget is" in prepared.fault()


def test_gates_learn_at_a_rate_of_their_own_and_do_not_decay(bert):
    job = job_for(alpha_rate=0.2, second_rate=3.0)
    _, prepared, _ = citizen.build(bert, job)
    for name, parameter in trainable(prepared.model):
        if name.endswith("log_alpha"):
            assert prepared.rate_of(name) * job.recipe.learning_rate == pytest.approx(0.2)
            assert parameter.dim() == 1  # the optimizer decays matrices
        else:
            assert prepared.rate_of(name) == 1
    assert prepared.stage.rate == 3
    assert prepared.stage.after == 6


def test_gradient_checkpointing_draws_the_same_gates_again(bert):
    gradients = []
    for checkpointing in (False, True):
        _, prepared, _ = citizen.build(bert, job_for())
        with torch.no_grad():
            for part in relaxed(prepared.model).values():
                part.w.fill_(0.1)
                part.log_alpha.zero_()
        prepared.model.train()
        if checkpointing:
            prepared.model.activation_checkpointing_enable(
                activation_checkpointing_kwargs={"use_reentrant": False}
            )
        torch.manual_seed(0)
        citizen.loss(prepared.model, Batch(inputs(), LABELS, 54)).backward()
        gradients.append({n: p.grad for n, p in trainable(prepared.model)})
    torch.testing.assert_close(gradients[1], gradients[0])


def test_weights_stay_fp32_under_autocast(bert):
    _, prepared, _ = citizen.build(bert, job_for())
    linear = prepared.model.bert.encoder.layer[0].attention.self.query
    assert isinstance(linear, nn.Linear)
    with torch.autocast("cpu", torch.bfloat16):
        assert linear.weight.dtype == torch.float32
        loss = citizen.loss(prepared.model, Batch(inputs(), LABELS, 54))
    loss.backward()
    for name, parameter in trainable(prepared.model):
        assert parameter.grad.dtype == torch.float32, name
        assert torch.isfinite(parameter.grad).all(), name


# --- straight-through masks -----------------------------------------------------------------------


def straight(**options):
    return job_for(mask="straight-through", **options)


def test_masks_are_ones_above_one_half_with_the_gradient_of_the_sigmoid():
    part = StraightThrough(torch.zeros(1, 3))
    with torch.no_grad():
        part.log_alpha.copy_(torch.tensor([-0.5, 0.1, -0.2]))
        part.w.copy_(torch.tensor([[2.0, 3.0, 4.0]]))
    z = part.gates(torch.tensor([0.4, -0.3, 0.3]))
    # (log_alpha + e) / (2/3) is -0.15, -0.3, 0.15; their sigmoids are 0.46257, 0.42556, 0.53743.
    torch.testing.assert_close(z, torch.tensor([0.0, 0.0, 1.0]))
    z.sum().backward()
    by_hand = torch.tensor([0.37290, 0.36669, 0.37290])  # 3/2 s (1 - s)
    torch.testing.assert_close(part.log_alpha.grad, by_hand, rtol=1e-4, atol=0)
    # The listing's own penalty at these values: 0.37754 + 0.52498 + 0.45017.
    assert part.expected().item() == pytest.approx(1.35269, rel=1e-5)
    # Without noise a mask is open where log_alpha is above 0.
    found = part.eval()(torch.ones(1, 3))
    torch.testing.assert_close(found, torch.tensor([[1.0, 4.0, 1.0]]))


def test_noise_is_uniform_and_opens_no_mask_at_the_start():
    torch.manual_seed(0)
    part = StraightThrough(torch.zeros(200, 500)).train()
    noise = part.noise()
    assert -0.5 <= noise.min() < -0.499
    assert 0.499 < noise.max() <= 0.5
    assert noise.std().item() == pytest.approx(1 / math.sqrt(12), rel=0.01)
    weight = torch.randn(200, 500)
    assert torch.equal(part(weight), weight)
    assert part.w.std().item() == pytest.approx(diff_pruning.START, rel=0.02)
    part(weight).sum().backward()
    assert (part.log_alpha.grad != 0).all()  # of closed masks too


def test_open_masks_alone_are_kept_and_at_most_the_density(bert):
    base, prepared, parts = citizen.build(bert, straight(density=1))
    weights = target_weights(parts, base, job_for())
    assert torch.equal(citizen.logits(prepared.model), citizen.logits(base))
    opened = []
    with torch.no_grad():
        for part in relaxed(prepared.model).values():
            part.log_alpha[:7] = 0.1
            opened.append(part.w.flatten()[:7].clone())
    prepared.stage.begin()
    assert prepared.fault() is None
    kept = [part.values for part in sparse(prepared.model).values()]
    for values, found in zip(opened, kept, strict=True):
        assert torch.equal(values, found)
    _, dense, _ = citizen.build(bert, straight(density=1e-4))
    with torch.no_grad():
        for part in relaxed(dense.model).values():
            part.log_alpha.fill_(1.0)
    dense.stage.begin()
    count = sum(len(part.values) for part in sparse(dense.model).values())
    assert count == round(1e-4 * sum(w.numel() for w in weights.values()))
    assert dense.fault() is None


def test_masks_that_all_stay_closed_are_a_fault(bert):
    _, prepared, _ = citizen.build(bert, straight())
    prepared.stage.begin()
    assert "no mask was open" in prepared.fault()


def test_straight_through_masks_train_save_and_load(bert, tmp_path, monkeypatch):
    monkeypatch.setattr(diff_pruning, "NOISE", 0.01)  # so that a few short steps open some
    prepared = citizen.check(bert, tmp_path, straight())
    _, paper, _ = citizen.build(bert, job_for())
    citizen.train(paper, 10)
    assert (citizen.logits(paper.model) - citizen.logits(prepared.model)).abs().max() > 1e-3

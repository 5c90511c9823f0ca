"""LoRA-FA, Riemannian LoRA and VeLoRA: what becomes of gradients, against equations and PEFT."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft.optimizers import create_lorafa_optimizer, create_riemannian_optimizer, lorafa
from torch import nn

import citizen
import tiny
from citizen import base_of, build, job
from lora_parts import QUERY, SCALE, WIDE, factors, layer_of
from peftmark.catalog.architectures import LANGUAGE_MODELS
from peftmark.catalog.tasks import TASKS
from peftmark.lab.data.batches import Batch
from peftmark.lab.memory.meta_model import Counter, config_of
from peftmark.lab.methods import Prepared, trainable
from peftmark.lab.models import Unsupported
from peftmark.lab.step import Step

RATE = 1e-2


def filled(prepared: Prepared) -> dict[str, torch.Tensor]:
    """Give every factor a value and a gradient; the gradients as they are, by name."""
    torch.manual_seed(3)
    for name in prepared.ranks():
        with torch.no_grad():
            layer_of(prepared, name).lora_B["default"].weight.normal_()
    citizen.loss(prepared.model, Batch(citizen.inputs(), citizen.LABELS, 54)).backward()
    return {n: p.grad.clone() for n, p in trainable(prepared.model) if p.grad is not None}


def gradient(prepared: Prepared, factor: str, name: str = QUERY) -> torch.Tensor:
    return getattr(layer_of(prepared, name), f"lora_{factor}")["default"].weight.grad


def steps(prepared: Prepared, optimizer: Any, ours: bool, count: int = 3) -> None:
    prepared.model.eval()
    for _ in range(count):
        citizen.loss(prepared.model, Batch(citizen.inputs(), citizen.LABELS, 54)).backward()
        if ours:
            prepared.before_step()
        optimizer.step()
        optimizer.zero_grad()


def compared(one: Prepared, other: Prepared) -> None:
    """That two models have the same trained tensors, and moved."""
    for (name, p), (_, q) in zip(trainable(one.model), trainable(other.model), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=2e-5, msg=lambda m, n=name: f"{n}: {m}")


def test_lora_fa_trains_b_alone_by_the_corrected_gradient(bert):
    _, prepared, _ = build(bert, job("lora-fa"))
    assert not any("lora_A" in name for name, _ in trainable(prepared.model))
    before = filled(prepared)
    prepared.before_step()
    for name in (QUERY, WIDE):
        a, _ = factors(prepared, name)
        was = before[f"base_model.model.{name}.lora_B.default.weight"]
        now = gradient(prepared, "B", name)
        torch.testing.assert_close(
            now @ (a @ a.T) * SCALE**2, was, rtol=1e-4, atol=1e-6 * float(was.abs().max())
        )
    head = {n: p.grad for n, p in trainable(prepared.model) if "lora" not in n}
    assert head
    assert all(torch.equal(g, before[n]) for n, g in head.items() if g is not None)


def test_lora_fa_steps_are_those_of_pefts_optimizer(bert, monkeypatch):
    # PEFT multiplies in bf16 where a machine has it, and its Adam adds epsilon to a root without
    # bias correction, where torch's adds it to one with: here neither counts.
    monkeypatch.setattr(lorafa, "is_bf16_available", lambda: False)
    ours, theirs = (build(bert, job("lora-fa"))[1] for _ in range(2))
    adam = torch.optim.AdamW(
        [p for _, p in trainable(ours.model)], lr=RATE, eps=1e-15, weight_decay=0.0
    )
    steps(ours, adam, ours=True)
    model: Any = theirs.model
    model.eval()
    peft = create_lorafa_optimizer(model, r=2, lora_alpha=8, lr=RATE)
    peft.param_groups[0]["eps"] = 1e-15
    steps(theirs, peft, ours=False)
    compared(ours, theirs)
    plain = build(bert, job("lora-fa"))[1]
    plain.before_step = lambda: None
    adam = torch.optim.AdamW(
        [p for _, p in trainable(plain.model)], lr=RATE, eps=1e-15, weight_decay=0.0
    )
    steps(plain, adam, ours=True)
    assert (factors(plain)[1] - factors(ours)[1]).abs().max() > 1e-3


def test_lora_fa_trains_as_many_numbers_as_pefts_comparison_prints():
    # Llama-3.2-3B at rank 32 on q_proj and v_proj; LoRA's figure there is 9,175,040.
    config = config_of(LANGUAGE_MODELS["llama-3.2-3b"], 2)
    found = {
        key: Counter(
            tiny.job(key, rank=32, targets=("q_proj", "v_proj"), alpha=64), config
        ).adapter(32)
        for key in ("lora-fa", "lora")
    }
    assert found["lora-fa"] == 3_670_016
    assert found["lora"] == 9_175_040


def test_lora_fa_refuses_a_rank_that_a_cannot_have(bert):
    with pytest.raises(Unsupported, match=r"bert.* has 64 inputs for rank 65; use a smaller rank"):
        build(bert, job("lora-fa", rank=65))


def test_riemannian_gradients_are_each_preconditioned_by_the_other_factor(bert):
    _, prepared, _ = build(bert, job("riemannian-lora", options={"damping": 0.03}))
    before = filled(prepared)
    prepared.before_step()
    for name in (QUERY, WIDE):
        a, b = factors(prepared, name)
        eye = 0.03 * torch.eye(2)
        was = {f: before[f"base_model.model.{name}.lora_{f}.default.weight"] for f in "AB"}
        torch.testing.assert_close(
            (b.T @ b + eye) @ gradient(prepared, "A", name), was["A"], rtol=1e-3, atol=1e-6
        )
        torch.testing.assert_close(
            gradient(prepared, "B", name) @ (a @ a.T + eye), was["B"], rtol=1e-3, atol=1e-6
        )


def test_riemannian_steps_are_those_of_pefts_optimizer(bert):
    ours, theirs, plain = (build(bert, job("riemannian-lora"))[1] for _ in range(3))
    for prepared, on in ((ours, True), (plain, False)):
        adam = torch.optim.AdamW([p for _, p in trainable(prepared.model)], lr=RATE)
        steps(prepared, adam, ours=on)
    peft: Any = create_riemannian_optimizer(theirs.model, torch.optim.AdamW, lr=RATE, reg=1e-2)
    steps(theirs, peft, ours=False)
    compared(ours, theirs)
    assert (factors(plain)[0] - factors(ours)[0]).abs().max() > 1e-3


def test_unequal_ranks_are_inverted_each_by_itself(bert):
    made = job("riemannian-lora", rank=4)
    names = base_of(bert, made)[1].encoder_linears
    sizes = {name: 3 + i % 3 for i, name in enumerate(names)}
    _, prepared, _ = build(bert, made, sizes=sizes)
    before = filled(prepared)
    prepared.before_step()
    for name, rank in sizes.items():
        a, _ = factors(prepared, name)
        was = before[f"base_model.model.{name}.lora_B.default.weight"]
        again = gradient(prepared, "B", name) @ (a @ a.T + 1e-2 * torch.eye(rank))
        torch.testing.assert_close(again, was, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("key", ["lora-fa", "riemannian-lora"])
def test_a_step_changes_gradients_after_they_are_clipped(bert, key):
    made = job(key, precision="fp32", steps=4)
    _, prepared, _ = build(bert, made)
    seen: list[float] = []
    change = prepared.before_step

    def noted() -> None:
        norm = torch.stack([p.grad.norm() for _, p in trainable(prepared.model)]).norm()
        seen.append(norm.item())
        change()

    prepared.before_step = noted
    step = Step(made, TASKS["sst-2"], prepared, citizen.CPU)
    taken = step(1, Batch(citizen.inputs(), citizen.LABELS, 54))
    assert seen == [pytest.approx(min(taken.norm.item(), made.recipe.max_grad_norm), rel=1e-3)]


def rebuilt(x: torch.Tensor, v: torch.Tensor, groups: int, scale: float) -> torch.Tensor:
    """c (x v) v for each group of each token of x, shape (tokens, in)."""
    parts = x.reshape(len(x), groups, -1)
    return (scale * (parts @ v)[..., None] * v).flatten(1)


@pytest.mark.parametrize("projection", ["first-batch", "each-batch", "random"])
def test_velora_makes_as_gradient_of_one_number_a_group(bert, projection):
    options = {"groups": 8, "scale": 2.0, "projection": projection}
    _, prepared, _ = build(bert, job("velora", options=options))
    layer, seen, grads = layer_of(prepared, WIDE), [], []
    filled(prepared)  # a first batch
    layer.register_forward_hook(lambda module, args, out: seen.append(args[0].detach()))
    layer.register_full_backward_hook(lambda module, into, out: grads.append(out[0].detach()))
    prepared.model.zero_grad()
    first = layer.lora_velora_embed["default"].clone()
    prepared.model.train()
    batch = Batch(citizen.inputs(9), citizen.LABELS, 54)
    citizen.loss(prepared.model, batch).backward()
    v = layer.lora_velora_embed["default"]
    assert torch.equal(v, first) == (projection != "each-batch")
    torch.testing.assert_close(v.norm(), torch.tensor(1.0))
    x = seen[0].flatten(0, 1)
    if projection == "each-batch":
        mean = x.reshape(-1, 8).mean(0)
        torch.testing.assert_close(v, mean / mean.norm(), rtol=1e-4, atol=1e-5)
    _, b = factors(prepared, WIDE)
    of_hidden = SCALE * grads[0].flatten(0, 1) @ b
    torch.testing.assert_close(
        gradient(prepared, "A", WIDE), of_hidden.T @ rebuilt(x, v, 8, 2.0), rtol=1e-3, atol=1e-6
    )
    # B's gradient is LoRA's own.
    a, _ = factors(prepared, WIDE)
    torch.testing.assert_close(
        gradient(prepared, "B", WIDE),
        SCALE * grads[0].flatten(0, 1).T @ nn.functional.linear(x, a),
        rtol=1e-3,
        atol=1e-6,
    )


def test_velora_with_a_group_an_input_is_lora(bert):
    # v is one number, 1 or -1, and nothing is lost.
    one, other = job("velora", options={"groups": 64}), job("lora")
    wide, narrow = (build(bert, made)[1] for made in (one, other))
    kept, plain = filled(wide), filled(narrow)
    name = f"base_model.model.{QUERY}.lora_A.default.weight"
    torch.testing.assert_close(kept[name], plain[name], rtol=1e-4, atol=1e-7)
    lossy = filled(build(bert, job("velora", options={"groups": 4}))[1])
    assert (lossy[name] - plain[name]).norm() > 0.1 * plain[name].norm()

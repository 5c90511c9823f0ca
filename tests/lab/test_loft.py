"""LoFT: AdamW on W where the rank is full, and the formulas of its moments where it isn't."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import citizen
from citizen import build, job
from lora_parts import QUERY, factors, layer_of, update
from peftmark.catalog.tasks import TASKS
from peftmark.lab.data.batches import Batch
from peftmark.lab.methods import trainable
from peftmark.lab.methods.loft import DAMPING, Factor, LoftAdamW
from peftmark.lab.models import Unsupported
from peftmark.lab.step import Step

RATE = 1e-2


def problem(rank: int, scale: float) -> tuple[Any, Any, LoftAdamW]:
    """A of shape (rank, 6) and B of shape (5, rank) with their optimizer."""
    torch.manual_seed(0)
    a = torch.nn.Parameter(torch.randn(rank, 6, dtype=torch.float64))
    b = torch.nn.Parameter(torch.randn(5, rank, dtype=torch.float64))
    pairs = [Factor(b, a, scale, "B"), Factor(a, b, scale, "A")]
    return a, b, LoftAdamW([{"params": [a, b], "weight_decay": 0.0}], RATE, pairs, 1e-6)


def descent(gradient_of: Any, w: Any, optimizer: Any) -> torch.Tensor:
    """Twelve steps down a bowl that isn't round; the weights after each."""
    path = []
    for _ in range(12):
        optimizer.zero_grad()
        gradient_of(w())
        optimizer.step()
        path.append(w().detach().clone())
    return torch.stack(path)


def bowl() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    target = torch.randn(5, 5, dtype=torch.float64, generator=generator)
    return target, 0.2 + torch.rand(5, 5, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("scale", [1.0, 4.0])
def test_at_full_rank_loft_is_adamw_on_the_weight(monkeypatch, scale):
    monkeypatch.setitem(DAMPING, "A", 0.0)
    monkeypatch.setitem(DAMPING, "B", 0.0)
    torch.manual_seed(2)
    target, curvature = bowl()
    a = torch.nn.Parameter(torch.randn(5, 5, dtype=torch.float64))
    b = torch.nn.Parameter(torch.randn(5, 5, dtype=torch.float64))
    pairs = [Factor(b, a, scale, "B"), Factor(a, b, scale, "A")]
    loft = LoftAdamW([{"params": [a, b], "weight_decay": 0.0}], RATE, pairs, 1e-6)
    whole = torch.nn.Parameter(scale * (b @ a).detach())
    adam = torch.optim.AdamW([whole], lr=RATE, eps=1e-6, weight_decay=0.0)

    def loss(w: torch.Tensor) -> None:
        (curvature * (w - target).square()).sum().backward()

    ours = descent(loss, lambda: scale * b @ a, loft)
    theirs = descent(loss, lambda: whole * 1, adam)
    assert (theirs[-1] - theirs[0]).norm() > 0.3
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)


def test_the_factors_take_turns_and_b_comes_first():
    a, b, optimizer = problem(2, 4.0)
    was = a.detach().clone(), b.detach().clone()
    (b @ a).sum().backward()
    optimizer.step()
    assert torch.equal(a, was[0]) and not torch.equal(b, was[1])
    was = a.detach().clone(), b.detach().clone()
    (b @ a).sum().backward()
    optimizer.step()
    assert torch.equal(b, was[1]) and not torch.equal(a, was[0])


def test_a_step_lies_in_the_span_of_the_other_factor_and_is_the_nearest_to_adams():
    a, b, optimizer = problem(2, 4.0)
    w = 4.0 * (b @ a).detach()
    gradient = torch.randn(5, 6, dtype=torch.float64)
    b.grad, a.grad = 4.0 * gradient @ a.detach().T, 4.0 * b.detach().T @ gradient
    optimizer.step()
    moved = w - 4.0 * (b @ a).detach()
    span = a.detach().T @ torch.linalg.pinv(a.detach().T)
    projected = gradient @ span  # what B can make of G
    wanted = RATE * projected / (projected.abs() + 1e-6) @ span
    torch.testing.assert_close(moved, wanted, rtol=1e-5, atol=1e-8)


def test_scale_does_not_change_a_step_of_the_weight():
    found = []
    for scale in (1.0, 8.0):
        a, b, optimizer = problem(2, scale)
        with torch.no_grad():
            b /= scale
        gradient = torch.linspace(-1, 1, 30, dtype=torch.float64).reshape(5, 6)
        for _ in range(4):
            a.grad = scale * b.detach().T @ gradient
            b.grad = scale * gradient @ a.detach().T
            optimizer.step()
        found.append(scale * (b @ a).detach())
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_head_and_pooler_have_adamw_and_states_stand_in_one_place(bert):
    made = job("loft", precision="fp32", steps=4, learning_rate=1e-3)
    _, prepared, _ = build(bert, made)
    step = Step(made, TASKS["sst-2"], prepared, citizen.CPU)
    assert step.optimizer_name == "LoftAdamW"
    head = {n: p.detach().clone() for n, p in trainable(prepared.model) if "lora_" not in n}
    for number in (1, 2):
        step(number, Batch(citizen.inputs(), citizen.LABELS, 54))
    for name, parameter in trainable(prepared.model):
        state = step.optimizer.state[parameter]
        keys = {"exp_avg", "products", "basis"} if "lora_" in name else {"exp_avg", "exp_avg_sq"}
        assert keys <= set(state)
    now = dict(trainable(prepared.model))
    assert all(not torch.equal(now[name], was) for name, was in head.items())
    assert step.learning_rate_mean is not None


def test_training_differs_from_loras(bert):
    found = {}
    for key in ("loft", "lora"):
        made = job(key, precision="fp32", steps=6, learning_rate=1e-3)
        _, prepared, _ = build(bert, made)
        step = Step(made, TASKS["sst-2"], prepared, citizen.CPU)
        batch = Batch(citizen.inputs(), citizen.LABELS, 54)
        found[key] = [step(n, batch).loss.item() for n in range(1, 7)], update(prepared)
        assert found[key][0][-1] < found[key][0][0]
    assert found["loft"][0][2:] != found["lora"][0][2:]
    assert (found["loft"][1] - found["lora"][1]).norm() > 1e-3


def test_an_optimizer_of_bitsandbytes_is_refused(bert):
    with pytest.raises(Unsupported, match="asks for paged_adamw; set optimizer: adamw"):
        build(bert, job("loft", optimizer="paged_adamw"))


def test_a_factor_without_gradient_stays(bert):
    _, prepared, _ = build(bert, job("loft"))
    made: Any = prepared.optimizer
    optimizer = made([p for _, p in trainable(prepared.model)], lr=RATE)
    before = [f.clone() for f in factors(prepared)]
    layer_of(prepared).lora_A["default"].weight.grad = None
    optimizer.step()
    assert all(torch.equal(x, y) for x, y in zip(before, factors(prepared), strict=True))
    assert QUERY in prepared.ranks()

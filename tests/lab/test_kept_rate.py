"""AdaLoRA whose kept singular values learn faster by the share that was pruned."""

from __future__ import annotations

import pytest
import torch

import citizen
from citizen import LABELS, build, inputs, train
from peftmark.catalog.methods import known_method
from peftmark.lab.data.batches import Batch
from peftmark.lab.methods import trainable
from peftmark.lab.methods.adalora import Raised
from peftmark.lab.methods.rank_allocation import modules
from peftmark.record.recipe import AdaLoraSchedule

SCHEDULE = AdaLoraSchedule(4, 2, 4, 1, 0.85, 0.85, 0.1)


def job(method="adalora", kept_rate="raised", **changes):
    settings = {"steps": 12, "adalora": SCHEDULE, "options": {"kept_rate": kept_rate}, **changes}
    return citizen.job(method, **settings)


def values(prepared) -> torch.Tensor:
    """Every singular value, in one vector."""
    found = modules(prepared.model.base_model.model).values()
    return torch.cat([m.lora_E["default"].detach().flatten() for m in found])


def stepped(prepared, rate_now, steps=12):
    """Singular values after each step of plain gradient descent.

    Args:
        rate_now: rate of the singular values over that of the others, by the steps done.
    """
    found = []
    for step in range(1, steps + 1):
        loss = citizen.loss(prepared.model, Batch(inputs(), LABELS, 54)) + prepared.extra_loss()
        loss.backward()
        with torch.no_grad():
            for name, p in trainable(prepared.model):
                p -= 0.5 * (rate_now(step) if "lora_E" in name else 1.0) * p.grad
        prepared.after_step(step)
        prepared.model.zero_grad()
        found.append(values(prepared).clone())
    return found


def test_it_is_a_rate_of_the_first_budget_over_what_the_last_allocation_left(bert):
    """Against descent that has those rates itself."""
    _, ours, parts = build(bert, job())
    _, other, _ = build(bert, job(kept_rate="same"))
    ours.model.eval(), other.model.eval()
    allocator, first = other.model.base_model.rankallocator, 4 * len(parts.encoder_linears)
    schedule = {step: allocator.budget_schedule(step)[0] for step in range(13)}
    assert schedule[0] == first and schedule[12] == first // 2
    expected = stepped(other, lambda step: first / schedule[step - 1])
    for step, (one, two) in enumerate(zip(stepped(ours, lambda _: 1.0), expected, strict=True), 1):
        torch.testing.assert_close(one, two, rtol=1e-3, atol=1e-5, msg=f"after step {step}")
    assert torch.count_nonzero(values(ours)) == first // 2


def test_until_something_is_pruned_it_changes_nothing(bert):
    runs = []
    for kept_rate in ("same", "raised"):
        _, prepared, _ = build(bert, job(kept_rate=kept_rate))
        train(prepared, 3)
        runs.append(values(prepared).clone())
        train(prepared, 12)
        runs.append(values(prepared).clone())
    assert torch.equal(runs[0], runs[2]), "step 3 is the first that takes ranks away"
    assert not torch.equal(runs[1], runs[3])


def test_between_allocations_the_factor_stays(bert):
    rare = AdaLoraSchedule(4, 2, 4, 5, 0.85, 0.85, 0.1)
    _, prepared, _ = build(bert, job(adalora=rare))
    tuner = prepared.model.base_model
    raised, factors = Raised(tuner), []
    for step in range(1, 13):
        raised.allocated(step)
        factors.append(round(raised.factor, 3))
    fifth = tuner.rankallocator.budget_schedule(5)[0]
    assert factors == [1.0] * 4 + [round(tuner.rankallocator.init_bgt / fifth, 3)] * 3 + [2.0] * 5


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_it_trains_saves_and_comes_back(bert, tmp_path, quantization):
    citizen.check(bert, tmp_path, job(quantization=quantization))


def test_the_option_is_not_stored_at_what_was_before():
    for method in ("adalora", "two-stage", "hybrid"):
        known = known_method(method)
        assert "kept_rate" not in known.resolved_options({"kept_rate": "same"})
        assert known.resolved_options({"kept_rate": "raised"})["kept_rate"] == "raised"
        assert known.option({}, "kept_rate") == "same"

"""LoRA beside another part: which trains when, each part's clip norm, gradients that disagree."""

from __future__ import annotations

import math

import pytest
import torch

from citizen import LABELS, build, check, inputs, loss, train
from citizen import job as job_for
from peftmark.catalog.methods import known_method
from peftmark.lab.data.batches import Batch
from peftmark.lab.methods import trainable
from peftmark.lab.methods.in_phases import Alone, Clipped, Projected

METHODS = {"adapter-lora": {"width": 4, "activation": "gelu"}, "bitfit-lora": {}, "lora-prefix": {}}
ALL = {
    "lora_after": 0.4,
    "lora_rate": 0.8,
    "lora_clip": 0.5,
    "other_clip": 1.0,
    "project_below": 0.3,
}


def options(method, **given):
    return known_method(method).resolved_options({**METHODS[method], **given})


def made(folder, method, **given):
    """(the prepared model, LoRA's tensors, the other part's, the head's)."""
    _, prepared, _ = build(folder, job_for(method, options=options(method, **given)))
    named = trainable(prepared.model)
    lora = [p for name, p in named if ".lora_" in name]
    head = [p for name, p in named if "classifier" in name or "pooler" in name]
    other = [p for _, p in named if not any(p is known for known in (*lora, *head))]
    assert lora and head and other
    return prepared, lora, other, head


def backward(prepared, seed=0):
    for _, p in trainable(prepared.model):
        p.grad = None
    loss(prepared.model, Batch(inputs(seed), LABELS, 54)).backward()


def gradients(tensors):
    return [p.grad.clone() for p in tensors]


def norm(tensors):
    return math.sqrt(sum(float(p.grad.double().square().sum()) for p in tensors))


@pytest.mark.parametrize("method", METHODS)
def test_trains_saves_and_loads_with_all_of_them(tmp_path, bert, method):
    check(bert, tmp_path, job_for(method, options=options(method, **ALL)), method != "lora-prefix")


@pytest.mark.parametrize("method", METHODS)
def test_a_job_that_says_nothing_of_them_is_what_it_was(bert, method):
    assert set(ALL) <= {option.name for option in known_method(method).options}
    assert not set(options(method)) & set(ALL)  # not stored, so that ids stay
    defaults = {"lora_after": 0.0, "lora_rate": 1.0, "lora_clip": 0.0, "other_clip": 0.0}
    assert options(method, **defaults, project_below=-1.0) == options(method)
    prepared, lora, other, head = made(bert, method)
    backward(prepared)
    before = gradients([*lora, *other, *head])
    prepared.before_step()
    assert all(map(torch.equal, gradients([*lora, *other, *head]), before))
    assert {prepared.rate_of(name) for name, _ in trainable(prepared.model)} == {1.0}


@pytest.mark.parametrize("method", METHODS)
def test_lora_waits_for_its_share_of_the_steps(bert, method):
    prepared, lora, other, head = made(bert, method, lora_after=0.4)  # of ten steps
    optimizer = torch.optim.AdamW(
        [p for _, p in trainable(prepared.model)], lr=1e-3, weight_decay=0.5
    )
    at_first = [p.detach().clone() for p in lora]
    for step in range(1, 7):
        backward(prepared)
        reached = norm(lora)
        before = [p.detach().clone() for p in [*other, *head]]
        prepared.before_step()
        optimizer.step()
        still = all(map(torch.equal, lora, at_first))
        # The clip norm of the recipe is taken of these gradients.
        assert (reached == 0) == still == (step <= 4), step
        assert not all(map(torch.equal, [*other, *head], before)), step
    assert {float(optimizer.state[p]["step"]) for p in lora} == {2}  # no step was counted before


def test_so_short_a_run_still_has_a_step_for_lora():
    p = torch.nn.Parameter(torch.ones(2))
    wait = Alone([p], 1)
    p.sum().backward()
    assert p.grad.tolist() == [0, 0]
    wait()
    assert p.grad is None
    p.sum().backward()
    wait()
    assert p.grad.tolist() == [1, 1]


@pytest.mark.parametrize(("lora_clip", "other_clip"), [(0.01, 0.0), (0.0, 0.005), (0.01, 0.005)])
def test_each_part_has_its_own_clip_norm(bert, lora_clip, other_clip):
    asked = {"lora_clip": lora_clip, "other_clip": other_clip}
    prepared, *parts = made(bert, "adapter-lora", **asked)
    train(prepared, 2)  # B and U are zero at first
    backward(prepared)
    for tensors, largest in zip(parts, (lora_clip, other_clip, 0.0), strict=True):
        assert norm(tensors) > (largest or 0.005)
    before = [gradients(tensors) for tensors in parts]
    sizes = [norm(tensors) for tensors in parts]
    prepared.before_step()
    for tensors, old, size, largest in zip(
        parts, before, sizes, (lora_clip, other_clip, 0.0), strict=True
    ):
        scale = min(1.0, largest / size) if largest else 1.0
        for p, gradient in zip(tensors, old, strict=True):
            torch.testing.assert_close(p.grad, gradient * scale, rtol=1e-3, atol=1e-9)


def test_a_norm_below_the_largest_is_left_alone():
    p = torch.nn.Parameter(torch.zeros(2))
    p.grad = torch.tensor([0.3, 0.4])
    Clipped([p], 0.6)()
    assert p.grad.tolist() == pytest.approx([0.3, 0.4])


@pytest.mark.parametrize(
    ("now", "below", "expected"),
    [
        ((-1.0, 1.0), 0.3, (0.0, 1.0)),  # cosine -0.71: what goes back is taken out
        ((-1.0, 1.0), -0.8, (-1.0, 1.0)),
        ((1.0, 1.0), 0.3, (1.0, 1.0)),  # cosine 0.71
        ((1.0, 1.0), 0.8, (0.0, 1.0)),
        ((0.0, 0.0), 0.3, (0.0, 0.0)),  # no cosine; counts as 0
    ],
)
def test_a_gradient_that_disagrees_with_the_last_is_projected(now, below, expected):
    p = torch.nn.Parameter(torch.zeros(2))
    change = Projected([p], below)
    p.grad = torch.tensor([2.0, 0.0])
    change()
    assert p.grad.tolist() == [2, 0]  # nothing came before
    p.grad = torch.tensor(now)
    change()
    assert p.grad.tolist() == pytest.approx(expected, abs=1e-6)
    p.grad = torch.tensor(now)  # compared with what came, not with what was left of it
    change()
    whole = below <= 0.9 and any(now)
    assert p.grad.tolist() == pytest.approx(now if whole else (0.0, 0.0), abs=1e-6)


def test_the_cosine_is_a_mean_over_tensors():
    one, other = (torch.nn.Parameter(torch.zeros(2)) for _ in range(2))
    change = Projected([one, other], 0.1)
    one.grad, other.grad = torch.tensor([1.0, 0.0]), torch.tensor([1.0, 0.0])
    change()
    one.grad, other.grad = torch.tensor([-1.0, 1.0]), torch.tensor([1.0, 0.0])
    change()  # mean of -0.71 and 1 is 0.15
    assert one.grad.tolist() == [-1, 1]
    one.grad, other.grad = torch.tensor([1.0, -1.0]), torch.tensor([1.0, 1.0])
    change()  # -1 and 0.71
    assert one.grad.tolist() == pytest.approx([0, 0], abs=1e-6)
    assert other.grad.tolist() == pytest.approx([0, 1])


def test_gradients_that_overflowed_are_not_passed_on():
    p = torch.nn.Parameter(torch.zeros(2))
    change = Projected([p], 0.9)
    for now in ((math.inf, 0.0), (-1.0, 1.0)):
        p.grad = torch.tensor(now)
        change()
        assert p.grad.tolist() == list(now)


def test_lora_has_a_rate_of_its_own(bert):
    prepared, *_ = made(bert, "adapter-lora", lora_rate=0.8)
    rates = {name: prepared.rate_of(name) for name, _ in trainable(prepared.model)}
    assert {rate for name, rate in rates.items() if ".lora_" in name} == {0.8}
    assert {rate for name, rate in rates.items() if ".lora_" not in name} == {1.0}


@pytest.mark.parametrize("name", [name for name in ALL if name != "lora_rate"])
def test_each_changes_how_it_trains(bert, name):
    given = {name: 1e-3 if name.endswith("_clip") else ALL[name]}
    losses = []
    for asked in ({}, {}, given):
        prepared, *_ = made(bert, "adapter-lora", **asked)
        torch.manual_seed(0)  # of the base's dropout
        losses.append(train(prepared, 6)[0])
    assert losses[0] == losses[1] != losses[2]

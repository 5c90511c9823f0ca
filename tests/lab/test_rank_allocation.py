"""AdaLoRA for all modules at once against PEFT's own code: the same bits in every phase."""

from __future__ import annotations

import json

import pytest
import torch

import tiny
from peftmark.lab.data.job_data import task_of
from peftmark.lab.methods import rank_allocation, trainable
from peftmark.lab.methods.rank_allocation import BatchedAllocator, Penalty
from peftmark.lab.rng import seed_all
from peftmark.lab.step import Step
from peftmark.record.recipe import AdaLoraSchedule

STEPS, TINIT, TFINAL, EVERY = 12, 3, 4, 2  # masked after 4, 6 and 8
SCHEDULE = AdaLoraSchedule(6, TINIT, TFINAL, EVERY, 0.85, 0.8, 0.5)
CPU = torch.device("cpu")
CELLS = [("none", "fp32", 1), ("none", "bf16", 1), ("nf4", "bf16", 1), ("none", "fp32", 2)]


@pytest.fixture(autouse=True)
def one_thread():
    """As a job has; with two, a library may sum a batched product in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def job(allocator, quantization="none", precision="fp32", passes=1, method="adalora", **options):
    return tiny.job(
        method,
        quantization,
        steps=STEPS,
        batch_size=8,
        learning_rate=2e-2,
        precision=precision,
        gradient_accumulation=passes,
        adalora=SCHEDULE,
        options={"allocator": allocator, **options},
    )


def seen(prepared, taken):
    """Everything that a step leaves: what it computed, weights, ranks, scores and the pattern."""
    tuner = prepared.model.base_model
    found = {name: p.detach().clone() for name, p in trainable(prepared.model)}
    found |= {"loss": taken.loss, "penalty": taken.penalty, "norm": taken.norm}
    allocator = getattr(tuner, "rankallocator", None)
    if allocator is None:  # the first of two stages
        return found, {}, {}, None
    for kept in ("ipt", "exp_avg_ipt", "exp_avg_unc"):
        states = getattr(allocator, kept)
        found |= {f"{kept} {name}": value.clone() for name, value in states.items()}
    if isinstance(allocator, BatchedAllocator):
        allocator.settle()
    return found, prepared.ranks(), prepared.importance(), tuner.peft_config["default"].rank_pattern


def steps(places, one):
    """The state after each step of a job, and the model after the last."""
    prepared, work = tiny.build(places, one), tiny.work(places, one)
    step = Step(one, task_of(one), prepared, CPU)
    seed_all(one.seed, "dropout")
    found = [seen(prepared, step(n, work.train(n - 1))) for n in range(1, STEPS + 1)]
    return found, prepared


def assert_equal(ours, theirs):
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True), 1):
        assert one[0].keys() == other[0].keys()
        for name, value in one[0].items():
            both = value is None and other[0][name] is None
            assert both or torch.equal(value, other[0][name]), f"{name} after step {number}"
        assert one[1:] == other[1:], f"after step {number}"


@pytest.mark.parametrize(("quantization", "precision", "passes"), CELLS)
@pytest.mark.sweep(2)
def test_every_phase_has_the_bits_of_pefts_own(places, quantization, precision, passes):
    cell = (quantization, precision, passes)
    ours, batched = steps(places, job("batched", *cell))
    theirs, plain = steps(places, job("peft", *cell))
    assert_equal(ours, theirs)
    assert (batched.allocator(), plain.allocator()) == ("batched", "peft")
    ranks = [sum(one[1].values()) for one in ours]
    modules = len(ours[0][1])
    # Before tinit nothing is pruned, then the budget falls, and at the end it is met.
    assert ranks[TINIT - 1] == 6 * modules > ranks[TINIT] > ranks[-1] == 2 * modules
    assert len({one[2][name] for one in ours for name in one[2]}) > modules


def test_two_stages_have_the_bits_of_pefts_own(places):
    more = {"method": "two-stage", "first_stage": 0.1, "second_rate": 1.0}
    ours, _ = steps(places, job("batched", **more))
    theirs, _ = steps(places, job("peft", **more))
    assert_equal(ours, theirs)


def test_what_is_saved_is_what_peft_saves(places, tmp_path):
    for allocator in ("batched", "peft"):
        _, prepared = steps(places, job(allocator))
        (tmp_path / allocator).mkdir()
        prepared.save(tmp_path / allocator)
    ours, theirs = (
        {p.name: p.read_bytes() for p in (tmp_path / name).iterdir()}
        for name in ("batched", "peft")
    )
    assert ours == theirs
    pattern = json.loads(ours["adapter_config.json"])["rank_pattern"]
    assert sum(map(sum, pattern.values())) == 2 * len(pattern)


def test_it_is_saved_from_any_step(places, tmp_path):
    one = job("batched")
    prepared, work = tiny.build(places, one), tiny.work(places, one)
    step = Step(one, task_of(one), prepared, CPU)
    for number in range(1, TINIT + EVERY + 1):
        step(number, work.train(number - 1))
    prepared.save(tmp_path)
    pattern = json.loads((tmp_path / "adapter_config.json").read_text())["rank_pattern"]
    assert set(map(type, next(iter(pattern.values())))) == {bool}


def test_a_shape_with_other_bits_goes_one_by_one_and_the_row_says_so(places, monkeypatch):
    theirs, _ = steps(places, job("peft"))
    monkeypatch.setattr(rank_allocation, "_same_bits", lambda count, shape, *_: shape[0] != 6)
    ours, prepared = steps(places, job("batched"))
    assert_equal(ours, theirs)
    modules = len(ours[0][1])
    assert prepared.allocator() == f"batched, but for {modules} matrices of the penalty"


def test_shapes_are_tried_by_their_gradients_too(monkeypatch):
    ask = ((3, (6, 64), True, CPU, 1), (3, (64, 6), False, CPU, 1))
    rank_allocation._same_bits.cache_clear()
    assert [rank_allocation._same_bits(*one) for one in ask] == [True, True]
    rank_allocation._same_bits.cache_clear()
    backward = rank_allocation._Norms.backward

    def off(ctx, gradient):
        none, first, *others = backward(ctx, gradient)
        return none, torch.nextafter(first, first + 1), *others

    monkeypatch.setattr(rank_allocation._Norms, "backward", staticmethod(off))
    assert [rank_allocation._same_bits(*one) for one in ask] == [False, False]
    rank_allocation._same_bits.cache_clear()


def test_means_of_a_shape_with_other_bits_are_taken_one_by_one(places, monkeypatch):
    theirs, _ = steps(places, job("peft"))
    asked = []
    monkeypatch.setattr(rank_allocation, "_same_means", lambda *one: asked.append(one))
    ours, _ = steps(places, job("batched"))
    assert_equal(ours, theirs)
    assert {dim for _, _, dim, _, _ in asked} == {0, 1}


@pytest.mark.parametrize("dim", [0, 1])
def test_means_of_several_shapes_are_those_of_each(dim):
    torch.manual_seed(0)
    scores = [torch.rand(shape) for shape in ((4, 32), (6, 64), (4, 32), (4, 16), (6, 64))]
    allocator = BatchedAllocator.__new__(BatchedAllocator)
    allocator._values = True
    for found, score in zip(allocator._means(scores, dim), scores, strict=True):
        assert torch.equal(found, score.mean(dim=dim))


def test_means_are_tried_on_their_shape(monkeypatch):
    ask = (3, (6, 64), 1, CPU, 1)
    rank_allocation._same_means.cache_clear()
    assert rank_allocation._same_means(*ask)
    rank_allocation._same_means.cache_clear()
    mean = torch.Tensor.mean

    def off(one, dim):
        found = mean(one, dim=dim)
        return torch.nextafter(found, found + 1) if one.ndim == 3 else found

    monkeypatch.setattr(torch.Tensor, "mean", off)
    assert not rank_allocation._same_means(*ask)
    rank_allocation._same_means.cache_clear()


def test_trying_shapes_draws_nothing_from_the_jobs_random_numbers():
    rank_allocation._same_bits.cache_clear()
    rank_allocation._same_means.cache_clear()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    rank_allocation._same_bits(2, (4, 32), True, CPU, 1)
    rank_allocation._same_means(2, (4, 32), 0, CPU, 1)
    assert torch.equal(before, torch.get_rng_state())


def test_stacks_are_cut_where_they_would_be_large(monkeypatch):
    matrices = [(torch.zeros(4, 64), True)] * 5 + [(torch.zeros(64, 4), False)] * 2
    assert list(rank_allocation._groups(matrices)) == [([0, 1, 2, 3, 4], True), ([5, 6], False)]
    monkeypatch.setattr(rank_allocation, "STACKED", 2 * 4 * 64 * 4)
    found = list(rank_allocation._groups(matrices))
    assert found == [([0, 1], True), ([2, 3], True), ([5, 6], False)]  # the fifth goes alone


def test_a_matrix_that_is_orthogonal_already_has_no_gradient():
    def holder(rows):
        module = torch.nn.Module()
        module.lora_A = torch.nn.ParameterDict({"default": torch.nn.Parameter(rows)})
        return module

    eye = torch.eye(4, 32)
    model = torch.nn.ModuleList([holder(eye.clone()), holder(eye.clone())])
    for batched in (True, False):
        penalty = Penalty(model, batched=batched)
        penalty().backward()
        for p in model.parameters():
            assert torch.equal(p.grad, torch.zeros_like(p))
            p.grad = None

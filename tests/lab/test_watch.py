"""What is looked at after each interval: right values, no bit changed, and a rate that halves."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import tiny
from peftmark.catalog.alarms import ALARMS
from peftmark.catalog.tasks import TASKS
from peftmark.lab import recipe
from peftmark.lab.data.batches import Batch
from peftmark.lab.measure import watch as watching
from peftmark.lab.measure.part_cosines import cosines, refusal
from peftmark.lab.measure.watch import Watch, module_norms, module_of
from peftmark.lab.methods import trainable
from peftmark.lab.models import trained_head
from peftmark.lab.step import Step, logits_of
from peftmark.record.fields_watch import WATCHED

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("training_alone")
HEAD = ("classifier", "bert.pooler")


def run(places, job):
    return recipe.run(job, places, lambda message: None)


def held(places, job, steps=1):
    """A model after some steps, the last one's gradients held, with what a watch needs."""
    build = tiny.builder(places, job)
    prepared = build.prepare(build.base())
    step, work = Step(job, TASKS[job.task], prepared, CPU), tiny.work(places, job)
    step.held = steps
    for number in range(1, steps + 1):
        taken = step(number, work.train(number - 1))
    head = trained_head(build.parts, job.recipe.train_pooler)
    return prepared, step, work.train(steps - 1), float(taken.norm), head


def adapter(prepared, head=HEAD):
    return {n: p for n, p in trainable(prepared.model) if not watching.belongs_to(n, head)}


# --- no bit is changed --------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["lora", "adalora", "bitfit-lora", "full"])
def test_looking_changes_no_bit_of_what_is_trained(places, monkeypatch, method):
    """Dropout is on, so that a random number drawn would show."""
    job = tiny.job(method, eval_every=3)
    looked = run(places, job)
    monkeypatch.setattr(Watch, "look", lambda self, step, *_: step.drop_gradients())
    blind = run(places, job)
    assert looked.norm_history and not blind.norm_history
    assert looked.final_weights_hash == blind.final_weights_hash
    assert looked.predictions == blind.predictions

    def points(outcome):
        return [{k: v for k, v in asdict(p).items() if k != "seconds"} for p in outcome.curve]

    assert points(looked) == points(blind)


def test_looking_is_outside_the_timed_steps_and_its_time_is_told(places, monkeypatch):
    phases = []
    real = Watch.look

    def look(self, step, *given):
        phases.append(bool(step.held))
        real(self, step, *given)

    monkeypatch.setattr(Watch, "look", look)
    done = run(places, tiny.job("lora"))
    assert len(phases) == len(done.curve) == 2
    assert done.phase_seconds["watch"] > 0, "how long is no matter of a test"


def test_gradients_are_held_for_a_look_and_no_longer(places):
    job = tiny.job("lora")
    prepared, step, batch, norm, head = held(places, job)
    assert all(p.grad is not None for p in adapter(prepared).values())
    Watch(job, TASKS[job.task], prepared, head, 12, CPU).look(step, 1, batch, norm)
    assert all(p.grad is None for _, p in trainable(prepared.model))


def test_a_step_that_is_not_held_keeps_no_gradient(places):
    job = tiny.job("lora")
    prepared = tiny.build(places, job)
    step = Step(job, TASKS[job.task], prepared, CPU)
    step(1, tiny.work(places, job).train(0))
    assert all(p.grad is None for _, p in trainable(prepared.model))


# --- values -------------------------------------------------------------------------------------


def test_norms_are_those_of_each_modules_tensors_without_the_head(places):
    prepared, *_ = held(places, tiny.job("lora"))
    found = module_norms(adapter(prepared))
    assert set(found) == set(prepared.ranks())
    name = "bert.encoder.layer.1.attention.self.value"
    module = prepared.model.base_model.model.get_submodule(name)
    both = torch.cat(
        [module.lora_A["default"].weight.flatten(), module.lora_B["default"].weight.flatten()]
    )
    assert found[name] == pytest.approx(float(both.detach().norm()), rel=1e-6)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("base_model.model.bert.layer.0.query.lora_A.default.weight", "bert.layer.0.query"),
        ("bert.layer.0.output.LayerNorm.bias", "bert.layer.0.output.LayerNorm"),
        ("base_model.model.bert.layer.0.query.lora_E.default", "bert.layer.0.query"),
        ("prompt", "prompt"),
    ],
)
def test_a_tensor_belongs_to_the_module_it_sits_on(name, module):
    assert module_of(name) == module


@pytest.mark.parametrize("largest", [1e-3, 1e9])
def test_shares_are_of_gradients_before_they_are_clipped(places, monkeypatch, largest):
    monkeypatch.setattr(watching, "CHUNK", 7)  # most tensors are of several chunks
    job = tiny.job("adalora", max_grad_norm=largest)
    prepared, step, batch, norm, head = held(places, job, steps=3)
    scale = min(1.0, largest / (norm + 1e-6))
    raw = torch.cat([p.grad.flatten() for p in adapter(prepared).values()]) / scale
    looking = Watch(job, TASKS[job.task], prepared, head, 12, CPU)
    looking.look(step, 3, batch, norm)
    [shares] = looking.seen.shares
    for name, limit in (("below 1e-04", 1e-4), ("below 1e-05", 1e-5), ("below 1e-06", 1e-6)):
        assert shares[name] == pytest.approx(float((raw.abs() < limit).double().mean()), abs=1e-3)
    assert shares["below 1e-05 so far"] == shares["below 1e-05"]
    assert 0 < shares["below 1e-04"] < 1


def test_what_was_small_at_every_look_is_followed_by_parameter(places):
    job = tiny.job("bitfit", max_grad_norm=1e9)
    prepared, step, batch, _, head = held(places, job)
    looking = Watch(job, TASKS[job.task], prepared, head, 12, CPU)
    tensors = list(adapter(prepared).values())
    total = sum(p.numel() for p in tensors)
    for first, second in ((0.0, 1.0), (1.0, 0.0)):
        for p in tensors:
            p.grad = torch.full_like(p, second)
        tensors[0].grad = torch.full_like(tensors[0], first)
        tensors[1].grad = torch.zeros_like(tensors[1])
        looking.look(step, 1, batch, 1.0)
    one, two = (tensor.numel() / total for tensor in tensors[:2])
    assert [s["below 1e-05"] for s in looking.seen.shares] == pytest.approx([one + two, 1 - one])
    so_far = [s["below 1e-05 so far"] for s in looking.seen.shares]
    assert so_far == pytest.approx([one + two, two])


def test_too_many_parameters_are_counted_and_not_followed(places, monkeypatch):
    monkeypatch.setattr(watching, "MOST_FOLLOWED", 10)
    done = run(places, tiny.job("lora"))
    assert done.gradient_shares["below 1e-05 so far"] == [None, None]
    assert None not in done.gradient_shares["below 1e-05"]


def test_an_overflow_of_fp16_has_no_shares(places):
    job = tiny.job("lora")
    prepared, step, batch, _, head = held(places, job)
    looking = Watch(job, TASKS[job.task], prepared, head, 12, CPU)
    looking.look(step, 1, batch, math.inf)
    assert set(looking.seen.shares[0].values()) == {None}


def test_variation_is_of_every_module_that_scores(places):
    done = run(places, tiny.job("adalora", eval_every=2))
    assert set(done.importance_variation) == set(done.importance_history)
    varied = [v for values in done.importance_variation.values() for v in values if v is not None]
    assert varied and all(v >= 0 for v in varied)


def test_variation_is_that_of_the_allocators_scores(places):
    job = tiny.job("adalora")
    prepared, *_ = held(places, job, steps=2)
    tuner = prepared.model.base_model
    name, module = next(
        (n, m) for n, m in tuner.model.named_modules() if hasattr(m, "lora_E") and len(m.lora_E)
    )
    score = tuner.rankallocator._element_score
    parts = (
        score(f"{name}.lora_E.default")[:, 0]
        + score(f"{name}.lora_A.default").mean(1)
        + score(f"{name}.lora_B.default").mean(0)
    )
    module.lora_E["default"].data[0] = 0.0  # pruned
    kept = parts[1:].double()
    assert prepared.importance_variation()[name] == pytest.approx(float(kept.std() / kept.mean()))


# --- parts --------------------------------------------------------------------------------------

PARTS = {
    "bitfit-lora": {"LoRA", "biases"},
    "adapter-lora": {"LoRA", "adapter"},
    "unipelt": {"LoRA", "prefix", "adapter"},
}


@pytest.mark.parametrize("method", PARTS)
def test_every_tensor_of_a_combined_method_is_of_a_part_but_gates(places, method):
    prepared = tiny.build(places, tiny.job(method))
    found = {name: prepared.part_of(name) for name in adapter(prepared)}
    assert set(found.values()) - {""} == PARTS[method]
    assert all("gate" in name for name, part in found.items() if not part)


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # of torch's own jvp
@pytest.mark.parametrize("method", ["bitfit-lora", "adapter-lora", "unipelt"])
def test_a_cosine_is_that_of_directional_derivatives(places, method):
    """Against forward-mode derivatives of the logits down each part's own gradient."""
    job = tiny.job(method)
    prepared, _, batch, _, _ = held(places, job, steps=3)
    model, tensors = prepared.model, adapter(prepared)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    found = cosines(model, tensors, prepared.part_of, batch, TASKS[job.task], job, CPU)
    assert model.training
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
    model.eval()

    def change(part):
        moved = {n: p for n, p in tensors.items() if prepared.part_of(n) == part}
        values = {n: p.detach() for n, p in moved.items()}
        down = {n: -p.grad for n, p in moved.items()}

        def logits(given):
            out = torch.func.functional_call(model, given, kwargs=dict(batch.inputs))
            return out.logits

        with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
            _, slope = torch.func.jvp(logits, (values,), (down,))
        return (slope - slope.mean(-1, keepdim=True)).flatten()

    parts = sorted(PARTS[method], key=list(dict.fromkeys(map(prepared.part_of, tensors))).index)
    changes = {part: change(part) for part in parts}
    assert len(found) == len(parts) * (len(parts) - 1) / 2
    for pair, cosine in found.items():
        one, other = pair.split(" + ")
        exact = torch.cosine_similarity(changes[one], changes[other], dim=0).detach()
        assert cosine == pytest.approx(float(exact), abs=0.02)


class Sum(nn.Module):
    """Logits (a + b) x: two parts that do the same."""

    def __init__(self):
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.ones(1)) for _ in range(2))

    def forward(self, x):
        return SimpleNamespace(logits=(self.a + self.b) * x)


@pytest.mark.parametrize(("slope", "cosine"), [(2.0, 1.0), (-0.5, -1.0), (0.0, None)])
def test_parts_that_pull_the_same_way_or_against_each_other(slope, cosine):
    model, batch = Sum(), Batch({"x": torch.tensor([[1.0, 2.0], [4.0, 3.0]])}, torch.zeros(2), 4)
    model.a.grad, model.b.grad = torch.ones(1), torch.full((1,), slope)
    tensors = dict(model.named_parameters())
    found = cosines(model, tensors, str, batch, TASKS["sst-2"], tiny.job(), CPU)
    assert found == {"a + b": pytest.approx(cosine, abs=1e-5) if cosine else None}
    assert (model.a.item(), model.b.item()) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("method", "changes", "said"),
    [
        ("lora", {}, "one part"),
        ("bitfit-lora", {"precision": "bf16"}, "bf16 is too coarse"),
        ("bitfit-lora", {}, ""),
    ],
)
def test_where_no_cosine_is_measured_the_reason_is_told(places, method, changes, said):
    job = tiny.job(method, **changes)
    found = refusal(job, TASKS[job.task], tiny.build(places, job))
    assert said in found and bool(said) == bool(found)


@pytest.mark.slow
def test_an_outcome_has_a_reason_for_each_column_that_is_empty(places):
    for method in ("head", "lora", "adalora", "bitfit-lora"):
        done = run(places, tiny.job(method))
        for name in WATCHED:
            assert bool(getattr(done, name)) != bool(done.null_reasons.get(name)), (method, name)
            json.dumps(getattr(done, name), allow_nan=False)
        if method == "head":
            assert done.null_reasons["norm_history"] == "nothing trains but the head"
        if method == "bitfit-lora":
            assert list(done.part_cosines) == ["biases + LoRA"]


# --- a rate that halves -------------------------------------------------------------------------

GROWING = {
    "learning_rate": 0.02,
    "schedule": "constant",
    "warmup_steps": 24,
    "steps": 24,
    "eval_every": 3,
    "train_rows": 24,  # three steps an epoch
    "weight_decay": 0.0,
}
"""The rate rises all the way, so that biases, which start at zero, grow by its square."""


def test_a_norm_that_grows_for_three_epochs_halves_the_rate_and_the_row_says_when(places):
    with_it = run(places, tiny.job("bitfit", halve_on_growth=True, **GROWING))
    without = run(places, tiny.job("bitfit", **GROWING))
    alarm = ALARMS["norm-growth"]
    first = int(min(with_it.rate_halvings, key=int))
    place = [p.step for p in with_it.curve].index(first)
    rising = [
        all(values[i] > alarm.threshold * values[i - 1] > 0 for i in range(place - 2, place + 1))
        for values in with_it.norm_history.values()
    ]
    assert first == 12 and any(rising)  # the fourth epoch has the third growth
    assert with_it.rate_halvings[str(first)] == 0.5
    assert without.rate_halvings == {}
    assert without.null_reasons["rate_halvings"] == "the recipe doesn't ask"

    def losses(outcome, steps):
        return [p.loss for p in outcome.curve if p.step <= steps]

    assert losses(with_it, first) == losses(without, first)
    assert with_it.final_weights_hash != without.final_weights_hash
    factor = dict.fromkeys(range(1, 25), 1.0)
    for at, share in with_it.rate_halvings.items():
        factor |= dict.fromkeys(range(int(at) + 1, 25), share)
    mean = sum(0.02 * step / 24 * share for step, share in factor.items()) / 24
    assert with_it.learning_rate_mean == pytest.approx(mean)
    assert without.learning_rate_mean == pytest.approx(0.02 * 25 / 48)


def test_after_a_halving_growth_is_counted_anew(places, monkeypatch):
    """A norm that doubles each epoch: the third growth is in the fourth epoch, and four epochs
    later again, not at each one after."""
    job = tiny.job("lora", halve_on_growth=True)
    prepared, step, batch, norm, head = held(places, job)
    norms = iter({"m": 2.0**epoch} for epoch in range(9))
    monkeypatch.setattr(watching, "module_norms", lambda _: next(norms))
    watch = Watch(job, TASKS[job.task], prepared, head, 12, CPU)
    for epoch in range(1, 10):
        watch.look(step, 12 * epoch, batch, norm)
    assert watch.seen.halvings == {"48": 0.5, "96": 0.25}


def test_a_halved_rate_stays_halved_under_the_schedule(places):
    job = tiny.job("lora", schedule="linear", warmup_steps=0)
    prepared = tiny.build(places, job)
    step, work = Step(job, TASKS[job.task], prepared, CPU), tiny.work(places, job)
    rates = []
    for number in range(1, 7):
        rates.append(step.optimizer.param_groups[0]["lr"])
        step(number, work.train(number - 1))
        if number == 3:
            step.halve_rate()
    whole = [5e-3 * (12 - i) / 11 if i else 5e-3 for i in range(6)]
    assert rates[:3] == pytest.approx(whole[:3])
    assert rates[3:] == pytest.approx([rate / 2 for rate in whole[3:]])


def test_logits_are_those_of_evaluation_mode(places):
    """Dropout would make two passes differ by more than a step does."""
    job = tiny.job("bitfit-lora")
    prepared, _, batch, _, _ = held(places, job)
    prepared.model.eval()
    with torch.no_grad():
        one, other = (logits_of(prepared.model, batch, job, CPU) for _ in range(2))
    assert torch.equal(one, other)

"""BitFit from a teacher: the loss in numbers, who trains when, and what is left afterwards."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import citizen
import tiny
from citizen import LABELS, base_of, build, inputs, logits, train
from peftmark.lab import recipe
from peftmark.lab.data.batches import Batch
from peftmark.lab.methods import trainable
from peftmark.lab.methods.bitfit_distilled import distillation
from peftmark.lab.models import Unsupported
from peftmark.sources.assets import Places


@pytest.fixture
def places(tmp_path, monkeypatch):
    tiny.install(tmp_path / "mirror", monkeypatch)
    return Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")


def job(**changes):
    return citizen.job("bitfit-distilled", **{"steps": 20, **changes})


def test_the_loss_is_the_divergence_at_a_temperature_times_its_square():
    """Two classes by hand: teacher 3:1 at T, student even."""
    temperature = 4.0
    told = torch.tensor([[temperature * math.log(3.0), 0.0]])
    own = torch.zeros(1, 2)
    expected = temperature**2 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    assert float(distillation(own, told, temperature)) == pytest.approx(expected, rel=1e-5)
    assert float(distillation(told, told, temperature)) == pytest.approx(0, abs=1e-6)
    rows = distillation(torch.cat([own, told]), torch.cat([told, told]), temperature)
    assert float(rows) == pytest.approx(expected / 2, rel=1e-5)


def test_the_teacher_is_tuned_whole_and_then_only_biases_of_a_fresh_base_train(places, bert):
    base, prepared, parts = build(bert, job())
    assert all(p.requires_grad for p in prepared.model.parameters())
    assert prepared.stage.after == 10 and prepared.stage.rate == 50.0
    assert prepared.fault() == "the second stage never began"
    teacher = prepared.model
    train(prepared, steps=10)
    assert prepared.model is teacher
    kept = {n: p.detach().clone() for n, p in teacher.named_parameters()}
    prepared.stage.begin()
    student = prepared.model
    assert student is not teacher and prepared.new_base and prepared.fault() is None
    torch.testing.assert_close(logits(student), logits(base))
    heads = (*parts.head, parts.pooler)
    trained = [n for n, _ in trainable(student) if not n.startswith(heads)]
    assert trained and all(n.endswith(".bias") for n in trained)
    before = {n: p.detach().clone() for n, p in student.named_parameters()}
    optimizer = torch.optim.SGD([p for _, p in trainable(student)], lr=0.1)
    student.train()
    own = student(**inputs()).logits
    penalty = prepared.extra_loss()
    torch.testing.assert_close(penalty, distillation(own, logits(teacher), 4.0))
    penalty.backward()
    optimizer.step()
    for name, p in student.named_parameters():
        if name not in dict(trainable(student)):
            assert torch.equal(p, before[name]), name
    assert all(torch.equal(p, kept[n]) and p.grad is None for n, p in teacher.named_parameters())
    assert prepared.extra_loss() is None, "one step's rows are compared once"


def test_evaluation_asks_no_teacher(places, bert):
    _, prepared, _ = build(bert, job())
    train(prepared, steps=11)
    logits(prepared.model)
    assert prepared.extra_loss() is None


def test_the_teacher_moves_the_student(places, bert):
    """Other weights, and what it says comes nearer to what the teacher says."""
    gaps, weights = [], []
    for weight in (0.0, 5.0):
        made = job(options={"distillation": weight}, train_pooler=False)
        _, prepared, _ = build(bert, made)
        train(prepared, steps=10)
        teacher = prepared.model
        train_on(prepared, 20)
        gaps.append(float(distillation(logits(prepared.model), logits(teacher), 4.0)))
        weights.append(prepared.model.classifier.bias.detach().clone())
    assert not torch.equal(*weights)
    assert gaps[1] < gaps[0]


def train_on(prepared, steps):
    """The second stage alone."""
    prepared.stage.begin()
    prepared.model.train()
    optimizer = torch.optim.AdamW([p for _, p in trainable(prepared.model)], lr=1e-3)
    for _ in range(steps):
        loss = citizen.loss(prepared.model, Batch(inputs(), LABELS, 54))
        (loss + prepared.extra_loss()).backward()
        optimizer.step()
        optimizer.zero_grad()


def test_it_saves_and_comes_back(places, folder, tmp_path):
    _, prepared, _ = build(folder, job())
    train(prepared, steps=20)
    (tmp_path / "saved").mkdir()
    prepared.save(tmp_path / "saved")
    loaded = prepared.load(base_of(folder, job())[0], tmp_path / "saved")
    torch.testing.assert_close(logits(loaded), logits(prepared.model), rtol=1e-5, atol=1e-5)
    assert prepared.merge is None


@pytest.mark.slow
def test_a_whole_job_is_neither_of_its_parents(places):
    done = {}
    for method in ("bitfit-distilled", "bitfit", "full"):
        made = tiny.job(method, learning_rate=1e-3, options={})
        done[method] = recipe.run(made, places, lambda message: None)
        assert done[method].status == "ok", done[method].status_reason
    ours = done["bitfit-distilled"]
    assert len({one.final_weights_hash for one in done.values()}) == 3
    assert len({tuple(one.curve) for one in done.values()}) == 3
    assert ours.reload_max_error < 1e-5
    assert ours.active_parameters == done["bitfit"].active_parameters
    assert ours.live_bytes == ours.predicted_live_bytes
    assert [point.penalty is None for point in ours.curve] == [True, False]


def test_a_task_without_classes_is_refused(places, bert):
    with pytest.raises(Unsupported, match="is of kind regression; use bitfit"):
        build(bert, job(task="tiny-score"))


def test_several_passes_a_step_are_refused(places, bert):
    with pytest.raises(Unsupported, match="gradient_accumulation: 1"):
        build(bert, job(gradient_accumulation=2))


def test_no_teacher_is_in_what_trains_or_is_saved(places, bert, tmp_path):
    _, prepared, _ = build(bert, job())
    train(prepared, steps=20)
    whole = sum(p.numel() for p in base_of(bert, job())[0].parameters())
    assert sum(p.numel() for p in prepared.model.parameters()) == whole
    assert not [m for m in prepared.model.modules() if isinstance(m, nn.ModuleDict)]

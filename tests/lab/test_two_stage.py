"""LoRA, then AdaLoRA: nothing is lost between the stages, and the schedule is the second's."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from peft.tuners.adalora.layer import SVDLinear
from torch import nn

import citizen
import tiny
from citizen import LABELS, build, inputs, logits, train
from peftmark.lab import recipe
from peftmark.lab.data.batches import Batch
from peftmark.lab.methods import trainable
from peftmark.lab.methods.rank_allocation import Penalty
from peftmark.lab.methods.two_stage import take_over
from peftmark.record.recipe import AdaLoraSchedule
from peftmark.sources.assets import Places

QUANTIZATIONS = ["none", "nf4", "fp4", "int8"]
SCHEDULE = AdaLoraSchedule(4, 2, 3, 1, 0.85, 0.85, 0.1)


def job(quantization="none", **changes):
    """Eight steps of LoRA, then twelve of AdaLoRA."""
    options = {"first_stage": 0.4}
    return citizen.job("two-stage", quantization, options=options, steps=20, **changes)


def first_stage(prepared, steps=8):
    """Train as far as the last step of the first stage."""
    assert prepared.stage.after == steps
    prepared.model.train()
    optimizer = torch.optim.AdamW([p for _, p in trainable(prepared.model)], lr=5e-3)
    for step in range(1, steps + 1):
        citizen.loss(prepared.model, Batch(inputs(), LABELS, 54)).backward()
        assert prepared.extra_loss() is None
        optimizer.step()
        prepared.after_step(step)
        optimizer.zero_grad()


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_the_second_stage_starts_as_the_function_the_first_ended_as(bert, quantization):
    base, prepared, parts = build(bert, job(quantization))
    assert prepared.fault() == "the second stage never began"
    first_stage(prepared)
    learned, ranks = logits(prepared.model), prepared.ranks()
    head = prepared.model.base_model.model.classifier.modules_to_save["default"].weight.clone()
    assert (learned - logits(base)).abs().max() > 0.05
    lora = prepared.model
    prepared.stage.begin()
    assert prepared.model is not lora
    assert (logits(prepared.model) - learned).abs().max() < 1e-5
    now = prepared.model.base_model.model.classifier.modules_to_save["default"].weight
    assert torch.equal(now, head)
    training = " ".join(name for name, _ in trainable(prepared.model))
    assert "classifier.modules_to_save.default.weight" in training
    assert "bert.pooler.modules_to_save.default.dense.weight" in training
    # The same modules at the same rank, now with singular values, in orthonormal directions.
    assert prepared.ranks() == ranks == dict.fromkeys(parts.encoder_linears, 4)
    assert not [n for n, _ in prepared.model.named_parameters() if n.endswith("lora_A.weight")]
    assert Penalty(prepared.model)() < 1e-5
    assert all(p.dtype == torch.float32 for _, p in trainable(prepared.model))


@pytest.mark.parametrize("rank", [4, 6])
def test_the_update_is_factored_by_its_singular_values(rank):
    torch.manual_seed(0)
    left, right = torch.randn(20, 4), torch.randn(4, 30)
    config = job_config(rank)
    module = SVDLinear(nn.Linear(30, 20), "default", config, r=rank, lora_alpha=8)
    nn.init.normal_(module.lora_E["default"])
    take_over(module, left.double(), right.double())
    delta = left @ right
    torch.testing.assert_close(module.get_delta_weight("default"), delta, rtol=1e-4, atol=1e-4)
    scale = 8 / (rank + 1e-5)
    values = torch.linalg.svdvals(delta)[:rank]
    torch.testing.assert_close(module.lora_E["default"][:4, 0] * scale, values[:4])
    assert not module.lora_E["default"][4:].any()


def job_config(rank):
    from peft import AdaLoraConfig

    return AdaLoraConfig(init_r=rank, target_r=2, total_step=10)


def test_the_schedule_counts_the_steps_of_the_second_stage(bert):
    _, prepared, parts = build(bert, job(adalora=SCHEDULE))
    modules = len(parts.encoder_linears)
    begin, seen = prepared.stage.begin, []

    def begin_and_watch():
        begin()
        allocate = prepared.after_step

        def after(step):
            allocate(step)
            seen.append((step, sum(prepared.ranks().values())))

        prepared.after_step = after

    prepared.stage = replace(prepared.stage, begin=begin_and_watch)
    train(prepared, 20)
    totals = dict(seen)
    # tinit 2: full until step 8 + 2; tfinal 3: at the budget from step 20 - 3 on.
    assert [totals[step] for step in (9, 10)] == [4 * modules] * 2
    assert totals[11] < 4 * modules
    assert totals[13] > 2 * modules
    assert [totals[step] for step in (17, 18, 19, 20)] == [2 * modules] * 4
    assert prepared.fault() is None
    assert set(prepared.importance()) == set(prepared.ranks())


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_trains_saves_and_loads(bert, tmp_path, quantization):
    prepared = citizen.check(bert, tmp_path, job(quantization))
    assert sum(prepared.ranks().values()) == 2 * len(prepared.ranks())
    assert prepared.matched_rank == "target_r"
    assert (prepared.merge is None) == (quantization != "none")
    assert prepared.extra_loss() > 0
    total = sum(p.numel() for _, p in trainable(prepared.model))
    assert prepared.active_parameters() == total - 2 * len(prepared.ranks()) * 129


def test_frozen_weights_stay_as_they_were(bert):
    base, prepared, _ = build(bert, job())
    train(prepared, 20)
    now = dict(prepared.model.named_parameters())
    for name, parameter in base.named_parameters():
        module, tensor = name.rsplit(".", 1)
        place = f"base_model.model.{module}"
        same = now.get(f"{place}.base_layer.{tensor}", now.get(f"{place}.{tensor}"))
        if same is None:  # of the head, whose first copy stays beside the one that trains
            top = next(top for top in ("classifier", "bert.pooler") if module.startswith(top))
            rest = f"{module.removeprefix(top)}.{tensor}"
            same = now[f"base_model.model.{top}.original_module{rest}"]
        assert torch.equal(same, parameter), name
        assert not same.requires_grad


def test_merged_is_the_trained_model(bert, tmp_path):
    _, prepared, _ = build(bert, job())
    train(prepared, 20)
    prepared.save(tmp_path)
    fresh, _ = citizen.base_of(bert, job())
    merged, into = prepared.merge(prepared.load(fresh, tmp_path))
    torch.testing.assert_close(logits(merged), logits(prepared.model), rtol=1e-4, atol=2e-5)
    assert into == "fp32 weights"


@pytest.mark.slow
# On a 4-bit base that computes in bf16, PEFT rounds what it loads.
@pytest.mark.parametrize(("quantization", "precision"), [("none", "bf16"), ("nf4", "fp32")])
def test_a_whole_job(tmp_path, monkeypatch, quantization, precision):
    tiny.install(tmp_path / "mirror", monkeypatch)
    places = Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")
    made = tiny.job(
        "two-stage",
        quantization,
        steps=40,
        eval_every=10,
        precision=precision,
        alpha=32.0,
        learning_rate=1e-2,
        adalora=AdaLoraSchedule(4, 4, 5, 1, 0.85, 0.85, 0.1),
        options={"first_stage": 0.5, "second_rate": 0.25},
    )
    done = recipe.run(made, places, lambda message: None)
    assert (done.status, done.warnings) == ("ok", ())
    assert [point.penalty is None for point in done.curve] == [True, True, False, False]
    assert all(history == [4, 4, *history[2:]] for history in done.rank_history.values())
    assert sum(history[-1] for history in done.rank_history.values()) == 2 * len(done.rank_history)
    assert all(h[:2] == [None, None] for h in done.importance_history.values())
    assert all(h[2] > 0 for h in done.importance_history.values())
    assert done.reload_max_error < 1e-5
    assert done.metric_value > done.baseline_value

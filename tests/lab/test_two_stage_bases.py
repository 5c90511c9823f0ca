"""Two stages of which the second has another base, or starts from the first one's best step."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import citizen
import tiny
from citizen import LABELS, build, inputs, logits
from peftmark.lab import recipe
from peftmark.lab.data.batches import Batch
from peftmark.lab.export.opened import opened
from peftmark.lab.measure.probe import Probed, of_both
from peftmark.lab.memory.live_tensors import LiveBytes
from peftmark.lab.methods import trainable
from peftmark.lab.methods.two_stage import BASE
from peftmark.lab.quantization.table import is_quantised
from peftmark.record.job import Job
from peftmark.record.recipe import AdaLoraSchedule
from peftmark.record.stages import ends_as, second_stage

BARE = {"first_stage": 0.4, "second_rate": 0.25}
PLAIN = {**BARE, "second_quantization": "none"}
BEST = {**BARE, "from": "best"}


def job(quantization="nf4", options=PLAIN, **changes):
    """Eight steps of LoRA, then twelve of AdaLoRA."""
    return citizen.job("two-stage", quantization, options=options, steps=20, **changes)


def first_stage(prepared, scores=None):
    """Train through the first stage; `scores` by the step after which they are told."""
    optimizer = torch.optim.AdamW([p for _, p in trainable(prepared.model)], lr=5e-3)
    prepared.model.train()
    seen = {}
    for step in range(1, 9):
        citizen.loss(prepared.model, Batch(inputs(), LABELS, 54)).backward()
        optimizer.step()
        optimizer.zero_grad()
        if scores and step in scores:
            prepared.scored(scores[step])
            seen[step] = logits(prepared.model)
    return seen


def quantised(model):
    return [name for name, p in model.named_parameters() if is_quantised(p)]


@pytest.mark.parametrize("quantization", ["nf4", "fp4"])
def test_the_second_stage_is_the_plain_base_with_the_first_ones_update(bert, quantization):
    _, prepared, _ = build(bert, job(quantization))
    first_stage(prepared)
    lora = prepared.model
    updates = {
        name.removeprefix(BASE): module.get_delta_weight("default").detach().clone()
        for name, module in lora.named_modules()
        if hasattr(module, "lora_A")
    }
    head = {
        name: {k: v.clone() for k, v in lora.get_submodule(f"{BASE}{name}").state_dict().items()}
        for name in ("classifier.modules_to_save.default", "bert.pooler.modules_to_save.default")
    }
    before = logits(lora)
    old = [*lora.parameters()]
    assert quantised(lora)
    assert not prepared.new_base
    prepared.stage.begin()
    assert prepared.new_base
    assert quantised(prepared.model) == []
    assert sum(p.numel() for p in old) == 0  # the quantised base is let go
    # By hand: W + s B A in every target, and the head as it was trained.
    plain, _ = citizen.base_of(bert, replace(job(), quantization="none"))
    with torch.no_grad():
        for name, update in updates.items():
            plain.get_submodule(name).weight += update
    plain.classifier.load_state_dict(head["classifier.modules_to_save.default"])
    plain.bert.pooler.load_state_dict(head["bert.pooler.modules_to_save.default"])
    torch.testing.assert_close(logits(prepared.model), logits(plain), rtol=1e-4, atol=1e-5)
    # What quantising had lost is there again, so the function is another.
    assert (logits(prepared.model) - before).abs().max() > 1e-3


def test_trains_saves_loads_and_merges_on_the_plain_base(bert, tmp_path):
    made = job(adalora=AdaLoraSchedule(4, 2, 3, 1, 0.85, 0.85, 0.1))
    _, prepared, _ = build(bert, made)
    citizen.train(prepared, 20)
    assert prepared.fault() is None
    prepared.save(tmp_path)
    fresh, _ = citizen.base_of(bert, ends_as(made))
    assert quantised(fresh) == []
    loaded = prepared.load(fresh, tmp_path)
    torch.testing.assert_close(logits(loaded), logits(prepared.model), rtol=1e-4, atol=2e-5)
    merged, into = prepared.merge(loaded)
    torch.testing.assert_close(logits(merged), logits(prepared.model), rtol=1e-4, atol=2e-5)
    assert into == "fp32 weights"


@pytest.mark.parametrize(
    ("scores", "step"),
    [
        ({2: 0.5, 4: 0.9, 8: 0.7}, 4),
        ({2: 0.5, 4: 0.9, 8: 0.9}, 4),  # the first of equals
        ({2: None, 4: -0.3, 8: -0.1}, 8),
    ],
)
def test_the_second_stage_starts_as_the_best_evaluation_of_the_first(bert, scores, step):
    _, prepared, _ = build(bert, job("none", BEST))
    seen = first_stage(prepared, scores)
    assert len({str(value.tolist()) for value in seen.values()}) == 3
    prepared.stage.begin()
    torch.testing.assert_close(logits(prepared.model), seen[step], rtol=1e-4, atol=1e-5)
    prepared.scored(100.0)  # of the second stage: nothing is kept of it
    assert prepared.fault() != "no evaluation of the first stage has a selection score"


def test_by_default_it_starts_as_the_last_step(bert):
    _, prepared, _ = build(bert, job("none", BARE))
    seen = first_stage(prepared, {4: 0.9, 8: 0.1})
    prepared.stage.begin()
    torch.testing.assert_close(logits(prepared.model), seen[8], rtol=1e-4, atol=1e-5)


def test_a_first_stage_without_a_score_is_a_fault(bert):
    _, prepared, _ = build(bert, job("none", BEST))
    first_stage(prepared, {4: None})
    prepared.stage.begin()
    assert prepared.fault() == "no evaluation of the first stage has a selection score"


def test_a_job_ends_on_the_base_of_its_last_stage():
    made = job()
    last = ends_as(made)
    assert (last.quantization, last.recipe.double_quantization) == ("none", None)
    assert last.job_id == made.job_id
    for other in (job(options=BARE), job("none"), citizen.job("lora", "nf4")):
        assert ends_as(other) is other
        assert second_stage(other) is None
    second = second_stage(made)
    assert (second.method, second.quantization, second.recipe.steps) == ("adalora", "none", 12)
    assert second.recipe.adalora == made.recipe.adalora


def test_what_two_probes_show_is_the_larger_peak_and_the_operations_of_each_step():
    small, large = (LiveBytes(weights, 0, 0, 0, 0, 0, 0) for weights in (5, 7))
    first = Probed(small, (), (), (1, 1, 1, 1))
    second = Probed(large, (), (), (9, 9, 9, 9))
    assert of_both(first, second, 3) == Probed(large, (), (), (1, 1, 1, 9))
    assert of_both(second, first, 1) == Probed(large, (), (), (9, 1, 1, 1))


@pytest.mark.slow
def test_a_whole_job(places, tmp_path):
    made: Job = tiny.job(
        "two-stage",
        "nf4",
        steps=20,
        eval_every=5,
        alpha=32.0,
        learning_rate=1e-2,
        selection_rows=16,
        adalora=AdaLoraSchedule(4, 2, 3, 1, 0.85, 0.85, 0.1),
        options={**PLAIN, **BEST, "first_stage": 0.5},
    )
    done = recipe.run(made, places, lambda message: None, tmp_path / "kept")
    assert (done.status, done.status_reason, done.warnings) == ("ok", "", ())
    assert [point.penalty is None for point in done.curve] == [True, True, False, False]
    assert done.reload_max_error < 1e-5
    assert done.merge_target == "fp32 weights"
    assert any("4bit" in name or "nf4" in name for name in done.base_format)
    same = recipe.run(
        replace(made, recipe=replace(made.recipe, options=BARE | {"first_stage": 0.5})),
        places,
        lambda message: None,
    )
    assert same.curve[0].loss == done.curve[0].loss  # the first stage is the same
    assert same.final_weights_hash != done.final_weights_hash
    assert same.curve[-1].loss != done.curve[-1].loss
    assert done.total_parameters == same.total_parameters
    assert done.adapter_parameters == same.adapter_parameters
    # The unquantised stage holds more, and both are predicted to the byte.
    assert done.live_weight_bytes > same.live_weight_bytes
    assert done.predicted_live_bytes == done.live_bytes
    kept = opened(tmp_path / "kept", places)
    assert kept.job.quantization == "none"
    assert kept.kept.job.job_id == made.job_id
    assert quantised(kept.trained) == []

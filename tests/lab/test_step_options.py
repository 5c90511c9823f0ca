"""Rows of a step in several passes, smoothed labels, training that ends early."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import tiny
import tiny_causal
from peftmark.catalog.tasks import TASKS
from peftmark.lab import recipe
from peftmark.lab.data.batches import Batch
from peftmark.lab.methods import Stage
from peftmark.lab.step import Step
from peftmark.lab.train import exploding_step, stops
from peftmark.record.outcome import CurvePoint
from peftmark.record.recipe import AdaLoraSchedule
from peftmark.sources.assets import Places

CPU = torch.device("cpu")


@pytest.fixture
def causal(tmp_path, monkeypatch):
    tiny_causal.install(tmp_path / "language", monkeypatch)
    return Places(tmp_path / "language", ("mirror",), tmp_path / "cache")


def run(places, job):
    return recipe.run(job, places, lambda message: None)


def first_step(places, job):
    """Loss, penalty and gradients of a job's first step."""
    prepared = tiny.build(places, job)
    step = Step(job, tiny.task_of(job), prepared, CPU)
    prepared.model.eval()  # dropout is drawn anew in each pass
    seen = {}
    step.update = lambda number: (
        seen.update(
            {n: p.grad.clone() for n, p in prepared.model.named_parameters() if p.requires_grad}
        )
        or torch.zeros(())
    )
    taken = step(1, tiny.work(places, job).train(0))
    return taken, seen


@pytest.mark.parametrize("passes", [2, 4, 8])
@pytest.mark.parametrize("method", ["lora", "adalora"])
def test_passes_add_up_to_the_step(places, method, passes):
    """Of rows of different lengths; AdaLoRA's penalty counts once."""
    jobs = [
        tiny.job(method, dropout=0.0, gradient_accumulation=n, window_batches=1)
        for n in (1, passes)
    ]
    (whole, by_whole), (parts, by_parts) = (first_step(places, job) for job in jobs)
    assert float(parts.loss) == pytest.approx(float(whole.loss), rel=1e-5)
    assert (whole.penalty is None) == (parts.penalty is None)
    if whole.penalty is not None:
        assert torch.equal(whole.penalty, parts.penalty)
    for name, gradient in by_whole.items():
        torch.testing.assert_close(by_parts[name], gradient, rtol=1e-4, atol=1e-7)


def test_of_text_each_token_counts_alike(causal):
    """A mean of the passes' means would weigh short answers more."""
    jobs = [
        tiny_causal.job("lora", task="tiny-answer", dropout=0.0, gradient_accumulation=n)
        for n in (1, 4)
    ]
    (whole, by_whole), (parts, by_parts) = (first_step(causal, job) for job in jobs)
    assert float(parts.loss) == pytest.approx(float(whole.loss), rel=1e-5)
    for name, gradient in by_whole.items():
        torch.testing.assert_close(by_parts[name], gradient, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
def test_a_pass_holds_its_part_of_the_activations_and_is_predicted(places):
    one, four = (
        run(places, tiny.job("lora", gradient_accumulation=n, precision="bf16")) for n in (1, 4)
    )
    assert (four.steps, four.samples_per_second > 0) == (12, True)
    assert four.live_activation_bytes < 0.5 * one.live_activation_bytes
    assert four.live_bytes == four.predicted_live_bytes
    assert four.flops_per_step <= one.flops_per_step  # a pass is cut at its own longest row


def test_a_batch_in_parts_has_every_row_once_and_no_needless_padding(places):
    batch = tiny.work(places, tiny.job("lora")).train(0)
    parts = batch.parts(3)
    assert [part.shape.rows for part in parts] == [3, 3, 2]
    assert torch.equal(torch.cat([part.labels for part in parts]), batch.labels)
    assert sum(part.tokens for part in parts) == batch.tokens
    for part in parts:
        assert int(part.inputs["attention_mask"].sum(0)[-1]) > 0
    assert batch.parts(8) == [batch]


def test_rows_that_a_model_goes_on_from_lose_their_padding_on_the_left():
    mask = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]])
    own = (((1,), (2,)), ((3,), (4,)), ((5,), (6,)))
    batch = Batch({"input_ids": 7 * mask, "attention_mask": mask}, torch.arange(3), 9, (), own)
    first, last = batch.parts(2)
    assert first.inputs["attention_mask"].tolist() == [[0, 1, 1], [1, 1, 1]]
    assert (first.tokens, last.tokens) == (5, 4)
    assert (first.row_choices, last.row_choices) == (own[:2], own[2:])


# --- smoothed labels ----------------------------------------------------------------------------


def test_smoothing_is_the_papers(places):
    """(1 - e) on the label and e / K on each class (arXiv 1512.00567, section 7)."""
    job = tiny.job("head", label_smoothing=0.1)
    prepared = tiny.build(places, job)
    prepared.model.eval()
    batch = tiny.work(places, job).train(0)
    found = recipe_loss(prepared.model, batch, job)
    logs = prepared.model(**batch.inputs).logits.log_softmax(-1)
    right = logs.gather(1, batch.labels[:, None])[:, 0]
    wanted = -(0.9 * right + 0.1 * logs.mean(1)).mean()
    assert found.item() == pytest.approx(wanted.item(), rel=1e-6)


def recipe_loss(model, batch, job):
    from peftmark.lab.step import task_loss

    return task_loss(model, batch, TASKS[job.task], job, CPU)


@pytest.mark.slow
def test_smoothing_raises_the_loss_that_text_is_trained_by(causal):
    losses = [
        run(causal, tiny_causal.job("lora", label_smoothing=e)).curve[-1].loss for e in (0.0, 0.2)
    ]
    assert losses[1] > losses[0]


# --- training that ends early -------------------------------------------------------------------


def curve(*scores, every=2):
    return [
        CurvePoint(every * (i + 1), 0.1, 0.5, 1.0, selection_metric=score)
        for i, score in enumerate(scores)
    ]


@pytest.mark.parametrize(
    ("scores", "patience", "ends"),
    [
        ((0.5, 0.6, 0.7), 1, False),
        ((0.5, 0.7, 0.6), 1, True),
        ((0.5, 0.7, 0.6), 2, False),
        ((0.5, 0.7, 0.6, 0.69), 2, True),
        ((0.5, 0.7, 0.7), 1, True),  # as good is not better
        ((0.5,), 1, False),
    ],
)
def test_patience_counts_evaluations_without_a_better_score(scores, patience, ends):
    job = tiny_job(early_stopping=patience)
    assert stops(curve(*scores), job) is ends
    # The other way round for a metric of which less is better.
    lower = replace(job, metric="rmse")
    assert stops(curve(*(-score for score in scores)), lower) is ends


def tiny_job(**changes):
    from factory import make_job, make_recipe

    return make_job(metric="accuracy", recipe=replace(make_recipe(), steps=12, **changes))


def test_without_patience_nothing_ends():
    assert not stops(curve(0.9, 0.1, 0.1, 0.1), tiny_job())


def test_adalora_first_ends_its_own_schedule():
    schedule = AdaLoraSchedule(4, 2, 4, 1, 0.85, 0.85, 0.1)
    job = tiny_job(early_stopping=1, adalora=schedule)
    assert not stops(curve(0.9, 0.8, 0.7), job)  # steps 2, 4 and 6 of 12; the last pruning is at 8
    assert not stops(curve(0.9, 0.8, 0.7, 0.6), job)
    assert stops(curve(0.9, 0.8, 0.7, 0.6, 0.5), job)


def test_a_row_has_the_steps_that_were_taken(places, training_alone):
    job = tiny.job("lora", early_stopping=1, selection_rows=16, eval_every=2, learning_rate=1e-9)
    found = run(places, job)
    assert found.status == "ok" and found.steps == 6
    assert [point.step for point in found.curve] == [2, 4, 6]  # the first two warm up
    assert found.selected_step == 2
    (told,) = [text for text in found.warnings if "early stopping" in text]
    assert told.startswith("early stopping ended training after 6 of 12 steps")


def test_a_trial_ends_by_the_rows_it_is_scored_on():
    points = [CurvePoint(2 * i, 0.1, score, 1.0) for i, score in enumerate((0.6, 0.7, 0.6), 2)]
    job = tiny_job(early_stopping=1)
    assert not stops(points, job)
    assert stops(points, replace(job, purpose="tuning"))


def test_a_second_stage_is_waited_for():
    stage = Stage(7, lambda: None, 1.0)
    assert stops(curve(0.9, 0.8, 0.7), tiny_job(early_stopping=1))
    assert not stops(curve(0.9, 0.8, 0.7, 0.6), tiny_job(early_stopping=1), stage)
    assert stops(curve(0.9, 0.8, 0.7, 0.6, 0.5), tiny_job(early_stopping=1), stage)


def test_a_step_of_fp16_that_was_left_out_keeps_its_place():
    nan = float("nan")
    assert exploding_step([nan, nan, nan, 1.0, 2.0, 4.0, 8.0]) == 7
    assert exploding_step([1.0, 2.0, 4.0, nan, 8.0]) is None

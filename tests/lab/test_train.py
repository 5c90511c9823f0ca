"""Steps, the training loop and the rows of a job: what is timed, picked, cut and told."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import tiny
from peftmark.catalog.task import Example
from peftmark.catalog.tasks import TASKS
from peftmark.lab import recipe
from peftmark.lab.data import batches
from peftmark.lab.data.held_out import HeldOut
from peftmark.lab.data.job_data import cut_selection
from peftmark.lab.measure.to_outcome import of_training
from peftmark.lab.methods import Prepared, Stage
from peftmark.lab.models import Unsupported, anatomy, load_model
from peftmark.lab.scoring import Scores, evaluate
from peftmark.lab.step import Step, Taken, _optimizer, _rate
from peftmark.lab.train import Trained, exploding_step, warm_up_steps
from peftmark.record.outcome import CurvePoint
from peftmark.sources.task_data import load_task

CPU = torch.device("cpu")
pytestmark = pytest.mark.usefixtures("training_alone")
SELECTED = ("selected_metric_value", "selected_step", "selection_metric_value")


def run(places, job):
    return recipe.run(job, places, lambda message: None)


# --- what is timed ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "warm"), [(1, 0), (4, 0), (5, 1), (12, 2), (24, 4), (25, 5), (3000, 5)]
)
def test_a_fifth_of_the_steps_warms_up_and_at_most_five(steps, warm):
    assert warm_up_steps(steps) == warm


@pytest.mark.parametrize("eval_every", [2, 6, 12])
def test_warm_up_steps_are_in_no_rate(places, eval_every):
    job = tiny.job("head", eval_every=eval_every)
    done = run(places, job)
    assert (done.steps, done.timed_steps) == (12, 10)
    assert done.samples_per_second * done.train_seconds == pytest.approx(10 * 8)
    work = tiny.work(places, job)
    tokens = sum(work.train(step).tokens for step in range(2, 12))
    assert done.tokens_per_second * done.train_seconds == pytest.approx(tokens)
    assert done.phase_seconds["train"] == pytest.approx(done.train_seconds, abs=1e-4)
    both = done.phase_seconds["warm_up"] + done.phase_seconds["train"]
    assert done.curve[-1].seconds == pytest.approx(both, abs=2e-4)
    assert done.step_seconds_p10 <= done.step_seconds_p50 <= done.step_seconds_p90
    assert done.step_seconds_p10 * 10 <= done.train_seconds
    assert [p.step for p in done.curve] == list(range(eval_every, 13, eval_every))


# --- what training shows ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("norms", "step"),
    [
        ([1, 2, 4, 8], 4),
        ([9, 1, 1.6, 2.6, 4.2, 9], 5),
        ([1, 1.5, 2.25, 3.375], None),  # by half is not by more than half
        ([1, 2, 4, 4, 8, 16], None),
        ([1, 2, 4, 4, 8, 16, 32], 7),
        ([1, 2, 4], None),
        ([], None),
        ([3, 2, 1, 2, 4, 8, 16], 6),
    ],
)
def test_an_exploding_step_ends_three_rises_by_more_than_half(norms, step):
    assert exploding_step([float(norm) for norm in norms]) == step


class Fixed(nn.Module):
    """Gives the logits it was made with."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, **_):
        return SimpleNamespace(logits=self.logits)


@pytest.mark.parametrize(
    ("task", "logits", "constant"),
    [
        ("tiny-class", [[0.1, 0.9], [0.4, 0.5], [-3.0, 2.0], [0.0, 0.1]], True),
        ("tiny-class", [[0.1, 0.9], [0.6, 0.5], [-3.0, 2.0], [0.0, 0.1]], False),
        ("tiny-score", [[0.5], [0.5], [0.5002], [0.5]], True),
        ("tiny-score", [[0.5], [0.5], [0.7], [0.5]], False),
    ],
)
def test_a_model_that_says_the_same_to_all_is_collapsed(places, task, logits, constant):
    batch = batches.Batch({}, torch.zeros(4), 4)
    held = HeldOut([batch], np.array([0.0, 1.0, 0.0, 1.0]))
    work = SimpleNamespace(scale=1.3, mean=2.0)
    job = tiny.job(task=task)
    assert evaluate(Fixed(logits), held, work, TASKS[task], job, CPU).constant is constant


@pytest.mark.parametrize("constant", [True, False])
def test_collapse_of_the_last_step_is_in_the_outcome(constant):
    trained = replace(
        trained_with([(0.5, 0.6)]), last=Scores({"accuracy": 0.5}, constant, np.zeros(2))
    )
    assert of_training(tiny.job(), trained)["collapsed"] is constant


def test_the_curve_has_norms_and_ranks_at_every_point(outcome):
    done = outcome(tiny.job("adalora"))
    assert len(done.curve) == 2
    assert all(point.gradient_norm > 0 for point in done.curve)
    assert len(done.rank_history) == 12
    assert all(len(history) == 2 for history in done.rank_history.values())
    assert all(0 <= rank <= 4 for history in done.rank_history.values() for rank in history)
    assert sum(history[-1] for history in done.rank_history.values()) == 2 * 12 == done.final_rank
    assert done.matched_rank == "target_r"
    fixed = outcome(tiny.job("lora"))
    assert set(map(tuple, fixed.rank_history.values())) == {(2, 2)}
    assert (fixed.final_rank, fixed.matched_rank) == (24, "r")
    assert set(fixed.rank_history) == set(done.rank_history)


def test_a_penalty_stands_in_its_own_column_and_not_in_the_loss(outcome):
    weighted = replace(tiny.SCHEDULE, orthogonal_weight=100.0)
    done = outcome(tiny.job("adalora", adalora=weighted))
    assert done.penalty == done.curve[-1].penalty > 10
    assert all(point.penalty > 10 for point in done.curve)
    assert done.loss == done.curve[-1].loss < 3
    without = outcome(tiny.job("adalora", adalora=replace(weighted, orthogonal_weight=0.0)))
    assert [p.penalty for p in without.curve] == [0.0, 0.0]
    assert [p.loss for p in without.curve] != [p.loss for p in done.curve], "it steers training"
    plain = outcome(tiny.job("lora"))
    assert (plain.penalty, plain.curve[-1].penalty) == (None, None)
    assert plain.null_reasons["penalty"] == "the method adds no term to the loss"


# --- which rows ---------------------------------------------------------------------------------


def test_selection_rows_and_their_doubles_leave_the_training_rows():
    rows = [Example(f"text {i % 30}", None, i // 30) for i in range(60)]
    rest, cut = cut_selection(rows, 9)
    assert len(cut) == 9, "so one text is cut once and stands in the rest again"
    texts = {row.text for row in cut}
    assert texts.isdisjoint(row.text for row in rest)
    assert len(rest) == sum(row.text not in texts for row in rows)
    assert {row.text for row in cut_selection(rows[::-1], 9)[1]} == texts
    assert cut_selection(rows, 0) == (rows, ())


def test_every_cell_selects_by_the_same_rows_and_trains_on_none_of_them(places):
    jobs = [
        tiny.job("lora", selection_rows=20),
        tiny.job("adalora", selection_rows=20, seed=1),
        tiny.job("head", "nf4", selection_rows=20, seed=2, steps=24),
    ]
    works = [tiny.work(places, job) for job in jobs]

    def texts(found):
        return sorted(tuple(map(int, row[row > 0])) for b in found for row in b.inputs["input_ids"])

    wanted = texts(works[0].selection.batches)
    assert len(wanted) == 20
    for job, work in zip(jobs, works, strict=True):
        assert texts(work.selection.batches) == wanted
        assert work.selection_rows == 20
        assert work.train_rows <= 96 - 20
        trained = texts(work.train(step) for step in range(job.recipe.steps))
        assert set(wanted).isdisjoint(trained)
        assert texts(work.eval.batches) == texts(works[0].eval.batches)


def trained_with(scores):
    """A training with (metric, selection metric) at steps 10, 20, ..."""
    curve = tuple(
        CurvePoint(10 * i, 0.5, metric, 1.0 * i, selection_metric=picked)
        for i, (metric, picked) in enumerate(scores, start=1)
    )
    last = Scores({"accuracy": scores[-1][0]}, False, np.zeros(2))
    first = Taken(torch.tensor(0.5), None, torch.tensor(1.0))
    return Trained(curve, last, None, {}, {}, 80, 800, first)


@pytest.mark.parametrize(
    ("scores", "step", "value"),
    [
        ([(0.5, 0.6), (0.9, 0.7), (0.8, 0.8)], 30, 0.8),
        ([(0.5, 0.6), (0.7, 0.8), (0.9, 0.8), (0.95, 0.8)], 20, 0.7),
        ([(0.99, 0.1), (0.2, 0.3), (0.98, 0.2)], 20, 0.2),
        ([(0.1, -0.5), (0.2, -0.1), (0.3, -0.2)], 20, 0.2),
        ([(0.1, 0.0), (0.2, -0.1)], 10, 0.1),
    ],
)
def test_the_best_step_is_the_first_best_on_the_selection_rows(scores, step, value):
    found = of_training(tiny.job(), trained_with(scores))
    assert (found["selected_step"], found["selected_metric_value"]) == (step, value)
    assert found["selection_metric_value"] == max(picked for _, picked in scores)
    assert found["metric_value"] == scores[-1][0]
    assert found["best_metric_value"] == max(metric for metric, _ in scores)
    assert not set(SELECTED) & set(found["null_reasons"])


def test_of_an_error_the_lowest_is_the_best_step_and_the_target_is_reached_from_above():
    job = replace(tiny.job(), metric="rmse", target=12.0)
    found = of_training(job, trained_with([(30.0, 31.0), (11.0, 12.5), (14.0, 12.5), (16.0, 13.0)]))
    assert (found["selected_step"], found["selected_metric_value"]) == (20, 11.0)
    assert (found["selection_metric_value"], found["best_metric_value"]) == (12.5, 11.0)
    assert (found["target_reached"], found["steps_to_target"]) == (True, 20)
    missed = of_training(replace(job, target=10.0), trained_with([(30.0, 31.0), (11.0, 12.5)]))
    assert (missed["target_reached"], missed["steps_to_target"]) == (False, None)


def test_selection_rows_without_a_value_pick_no_step_and_say_why():
    job = tiny.job(selection_rows=20)
    found = of_training(replace(job, metric="auroc"), trained_with([(0.5, None), (0.9, None)]))
    assert [found[name] for name in SELECTED] == [None] * 3
    assert {found["null_reasons"][n] for n in SELECTED} == {"the selection rows have no AUROC"}


def test_a_job_reports_what_its_selection_rows_picked(outcome):
    done = outcome(tiny.job("lora", selection_rows=20, steps=36))
    points = {p.step: p for p in done.curve}
    best = max(p.selection_metric for p in done.curve)
    assert done.selection_metric_value == best
    assert done.selected_step == min(s for s, p in points.items() if p.selection_metric == best)
    assert done.selected_metric_value == points[done.selected_step].metric
    assert done.selection_rows == 20


def test_without_selection_rows_nothing_is_selected(outcome):
    done = outcome(tiny.job("head"))
    assert done.selection_rows == 0
    assert all(p.selection_metric is None for p in done.curve)
    assert [getattr(done, name) for name in SELECTED] == [None] * 3
    assert {done.null_reasons[name] for name in SELECTED} == {"the recipe cuts no selection rows"}


def test_a_tuning_trial_never_sees_the_evaluation_rows(places, monkeypatch):
    data = load_task(TASKS["tiny-class"], places)
    poison = [Example(f"poison {i}", None, 10**6) for i in range(len(data.eval))]
    poisoned = replace(data, eval=tuple(poison))
    plain = batches.Encoder.encode

    def encode(self, rows):
        assert not any("poison" in row.text for row in rows), "an evaluation row was read"
        return plain(self, rows)

    trial = tiny.job("lora", purpose="tuning", selection_rows=20)
    honest = run(places, trial)
    monkeypatch.setattr(batches.Encoder, "encode", encode)
    monkeypatch.setattr(recipe, "load_task", lambda task, places: poisoned)
    found = run(places, trial)
    with pytest.raises(AssertionError, match="an evaluation row was read"):
        run(places, replace(trial, purpose="report"))
    assert [(p.loss, p.metric) for p in found.curve] == [(p.loss, p.metric) for p in honest.curve]
    assert (found.eval_rows, found.selection_rows, found.train_rows) == (20, 20, 76)
    assert found.baseline_value == honest.baseline_value <= 1


def test_a_tuning_trial_scores_what_a_report_selects_by_and_measures_no_more(
    places, outcome, monkeypatch
):
    report = outcome(tiny.job("lora", selection_rows=20))
    for name in ("deployed", "probed"):
        monkeypatch.setattr(recipe, name, None)
    trial = run(places, tiny.job("lora", selection_rows=20, purpose="tuning"))
    assert [p.metric for p in trial.curve] == [p.selection_metric for p in report.curve]
    assert [p.loss for p in trial.curve] == [p.loss for p in report.curve]
    assert set(trial.phase_seconds).isdisjoint({"save", "deploy", "probe"})
    for name in (
        "live_bytes",
        "peak_memory_bytes",
        "flops_per_step",
        "mfu",
        "merge_max_error",
        "reload_max_error",
        "latency_p50_seconds",
        "adapter_bytes",
    ):
        assert getattr(trial, name) is None
        assert "tuning trial" in trial.null_reasons[name]
    assert {trial.null_reasons[name] for name in SELECTED} == {
        "a tuning trial is scored on the selection rows alone"
    }


# --- the step itself ----------------------------------------------------------------------------


def test_biases_and_norms_do_not_decay():
    model = nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3))
    double = {"1.weight": 2.0}
    prepared = Prepared(
        model, save=None, load=None, merge=None, rate_of=lambda name: double.get(name, 1.0)
    )
    job = tiny.job(weight_decay=0.3, learning_rate=1e-3)
    optimizer, name = _optimizer(prepared, job, 0.5)
    groups = optimizer.param_groups
    decayed = {id(p) for g in groups if g["weight_decay"] == 0.3 for p in g["params"]}
    assert decayed == {id(model[0].weight)}
    assert sum(len(g["params"]) for g in groups) == 4
    assert name == "torch AdamW"
    rates = {id(p): g["lr"] for g in groups for p in g["params"]}
    assert rates.pop(id(model[1].weight)) == 1e-3
    assert set(rates.values()) == {5e-4}


def test_a_second_stage_starts_the_optimizer_and_the_schedule_anew(places):
    job = tiny.job(steps=6, warmup_steps=2, learning_rate=1e-3, schedule="linear")
    prepared = tiny.build(places, job)
    begun = []
    prepared.stage = Stage(4, lambda: begun.append(number), 0.5)
    step, batches = Step(job, TASKS[job.task], prepared, CPU), tiny.work(places, job)
    used = []
    for number in range(1, 7):
        step(number, batches.train(number - 1))
        used.append((step.optimizer, step.optimizer.param_groups[0]["lr"]))
    assert begun == [5]
    assert used[3][0] is not used[4][0]
    # Two steps are left: one warms up, as a third of all steps did, and the next ends at zero.
    assert [rate for _, rate in used[4:]] == pytest.approx([5e-4, 0.0])


def test_learning_rate_rises_then_falls_to_zero():
    rates = [_rate(step, 10, 2, "linear") for step in range(11)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[9] == pytest.approx(1 / 8)
    assert rates[10] == 0.0
    assert _rate(9, 10, 2, "constant") == 1.0
    assert _rate(0, 10, 0, "linear") == 1.0


def test_a_step_tells_the_norm_before_it_clips(places):
    job = tiny.job("lora", max_grad_norm=1e-3)
    prepared = tiny.build(places, job)
    step = Step(job, TASKS[job.task], prepared, CPU)
    taken = step(1, tiny.work(places, job).train(0))
    assert taken.norm > 0.01
    assert taken.penalty is None
    assert not any(x.requires_grad for x in (taken.loss, taken.norm))
    assert all(p.grad is None for p in prepared.model.parameters())


def test_a_paged_optimizer_on_a_cpu_is_plain_and_says_so(outcome):
    plain, paged = (outcome(tiny.job(optimizer=o)) for o in ("adamw", "paged_adamw_8bit"))
    assert paged.optimizer == plain.optimizer == "torch AdamW"
    assert paged.warnings == ("plain AdamW ran: bitsandbytes' optimizers are written for GPUs",)
    assert plain.warnings == ()
    assert [p.loss for p in paged.curve] == [p.loss for p in plain.curve]


@pytest.mark.parametrize("architecture", sorted(tiny.CONFIGS))
def test_head_dropout_reaches_the_head_of_each_architecture(tmp_path, architecture):
    tiny.make_model(tmp_path, architecture)
    parts = anatomy(tmp_path, TASKS["sst-2"])

    def rates(head_dropout):
        job = tiny.job("head", head_dropout=head_dropout)
        model = load_model(tmp_path, job, TASKS["sst-2"], parts)
        return {name: m.p for name, m in model.named_modules() if isinstance(m, nn.Dropout)}

    before = rates(None)
    if architecture == "mpnet":
        with pytest.raises(Unsupported, match="can't be set for a model of type mpnet"):
            rates(0.37)
        return
    changed = {name for name, p in rates(0.37).items() if p != before[name]}
    assert changed == {"classifier.dropout" if architecture == "roberta" else "dropout"}
    assert 0.37 in rates(0.37).values()


# --- what a row tells of the run itself ----------------------------------------------------------


@pytest.mark.parametrize(("schedule", "warmup"), [("linear", 3), ("constant", 0)])
def test_the_mean_learning_rate_is_the_one_the_optimizer_applied(outcome, schedule, warmup):
    job = tiny.job("lora", schedule=schedule, warmup_steps=warmup)
    steps = job.recipe.steps
    rates = [job.recipe.learning_rate * _rate(i, steps, warmup, schedule) for i in range(steps)]
    assert outcome(job).learning_rate_mean == pytest.approx(sum(rates) / steps, rel=1e-12)


def test_a_rate_of_a_group_of_its_own_weighs_with_its_parameters(outcome):
    plain = outcome(tiny.job("lora")).learning_rate_mean
    plus = outcome(tiny.job("lora-plus")).learning_rate_mean
    assert plus > plain


@pytest.mark.parametrize("quantization", ["none", "nf4", "fp4", "int8"])
def test_the_format_of_the_base_is_read_off_its_weights(outcome, quantization):
    job = tiny.job("lora", quantization)
    done = outcome(job)
    formats = done.base_format
    assert sum(formats.values()) == done.total_parameters - (done.adapter_parameters or 0)
    wanted = {"nf4": "nf4 in blocks of 64", "fp4": "fp4 in blocks of 64", "int8": "int8"}
    found = [name for name in formats if name != "float32"]
    if quantization == "none":
        assert found == []
    else:
        assert len(found) == 1 and found[0].startswith(wanted[quantization])
        assert formats[found[0]] > 0

"""One job end to end on a tiny model: what is measured, and what a seed controls."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn import metrics as sk

import tiny
from peftmark.catalog.task import Example
from peftmark.lab import after_training, build, metrics, recipe
from peftmark.lab.data.batches import draw_rows, group_by_length, order_hash, subset
from peftmark.lab.models import Unsupported
from peftmark.lab.rng import STREAMS, generator, stream_seed
from peftmark.lab.step import Diverged
from peftmark.lab.worker import classify
from peftmark.record.fields_watch import WATCHED
from peftmark.record.job import Outcome
from peftmark.sources.task_data import load_task


def silent(message):
    return None


PHASES = {
    "load",
    "tokenise",
    "quantise",
    "build",
    "warm_up",
    "train",
    "evaluate",
    "save",
    "probe",
    "predict",
    "deploy",
    "watch",
}


def test_evaluation_rows_of_one_class_show_no_collapse(places, monkeypatch, training_alone):
    def of_one_class(task, places):
        data = load_task(task, places)
        return replace(data, eval=tuple(row for row in data.eval if row.label == 1))

    monkeypatch.setattr(recipe, "load_task", of_one_class)
    done = recipe.run(tiny.job("lora", steps=40), places, silent)
    assert set(done.references) == {1.0} and set(done.predictions) == {1}
    assert done.collapsed is None
    assert "every evaluation row has the same label" in done.null_reasons["collapsed"]


@pytest.mark.parametrize(
    ("task", "quantization"),
    [
        ("tiny-class", "none"),
        ("tiny-score", "nf4"),
        pytest.param("tiny-class", "nf4", marks=pytest.mark.slow),
        pytest.param("tiny-score", "none", marks=pytest.mark.slow),
    ],
)
@pytest.mark.sweep(1)
def test_a_job_learns_and_reports_everything(places, task, quantization):
    seen = []
    done = recipe.run(tiny.job("lora", quantization, task, steps=40), places, seen.append)
    assert done.status == "ok"
    assert done.metric_value > done.baseline_value + 0.1
    assert done.collapsed is False
    assert [p.step for p in done.curve] == [6, 12, 18, 24, 30, 36, 40]
    assert done.best_metric_value == max(p.metric for p in done.curve)
    assert done.metric_value == done.curve[-1].metric
    assert len(done.predictions) == len(done.references) == done.eval_rows
    key = tiny.job("lora", quantization, task).metric
    again = metrics.score((key,), np.array(done.predictions), np.array(done.references))
    assert again[key] == pytest.approx(done.metric_value, abs=1e-6)
    first = next(p.step for p in done.curve if p.metric >= 0.6)
    assert (done.target_reached, done.steps_to_target) == (True, first)
    assert done.tokens_per_second > done.samples_per_second
    assert done.cpu_seconds > 0
    assert done.head_parameters < done.trainable_parameters == done.active_parameters
    assert done.saved_parameters == done.trainable_parameters < done.total_parameters
    assert done.adapter_bytes > 4 * done.trainable_parameters
    assert done.saved_head_bytes == 4 * done.head_parameters
    assert done.saved_adapter_bytes + done.saved_head_bytes == done.adapter_bytes
    assert (done.peak_memory_bytes, done.peak_memory_source) == (done.live_bytes, "live_bytes")
    parts = (
        "weight",
        "quantization",
        "adapter",
        "gradient",
        "optimizer",
        "activation",
        "temporary",
    )
    assert done.live_bytes == sum(getattr(done, f"live_{part}_bytes") for part in parts)
    assert (done.live_quantization_bytes > 0) == (quantization == "nf4")
    assert done.predicted_live_bytes == done.live_bytes
    assert done.prediction_error == 0.0
    assert done.vmhwm_bytes >= done.vmhwm_train_bytes >= done.rss_before_train_bytes > 0
    assert 0 < done.mfu < 1
    # What the timed steps took of the machine's rate; operations differ by batch length alone.
    rate = done.flops_per_step * done.timed_steps / done.train_seconds
    assert done.mfu == pytest.approx(rate / done.gemm_flops_per_second, rel=0.2)
    assert 0 <= done.padding_share < 0.5
    assert seen[-4:] == [
        {"step": 40, "steps": 40, "metric": done.metric_value},
        {"phase": "save"},
        {"phase": "deploy"},
        {"phase": "probe"},
    ]
    assert set(done.phase_seconds) == PHASES
    assert (done.phase_seconds["quantise"] > 0) == (quantization == "nf4")
    assert done.phase_seconds["load"] > 0


@pytest.mark.parametrize(
    ("method", "quantization", "purpose"),
    [
        ("full", "none", "report"),
        ("head", "none", "report"),
        ("lora", "none", "report"),
        pytest.param("adalora", "none", "report", marks=pytest.mark.slow),
        pytest.param("lora", "nf4", "report", marks=pytest.mark.slow),
        ("adalora", "nf4", "report"),
        pytest.param("lora", "int8", "report", marks=pytest.mark.slow),
        ("lora", "none", "tuning"),
    ],
)
@pytest.mark.parametrize("target", [pytest.param(None, marks=pytest.mark.slow), 1.5])
@pytest.mark.sweep(2)
def test_every_null_has_a_reason_and_every_reason_a_null(
    outcome, method, quantization, purpose, target
):
    selection = 20 if purpose == "tuning" else 0
    job = tiny.job(method, quantization, purpose=purpose, selection_rows=selection)
    done = outcome(replace(job, target=target))
    assert done.status == "ok"
    held_to_their_reasons(done, target)
    phases = PHASES if purpose == "report" else PHASES - {"save", "probe", "predict", "deploy"}
    assert set(done.phase_seconds) == phases
    assert Outcome.from_json(done.to_json()) == done


def held_to_their_reasons(done, target):
    """Whatever is null has a reason, and nothing else has."""
    nulls = {f.name for f in fields(Outcome) if getattr(done, f.name) is None}
    nulls |= {name for name in WATCHED if not getattr(done, name)}  # series of nothing
    # What the supervisor of a process knows.
    nulls -= {"start_seconds", "jobs_before", "jobs_on_gpu"}
    if target is None:  # these two are explained by the job (peftmark.storage.store)
        nulls -= {"target_reached"}
    assert nulls == set(done.null_reasons)
    assert all(reason and reason == reason.strip() for reason in done.null_reasons.values())


def test_what_fails_after_training_leaves_nulls_and_keeps_the_rest(
    places, monkeypatch, unpredicted
):
    def fails(*_):
        raise RuntimeError("no such  luck")

    monkeypatch.setattr(after_training, "deploy", fails)
    done = recipe.run(tiny.job("lora"), places, silent)
    assert (done.status, done.reload_max_error) == ("ok", None)
    reason = "reloading and merging failed: RuntimeError: no such luck"
    assert done.null_reasons["latency_p50_seconds"] == reason
    assert done.warnings == (reason,)
    assert done.adapter_bytes > 0
    assert done.live_bytes > 0


def numbers(outcome):
    """What must not depend on the clock or the machine's memory."""
    curve = [(p.step, p.loss, p.metric, p.gradient_norm) for p in outcome.curve]
    probed = outcome.live_bytes, outcome.flops_per_step, outcome.merge_max_error
    hashes = outcome.initial_weights_hash, outcome.batch_order_hash
    return curve, outcome.metrics, hashes, probed


@pytest.mark.slow
@pytest.mark.parametrize("quantization", [pytest.param("none", marks=pytest.mark.slow), "nf4"])
def test_same_job_same_bits_and_another_seed_other_bits(places, outcome, quantization, unpredicted):
    one = outcome(tiny.job(quantization=quantization))
    torch.rand(5)  # whatever was drawn before must not matter
    two = recipe.run(tiny.job(quantization=quantization), places, silent)
    other = outcome(tiny.job(quantization=quantization, seed=1))
    assert numbers(one) == numbers(two)
    assert one.initial_weights_hash != other.initial_weights_hash
    assert one.batch_order_hash != other.batch_order_hash
    assert [p.loss for p in one.curve] != [p.loss for p in other.curve]


@pytest.mark.slow
def test_numbers_drawn_at_one_place_shift_nothing_at_another(
    places, outcome, monkeypatch, unpredicted
):
    plain = outcome(tiny.job())
    for name in ("load_model", "prepare"):  # more draws before the adapter, and before dropout
        original = getattr(build, name)

        def greedy(*arguments, original=original):
            result = original(*arguments)
            torch.rand(100)
            return result

        monkeypatch.setattr(build, name, greedy)
    assert numbers(recipe.run(tiny.job(), places, silent)) == numbers(plain)


def test_methods_see_the_same_batches(outcome, training_alone):
    hashes = {
        outcome(tiny.job(m, q, rank=r)).batch_order_hash
        for m, r, q in [("lora", 2, "none"), ("lora", 4, "nf4"), ("head", 0, "none")]
    }
    assert len(hashes) == 1


def test_adalora_off_its_budget_is_invalid(places, monkeypatch, training_alone):
    from peft import AdaLoraModel

    monkeypatch.setattr(AdaLoraModel, "update_and_allocate", lambda self, step: None)
    done = recipe.run(tiny.job(method="adalora"), places, silent)
    assert done.status == "invalid"
    assert "its budget is 24" in done.status_reason
    assert done.metric_value is not None


def test_a_target_never_reached_is_null(outcome, training_alone):
    done = outcome(replace(tiny.job(), target=1.5))
    assert (done.target_reached, done.steps_to_target) == (False, None)
    done = outcome(replace(tiny.job(), target=None))
    assert (done.target_reached, done.steps_to_target) == (None, None)
    held_to_their_reasons(done, None)


def test_divergence_is_told_apart(places):
    with pytest.raises(Diverged, match=r"loss was (nan|inf) by step"):
        recipe.run(tiny.job(learning_rate=1e30, max_grad_norm=1e30), places, silent)


def test_gradient_checkpointing_changes_no_number(outcome, training_alone):
    plain = outcome(tiny.job(dropout=0.0))
    checkpointed = outcome(tiny.job(dropout=0.0, gradient_checkpointing=True))
    losses = [[p.loss for p in done.curve] for done in (plain, checkpointed)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


# --- parts --------------------------------------------------------------------------------------


def test_streams_differ_from_each_other_and_by_seed():
    values = {stream_seed(seed, stream) for seed in range(20) for stream in STREAMS}
    assert len(values) == 20 * len(STREAMS)
    assert stream_seed(0, "head") == stream_seed(0, "head")
    with pytest.raises(ValueError, match="unknown stream"):
        stream_seed(0, "luck")


def test_rows_are_drawn_in_whole_passes():
    drawn = draw_rows(10, 25, generator(0, "order"))
    assert sorted(drawn[:10]) == sorted(drawn[10:20]) == list(range(10))
    assert len(drawn) == 25


def test_length_groups_keep_every_row_and_waste_little():
    stream = np.random.default_rng(0)
    lengths = {i: int(n) for i, n in enumerate(stream.integers(5, 120, 512))}
    drawn = draw_rows(512, 512, stream)

    def padding(batches):
        padded = sum(len(b) * max(lengths[i] for i in b) for b in batches)
        return 1 - sum(lengths[i] for b in batches for i in b) / padded

    grouped = group_by_length(drawn, lengths, 16, 16, np.random.default_rng(1))
    random = group_by_length(drawn, lengths, 16, 1, np.random.default_rng(1))
    assert sorted(i for b in grouped for i in b) == list(range(512))
    assert all(len(b) == 16 for b in grouped)
    assert padding(grouped) < 0.1 < 0.3 < padding(random)
    means = [np.mean([lengths[i] for i in b]) for b in grouped]
    assert means != sorted(means), "batches must not come in order of length"
    assert order_hash(grouped) != order_hash(random)


def test_a_longer_run_begins_with_the_batches_of_a_shorter_one(places):
    short, long = (tiny.work(places, tiny.job(steps=n)).order for n in (8, 40))
    assert long[:8] == short
    assert len(long) == 40


def test_a_job_that_trains_nothing_is_invalid(places, monkeypatch, training_alone):
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, closure=None: None)
    done = recipe.run(tiny.job(), places, silent)
    assert (done.status, done.status_reason) == (
        "invalid",
        "no trainable weight changed in training",
    )


def test_subset_does_not_depend_on_the_order_of_the_file():
    rows = [Example(f"text {i}", None, i % 2) for i in range(50)]
    assert subset(rows, 10) == subset(rows[::-1], 10)
    assert subset(rows, None) is rows
    assert subset(rows, 99) is rows
    assert list(subset(rows, 10)) != rows[:10]


def test_metrics_agree_with_their_libraries():
    stream = np.random.default_rng(0)
    for _ in range(20):
        wanted = stream.integers(0, 2, 60).astype(float)
        found = np.where(stream.random(60) < 0.3, 1 - wanted, wanted)
        score = metrics.score(("accuracy", "f1", "matthews_correlation"), found, wanted)
        assert score["accuracy"] == pytest.approx(sk.accuracy_score(wanted, found))
        assert score["f1"] == pytest.approx(sk.f1_score(wanted, found))
        assert score["matthews_correlation"] == pytest.approx(sk.matthews_corrcoef(wanted, found))
        real, guess = stream.random(60) * 5, stream.random(60)
        score = metrics.score(("pearson", "spearmanr"), guess, real)
        assert score["pearson"] == pytest.approx(stats.pearsonr(guess, real)[0])
        assert score["spearmanr"] == pytest.approx(stats.spearmanr(guess, real)[0])


def test_constant_predictions_know_nothing():
    wanted = np.array([0.0, 1.0, 1.0, 1.0])
    assert metrics.score(("pearson",), np.ones(4), wanted) == {"pearson": 0.0}
    assert metrics.score(("matthews_correlation",), np.ones(4), wanted) == {
        "matthews_correlation": 0.0
    }
    train = np.array([1.0, 1.0, 0.0])
    assert metrics.baseline("accuracy", train, wanted, 2) == 0.75
    assert metrics.baseline("pearson", train, wanted, 0) == 0.0


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"), "out_of_memory"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory"),
            "out_of_memory",
        ),
        (MemoryError(), "out_of_memory"),
        (Diverged("the training loss was nan"), "diverged"),
        (Unsupported("bitsandbytes can't be loaded"), "unsupported"),
        (RuntimeError("shape mismatch"), "crashed"),
        (ValueError("odd"), "crashed"),
    ],
)
def test_errors_become_statuses_with_reasons(error, status):
    found, reason = classify(error)
    assert found == status
    assert reason

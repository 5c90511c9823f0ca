"""One job end to end on a tiny model: what is measured, and what a seed controls."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tiny
import torch
from factory import make_job, make_recipe
from scipy import stats
from sklearn import metrics as sk

from bench.assets import Places
from bench.lab import metrics, recipe
from bench.lab.batches import draw_rows, group_by_length, order_hash, subset
from bench.lab.meters import Meters, high_water_mark, reset_high_water_mark
from bench.lab.models import Unsupported
from bench.lab.seeds import STREAMS, generator, stream_seed
from bench.lab.worker import classify
from bench.record import AdaLoraSchedule
from bench.rows import Row

LORA = {"targets": "all-linear", "alpha": 8.0, "dropout": 0.1}


@pytest.fixture
def places(tmp_path, monkeypatch):
    tiny.install(tmp_path / "mirror", monkeypatch)
    return Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")


def job(task="tiny-class", method="lora", rank=2, quantization="none", seed=0, **changes):
    metric = "accuracy" if task == "tiny-class" else "pearson"
    base = make_job(
        task=task, metric=metric, method=method, rank=rank, quantization=quantization,
        seed=seed, target=0.6, recipe=replace(make_recipe(), **LORA),
    )  # fmt: skip
    if quantization == "nf4":
        changes["double_quantization"] = True
    return tiny.tiny_job(base, **changes)


def silent(message):
    return None


@pytest.mark.parametrize("task", ["tiny-class", "tiny-score"])
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_job_learns_and_reports_everything(places, task, quantization):
    seen = []
    done = recipe.run(job(task, quantization=quantization, steps=40), places, seen.append)
    assert done.status == "ok"
    assert done.metric_value > done.baseline_value + 0.1
    assert [p.step for p in done.curve] == [6, 12, 18, 24, 30, 36, 40]
    assert done.best_metric_value == max(p.metric for p in done.curve)
    assert done.metric_value == done.curve[-1].metric
    first = next(p.step for p in done.curve if p.metric >= 0.6)
    assert (done.target_reached, done.steps_to_target) == (True, first)
    assert done.curve[-1].seconds == pytest.approx(done.train_seconds)
    assert done.samples_per_second == pytest.approx(40 * 8 / done.train_seconds)
    assert done.tokens_per_second > done.samples_per_second
    assert done.head_parameters < done.trainable_parameters == done.active_parameters
    assert done.trainable_parameters < done.total_parameters
    assert done.adapter_bytes > 4 * done.trainable_parameters
    assert done.peak_memory_bytes > 0
    assert done.peak_memory_source == "VmHWM of worker"
    assert 0 <= done.padding_share < 0.5
    assert seen[-2:] == [
        {"step": 40, "steps": 40, "metric": done.metric_value},
        {"phase": "save"},
    ]
    assert set(done.phase_seconds) == {
        "load_data", "tokenise", "build", "train", "evaluate", "save"
    }  # fmt: skip


def numbers(outcome):
    """What must not depend on the clock or the machine's memory."""
    curve = [(p.step, p.loss, p.metric) for p in outcome.curve]
    return curve, outcome.metrics, outcome.initial_weights_hash, outcome.batch_order_hash


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_same_job_same_bits_and_another_seed_other_bits(places, quantization):
    one = recipe.run(job(quantization=quantization), places, silent)
    torch.rand(5)  # whatever was drawn before must not matter
    two = recipe.run(job(quantization=quantization), places, silent)
    other = recipe.run(job(quantization=quantization, seed=1), places, silent)
    assert numbers(one) == numbers(two)
    assert one.initial_weights_hash != other.initial_weights_hash
    assert one.batch_order_hash != other.batch_order_hash
    assert [p.loss for p in one.curve] != [p.loss for p in other.curve]


def test_numbers_drawn_at_one_place_shift_nothing_at_another(places, monkeypatch):
    plain = recipe.run(job(), places, silent)
    for name in ("load_model", "prepare"):  # more draws before the adapter, and before dropout
        original = getattr(recipe, name)

        def greedy(*arguments, original=original):
            result = original(*arguments)
            torch.rand(100)
            return result

        monkeypatch.setattr(recipe, name, greedy)
    assert numbers(recipe.run(job(), places, silent)) == numbers(plain)


def test_methods_see_the_same_batches(places):
    hashes = {
        recipe.run(job(method=m, rank=r, quantization=q), places, silent).batch_order_hash
        for m, r, q in [("lora", 2, "none"), ("lora", 4, "nf4"), ("head", None, "none")]
    }
    assert len(hashes) == 1


def test_adalora_reports_task_loss_without_penalty_and_ends_on_budget(places):
    schedule = AdaLoraSchedule(4, 2, 4, 1, 0.85, 0.85, 100.0)
    done = recipe.run(job(method="adalora", adalora=schedule), places, silent)
    assert done.status == "ok"
    assert done.final_rank == 2 * 12
    assert done.active_parameters < done.trainable_parameters
    assert all(p.loss < 3 for p in done.curve), "a penalty of weight 100 would show here"
    free = replace(schedule, orthogonal_weight=0.0)
    without = recipe.run(job(method="adalora", adalora=free), places, silent)
    assert [p.loss for p in without.curve] != [p.loss for p in done.curve], "it must steer training"


def test_adalora_off_its_budget_is_invalid(places, monkeypatch):
    from peft import AdaLoraModel

    monkeypatch.setattr(AdaLoraModel, "update_and_allocate", lambda self, step: None)
    schedule = AdaLoraSchedule(4, 2, 4, 1, 0.85, 0.85, 0.1)
    done = recipe.run(job(method="adalora", adalora=schedule), places, silent)
    assert done.status == "invalid"
    assert "its budget is 24" in done.status_reason
    assert done.metric_value is not None


def test_a_target_never_reached_is_null(places):
    done = recipe.run(replace(job(), target=1.5), places, silent)
    assert (done.target_reached, done.steps_to_target) == (False, None)
    done = recipe.run(replace(job(), target=None), places, silent)
    assert (done.target_reached, done.steps_to_target) == (None, None)


def test_divergence_is_told_apart(places):
    with pytest.raises(recipe.Diverged, match=r"loss was (nan|inf) by step"):
        recipe.run(job(learning_rate=1e30, max_grad_norm=1e30), places, silent)


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
def test_paged_optimizer_trains(places):
    done = recipe.run(job(optimizer="paged_adamw_8bit"), places, silent)
    assert done.status == "ok"
    assert "unpaged" in done.warnings[-1]


def test_gradient_checkpointing_changes_no_number(places):
    plain = recipe.run(job(dropout=0.0), places, silent)
    checkpointed = recipe.run(job(dropout=0.0, gradient_checkpointing=True), places, silent)
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
    from bench.data import load_task
    from bench.lab.models import load_tokenizer
    from bench.tasks import TASKS

    task = TASKS["tiny-class"]
    tokenizer = load_tokenizer(places.mirror / "models" / "tiny")
    short, long = (
        recipe._prepare_data(job(steps=n), task, load_task(task, places), tokenizer).order
        for n in (8, 40)
    )
    assert long[:8] == short
    assert len(long) == 40


def test_biases_and_norms_do_not_decay(places):
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3))
    groups = recipe._optimizer(model, job(weight_decay=0.3)).param_groups
    decayed = {id(p) for g in groups if g["weight_decay"] == 0.3 for p in g["params"]}
    assert decayed == {id(model[0].weight)}
    assert sum(len(g["params"]) for g in groups) == 4


def test_a_job_that_trains_nothing_is_invalid(places, monkeypatch):
    monkeypatch.setattr(torch.optim.AdamW, "step", lambda self, closure=None: None)
    done = recipe.run(job(), places, silent)
    assert (done.status, done.status_reason) == (
        "invalid",
        "no trainable weight changed in training",
    )


def test_subset_does_not_depend_on_the_order_of_the_file():
    rows = [Row(f"text {i}", None, i % 2) for i in range(50)]
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


def test_learning_rate_rises_then_falls_to_zero():
    wanted = job(steps=10, warmup_share=0.2, schedule="linear")
    rates = [recipe._rate(step, wanted) for step in range(11)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[9] == pytest.approx(1 / 8)
    assert rates[10] == 0.0
    flat = replace(wanted, recipe=replace(wanted.recipe, schedule="constant"))
    assert recipe._rate(9, flat) == 1.0


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
        (recipe.Diverged("the training loss was nan"), "diverged"),
        (Unsupported("bitsandbytes can't be loaded"), "unsupported"),
        (RuntimeError("shape mismatch"), "crashed"),
        (ValueError("odd"), "crashed"),
    ],
)
def test_errors_become_statuses_with_reasons(error, status):
    found, reason = classify(error)
    assert found == status
    assert reason


def test_phases_are_kept_apart_and_memory_is_the_process_own():
    meters = Meters(torch.device("cpu"))
    with meters.phase("train"):
        pass
    with meters.phase("train"), pytest.raises(KeyError):
        raise KeyError
    assert set(meters.seconds) == {"train"}
    reset_high_water_mark()
    before = high_water_mark()
    block = bytearray(64 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
    assert high_water_mark() - before > 32 * 2**20

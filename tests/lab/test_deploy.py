"""What was saved is what was trained: reload, merge, and damage that shows."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

import tiny
from peftmark.lab import deploy as module
from peftmark.lab.deploy import ROUNDS, ROUNDS_BY_ROWS, deploy, saved_size
from peftmark.lab.methods import adalora, trainable
from peftmark.lab.step import Step
from peftmark.record.fields_batch_latency import BATCH_LATENCY, MERGED_BATCH_LATENCY

CPU = torch.device("cpu")
MERGED = (
    "merged_latency_p50_seconds",
    "merged_latency_p95_seconds",
    "merge_target",
    "merge_max_error",
    *MERGED_BATCH_LATENCY.values(),
)


@pytest.fixture
def run(outcome, unprobed):
    """Run a job of a cell."""

    def start(*cell, **changes):
        done = outcome(tiny.job(*cell, **changes))
        assert done.status == "ok"
        assert done.latency_p95_seconds >= done.latency_p50_seconds > 0
        assert all(getattr(done, name) > 0 for name in BATCH_LATENCY.values())
        return done

    return start


@pytest.mark.parametrize(
    "cell",
    [
        ("full", "none"),
        pytest.param(("head", "none"), marks=pytest.mark.slow),
        ("head", "nf4"),
        ("lora", "none"),
        ("lora", "nf4"),
        pytest.param(("lora", "int8"), marks=pytest.mark.slow),
        pytest.param(("adalora", "none"), marks=pytest.mark.slow),
        ("adalora", "nf4"),
    ],
)
@pytest.mark.sweep(2)
def test_the_reloaded_model_is_the_trained_one(run, cell):
    assert run(*cell).reload_max_error < 1e-5


@pytest.mark.slow
def test_adalora_on_nf4_in_bf16_loses_only_what_peft_rounds(run):
    # PEFT rounds the adapters of modules that kept their full initial rank to bf16 on loading.
    assert run("adalora", "nf4", precision="bf16").reload_max_error < 1e-3
    assert run("lora", "nf4", precision="bf16").reload_max_error < 1e-5


def test_adaloras_divisor_never_trains(places, monkeypatch):
    job = tiny.job("adalora", "nf4", precision="bf16")

    def divisors():
        return [n for n, _ in trainable(tiny.build(places, job).model) if ".ranknum." in n]

    assert divisors() == []
    monkeypatch.setattr(adalora, "freeze_divisors", lambda model: None)
    assert divisors(), "PEFT no longer makes them trainable: freeze_divisors can go"


@pytest.mark.slow
def test_merging_into_fp32_is_exact_and_into_four_bits_is_not(run):
    plain, packed = run("lora"), run("lora", "nf4")
    assert plain.merge_max_error < 1e-4
    assert plain.merge_target == "fp32 weights"
    assert packed.merge_max_error > 1e-3
    assert packed.merge_target == "NF4 weights: dequantised, added, quantised again"
    for done in (plain, packed, run("adalora")):
        assert done.merged_latency_p95_seconds >= done.merged_latency_p50_seconds > 0
        assert all(getattr(done, name) > 0 for name in MERGED_BATCH_LATENCY.values())


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (("adalora", "nf4"), "PEFT can't merge AdaLoRA into quantised weights"),
        (("full", "none"), "the method has no adapter to merge"),
        (("head", "nf4"), "the method has no adapter to merge"),
    ],
)
def test_what_cannot_be_merged_says_so(run, cell, reason):
    done = run(*cell)
    assert [getattr(done, name) for name in MERGED] == [None] * len(MERGED)
    assert {done.null_reasons[name] for name in MERGED} == {reason}


@pytest.fixture
def trained(places, tmp_path):
    """A LoRA job, its trained model, what it saved, and its latency set."""
    job = tiny.job("lora")
    work = tiny.work(places, job)
    prepared = tiny.build(places, job)
    step = Step(job, tiny.TASKS[job.task], prepared, CPU)
    for number in range(1, 7):
        step(number, work.train(number - 1))
    folder = tmp_path / "saved"
    folder.mkdir()
    prepared.save(folder)
    return job, prepared, folder, work.latency


def test_every_number_of_rows_is_timed_on_its_own_batches(places, trained, monkeypatch):
    job, prepared, folder, batches = trained
    seen = []
    real = module.outputs_of

    def counted(model, batch, *rest):
        seen.append(batch.shape.rows)
        return real(model, batch, *rest)

    monkeypatch.setattr(module, "outputs_of", counted)
    by_rows = tiny.work(places, job).latency_by_rows
    assert list(by_rows) == [1, 4, 8]
    assert {size: {batch.shape.rows for batch in some} for size, some in by_rows.items()} == {
        1: {1}, 4: {4}, 8: {8},
    }  # fmt: skip
    fresh = lambda: tiny.base(places, job)  # noqa: E731
    found = deploy(job, prepared, folder, fresh, batches, CPU, by_rows)
    assert list(found.by_rows) == list(found.merged_by_rows) == [1, 4, 8]
    passes = 2 * (1 + ROUNDS_BY_ROWS) * len(by_rows[1])  # apart and merged
    assert seen.count(1) == seen.count(4) == passes


def test_a_size_without_enough_rows_is_null_with_the_reason(places, outcome, unprobed):
    done = outcome(tiny.job("head", "none", eval_rows=5))
    assert done.latency_1_row_seconds > 0 and done.latency_4_rows_seconds > 0
    assert done.latency_8_rows_seconds is None
    assert done.null_reasons["latency_8_rows_seconds"] == "there are only 5 evaluation rows"


def error(places, trained):
    job, prepared, folder, batches = trained
    found = deploy(job, prepared, folder, lambda: tiny.base(places, job), batches, CPU)
    return found.reload_max_error


@pytest.mark.parametrize("part", ["lora_B", "classifier"])
def test_one_damaged_tensor_is_seen(places, trained, part):
    assert error(places, trained) < 1e-5
    file = trained[2] / "adapter_model.safetensors"
    tensors = load_file(file)
    name = next(name for name in tensors if part in name)
    tensors[name] = tensors[name] * torch.linspace(0, 2, tensors[name].shape[-1])
    save_file(tensors, file, metadata={"format": "pt"})
    assert error(places, trained) > 1e-3


def test_training_mode_survives_and_dropout_is_off(places, trained):
    job, prepared, folder, batches = trained
    assert prepared.model.training
    noisy = replace(job, recipe=replace(job.recipe, dropout=0.9))
    assert error(places, (noisy, prepared, folder, batches)) < 1e-5
    assert prepared.model.training


def test_size_and_parameters_of_what_was_saved(trained):
    _, prepared, folder, _ = trained
    found = saved_size(folder, ["classifier", "bert.pooler"])
    assert found.parameters == sum(p.numel() for _, p in trainable(prepared.model))
    file = folder / "adapter_model.safetensors"
    assert found.bytes == file.stat().st_size > 4 * found.parameters
    # Width 64: two classes with their biases, and a square pooler with its own.
    assert found.head_bytes == 4 * (2 * 64 + 2 + 64 * 64 + 64)
    assert saved_size(folder, ["class"]).head_bytes == 0  # a module is no beginning of a name
    assert ROUNDS > 1

"""What `make gpu-report` measures in processes of its own, as far as a CPU goes."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

import tiny
from peftmark.lab import determinism
from peftmark.perf import bare, gpu_report, gpu_steps, gpu_watch, step
from peftmark.perf.gpu_watch import NO_DEVICE, NO_LAUNCHES, WAITED
from peftmark.sources.assets import Places


def places_of(tmp_path, monkeypatch) -> Places:
    tiny.install(tmp_path / "mirror", monkeypatch)
    return Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")


# --- the step -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_steps_that_are_watched_lie_between_and_are_compared_too(tmp_path, monkeypatch):
    places = places_of(tmp_path, monkeypatch)
    job = tiny.job("lora", task="tiny-class", steps=15, dropout=0.1)
    found = step.measure(job, places, 4, 2, watched=3)
    assert (len(found.ours), found.losses, found.loss_gap) == (4, 15, 0.0)
    assert found.watched["ours"]["reason"] == found.watched["bare"]["reason"] == NO_DEVICE
    assert found.watched["ours"]["launches"] is None
    assert step.measure(replace(job, seed=1), places, 2, 2).watched == {}


def test_losses_that_differ_are_told_where_they_may(tmp_path, monkeypatch):
    places, plain = places_of(tmp_path, monkeypatch), bare.loop

    def heavier(job, *rest):
        return plain(replace(job, recipe=replace(job.recipe, weight_decay=0.5)), *rest)

    monkeypatch.setattr(bare, "loop", heavier)
    job = tiny.job("lora", task="tiny-class", steps=12)
    found = step.measure(job, places, 4, 2, exact=False)
    assert 0 < found.loss_gap < 1 and len(found.ours) == 4


def test_a_loss_that_is_no_number_is_an_infinite_gap(tmp_path, monkeypatch):
    places, plain = places_of(tmp_path, monkeypatch), bare.loop

    def broken(*words):
        train = plain(*words)
        return lambda batches: [loss * float("nan") for loss in train(batches)]

    monkeypatch.setattr(bare, "loop", broken)
    job = tiny.job("lora", task="tiny-class", steps=6)
    assert step.measure(job, places, 1, 2, exact=False).loss_gap == float("inf")


def test_the_bare_loop_asks_for_the_same_operations_as_our_step(tmp_path, monkeypatch):
    """Both backward passes are strict where torch is to warn only, as it is on a GPU."""
    places, plain, modes = places_of(tmp_path, monkeypatch), bare._adapted, []

    def adapted(*words):
        model = plain(*words)
        first = next(p for p in model.parameters() if p.requires_grad)
        first.register_hook(
            lambda gradient: modes.append(torch.is_deterministic_algorithms_warn_only_enabled())
        )
        return model

    def warning(device):
        torch.use_deterministic_algorithms(True, warn_only=True)

    monkeypatch.setattr(bare, "_adapted", adapted)
    monkeypatch.setattr(determinism, "ask_for_same_bits", warning)
    try:
        step.measure(tiny.job("lora", task="tiny-class", steps=6), places, 1, 2)
    finally:
        torch.use_deterministic_algorithms(False)
    assert modes == [False] * 6


def test_a_job_has_the_cells_method_and_as_many_steps_as_each_side_takes():
    ask = {"device": "cuda", "pairs": 8, "steps": 10, "watched": 5}
    jobs = {cell: gpu_steps.job(cell, ask) for cell in gpu_steps.CELLS}
    assert {(j.recipe.steps, j.device, j.recipe.batch_size) for j in jobs.values()} == {
        (105, "cuda", 32)
    }
    assert {cell: (j.method, j.quantization) for cell, j in jobs.items()} == {
        "LoRA": ("lora", "none"),
        "AdaLoRA, batched": ("adalora", "none"),
        "AdaLoRA, PEFT's own": ("adalora", "none"),
        "QLoRA (NF4)": ("lora", "nf4"),
    }
    assert jobs["AdaLoRA, PEFT's own"].recipe.options == {"allocator": "peft"}
    assert jobs["AdaLoRA, batched"].recipe.options == {}
    plan = jobs["AdaLoRA, batched"].recipe.adalora
    halfway = (8 // 2 + step.WARM_UP_BLOCKS) * 10
    assert plan.tinit < halfway < 105 - plan.tfinal and plan.delta_t == gpu_steps.WATCHED


def test_a_cell_that_fails_is_a_line_and_the_next_goes_on(monkeypatch, capsys):
    def measure(job, places, pairs, steps, base, exact, watched):
        assert base is None and not exact and watched == 5
        if job.quantization == "nf4":
            raise RuntimeError("no kernel\nfor this card")
        return step.Pairs((1.0,), (1.0,), 1, 1, 1, 1, (1.0,))

    monkeypatch.setattr(gpu_steps, "measure", measure)
    ask = {"device": "cpu", "pairs": 8, "steps": 10, "watched": 5}
    gpu_steps.main(json.dumps({**ask, "cells": ["QLoRA (NF4)", "LoRA"], "shape": None}))
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first == {"cell": "QLoRA (NF4)", "fault": "RuntimeError: no kernel for this card"}
    assert second["answer"]["ours"] == [1.0]


# --- what torch sees ----------------------------------------------------------------------------


def caught(*lines):
    return [
        SimpleNamespace(message=UserWarning(text), filename=f"/lib/{name}", lineno=number)
        for text, name, number in lines
    ]


def test_kernels_copies_and_waits_are_counted_a_step():
    calls = {
        "cudaLaunchKernel": 4000, "cudaLaunchKernelExC": 20, "cuLaunchKernel": 5,
        "cudaMemcpyAsync": 10, "cudaMemsetAsync": 5, "cudaStreamSynchronize": 9,
        "aten::mm": 700, "LaunchPad": 3,
    }  # fmt: skip
    waits = caught(
        (f"{WAITED} (Triggered internally)", "layer.py", 7),
        (f"{WAITED} (Triggered internally)", "layer.py", 7),
        (f"{WAITED} (Triggered internally)", "step.py", 9),
        ("something else", "layer.py", 7),
    )
    found = gpu_watch.told(calls, waits, 5)
    assert (found["launches"], found["copies"], found["waits"]) == (805.0, 3.0, 0.6)
    assert found["where"] == {"layer.py:7": 0.4, "step.py:9": 0.2}
    assert found["reason"] == ""


def test_a_profiler_that_sees_nothing_gives_no_count():
    found = gpu_watch.told({"aten::mm": 7}, caught((WAITED, "a.py", 1)), 2)
    assert found["launches"] is found["copies"] is None
    assert (found["waits"], found["reason"]) == (0.5, NO_LAUNCHES)


def test_watching_asks_torch_to_warn_of_waits_and_no_longer(monkeypatch):
    modes = []
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", modes.append)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: modes.append("wait"))

    def train(batches):
        assert modes == ["wait", "warn"]
        warnings.warn(f"{WAITED} (made up)", stacklevel=1)
        return [torch.tensor(1.0)]

    found, losses = gpu_watch.watch(train, [None, None], torch.device("cuda"))
    assert modes == ["wait", "warn", "default", "wait"]
    assert found["waits"] == 0.5 and losses == [torch.tensor(1.0)]
    assert list(found["where"]) == [f"test_gpu_report.py:{train.__code__.co_firstlineno + 2}"]


# --- all of it ----------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.slow
def test_the_script_runs_on_a_cpu_from_end_to_end(tmp_path):
    """The hour is far more than it takes: no part is to end at its limit on a busy machine."""
    to = tmp_path / "report"
    words = ["--device", "cpu", "--quick", "--minutes", "60", "--to", str(to), "--only"]
    assert gpu_report.main([*words, "steps_encoder", "smoke", "packed", "alone"]) == 0
    facts = json.loads((to / "facts.json").read_text())
    parts = {part["key"]: part for part in facts["parts"]}
    assert parts["glue"]["reason"] == parts["doctor"]["reason"] == "not asked for"
    cells = parts["steps_encoder"]["found"]["cells"]
    assert set(cells) == set(gpu_steps.CELLS)
    assert all(one["loss_gap"] == 0 and one["losses"] == 5 for one in cells.values())
    smoke = parts["smoke"]["found"]
    assert smoke["repeat"] == {"verdict": "same", "detail": ""}
    assert [job["jobs_before"] for job in smoke["jobs"]] == [0, 1, 2, 3, 0]
    assert all("energy_gpu_joules" in job["null_reasons"] for job in smoke["jobs"])
    assert [one["differs"] for one in parts["alone"]["found"]["compared"]] == [""] * 3
    assert parts["packed"]["outcome"] == "not run"
    assert "# What peftmark takes on a GPU" in (to / "report.md").read_text()

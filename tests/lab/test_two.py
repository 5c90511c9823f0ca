"""Two kept adapters fused: held to the weighted sum of what their files say."""

from __future__ import annotations

import json
from itertools import count
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

import tiny
import tiny_causal
from peftmark.lab.export import several, weight_change, worker
from peftmark.lab.export import two as module
from peftmark.lab.export.several import FIRST, OTHER, fuse
from peftmark.lab.export.two import both_on_one_base, two, update_of
from peftmark.lab.models import Unsupported
from peftmark.sources.assets import Places

pytestmark = pytest.mark.usefixtures("unprobed")
SCALE = 8 / 2
"""alpha over rank of `tiny.job`."""


@pytest.fixture(autouse=True)
def few_ways(monkeypatch):
    """Some of the ways; `test_several.py` tries all."""
    monkeypatch.setattr(several, "COMBINATIONS", ("linear", "cat", "svd"))


@pytest.fixture
def leave(tmp_path, places):
    """What a tiny job leaves, opened again, and its outcome."""

    def run(job, there=places):
        return tiny.left(job, there, tmp_path / "left")

    return run


def factors(one):
    """Layer -> A and B of a kept LoRA, as its file has them."""
    tensors = load_file(one.folder / "adapter_model.safetensors")
    names = [n.removesuffix(".lora_A.weight") for n in tensors if n.endswith("lora_A.weight")]
    parts = ("lora_A", "lora_B")
    return {n: [tensors[f"{n}.{p}.weight"].double() for p in parts] for n in sorted(names)}


def whole(matrices):
    """Frobenius norm of matrices together."""
    return sum(float(m.square().sum()) for m in matrices) ** 0.5


@pytest.mark.slow
def test_ways_to_fuse_are_held_to_the_weighted_sum_of_two_updates(leave, places, monkeypatch):
    first, one = leave(tiny.job("lora", selection_rows=20))
    second, other = leave(tiny.job("lora", seed=1, selection_rows=20))
    readings = count()
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: next(readings)))
    found = two(first, second, 0.25, places)
    assert found.weights == (0.75, 0.25)
    files = list(zip(factors(first).values(), factors(second).values(), strict=True))
    wanted = [0.75 * SCALE * b @ a + 0.25 * SCALE * d @ c for (a, b), (c, d) in files]
    # `linear` adds the factors, each by the root of its weight and scale.
    u, v = (0.75 * SCALE) ** 0.5, (0.25 * SCALE) ** 0.5
    linear = [(u * b + v * d) @ (u * a + v * c) for (a, b), (c, d) in files]
    off = whole(x - y for x, y in zip(linear, wanted, strict=True)) / whole(wanted)
    assert found.ways["linear"].error == pytest.approx(off, rel=1e-4)
    assert off > 0.1
    assert found.ways["cat"].error < 1e-6
    # What `svd` leaves out is what a matrix of rank two can't hold (Eckart and Young 1936).
    rest = whole(torch.linalg.svdvals(m)[2:] for m in wanted) / whole(wanted)
    assert found.ways["svd"].error == pytest.approx(rest, rel=1e-3)
    size = 4 * sum(m.numel() for pair, _ in files for m in pair)
    assert found.bytes_of_one == found.ways["linear"].bytes == size
    assert found.ways["cat"].bytes == 2 * size
    assert found.ways["svd"].bytes > 2 * size, "views of whole decompositions"
    assert {way.seconds for way in found.ways.values()} == {1}

    kinds = [(one.split, one.rows, one.head) for one in found.scored]
    assert kinds == [
        ("selection", 20, "first"),
        ("evaluation", 40, "first"),
        ("selection", 20, "second"),
        ("evaluation", 40, "second"),
    ]
    scores = [one.scores for one in found.scored]
    assert [set(one) for one in scores] == [{"first", "second", *found.ways}] * 4
    assert scores[0]["first"] == one.curve[-1].selection_metric
    assert scores[1]["first"] == one.metric_value
    assert scores[2]["second"] == other.curve[-1].selection_metric
    assert scores[3]["second"] == other.metric_value


@pytest.mark.slow
def test_all_the_weight_on_one_of_two_tasks_gives_its_scores(leave, places):
    """One has two classes, the other scores: each head is its task's."""
    first, one = leave(tiny.job("lora"))
    second, other = leave(tiny.job("lora", task="tiny-score"))
    found = two(first, second, 1.0, places)
    classes, scores = found.scored
    assert (classes.task, classes.head, classes.metric) == ("tiny-class", "first", "accuracy")
    assert (scores.task, scores.head, scores.metric) == ("tiny-score", "second", "pearson")
    assert classes.scores["first"] == one.metric_value
    assert scores.scores["second"] == pytest.approx(other.metric_value, abs=1e-6)
    assert scores.scores["cat"] == pytest.approx(other.metric_value, abs=1e-4)
    assert classes.scores["cat"] == classes.scores["second"]
    assert scores.scores["first"] != scores.scores["second"]


@pytest.mark.slow
def test_a_language_model_has_no_head_and_one_task_is_scored_once(leave, tmp_path, monkeypatch):
    tiny_causal.install(tmp_path / "spoken", monkeypatch)
    there = Places(tmp_path / "spoken", ("mirror",), tmp_path / "cache")
    first, one = leave(tiny_causal.job("lora", steps=4), there)
    second, _ = leave(tiny_causal.job("lora", seed=1, steps=4), there)
    found = two(first, second, 0.5, there)
    [scored] = found.scored
    assert (scored.head, scored.split) == ("", "evaluation")
    assert scored.scores["first"] == one.metric_value
    assert found.ways["cat"].error < 1e-6


@pytest.mark.slow
def test_what_gives_no_finite_outputs_has_no_score(leave, places, monkeypatch):
    def diverged(*_):
        raise module.Diverged("not finite")

    monkeypatch.setattr(module, "evaluate", diverged)
    first, second = (leave(tiny.job("ia3", seed=seed, steps=4))[0] for seed in (0, 1))
    [scored, _] = two(first, second, 0.5, places).scored
    assert set(scored.scores.values()) == {None}


@pytest.mark.slow
def test_the_root_in_the_scale_of_rslora_doubles_what_cat_gives(leave, places):
    """PEFT writes rank 4 and alpha 4, which is a scale of one, of rsLoRA of 4 / sqrt(4)."""
    first, second = (leave(tiny.job("rslora", seed=seed, steps=4))[0] for seed in (0, 1))
    with both_on_one_base(first, second) as model:
        ways, _ = module._ways(first, model, [0.5, 0.5])
    assert ways["cat"].error == pytest.approx(1, abs=1e-5)


@pytest.mark.slow
def test_updates_are_those_that_merging_adds(leave):
    """DoRA's magnitudes are no part of what PEFT fuses."""
    first, second = (leave(tiny.job("dora", seed=seed, steps=4))[0] for seed in (0, 1))
    with both_on_one_base(first, second) as model:
        ways, _ = module._ways(first, model, [0.5, 0.5])
        assert 0.01 < ways["cat"].error < 1
        layers = {n: m for n, m in model.named_modules() if hasattr(m, "lora_A")}
        for name in (FIRST, OTHER):
            for layer in layers.values():
                before = layer.get_base_layer().weight.detach().double().clone()
                update = update_of(layer, name, first).detach()
                layer.merge(adapter_names=[name])
                merged = layer.get_base_layer().weight.detach().double()
                assert torch.allclose(merged - before, update, atol=1e-6)
                assert float(update.norm()) > 1e-3
                layer.unmerge()


@pytest.mark.slow
def test_ia3_scales_are_averaged(leave, monkeypatch):
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=count().__next__))
    first, second = (leave(tiny.job("ia3", seed=seed))[0] for seed in (0, 1))
    with both_on_one_base(first, second) as model:
        ways, _ = module._ways(first, model, [0.7, 0.3])
        assert fuse(model, [FIRST, OTHER], [0.7, 0.3], "weighted") == ""
        layer = next(m for m in model.modules() if hasattr(m, "ia3_l"))
        a, b, fused = (layer.ia3_l[name] for name in (FIRST, OTHER, "weighted"))
        assert torch.allclose(fused, 0.7 * a + 0.3 * b) and not torch.allclose(a, b)
    assert ways["weighted"].error < 1e-3
    assert ways["weighted"].seconds == 1


@pytest.mark.slow
def test_the_process_measures_what_it_is_asked_for(leave, places, monkeypatch):
    def left_out(_):
        raise Unsupported("left out by the test")

    monkeypatch.setattr(several, "several", left_out)
    monkeypatch.setattr(weight_change, "weight_change", left_out)
    first, second = (leave(tiny.job("ia3", seed=seed, steps=4))[0] for seed in (0, 1))
    asked = {
        "folder": str(first.folder),
        "mirror": str(places.mirror),
        "sources": places.sources,
        "cache": str(places.cache),
        "other": str(second.folder),
        "weight": 0.25,
        "attention": 3,
    }
    found = json.loads(json.dumps(worker._measure(asked), allow_nan=False))
    assert found["two"]["weights"] == [0.75, 0.25]
    assert found["attention"]["rows"] == 3
    assert found["change"] == found["several"] == {"reason": "left out by the test"}
    plain = worker._measure({**asked, "other": None, "attention": None})
    assert set(plain) == {"change", "several"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "why"),
    [
        ("adalora", "PEFT fuses none of it: TypeError: AdaLoraModel does not support"),
        ("prefix-tuning", "PeftModelForSequenceClassification has no add_weighted_adapter"),
        ("prompt-tuning", "PEFT's own loading gives another model"),
        ("adapter", "no adapter of PEFT's, so that nothing fuses it"),
    ],
)
def test_what_cannot_be_fused_is_refused(leave, places, method, why):
    one, _ = leave(tiny.job(method))
    with pytest.raises(Unsupported, match=why):
        two(one, one, 0.5, places)

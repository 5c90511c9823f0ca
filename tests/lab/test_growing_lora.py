"""LoRA that grows: nothing is lost, the layers that matter get more rank, low ones freeze."""

from __future__ import annotations

import pytest
import torch

import citizen
import tiny
from citizen import base_of, build, logits, train
from peftmark.lab import recipe
from peftmark.lab.methods import trainable
from peftmark.lab.methods.growing_lora import Importance
from peftmark.lab.models import Unsupported
from peftmark.sources.assets import Places


def job(quantization="none", **changes):
    settings = {"steps": 20, "rank": 6, "options": {"first_rank": 2}, **changes}
    return citizen.job("growing-lora", quantization, **settings)


def lora(model, end):
    """Module -> its A or B."""
    found = dict(model.named_parameters())
    return {
        n.removesuffix(f".{end}.default.weight"): p for n, p in found.items() if f".{end}." in n
    }


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
def test_growth_loses_nothing_and_only_the_layer_that_matters_more_grows(bert, quantization):
    _, prepared, parts = build(bert, job(quantization))
    assert set(prepared.ranks().values()) == {2}
    assert prepared.stage.after == 7 and prepared.fault() == "the ranks never grew"
    train(prepared, 7)
    learned = logits(prepared.model)
    before = {name: p.detach().clone() for name, p in lora(prepared.model, "lora_A").items()}
    prepared.stage.begin()
    torch.testing.assert_close(logits(prepared.model), learned, rtol=1e-4, atol=1e-5)
    scores = prepared.layer_scores
    most = max(scores, key=scores.get)
    assert set(scores) == {b.name for b in parts.blocks} and scores[most] > 0
    for name, rank in prepared.ranks().items():
        assert rank == (6 if name.startswith(f"{most}.") else 2), name
    for name, p in lora(prepared.model, "lora_A").items():
        assert torch.equal(p[:2], before[name])
    grown = [p for p in lora(prepared.model, "lora_B").values() if p.shape[1] == 6]
    assert len(grown) == 6 and all(not p[:, 2:].any() and p[:, :2].any() for p in grown)
    names = dict(trainable(prepared.model))
    assert all(f"{name}.lora_A.default.weight" in names for name in before)


def test_the_last_stage_freezes_low_layers_where_they_are(bert):
    _, prepared, parts = build(bert, job(options={"first_rank": 2, "important": 1.0}))
    train(prepared, 14)
    assert prepared.stage.after == 14 and prepared.fault() == "the low layers were never frozen"
    learned = logits(prepared.model)
    prepared.stage.begin()
    assert prepared.fault() is None
    torch.testing.assert_close(logits(prepared.model), learned)
    low, high = (f"base_model.model.{block.name}." for block in parts.blocks)
    names = [n for n, _ in trainable(prepared.model)]
    assert not [n for n in names if n.startswith(low)]
    assert len([n for n in names if n.startswith(high)]) == 12
    assert any("classifier" in n for n in names)
    frozen = {n: p for n, p in prepared.model.named_parameters() if n.startswith(low)}
    factors = sum(p.numel() for n, p in frozen.items() if ".lora_" in n)
    assert prepared.active_parameters() == factors + sum(p.numel() for _, p in
                                                         trainable(prepared.model))  # fmt: skip


def test_importance_is_the_mean_of_weight_times_gradient(bert):
    _, prepared, parts = build(bert, job())
    layers = [block.name for block in parts.blocks]
    importance, sums = Importance(prepared.model, layers), dict.fromkeys(layers, 0.0)
    for step in range(2):
        for name, p in prepared.model.named_parameters():
            if ".lora_" in name:
                p.grad = torch.full_like(p, 2.0 + step)
                p.data.fill_(-0.5)
                layer = next(one for one in layers if f".{one}." in name)
                sums[layer] += p.numel() * 0.5 * (2.0 + step) / 2
        importance.look(step)
    assert importance.means() == pytest.approx(sums)
    assert importance.highest(1) == [layers[0]], "of equals the one nearer to the input"


@pytest.mark.parametrize("quantization", ["none", "nf4"])
@pytest.mark.sweep(4)
def test_it_trains_saves_and_comes_back_as_peft_loads_it(folder, tmp_path, quantization):
    made = job(quantization)
    _, prepared, _ = build(folder, made)
    losses, missing = train(prepared, 20)
    assert losses[-1] < losses[0] and missing == [] and prepared.fault() is None
    prepared.save(tmp_path)
    loaded = prepared.load(base_of(folder, made)[0], tmp_path)
    torch.testing.assert_close(logits(loaded), logits(prepared.model), rtol=1e-5, atol=1e-5)
    if quantization == "none":
        merged, _ = prepared.merge(loaded)
        torch.testing.assert_close(logits(merged), logits(prepared.model), rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_a_whole_job_has_three_stages_and_is_no_lora_of_either_rank(tmp_path, monkeypatch):
    tiny.install(tmp_path / "mirror", monkeypatch)
    places = Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")
    cells = (("growing-lora", 6, {"first_rank": 2}), ("lora", 6, {}), ("lora", 2, {}))
    done = [
        recipe.run(tiny.job(m, rank=rank, options=options, eval_every=3), places, lambda _: None)
        for m, rank, options in cells
    ]
    assert [one.status for one in done] == ["ok"] * 3, [one.status_reason for one in done]
    assert len({one.final_weights_hash for one in done}) == 3
    assert len({tuple(one.curve) for one in done}) == 3
    ours = done[0]
    assert ours.reload_max_error < 1e-5
    assert ours.live_bytes == ours.predicted_live_bytes
    history = list(zip(*ours.rank_history.values(), strict=True))
    assert set(history[0]) == {2} and set(history[-1]) == {2, 6}


def test_a_rank_below_the_first_is_refused(bert):
    with pytest.raises(Unsupported, match="only grows"):
        build(bert, job(rank=1))

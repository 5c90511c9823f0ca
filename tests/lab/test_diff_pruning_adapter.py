"""DiffPruning, then adapters on what it left: what is frozen when, and the second stage's start."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import citizen
import tiny
from citizen import base_of, build, logits, train
from peftmark.lab import recipe
from peftmark.lab.methods import trainable
from peftmark.lab.methods.adapter import Shape
from peftmark.lab.methods.diff_pruning import Relaxed, Sparse
from peftmark.lab.methods.diff_pruning_adapter import attach
from peftmark.sources.assets import Places

METHOD = "diff-pruning-adapter"


def job_for(**options):
    return citizen.job(METHOD, rank=4, options=options)


def first_stage(prepared) -> list[float]:
    """Its losses, with the same random gates every time."""
    torch.manual_seed(0)
    return train(prepared, 6)[0]


def sparse(model) -> list[Sparse]:
    return [m for m in model.modules() if isinstance(m, Sparse)]


def test_trains_cuts_saves_and_loads_on_every_architecture(folder, tmp_path):
    prepared = citizen.check(folder, tmp_path, job_for())
    assert prepared.merge is None and "activation" in prepared.merge_reason


def test_the_adapter_follows_a_layer_that_keeps_its_name():
    """y + U relu(D y + d) + u, in numbers."""
    layer = nn.Linear(2, 2)
    plain = layer(torch.tensor([[1.0, 2.0]])).detach()
    attach(layer, 1, Shape("relu"))
    assert set(dict(layer.named_parameters())) == {
        "weight", "bias", "adapter.down.weight", "adapter.down.bias", "adapter.up.weight",
        "adapter.up.bias",
    }  # fmt: skip
    torch.testing.assert_close(layer(torch.tensor([[1.0, 2.0]])), plain)
    with torch.no_grad():
        layer.adapter.down.weight.copy_(torch.tensor([[2.0, 1.0]]))
        layer.adapter.down.bias.fill_(0.25)
        layer.adapter.up.weight.copy_(torch.tensor([[3.0], [-4.0]]))
    inner = torch.relu(2 * plain[0, 0] + plain[0, 1] + 0.25)
    expected = plain + inner * torch.tensor([[3.0, -4.0]])
    torch.testing.assert_close(layer(torch.tensor([[1.0, 2.0]])), expected)


def test_the_first_stage_is_diff_prunings_alone(bert):
    _, prepared, _ = build(bert, job_for())
    _, alone, _ = build(bert, citizen.job("diff-pruning", options={"density": 0.05}))
    names = [n for n, _ in trainable(prepared.model)]
    assert names == [n for n, _ in trainable(alone.model)]
    assert prepared.stage.after == alone.stage.after == 6
    assert first_stage(prepared) == first_stage(alone)


def test_the_second_stage_starts_where_the_cut_left_and_trains_adapters_alone(bert):
    _, prepared, parts = build(bert, job_for())
    _, alone, _ = build(bert, citizen.job("diff-pruning", options={"density": 0.05}))
    for one in (prepared, alone):
        first_stage(one)
        one.stage.begin()
    assert not [m for m in prepared.model.modules() if isinstance(m, Relaxed)]
    torch.testing.assert_close(logits(prepared.model), logits(alone.model))
    tops = (*parts.head, parts.pooler)
    names = [n for n, _ in trainable(prepared.model) if not n.startswith(tops)]
    assert {n.rsplit(".adapter.", 1)[0] for n in names} == {b.ffn_out for b in parts.blocks}
    assert {prepared.part_of(n) for n in names} == {"adapter"}
    before = [part.values.detach().clone() for part in sparse(prepared.model)]
    optimizer = torch.optim.AdamW([p for _, p in trainable(prepared.model)], lr=5e-3)
    citizen.loss(prepared.model, citizen.Batch(citizen.inputs(), citizen.LABELS, 54)).backward()
    optimizer.step()
    assert before and all(
        torch.equal(old, part.values) and part.values.grad is None
        for old, part in zip(before, sparse(prepared.model), strict=True)
    )


def test_what_is_active_is_what_was_kept_and_the_adapters(bert):
    _, prepared, parts = build(bert, job_for())
    train(prepared)
    kept = sum(part.values.numel() for part in sparse(prepared.model))
    size = sum(prepared.model.get_submodule(n).weight.numel() for n in parts.encoder_linears)
    assert kept == round(0.05 * size)
    assert prepared.active_parameters() == kept + sum(
        p.numel() for _, p in trainable(prepared.model)
    )


def test_it_comes_back_without_either_parent(bert, tmp_path):
    _, prepared, _ = build(bert, job_for())
    train(prepared)
    prepared.save(tmp_path)
    loaded = prepared.load(base_of(bert, job_for())[0], tmp_path)
    torch.testing.assert_close(logits(loaded), logits(prepared.model), rtol=1e-5, atol=1e-5)
    with torch.no_grad():
        for part in sparse(loaded):
            part.values.zero_()
    assert not torch.allclose(logits(loaded), logits(prepared.model), atol=1e-3)


@pytest.mark.slow
def test_a_whole_job_is_neither_of_its_parents(tmp_path, monkeypatch):
    tiny.install(tmp_path / "mirror", monkeypatch)
    places = Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")
    cells = {METHOD: {}, "diff-pruning": {"density": 0.05}, "adapter": {}}
    done = [
        recipe.run(tiny.job(method, rank=4, options=options), places, lambda message: None)
        for method, options in cells.items()
    ]
    assert [one.status for one in done] == ["ok"] * 3, [one.status_reason for one in done]
    assert len({one.final_weights_hash for one in done}) == 3
    assert len({tuple(one.curve) for one in done}) == 3
    assert done[0].reload_max_error < 1e-5
    assert done[0].live_bytes == pytest.approx(done[0].predicted_live_bytes, rel=1e-3)

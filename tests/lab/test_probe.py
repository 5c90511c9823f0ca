"""Operations of a training step, by hand and against direct counts."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import tiny
from peftmark.catalog.tasks import TASKS
from peftmark.lab import after_training, recipe
from peftmark.lab.data.batches import Batch
from peftmark.lab.measure.probe import interpolate, probe
from peftmark.lab.methods import Prepared

CPU = torch.device("cpu")
ROWS = 4


def counted(model, longest, make):
    """Operations of each step of a model of its own; `make` gives the inputs at a length."""
    work = SimpleNamespace(
        longest=longest,
        train=lambda step: Batch(make(longest[step]), torch.zeros(ROWS, dtype=torch.long), 0),
    )
    prepared = Prepared(model, save=None, load=None, merge=None)
    return list(probe(tiny.job(), TASKS["sst-2"], prepared, work, CPU).flops)


class OneLayer(nn.Module):
    """Two classes from the mean over tokens of one linear layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(8, 2)

    def forward(self, x):
        return SimpleNamespace(logits=self.layer(x).mean(dim=1))


class Attention(nn.Module):
    """Attention of three heads over itself, with nothing else that multiplies matrices."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, x):
        x = x * self.scale
        out = nn.functional.scaled_dot_product_attention(x, x, x)
        return SimpleNamespace(logits=out.mean(dim=(1, 2))[:, :2])


def test_a_linear_layer_by_hand():
    found = counted(OneLayer(), [3, 5, 9, 5], lambda n: {"x": torch.ones(ROWS, n, 8)})
    # A product forward and one for the weight's gradient; the input needs none.
    assert found == [2 * 2 * ROWS * n * 8 * 2 for n in (3, 5, 9, 5)]


def test_attention_by_hand_on_a_cpu():
    found = counted(Attention(), [3, 5, 9, 6], lambda n: {"x": torch.ones(ROWS, 3, n, 8)})
    # Scores and values: two products forward; backward four, and the scores once more.
    assert found == [7 * 2 * ROWS * 3 * n * n * 8 for n in (3, 5, 9, 6)]


@pytest.mark.slow
def test_every_base_needs_the_same_operations(places):
    found = {}
    for quantization in ("none", "nf4", "fp4", "int8"):
        job = tiny.job("lora", quantization)
        prepared = tiny.build(places, job)
        found[quantization] = probe(job, TASKS[job.task], prepared, tiny.work(places, job), CPU)
    flops = {quantization: probed.flops for quantization, probed in found.items()}
    assert len(set(flops.values())) == 1, flops
    assert len(flops["none"]) == 12
    assert min(flops["none"]) > 0


@pytest.mark.slow
@pytest.mark.parametrize("dropout", [0.0, 0.1], ids=["fused attention", "attention in parts"])
def test_three_lengths_tell_every_other(places, dropout):
    def inputs(length):
        return {"input_ids": torch.full((ROWS, length), 7)}

    def steps(lengths):
        prepared = tiny.build(places, tiny.job())
        for module in prepared.model.modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout
        return counted(prepared.model, lengths, inputs)

    lengths = [4, 9, 13, 20, 33]  # 4, 13 and 33 are counted, the others follow
    assert steps(lengths) == [steps([length])[0] for length in lengths]


def test_interpolation_goes_through_its_points_and_follows_a_square():
    square = {length: 3 * length**2 + 7 * length + 11 for length in (2, 5, 90, 17)}
    three = {length: square[length] for length in (2, 17, 90)}
    assert [interpolate(three, length) for length in square] == list(square.values())
    assert interpolate({12: 345}, 12) == 345


@pytest.mark.slow
def test_probing_changes_no_bit_of_training(places, monkeypatch):
    def run():
        done = recipe.run(tiny.job(), places, lambda message: None)
        return done, [(p.loss, p.metric, p.gradient_norm) for p in done.curve]

    probed, curve = run()
    assert probed.flops_per_step > 0
    again, same = run()  # after a probe in this process
    assert same == curve
    assert again.live_bytes == probed.live_bytes

    def fails(*_):
        raise RuntimeError("no probe")

    monkeypatch.setattr(after_training, "probe", fails)
    without, bare = run()
    assert bare == curve
    assert without.flops_per_step is None
    assert without.null_reasons["live_bytes"] == ("the probe steps failed: RuntimeError: no probe")


@pytest.mark.slow
def test_checkpointing_trades_activations_for_operations(places):
    # Through the whole probe: counting operations beside the storages once kept alive what
    # checkpointing frees, and only a job could show it.
    plain, saving = (
        recipe.run(
            tiny.job(dropout=0.0, batch_size=32, gradient_checkpointing=saving), places, print
        )
        for saving in (False, True)
    )
    assert saving.live_activation_bytes < 0.75 * plain.live_activation_bytes
    assert saving.flops_per_step > 1.2 * plain.flops_per_step
    assert saving.live_weight_bytes == plain.live_weight_bytes

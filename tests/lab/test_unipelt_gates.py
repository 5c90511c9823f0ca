"""UniPELT's gates: one network a layer against numbers by hand, what is pruned, what is told."""

from __future__ import annotations

import math

import pytest
import torch
from safetensors.torch import load_file

import citizen
from citizen import LABELS, inputs
from peftmark.lab.data.batches import Batch
from peftmark.lab.methods import trainable
from peftmark.lab.methods.reference import FILE
from peftmark.lab.methods.unipelt_gates import (
    PARTS,
    GateNetwork,
    Mean,
    Rows,
    entropy,
    low_parts,
    temperature_after,
)
from peftmark.lab.methods.unipelt_parts import GatedAdapter, GatedLora, GatedPrefix
from peftmark.lab.models import Unsupported

CPU = torch.device("cpu")
LAYERS = ("bert.encoder.layer.0", "bert.encoder.layer.1")


def job_for(quantization="none", **recipe):
    options = {"width": 4, "tokens": 3, "gates": "network", **recipe.pop("options", {})}
    return citizen.job("unipelt", quantization, rank=2, options=options, **recipe)


def networks(model) -> list[GateNetwork]:
    return [m for m in model.modules() if isinstance(m, GateNetwork)]


def close(model, part: str) -> None:
    """Hold a part's gate near 0 in every layer."""
    with torch.no_grad():
        for network in networks(model):
            network.second.bias[PARTS.index(part)] = -30.0


def by_hand() -> GateNetwork:
    """Of two inputs; the units that matter are h1 - h2 and 2 h2."""
    network = GateNetwork(2, Rows(), CPU)
    with torch.no_grad():
        for weight in network.parameters():
            weight.zero_()
        network.first.weight[:2] = torch.tensor([[1.0, -1.0], [0.0, 2.0]])
        network.second.weight[:, :2] = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    return network


def test_a_network_gives_the_three_gates_of_its_layer():
    network = by_hand()
    network.temperature = 2.0
    # h1 = (3, 1): units 2 and 2. h2 = (1, 2): -1, which ReLU cuts, and 4. So the outputs are
    # 2, 2, 4 and 0, 4, 4, over 2: sigmoids 0.73106, 0.73106, 0.88080 and 0.5, 0.88080, 0.88080.
    found = network(torch.tensor([[[3.0, 1.0], [1.0, 2.0]]]))
    expected = torch.tensor([[[0.61553, 0.80593, 0.88080]]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    network.temperature = 4.0  # sigmoids of 0.5, 0.5, 1 and 0, 1, 1
    expected = torch.tensor([[[0.56123, 0.67676, 0.73106]]])
    found = network(torch.tensor([[[3.0, 1.0], [1.0, 2.0]]]))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_the_entropy_is_that_of_the_gates_shares():
    one = entropy(torch.tensor([[[0.5, 0.25, 0.25]]]), Rows())
    assert one.item() == pytest.approx(1.5 * math.log(2))  # 1/2 ln 2 + 2 x 1/4 ln 4
    other = entropy(torch.tensor([[[0.2, 0.2, 0.2]]]), Rows())
    assert other.item() == pytest.approx(math.log(3))
    both = entropy(torch.tensor([[[0.5, 0.25, 0.25]], [[0.2, 0.2, 0.2]]]), Rows())
    assert both.item() == pytest.approx((1.5 * math.log(2) + math.log(3)) / 2)


def test_the_temperature_falls_linearly_from_the_first_step_to_the_last():
    assert [temperature_after(step, 5) for step in (1, 2, 3, 4, 5)] == [4, 3, 2, 1, 1]
    assert temperature_after(1, 1) == 1


def test_a_part_is_low_in_nine_of_ten_layers():
    low, high = (0.09, 0.2, 0.3), (0.11, 0.2, 0.3)
    assert low_parts([low] * 9 + [high], 0.1) == ["adapter"]
    assert low_parts([low] * 8 + [high] * 2, 0.1) == []
    assert low_parts([low] * 10, 0.25) == ["adapter", "prefix"]
    assert low_parts([low] * 10, 0.0) == []


def test_a_mean_is_over_rows_and_starts_anew_when_read():
    mean = Mean()
    mean.add(torch.tensor([[[0.2]], [[0.4]]]))
    mean.add(torch.tensor([[[0.9]]]))
    assert mean.read() == pytest.approx([0.5])
    assert mean.read() == []


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_trains_saves_and_loads(bert, tmp_path, quantization):
    prepared = citizen.check(bert, tmp_path, job_for(quantization), identity=False)
    assert [network.temperature for network in networks(prepared.model)] == [1.0, 1.0]
    assert prepared.active_parameters() == sum(p.numel() for _, p in trainable(prepared.model))
    paper = citizen.job("unipelt", quantization, rank=2, options={"width": 4, "tokens": 3})
    _, other, _ = citizen.build(bert, paper)
    citizen.train(other, 10)
    assert (citizen.logits(other.model) - citizen.logits(prepared.model)).abs().max() > 1e-3


def test_a_layer_has_one_network_and_it_learns_at_its_temperature(bert):
    _, prepared, _ = citizen.build(bert, job_for())
    own = sum(p.numel() for n, p in trainable(prepared.model) if ".part_gates." in n)
    assert own == 2 * (64 * 128 + 128 + 128 * 3 + 3)
    assert [n.temperature for n in networks(prepared.model)] == [5.0, 5.0]
    citizen.train(prepared, 4)
    assert [n.temperature for n in networks(prepared.model)] == pytest.approx([5 - 4 * 4 / 9] * 2)


def test_the_loss_is_less_the_weighted_entropy(bert):
    _, prepared, _ = citizen.build(bert, job_for(options={"entropy_weight": 0.5}))
    assert prepared.extra_loss() is None  # no row has passed yet
    seen = []
    for network in networks(prepared.model):
        network.register_forward_hook(
            lambda module, x, out: seen.append(entropy(out, Rows()).item())
        )
    prepared.model.train()
    citizen.loss(prepared.model, Batch(inputs(), LABELS, 54))
    assert len(seen) == 2
    assert prepared.extra_loss().item() == pytest.approx(-0.5 * sum(seen) / 2)
    _, without, _ = citizen.build(bert, job_for(options={"entropy_weight": 0}))
    without.model.train()
    citizen.loss(without.model, Batch(inputs(), LABELS, 54))
    assert without.extra_loss() is None


@pytest.mark.parametrize(
    ("part", "kind"), [("adapter", GatedAdapter), ("prefix", GatedPrefix), ("lora", GatedLora)]
)
def test_a_part_with_low_gates_is_taken_out_after_the_last_step(bert, tmp_path, part, kind):
    job = job_for()
    _, prepared, _ = citizen.build(bert, job)
    close(prepared.model, part)
    before = prepared.active_parameters()
    citizen.train(prepared, 9)
    assert [m for m in prepared.model.modules() if isinstance(m, kind)]
    prepared.after_step(10)
    assert not [m for m in prepared.model.modules() if isinstance(m, kind)]
    assert prepared.fault() is None
    assert prepared.active_parameters() < before
    assert set(prepared.ranks().values()) == ({0} if part == "lora" else {2})
    citizen.logits(prepared.model)
    left = [f"{layer}.{other}" for layer in LAYERS for other in PARTS if other != part]
    assert sorted(prepared.gates()) == sorted(left)
    prepared.save(tmp_path)
    assert sum(t.numel() for t in load_file(tmp_path / FILE).values()) < before
    loaded = prepared.load(citizen.base_of(bert, job)[0], tmp_path)
    assert not [m for m in loaded.modules() if isinstance(m, kind)]
    torch.testing.assert_close(citizen.logits(loaded), citizen.logits(prepared.model))


def test_parts_stay_where_pruning_is_off_or_gates_are_high(bert):
    for options in ({"prune_below": 0}, {}):
        _, prepared, _ = citizen.build(bert, job_for(options=options))
        if options:
            close(prepared.model, "prefix")
        citizen.train(prepared, 10)
        assert len([m for m in prepared.model.modules() if isinstance(m, GatedPrefix)]) == 2


def test_nothing_left_is_a_fault(bert):
    _, prepared, _ = citizen.build(bert, job_for(options={"prune_below": 1}))
    citizen.train(prepared, 10)
    assert "took out every part" in prepared.fault()


@pytest.mark.parametrize("gates", ["paper", "network"])
def test_gates_are_told_of_the_rows_that_were_scored(bert, gates):
    _, prepared, _ = citizen.build(bert, job_for(options={"gates": gates}))
    assert prepared.gates() == {}
    citizen.train(prepared, 2)
    assert prepared.gates() == {}  # rows of training are none of these
    citizen.logits(prepared.model)
    citizen.logits(prepared.model)
    found = prepared.gates()
    assert sorted(found) == sorted(f"{layer}.{part}" for layer in LAYERS for part in PARTS)
    assert all(0.3 < gate < 0.7 for gate in found.values())
    assert prepared.gates() == {}
    citizen.logits(prepared.model)
    assert prepared.gates() == pytest.approx(found, abs=1e-6)


def test_gradient_checkpointing_gives_the_same_gradients(bert):
    gradients = []
    for checkpointing in (False, True):
        _, prepared, _ = citizen.build(bert, job_for())
        prepared.model.train()
        if checkpointing:
            prepared.model.activation_checkpointing_enable(
                activation_checkpointing_kwargs={"use_reentrant": False}
            )
        torch.manual_seed(0)
        loss = citizen.loss(prepared.model, Batch(inputs(), LABELS, 54))
        (loss + prepared.extra_loss()).backward()
        gradients.append({n: p.grad for n, p in trainable(prepared.model)})
    torch.testing.assert_close(gradients[1], gradients[0])


def test_several_passes_a_step_are_refused(bert):
    with pytest.raises(Unsupported, match="gradient_accumulation: 1"):
        citizen.build(bert, job_for(gradient_accumulation=2))

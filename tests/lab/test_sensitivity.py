"""LoRA placed and sized by gradients: the score, the choice, and what it may not touch."""

from __future__ import annotations

import copy
from dataclasses import replace

import bitsandbytes
import pytest
import torch
from torch import nn

import citizen
import tiny
from citizen import LABELS, base_of, build, inputs, logits, setting_of
from peftmark.catalog.architectures import OF_MODELS
from peftmark.catalog.methods import METHODS
from peftmark.lab.data.batches import Batch
from peftmark.lab.memory.meta_model import Counter, config_of
from peftmark.lab.methods.sensitivity import (
    chosen,
    layer_scores,
    linear_gradients,
    ranks_over_maximum,
    scaled_ranks,
)
from peftmark.lab.models import Unsupported, adapter_targets
from peftmark.lab.parameter_budget import count
from peftmark.lab.rng import seed_all
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite

QUANTIZATIONS = ["none", "nf4", "fp4", "int8"]


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """A folder with a tiny model of an architecture, of four layers."""

    def made(architecture):
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(tiny.SMALL, "num_hidden_layers", 4)
            path = tmp_path_factory.mktemp(architecture)
            tiny.make_model(path, architecture)
        return path

    return made


@pytest.fixture(scope="module")
def bert(make):
    return make("bert")


def job(select="top", quantization="none", method="sensitive-layers", seed=0, **options):
    extra = {"select": select} if method == "sensitive-layers" else {}
    options = {"batches": 3, **extra, **options}
    return replace(citizen.job(method, quantization, options=options), seed=seed)


def query_value(parts):
    return [name for block in parts.blocks for name in (block.query, block.value)]


def batch(seed=0):
    return Batch(inputs(seed), LABELS, 54)


def true_gradients(model, rows):
    """Gradient of every parameter by plain backpropagation."""
    model.zero_grad()
    model.requires_grad_(True)
    citizen.loss(model, rows).backward()
    return {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("architecture", sorted(tiny.CONFIGS))
def test_gradients_from_hooks_are_the_true_ones(make, architecture):
    model, parts = base_of(make(architecture), job())
    names = query_value(parts)
    assert len(names) == 2 * len(parts.blocks) >= 4
    found = linear_gradients(model, names, lambda: citizen.loss(model, batch()))
    assert all(p.grad is None for p in model.parameters())
    true = true_gradients(model, batch())
    for name in names:
        weight, *bias = found[name]
        torch.testing.assert_close(weight, true[f"{name}.weight"], rtol=1e-4, atol=1e-8)
        for gradient in bias:
            torch.testing.assert_close(gradient, true[f"{name}.bias"], rtol=1e-4, atol=1e-8)
        assert bool(bias) == (f"{name}.bias" in true)
        assert weight.norm() > 0


def test_a_layer_that_runs_twice_gets_the_sum(bert):
    layer = nn.Linear(3, 3)
    found = linear_gradients(
        nn.ModuleDict({"a": layer}), ["a"], lambda: layer(layer(torch.eye(3))).square().sum()
    )
    layer(layer(torch.eye(3))).square().sum().backward()
    torch.testing.assert_close(found["a"][0], layer.weight.grad)
    torch.testing.assert_close(found["a"][1], layer.bias.grad)


def test_gradients_on_a_four_bit_base_are_those_of_its_dequantised_weights(bert):
    base, parts = base_of(bert, job(quantization="nf4"))
    names = query_value(parts)
    found = linear_gradients(base, names, lambda: citizen.loss(base, batch()))
    plain = copy.deepcopy(base)
    for name in parts.encoder_linears:
        packed = base.get_submodule(name)
        values = bitsandbytes.functional.dequantize_4bit(packed.weight, packed.weight.quant_state)
        linear = nn.Linear(packed.in_features, packed.out_features)
        linear.weight = nn.Parameter(values.float())
        linear.bias = nn.Parameter(packed.bias.detach().float())
        plain.set_submodule(name, linear)
    true = true_gradients(plain, batch())
    for name in names:
        torch.testing.assert_close(found[name][0], true[f"{name}.weight"], rtol=1e-3, atol=1e-7)
        torch.testing.assert_close(found[name][1], true[f"{name}.bias"], rtol=1e-3, atol=1e-7)


def test_score_is_the_mean_norm_over_batches_weights_and_biases(bert):
    made = job()
    model, parts = base_of(bert, made)
    before = [p.requires_grad for p in model.parameters()]
    seed_all(0, "adapter")
    scores = layer_scores(model, setting_of(bert, made))
    assert [p.requires_grad for p in model.parameters()] == before
    assert all(p.grad is None for p in model.parameters())
    assert not any(module._forward_hooks for module in model.modules())
    assert not model.training

    norms = {block.name: [] for block in parts.blocks}
    model.train()
    seed_all(0, "adapter")  # the same dropout
    for number in range(3):
        true = true_gradients(model, batch(number + 1))
        for block in parts.blocks:
            for name in (block.query, block.value):
                norms[block.name] += [true[f"{name}.weight"].norm(), true[f"{name}.bias"].norm()]
    assert list(scores) == [block.name for block in parts.blocks]
    for name, score in scores.items():
        assert score == pytest.approx(float(torch.stack(norms[name]).mean()), rel=1e-4)


SCORES = {"a": 0.3, "b": 0.9, "c": 0.1, "d": 0.5, "e": 0.7, "f": 0.2}


def test_layers_are_chosen_by_score_or_by_seed():
    assert chosen(SCORES, 0.5, "top", 0) == ["b", "d", "e"]
    assert chosen(SCORES, 0.5, "bottom", 0) == ["a", "c", "f"]
    assert chosen(SCORES, 0.01, "top", 0) == ["b"]
    assert chosen(SCORES, 1, "bottom", 0) == list(SCORES)
    # As in the recipe: 30 % of twelve layers are three, of six layers one.
    assert len(chosen({str(i): i for i in range(12)}, 0.3, "random", 0)) == 3
    assert len(chosen(SCORES, 0.3, "random", 0)) == 1
    drawn = [chosen(SCORES, 0.5, "random", seed) for seed in range(8)]
    assert drawn == [chosen(SCORES, 0.5, "random", seed) for seed in range(8)]
    assert len({tuple(names) for names in drawn}) > 2
    assert all(names == sorted(names) and len(set(names)) == 3 for names in drawn)


@pytest.mark.parametrize("select", ["top", "bottom", "random"])
def test_only_the_chosen_layers_get_an_adapter(bert, select):
    made = job(select, ratio=0.5)
    _, prepared, parts = build(bert, made)
    scores = prepared.layer_scores
    assert list(scores) == [block.name for block in parts.blocks]
    layers = chosen(scores, 0.5, select, made.seed)
    wanted = [
        name for name in parts.encoder_linears if any(name.startswith(f"{n}.") for n in layers)
    ]
    assert len(wanted) == 12
    assert list(prepared.ranks()) == wanted
    adapted = {
        name.removeprefix("base_model.model.")
        for name, module in prepared.model.named_modules()
        if hasattr(module, "lora_A")
    }
    assert adapted == set(wanted)
    if select != "random":
        picked = [scores[name] for name in layers]
        rest = [score for name, score in scores.items() if name not in layers]
        assert min(picked) >= max(rest) if select == "top" else max(picked) <= min(rest)


def test_the_look_at_the_gradients_changes_nothing_but_the_choice(bert):
    _, prepared, _ = build(bert, job(ratio=1.0))
    _, other, _ = build(bert, job(ratio=1.0, batches=1))
    _, plain, _ = build(bert, citizen.job("lora"))
    wanted = dict(plain.model.named_parameters())
    for model in (prepared.model, other.model):
        found = dict(model.named_parameters())
        assert list(found) == list(wanted)
        for name, parameter in found.items():
            assert torch.equal(parameter, wanted[name]), name
            assert parameter.requires_grad == wanted[name].requires_grad
            assert parameter.grad is None
    assert prepared.layer_scores != other.layer_scores


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
@pytest.mark.parametrize("method", ["sensitive-layers", "sensitive-ranks"])
@pytest.mark.sweep(3)
def test_trains_saves_and_loads_without_data(bert, tmp_path, method, quantization):
    prepared = citizen.check(bert, tmp_path, job("top", quantization, method))
    assert len(prepared.layer_scores) == 4
    assert all(score > 0 for score in prepared.layer_scores.values())
    _, again, _ = build(bert, job("top", quantization, method))
    assert again.layer_scores == prepared.layer_scores
    assert again.ranks() == prepared.ranks()


def test_ranks_are_linear_in_the_score_and_even():
    scores = {"a": 1.0, "b": 2.0, "c": 1.5, "d": 1.1}
    assert scaled_ranks(scores, 2, 16) == {"a": 2, "b": 16, "c": 10, "d": 4}  # 9 is as near 8
    assert scaled_ranks(scores, 8, 8) == dict.fromkeys(scores, 8)
    assert scaled_ranks({"a": 3.0, "b": 3.0}, 2, 16) == {"a": 16, "b": 16}


def test_ranks_over_the_maximum_are_those_of_the_printed_example():
    assert ranks_over_maximum({"a": 0.723, "b": 1.451}, 4, 32) == {"a": 16, "b": 32}
    assert ranks_over_maximum({"a": 0.0, "b": 1.0}, 4, 32) == {"a": 4, "b": 32}
    assert ranks_over_maximum({"a": 2.0, "b": 2.0}, 2, 16) == {"a": 16, "b": 16}
    assert ranks_over_maximum({"a": 0.0}, 2, 16) == {"a": 16}


def test_a_recipe_says_what_scores_are_divided_by_and_an_old_one_means_the_range(bert):
    known = METHODS["sensitive-ranks"]
    assert known.resolved_options({})["scale"] == "max"
    assert "scale" not in known.resolved_options({"scale": "range"})
    ends = {}
    for scale in ("max", "range"):
        _, prepared, _ = build(bert, job(method="sensitive-ranks", max_rank=12, scale=scale))
        by_score = (ranks_over_maximum if scale == "max" else scaled_ranks)(
            prepared.layer_scores, 2, 12
        )
        ends[scale] = set(prepared.ranks().values())
        assert ends[scale] == set(by_score.values())
    assert ends["max"] != ends["range"]
    old = job(method="sensitive-ranks", max_rank=12)
    options = {name: v for name, v in old.recipe.options.items() if name != "scale"}
    old = replace(old, recipe=replace(old.recipe, options=options))
    _, prepared, _ = build(bert, old)
    assert set(prepared.ranks().values()) == ends["range"]


def test_every_rank_has_the_scale_of_the_largest(bert):
    made = job(method="sensitive-ranks", min_rank=2, max_rank=12, scale="range")
    _, prepared, parts = build(bert, made)
    ranks = prepared.ranks()
    assert list(ranks) == adapter_targets(job(), parts)
    by_layer = scaled_ranks(prepared.layer_scores, 2, 12)
    assert len(set(by_layer.values())) > 1
    assert {2, 12} <= set(by_layer.values())
    for name, rank in ranks.items():
        module = prepared.model.get_submodule(f"base_model.model.{name}")
        layer = next(layer for layer in by_layer if name.startswith(f"{layer}."))
        assert rank == by_layer[layer] == len(module.lora_A["default"].weight)
        assert module.scaling["default"] == pytest.approx(8.0 / 12)
    assert prepared.matched_rank is None


def test_what_cannot_be_is_refused(bert):
    with pytest.raises(Unsupported, match="must be even"):
        build(bert, job(method="sensitive-ranks", min_rank=3))
    with pytest.raises(Unsupported, match="max_rank not below"):
        build(bert, job(method="sensitive-ranks", min_rank=8, max_rank=4))
    _, parts = base_of(bert, job())
    with pytest.raises(Unsupported, match="layers of tiny are not recognised"):
        build(bert, job(), parts=replace(parts, blocks=()))


def test_dropout_of_the_scores_is_on_and_seeded(bert):
    made = job()
    model, _ = base_of(bert, made)
    setting = setting_of(bert, made)
    seed_all(0, "adapter")
    first = layer_scores(model, setting)
    seed_all(0, "adapter")
    assert layer_scores(model, setting) == first
    seed_all(1, "adapter")
    assert layer_scores(model, setting) != first
    assert torch.equal(logits(model), logits(model))


# --- the notebook's own output ------------------------------------------------------------------

PRINTED = (
    *(0.090118, 0.079651, 0.082389, 0.087262, 0.088129, 0.080186),
    *(0.085607, 0.077054, 0.094206, 0.082342, 0.083280, 0.082088),
)
"""Mean gradient norms of query and value by layer, BERT-base on SST-2, as the notebook printed."""


def test_the_printed_scores_choose_the_printed_layers():
    names = [f"encoder.layer.{i}" for i in range(12)]
    found = chosen(dict(zip(names, PRINTED, strict=True)), 0.3, "top", 0)
    assert found == [names[0], names[4], names[8]]


def test_three_layers_of_bert_base_have_the_printed_number_of_trained_weights():
    """A, B of rank 8 at query and value of three layers, and the head: 75,266."""
    job = next(
        job
        for job in expand(load_suite("sensitivity", None), "full", "cuda").jobs
        if job.method == "sensitive-layers" and "top" in job.variant
    )
    bert_base = config_of(OF_MODELS["bert-base-uncased"], 2)
    fewest, most = count(job, bert_base)
    _, head = Counter(job, bert_base).split()
    assert fewest == most == 3 * 2 * 8 * (768 + 768)
    assert head == 2 * 768 + 2, "the pooler is frozen"
    assert fewest + head == 75_266

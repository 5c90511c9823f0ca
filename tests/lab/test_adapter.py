"""Bottleneck adapters: the equation, where they sit, and which layers get them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from citizen import base_of, build, check, inputs, setting_of
from citizen import job as job_for
from peftmark.catalog.method import ANY
from peftmark.catalog.methods import METHODS as CATALOGUE
from peftmark.lab.methods import prepare, trainable
from peftmark.lab.methods.adapter import Bottleneck, Parallel, Shape
from peftmark.lab.models import Unsupported

METHODS = ("adapter", "adapter-lora")


def widths(model):
    """Layer number -> width of its bottleneck."""
    found = {n: m for n, m in model.named_modules() if isinstance(m, Bottleneck)}
    return {int(n.split(".layer.")[1].split(".")[0]): m.down.out_features for n, m in found.items()}


@pytest.mark.parametrize("quantization", ANY)
@pytest.mark.parametrize("method", METHODS)
def test_it_freezes_starts_at_identity_trains_and_saves(bert, tmp_path, method, quantization):
    check(bert, tmp_path, job_for(method, quantization))


@pytest.mark.parametrize("method", METHODS)
def test_every_architecture_has_a_place_for_it(folder, tmp_path, method):
    check(folder, tmp_path, job_for(method, options={"activation": "relu"}, targets="all-linear"))


@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_it_adds_up_of_activation_of_down(activation):
    """y + U act(D y + d) + u, in numbers."""
    linear = nn.Linear(2, 2)
    layer = Bottleneck(linear, 1, Shape(activation))
    with torch.no_grad():
        linear.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        linear.bias.copy_(torch.tensor([0.5, 0.0]))
        layer.down.weight.copy_(torch.tensor([[2.0, -1.0]]))
        layer.down.bias.copy_(torch.tensor([0.25]))
        layer.up.weight.copy_(torch.tensor([[3.0], [-4.0]]))
        layer.up.bias.copy_(torch.tensor([0.1, 0.2]))
    # x = (1, 1): y = (1.5, 2), D y + d = 1.25. x = (0, 1): y = (0.5, 2), D y + d = -0.75.
    found = layer(torch.tensor([[1.0, 1.0], [0.0, 1.0]]))
    normal = torch.distributions.Normal(0.0, 1.0)
    rows = []
    for y, inner in (((1.5, 2.0), 1.25), ((0.5, 2.0), -0.75)):
        value = torch.tensor(inner)
        act = float(value.relu() if activation == "relu" else value * normal.cdf(value))
        rows.append([y[0] + 3 * act + 0.1, y[1] - 4 * act + 0.2])
    torch.testing.assert_close(found, torch.tensor(rows))


def test_it_starts_with_a_zero_up_projection_and_a_drawn_down_projection():
    layer = Bottleneck(nn.Linear(8, 8), 4, Shape("gelu"))
    assert not layer.up.weight.any()
    assert not layer.up.bias.any()
    assert not layer.down.bias.any()
    assert layer.down.weight.std() > 0.1  # uniform within 1/√8: 0.204


def test_it_sits_between_feed_forward_and_layer_norm(bert):
    """LayerNorm(y' + residual), where y' is what the bottleneck makes of the second layer's y."""
    _, prepared, _ = build(bert, job_for("adapter"))
    model = prepared.model.eval()
    output = model.get_submodule("bert.encoder.layer.0.output")
    nn.init.normal_(output.dense.up.weight)
    x, residual = torch.randn(2, 3, 64), torch.randn(2, 3, 64)
    plain = output.dense.linear(x)
    change = output.dense.up(nn.functional.gelu(output.dense.down(plain)))
    wanted = output.LayerNorm(plain + change + residual)
    torch.testing.assert_close(output(x, residual), wanted)
    assert (change.abs() > 0.1).any()


def test_last_layers_get_one_and_others_none(bert):
    _, prepared, _ = build(bert, job_for("adapter", rank=3, options={"last_layers": 1}))
    assert widths(prepared.model) == {1: 3}


def test_more_last_layers_than_layers_are_refused(bert):
    with pytest.raises(Unsupported, match="last_layers is 3, but tiny has 2 layers"):
        build(bert, job_for("adapter", options={"last_layers": 3}))


def test_a_budget_gives_each_layer_its_width(bert, tmp_path):
    job = job_for("adapter")
    _, parts = base_of(bert, job)
    first, second = (block.name for block in parts.blocks)
    _, prepared, _ = build(bert, job, size=2, sizes={first: 3, second: 1})
    assert widths(prepared.model) == {0: 3, 1: 1}
    _, prepared, _ = build(bert, job, size=1, sizes={second: 1})
    assert widths(prepared.model) == {1: 1}
    prepared.save(tmp_path)
    assert widths(prepared.load(base_of(bert, job)[0], tmp_path)) == {1: 1}


def test_with_lora_the_bottleneck_follows_the_lora_of_its_layer(bert):
    job = job_for("adapter-lora", options={"width": 5}, targets="all-linear")
    _, prepared, parts = build(bert, job)
    assert widths(prepared.model) == {0: 5, 1: 5}
    assert prepared.ranks() == dict.fromkeys(parts.encoder_linears, 2)
    model = prepared.model.eval()
    layer = model.get_base_model().get_submodule(parts.blocks[0].ffn_out)
    for weight in (layer.up.weight, layer.linear.lora_B["default"].weight):
        nn.init.normal_(weight)
    x = torch.randn(2, 3, 64)
    low = layer.linear.lora_B["default"](layer.linear.lora_A["default"](x)) * (8.0 / 2)
    y = layer.linear.base_layer(x) + low
    wanted = y + layer.up(nn.functional.gelu(layer.down(y)))
    torch.testing.assert_close(layer(x), wanted)


@pytest.mark.parametrize("method", METHODS)
def test_it_trains_in_fp32_under_bf16_autocast(bert, method):
    _, prepared, _ = build(bert, job_for(method, "nf4", precision="bf16"))
    with torch.autocast("cpu", torch.bfloat16):
        prepared.model(**inputs()).logits.float().sum().backward()
    assert {p.dtype for _, p in trainable(prepared.model)} == {torch.float32}
    assert [n for n, p in trainable(prepared.model) if p.grad is None] == []


@pytest.mark.parametrize("method", METHODS)
def test_it_says_why_it_does_not_merge(bert, method):
    _, prepared, _ = build(bert, job_for(method))
    assert prepared.merge is None
    assert "activation" in prepared.merge_reason


def test_an_unknown_architecture_is_refused(bert):
    job = job_for("adapter")
    base, parts = base_of(bert, job)
    setting = setting_of(bert, job, parts=replace(parts, blocks=()))
    with pytest.raises(Unsupported, match="not known for the architecture of tiny"):
        prepare(base, setting)


# --- where it stands and what is in it ------------------------------------------------------------

PLACES = ("feed-forward", "attention", "both", "parallel")
CHANGED = {"bias": False, "norm": True}


@pytest.mark.parametrize("place", PLACES[1:])
def test_it_trains_and_reloads_in_every_place(bert, tmp_path, place):
    check(bert, tmp_path, job_for("adapter", options={"place": place, **CHANGED}))


@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_it_stands_beside_a_quantised_block(bert, tmp_path, quantization):
    check(bert, tmp_path, job_for("adapter", quantization, options={"place": "parallel"}))


def test_every_architecture_has_a_place_beside_its_block(folder, tmp_path):
    check(folder, tmp_path, job_for("adapter", options={"place": "parallel"}))


def test_places_are_those_of_their_names(bert):
    found = {}
    for place in PLACES:
        _, prepared, parts = build(bert, job_for("adapter", options={"place": place}))
        named = {n for n, m in prepared.model.named_modules() if hasattr(m, "down")}
        found[place] = named
    ffn = {block.ffn_out for block in parts.blocks}
    attention = {block.attention_output for block in parts.blocks}
    assert found == {
        "feed-forward": ffn,
        "attention": attention,
        "both": ffn | attention,
        "parallel": ffn,
    }


def test_beside_the_block_it_reads_what_the_block_reads(bert):
    _, prepared, parts = build(bert, job_for("adapter", options={"place": "parallel"}))
    model = prepared.model.eval()
    layer = model.get_submodule(parts.blocks[0].name)
    last = model.get_submodule(parts.blocks[0].ffn_out)
    assert isinstance(last, Parallel)
    nn.init.normal_(last.up.weight)
    x = torch.randn(2, 3, 64)
    inner = layer.intermediate(x)
    wanted = last.linear(inner) + last.up(nn.functional.gelu(last.down(x)))
    torch.testing.assert_close(last(layer.intermediate(x) * 0 + inner), wanted)
    assert layer.intermediate.dense.read is None, "nothing outlives the block"
    names = [name for name, _ in trainable(model)]
    assert len(names) == len(set(names)) and not any("_entry" in name for name in names)


def test_norm_and_dropout_are_where_the_listing_has_them():
    """x + dropout(U act(D LayerNorm(x)))."""
    layer = Bottleneck(nn.Linear(8, 8), 4, Shape("relu", bias=False, norm=True, dropout=0.5))
    assert layer.down.bias is None and layer.up.bias is None
    nn.init.normal_(layer.up.weight)
    x = torch.randn(3, 8)
    y = layer.linear(x)
    change = layer.up(layer.down(layer.norm(y)).relu())
    torch.testing.assert_close(layer.eval()(x), y + change)
    torch.manual_seed(0)
    added = layer.train()(x) - y
    torch.manual_seed(0)
    torch.testing.assert_close(added, nn.functional.dropout(change, 0.5))
    assert not torch.equal(added, change)


def test_each_place_and_part_trains_other_parameters(bert):
    counts = {}
    for options in ({"place": p} for p in PLACES):
        _, prepared, _ = build(bert, job_for("adapter", rank=3, options=options))
        counts[options["place"]] = sum(p.numel() for _, p in trainable(prepared.model))
    one = 2 * (64 * 3 + 3 + 3 * 64 + 64)  # two layers
    assert counts["both"] - counts["feed-forward"] == one
    assert counts["attention"] == counts["feed-forward"] == counts["parallel"]
    _, prepared, _ = build(bert, job_for("adapter", rank=3, options={"bias": False, "norm": True}))
    changed = sum(p.numel() for _, p in trainable(prepared.model))
    assert changed == counts["feed-forward"] - 2 * (3 + 64) + 2 * (64 + 64)


def test_an_older_recipe_is_built_as_it_was(bert):
    known = CATALOGUE["adapter"]
    assert known.resolved_options({}) == {"last_layers": 0, "activation": "gelu"}
    assert known.option({"activation": "gelu"}, "place") == "feed-forward"
    assert known.option({}, "bias") is True

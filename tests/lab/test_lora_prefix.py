"""LoRA with a prefix: both parts against their equations, and against UniPELT's with open gates."""

from __future__ import annotations

import pytest
import torch

import citizen
import tiny
from citizen import build, check, logits, train
from citizen import job as job_for
from peftmark.catalog.architectures import ARCHITECTURES
from peftmark.lab.memory.meta_model import config_of
from peftmark.lab.methods import trainable
from peftmark.lab.methods.unipelt_parts import GatedPrefix
from peftmark.lab.models import Unsupported
from peftmark.lab.parameter_budget import count
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite
from places import SUITES

TOKENS = 3


def job(quantization="none", **recipe):
    return job_for("lora-prefix", quantization, options={"tokens": TOKENS}, **recipe)


@pytest.mark.parametrize("quantization", ["none", "nf4", "int8"])
@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert"])
def test_trains_saves_and_loads(tmp_path, architecture, quantization):
    tiny.make_model(tmp_path / "model", architecture)
    (tmp_path / "saved").mkdir()
    prepared = check(tmp_path / "model", tmp_path / "saved", job(quantization), identity=False)
    assert prepared.merge is None and "no weight" in prepared.merge_reason


@pytest.mark.parametrize("architecture", ["mpnet", "deberta-v2"])
def test_an_attention_without_the_interface_is_refused(tmp_path, architecture):
    tiny.make_model(tmp_path, architecture)
    with pytest.raises(Unsupported, match="attention interface"):
        build(tmp_path, job())


def test_keys_and_values_of_the_prefix_come_before_the_layers_own(bert):
    """One layer's attention by hand: queries see prefix and text; LoRA is in all three."""
    _, prepared, parts = build(bert, job())
    torch.manual_seed(3)
    with torch.no_grad():
        for _, p in trainable(prepared.model):
            p.add_(torch.randn_like(p) * 0.1)
    inner = prepared.model.get_base_model().eval()
    layer = inner.get_submodule(parts.blocks[0].name).attention.self
    assert isinstance(layer, GatedPrefix)
    x = torch.randn(2, 5, 64)
    found = layer(x)[0]

    def heads(linear):
        base, change = linear.base_layer, linear.scaling["default"]
        update = linear.lora_B["default"].weight @ linear.lora_A["default"].weight
        y = x @ (base.weight + change * update).T + base.bias
        return y.view(2, 5, 2, 32).transpose(1, 2)

    query, key, value = (heads(getattr(layer.attention, n)) for n in ("query", "key", "value"))
    keys = torch.cat([layer.keys.expand(2, -1, -1, -1), key], dim=2)
    values = torch.cat([layer.values.expand(2, -1, -1, -1), value], dim=2)
    assert keys.shape == (2, 2, TOKENS + 5, 32)
    shares = torch.softmax(query @ keys.transpose(-1, -2) / 32**0.5, dim=-1)
    expected = (shares @ values).transpose(1, 2).reshape(2, 5, 64)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_it_is_both_parts_and_learns_other_weights_than_either(bert):
    _, both, _ = build(bert, job())
    names = {n for n, _ in trainable(both.model) if ".lora_" in n or ".keys" in n or ".values" in n}
    assert {both.part_of(n) for n in names} == {"LoRA", "prefix"}
    prefix = sum(p.numel() for n, p in trainable(both.model) if both.part_of(n) == "prefix"
                 and n in names)  # fmt: skip
    assert prefix == 2 * 2 * TOKENS * 64  # keys and values of two layers
    curves = [train(both)[0]]
    for method, size in (("lora", 2), ("p-tuning-v2", TOKENS)):
        _, alone, _ = build(bert, job_for(method, rank=size))
        curves.append(train(alone)[0])
    assert len({tuple(curve) for curve in curves}) == 3


def test_padding_changes_nothing(bert):
    _, prepared, _ = build(bert, job())
    train(prepared)
    model = prepared.model.eval()
    rows = citizen.inputs()
    longer = {name: torch.nn.functional.pad(v, (0, 4)) for name, v in rows.items()}
    with torch.no_grad():
        found = model(**longer).logits
    torch.testing.assert_close(found, logits(prepared.model), rtol=1e-4, atol=1e-5)


def test_the_profile_of_the_claim_has_the_printed_numbers_of_parameters():
    """0.8, 0.6 and 1.4 million on BERT-base, head apart."""
    jobs = expand(load_suite("peft-families", SUITES), "lora-prefix", "cuda").jobs
    cells = {job.method: job for job in jobs if job.task == "sst-2" and job.seed == 0}
    config = config_of(ARCHITECTURES["bert-base-uncased"], 2)
    found = {method: count(job, config) for method, job in cells.items()}
    assert found == {
        "lora": (811_008,) * 2,
        "p-tuning-v2": (589_824,) * 2,
        "lora-prefix": (811_008 + 589_824,) * 2,
    }

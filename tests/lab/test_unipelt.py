"""UniPELT: every part against its equation, and its gates."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

import citizen
import tiny
from citizen import LABELS, inputs
from peftmark.lab.data.batches import Batch
from peftmark.lab.methods import trainable
from peftmark.lab.methods.unipelt_gates import Gate, Rows
from peftmark.lab.methods.unipelt_parts import GatedAdapter, GatedLora, GatedPrefix, attend
from peftmark.lab.models import Unsupported

CPU = torch.device("cpu")
WIDTH, TOKENS, RANK, HIDDEN = 4, 3, 2, 64


def job_for(quantization="none", **recipe):
    options = {"width": WIDTH, "tokens": TOKENS, **recipe.pop("options", {})}
    return citizen.job("unipelt", quantization, rank=RANK, options=options, **recipe)


def of_kind(model, kind):
    return [m for m in model.modules() if isinstance(m, kind)]


def stir(model) -> None:
    """Give every trained tensor a value that matters."""
    torch.manual_seed(1)
    with torch.no_grad():
        for _, parameter in trainable(model):
            parameter.add_(torch.randn_like(parameter) * 0.1)


def row_gate(values: list[float]) -> Gate:
    """A gate that gives each row the sigmoid of its value, whatever comes in."""
    gate = Gate(8, Rows(), CPU)
    gate.forward = lambda x: torch.sigmoid(torch.tensor(values)).view(-1, 1, 1)
    return gate


@pytest.mark.parametrize("quantization", ["none", "nf4", "fp4", "int8"])
@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert"])
@pytest.mark.sweep(4)
def test_trains_saves_and_loads(tmp_path, architecture, quantization):
    tiny.make_model(tmp_path / "model", architecture)
    (tmp_path / "saved").mkdir()
    job = job_for(quantization)
    prepared = citizen.check(tmp_path / "model", tmp_path / "saved", job, identity=False)
    assert prepared.merge is None
    assert set(prepared.ranks().values()) == {RANK}


@pytest.mark.parametrize("architecture", ["mpnet", "deberta-v2"])
def test_an_attention_without_the_interface_is_refused(tmp_path, architecture):
    tiny.make_model(tmp_path, architecture)
    with pytest.raises(Unsupported, match="attention interface"):
        citizen.build(tmp_path, job_for())


def test_a_gate_is_the_mean_of_sigmoids_over_real_tokens():
    rows = Rows()
    gate = Gate(8, rows, CPU)
    nn.init.normal_(gate.linear.weight)
    x = torch.randn(2, 5, 8)
    each = torch.sigmoid(x @ gate.linear.weight[0] + gate.linear.bias)
    torch.testing.assert_close(gate(x)[:, 0, 0], each.mean(1))
    rows.mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    expected = torch.stack([each[0, :3].mean(), each[1].mean()])
    found = gate(x)
    assert found.shape == (2, 1, 1)
    torch.testing.assert_close(found[:, 0, 0], expected)


def test_lora_is_scaled_by_its_gate():
    linear = nn.Linear(8, 6)
    layer = GatedLora(linear, 2, 4.0, 0.0, row_gate([0.5, -2.0]))
    x = torch.randn(2, 5, 8)
    torch.testing.assert_close(layer(x), linear(x))
    nn.init.normal_(layer.B.weight)
    for row, value in enumerate((0.5, -2.0)):
        gate = 1 / (1 + math.exp(-value))
        update = gate * 4.0 * layer.B.weight @ layer.A.weight
        torch.testing.assert_close(layer(x)[row], linear(x[row]) + x[row] @ update.T)


def test_adapter_stands_between_the_residual_sum_and_its_layer_norm():
    norm = nn.LayerNorm(8)
    nn.init.normal_(norm.weight)
    layer = GatedAdapter(norm, 3, row_gate([1.0, -1.0]))
    u = torch.randn(2, 5, 8)
    torch.testing.assert_close(layer(u), norm(u))
    nn.init.normal_(layer.up.weight)
    nn.init.normal_(layer.up.bias)
    nn.init.normal_(layer.down.bias)
    for row, value in enumerate((1.0, -1.0)):
        gate = 1 / (1 + math.exp(-value))
        inner = torch.clamp(norm(u[row]) @ layer.down.weight.T + layer.down.bias, min=0)
        change = inner @ layer.up.weight.T + layer.up.bias
        torch.testing.assert_close(layer(u)[row], norm(u[row] + gate * change))


@pytest.mark.parametrize(
    ("architecture", "name"),
    [
        ("bert", "output.LayerNorm"),
        ("roberta", "output.LayerNorm"),
        ("distilbert", "output_layer_norm"),
    ],
)
def test_the_adapter_is_in_the_layer_norm_behind_the_feed_forward_block(
    tmp_path, architecture, name
):
    tiny.make_model(tmp_path, architecture)
    _, prepared, parts = citizen.build(tmp_path, job_for())
    assert [n for n, m in prepared.model.named_modules() if isinstance(m, GatedAdapter)] == [
        f"{block.name}.{name}" for block in parts.blocks
    ]


@pytest.mark.parametrize("kind", ["bool", "additive", None])
def test_attention_sees_the_prefix_and_the_real_tokens(kind):
    query, key, value = (torch.randn(2, 3, 5, 4) for _ in range(3))
    keys, values = (torch.randn(2, 3, 2, 4) for _ in range(2))
    real = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool()
    if kind is None:
        real = torch.ones(2, 5).bool()
    lowest = torch.finfo(torch.float32).min
    mask = {
        "bool": real[:, None, None, :].expand(2, 1, 5, 5),
        "additive": torch.where(real, 0.0, lowest)[:, None, None, :].expand(2, 1, 5, 5),
        None: None,
    }[kind]
    module = nn.Module()
    module.is_causal = False
    found, _ = attend(module, query, key, value, mask, prefix=(keys, values), scaling=0.5)
    for row in range(2):
        own = real[row]
        every_key = torch.cat([keys[row], key[row][:, own]], dim=1)
        every_value = torch.cat([values[row], value[row][:, own]], dim=1)
        shares = torch.softmax(query[row] @ every_key.transpose(1, 2) * 0.5, dim=-1)
        expected = (shares @ every_value).transpose(0, 1)
        torch.testing.assert_close(found[row], expected, rtol=1e-4, atol=1e-5)


def test_the_prefix_is_scaled_by_its_gate():
    seen = {}

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(1))

        def forward(self, hidden_states, attention_mask=None, prefix=None):
            seen.update(mask=attention_mask, prefix=prefix)
            return hidden_states

    layer = GatedPrefix(Attention(), 2, 4, 3, row_gate([0.0, 2.0]))
    layer(torch.randn(2, 5, 8), attention_mask="mask")
    keys, values = seen["prefix"]
    assert seen["mask"] == "mask"
    for row, value in enumerate((0.0, 2.0)):
        gate = 1 / (1 + math.exp(-value))
        torch.testing.assert_close(keys[row], gate * layer.keys)
        torch.testing.assert_close(values[row], gate * layer.values)


def test_every_layer_has_its_three_parts_and_three_gates(bert):
    _, prepared, _ = citizen.build(bert, job_for())
    lora = 2 * (2 * RANK * HIDDEN)
    prefix = 2 * TOKENS * HIDDEN
    adapter = 2 * WIDTH * HIDDEN + WIDTH + HIDDEN
    gates = 3 * (HIDDEN + 1)
    head = ("classifier.", "bert.pooler.")
    own = sum(p.numel() for n, p in trainable(prepared.model) if not n.startswith(head))
    assert own == 2 * (lora + prefix + adapter + gates)
    for layer in prepared.model.bert.encoder.layer:
        inside = layer.attention.self.attention
        assert inside.query.gate is inside.value.gate
        assert len(of_kind(layer, Gate)) == 3


def test_only_the_prefix_changes_the_function_at_the_start_and_little(bert):
    base, prepared, _ = citizen.build(bert, job_for())
    plain = citizen.logits(base)
    moved = (citizen.logits(prepared.model) - plain).abs().max()
    assert 1e-4 < moved < 0.5 * plain.std()
    for layer in prepared.model.bert.encoder.layer:
        layer.attention.self = layer.attention.self.attention
    prepared.model.set_attn_implementation("sdpa")
    torch.testing.assert_close(citizen.logits(prepared.model), plain, rtol=1e-4, atol=1e-5)


def test_gates_start_near_one_half_and_come_to_differ_by_row(bert):
    _, prepared, _ = citizen.build(bert, job_for())
    values = []
    for gate in of_kind(prepared.model, Gate):
        gate.register_forward_hook(lambda module, x, out: values.append(out.flatten()))
    citizen.logits(prepared.model)
    assert len(values) == 2 * 4  # LoRA's gate serves query and value
    assert all(((v > 0.35) & (v < 0.65)).all() for v in values)
    values.clear()
    citizen.train(prepared, 10)
    values.clear()
    citizen.logits(prepared.model)
    assert all(v.std() > 0 for v in values)
    assert max((v - 0.5).abs().max() for v in values) > 0.05


def test_padding_changes_nothing(bert):
    _, prepared, _ = citizen.build(bert, job_for())
    stir(prepared.model)
    prepared.model.eval()
    ids = inputs()["input_ids"][:1, :4]
    alone = {"input_ids": ids, "attention_mask": torch.ones(1, 4).long()}
    padded = {name: nn.functional.pad(value, (0, 5)) for name, value in alone.items()}
    with torch.no_grad():
        one, other = (prepared.model(**each).logits for each in (alone, padded))
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_lora_may_have_unequal_ranks_at_one_scale(bert):
    query = "bert.encoder.layer.0.attention.self.query"
    value = "bert.encoder.layer.1.attention.self.value"
    ranks = {query: 3, value: 1}
    _, prepared, _ = citizen.build(bert, job_for(), size=2, sizes=ranks)
    assert prepared.ranks() == ranks
    found = of_kind(prepared.model, GatedLora)
    assert [layer.A.out_features for layer in found] == [3, 1]
    assert {layer.scale for layer in found} == {8.0 / 2}
    _, missing = citizen.train(prepared, 1)
    assert missing == []


def test_gradient_checkpointing_gives_the_same_gradients(bert):
    gradients = []
    for checkpointing in (False, True):
        _, prepared, _ = citizen.build(bert, job_for(dropout=0.1))
        stir(prepared.model)
        prepared.model.train()
        if checkpointing:
            prepared.model.activation_checkpointing_enable(
                activation_checkpointing_kwargs={"use_reentrant": False}
            )
        torch.manual_seed(0)
        citizen.loss(prepared.model, Batch(inputs(), LABELS, 54)).backward()
        gradients.append({n: p.grad for n, p in trainable(prepared.model)})
    torch.testing.assert_close(gradients[1], gradients[0])


def test_trains_under_autocast(bert):
    _, prepared, _ = citizen.build(bert, job_for())
    with torch.autocast("cpu", torch.bfloat16):
        loss = citizen.loss(prepared.model, Batch(inputs(), LABELS, 54))
    loss.backward()
    for name, parameter in trainable(prepared.model):
        assert parameter.grad.dtype == torch.float32, name
        assert torch.isfinite(parameter.grad).all(), name

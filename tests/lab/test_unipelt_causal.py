"""UniPELT, and LoRA with a prefix, on what is read from left to right: a gate a token in a language
model, against a forward pass written out; the mean over the row where a decoder classifies."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

import tiny
import tiny_causal
from alone import read_alone_each_row_says_the_same
from peftmark.catalog.methods import known_method
from peftmark.lab import recipe
from peftmark.lab.architecture_trials import job_of, make_tiny, trained, trial
from peftmark.lab.data.causal_rows import write
from peftmark.lab.data.job_data import task_of
from peftmark.lab.methods import trainable
from peftmark.lab.methods.unipelt_gates import GateNetwork, Rows, entropy
from peftmark.lab.methods.unipelt_parts import GatedBottleneck, GatedLora, GatedPrefix, attend
from peftmark.lab.models import Unsupported
from peftmark.lab.scoring import all_outputs
from peftmark.lab.step import task_loss
from peftmark.sources.assets import Places

CPU = torch.device("cpu")
TOKENS, RANK, WIDTH = 3, 2, 4
GATES = ("paper", "network")


@pytest.fixture
def places(tmp_path, monkeypatch):
    tiny_causal.install(tmp_path / "mirror", monkeypatch)
    return Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")


def options(gates="paper", **more):
    given = {"width": WIDTH, "tokens": TOKENS, "gates": gates, **more}
    return known_method("unipelt").resolved_options(given)


def job(task="tiny-answer", gates="paper", **settings):
    if gates == "none":  # a prefix as UniPELT's, always open, beside LoRA
        given = known_method("lora-prefix").resolved_options({"tokens": TOKENS})
        return tiny_causal.job("lora-prefix", task, rank=RANK, options=given, dropout=0.0)
    more = settings.pop("options", {})
    return tiny_causal.job(
        "unipelt", task, rank=RANK, options=options(gates, **more), dropout=0.0, **settings
    )


def stir(model):
    """Give every trained tensor a value that matters."""
    torch.manual_seed(1)
    with torch.no_grad():
        for _, parameter in trainable(model):
            parameter.add_(torch.randn_like(parameter) * 0.2)


def stirred(places, asked):
    base, prepared = tiny_causal.built(places, asked)
    stir(prepared.model)
    prepared.model.eval()
    return base, prepared


def sigmoid_of(gate, x):
    return torch.sigmoid(x @ gate.linear.weight[0] + gate.linear.bias)[:, None]


def by_hand(model, ids):
    """Logits of a row, (tokens, vocabulary): Llama's layers with the three parts written out."""
    inner, count = model.model, len(ids)
    h = inner.embed_tokens(ids)
    turns = inner.rotary_emb(h[None], torch.arange(count)[None])
    earlier = torch.ones(count, count).tril().bool()
    for layer in inner.layers:
        prefix, last = layer.self_attn, layer.mlp.down_proj
        attention, x = prefix.attention, layer.input_layernorm(h)
        query, value = attention.q_proj, attention.v_proj
        g = sigmoid_of(query.gate, x)
        q, v = (
            part.linear(x) + g * part.scale * (x @ part.A.weight.T @ part.B.weight.T)
            for part in (query, value)
        )
        q, k, v = (one.view(count, -1, 16).transpose(0, 1) for one in (q, attention.k_proj(x), v))
        q, k = (one[0] for one in apply_rotary_pos_emb(q[None], k[None], *turns))
        g, heads = sigmoid_of(prefix.gate, x), []
        for at in range(len(q)):
            of = at // (len(q) // len(k))
            own = (q[at] @ k[of].T / 4).masked_fill(~earlier, -torch.inf)
            before = g * (q[at] @ prefix.keys[of].T) / 4
            shares = torch.cat([before, own], 1).softmax(-1)
            heads.append(g * (shares[:, :TOKENS] @ prefix.values[of]) + shares[:, TOKENS:] @ v[of])
        h = h + attention.o_proj(torch.cat(heads, 1))
        z = layer.post_attention_layernorm(h)
        y = last.linear(nn.functional.silu(layer.mlp.gate_proj(z)) * layer.mlp.up_proj(z))
        inside = torch.relu(y @ last.down.weight.T + last.down.bias)
        h = h + y + sigmoid_of(last.gate, y) * (inside @ last.up.weight.T + last.up.bias)
    return model.lm_head(inner.norm(h))


def rows_of(batch):
    ids, mask = (batch.inputs[name] for name in ("input_ids", "attention_mask"))
    return [row[there.bool()] for row, there in zip(ids, mask, strict=True)]


def test_logits_and_loss_are_those_of_a_forward_pass_by_hand(places):
    asked = job()
    _, prepared = stirred(places, asked)
    [batch] = tiny.work(places, asked).preview(1)
    assert not batch.inputs["attention_mask"].all()
    each = []
    with torch.no_grad():
        logits = prepared.model(**batch.inputs).logits
        for row, (ids, labels) in enumerate(zip(rows_of(batch), batch.labels, strict=True)):
            wanted = by_hand(prepared.model, ids)
            torch.testing.assert_close(logits[row, : len(ids)], wanted, rtol=1e-4, atol=1e-4)
            chances = wanted.log_softmax(-1)
            each += [-chances[at - 1, ids[at]] for at in range(1, len(ids)) if labels[at] != -100]
        found = task_loss(prepared.model, batch, task_of(asked), asked, CPU)
    assert found.item() == pytest.approx(float(torch.stack(each).mean()), abs=1e-4)


@pytest.mark.parametrize("gates", [*GATES, "none"])
def test_no_token_is_read_in_the_light_of_later_ones(places, gates):
    _, prepared = stirred(places, job(gates=gates))
    one = torch.randint(4, 50, (3, 12), generator=torch.Generator().manual_seed(0))
    other = one.clone()
    other[:, 7:] = 9
    with torch.no_grad():
        first, second = (
            prepared.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            for ids in (one, other)
        )
    torch.testing.assert_close(first[:, :7], second[:, :7], rtol=0, atol=1e-6)
    assert (first[:, 7:] - second[:, 7:]).abs().max() > 0.1


@pytest.mark.parametrize("gates", [*GATES, "none"])
def test_a_padded_batch_says_what_its_rows_say_alone(places, gates):
    asked = job("tiny-rank", gates)
    _, prepared = stirred(places, asked)
    batches = tiny.work(places, asked).eval.batches
    found, wanted = all_outputs(prepared.model, batches, asked, CPU), []
    for batch in batches:
        for ids in rows_of(batch):
            scores = []
            for words in batch.choices:
                whole = torch.cat([ids, torch.tensor(words)])[None]
                with torch.no_grad():
                    chances = prepared.model(input_ids=whole).logits[0].log_softmax(-1)
                said = [chances[len(ids) + i - 1, word] for i, word in enumerate(words)]
                scores.append(float(torch.stack(said).mean()))
            wanted.append(scores)
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=0, atol=1e-5)


@pytest.mark.parametrize("gates", [*GATES, "none"])
def test_answers_are_those_of_greedy_decoding_without_any_cache(places, tmp_path, gates):
    asked = job(gates=gates)
    base, prepared = stirred(places, asked)
    for network in (m for m in prepared.model.modules() if isinstance(m, GateNetwork)):
        network.temperature = 1.0  # as after training
    prepared.save(tmp_path)
    loaded = prepared.load(copy.deepcopy(base), tmp_path).eval()
    answers = tiny.work(places, asked).eval.answers
    batch = next(one for one in answers.batches if not one.inputs["attention_mask"].all())
    written = write(prepared.model, batch, answers.reader, answers.new_tokens)
    assert write(loaded, batch, answers.reader, answers.new_tokens) == written
    for ids, said in zip(rows_of(batch), written, strict=True):
        told = []
        while len(told) < answers.new_tokens and told[-1:] != [3]:
            whole = torch.cat([ids, torch.tensor(told, dtype=torch.long)])[None]
            with torch.no_grad():
                told.append(int(prepared.model(input_ids=whole).logits[0, -1].argmax()))
        assert said == told


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("heads", [1, 4])
def test_each_query_scales_what_it_sees_of_the_prefix(padded, heads):
    """softmax([g q P_k; q K] s) [g P_v; V], g of the query's own token, and no later token."""
    query, key, value = (torch.randn(2, n, 5, 8) for n in (4, heads, heads))
    keys, values = (torch.randn(1, heads, 3, 8) for _ in range(2))
    gate = torch.rand(2, 1, 5, 1)
    module = nn.Module()
    module.is_causal, module.num_key_value_groups = True, 4 // heads
    seen = torch.ones(5, 5).tril().bool().expand(2, -1, -1).clone()
    if padded:
        seen[0, :, :2] = False  # two places of padding in front, and what stands there sees nothing
    mask = seen[:, None] if padded else None
    found, _ = attend(module, query, key, value, mask, (keys, values), gate, scaling=0.3)
    for row in range(2):
        for head in range(4):
            of, g = head // (4 // heads), gate[row, 0]
            own = (query[row, head] @ key[row, of].T * 0.3).masked_fill(~seen[row], -torch.inf)
            shares = torch.cat([g * (query[row, head] @ keys[0, of].T) * 0.3, own], 1).softmax(-1)
            wanted = g * (shares[:, :3] @ values[0, of]) + shares[:, 3:] @ value[row, of]
            torch.testing.assert_close(found[row, :, head], wanted, rtol=1e-4, atol=1e-5)


def test_a_token_that_goes_on_sees_what_it_would_in_the_whole_text():
    query, key, value = (torch.randn(2, 4, 5, 8) for _ in range(3))
    prefix = tuple(torch.randn(1, 4, 3, 8) for _ in range(2))
    gate = torch.rand(2, 1, 5, 1)
    module = nn.Module()
    module.is_causal = True
    whole, _ = attend(module, query, key, value, None, prefix, gate)
    last, _ = attend(module, query[:, :, 4:], key, value, None, prefix, gate[:, :, 4:])
    torch.testing.assert_close(last, whole[:, 4:], rtol=1e-4, atol=1e-5)
    two, _ = attend(module, query[:, :, 3:], key, value, None, prefix, gate[:, :, 3:])
    torch.testing.assert_close(two, whole[:, 3:], rtol=1e-4, atol=1e-5)


def test_gates_of_tokens_are_told_by_row_without_padding():
    rows = Rows(each=True)
    rows.mask = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])
    gates = torch.rand(2, 4, 3)
    assert rows.gates(gates) is gates
    wanted = torch.stack([gates[0, :3].mean(0), gates[1].mean(0)])
    torch.testing.assert_close(rows.by_row(gates)[:, 0], wanted)
    shares = gates / gates.sum(-1, keepdim=True)
    each = -(shares * shares.log()).sum(-1)
    assert entropy(gates, rows).item() == pytest.approx(
        float((each[0, :3].mean() + each[1].mean()) / 2), abs=1e-6
    )


@pytest.mark.parametrize("gates", GATES)
def test_gates_are_told_of_texts_and_not_again_of_what_goes_on_from_them(places, gates):
    asked = job("tiny-rank", gates)
    _, prepared = stirred(places, asked)
    batches = tiny.work(places, asked).eval.batches[:1]
    all_outputs(prepared.model, batches, asked, CPU)
    found = prepared.gates()
    with torch.no_grad():
        places_of = (batches[0].inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)
        prepared.model(**batches[0].inputs, position_ids=places_of)  # the texts alone
    assert found == pytest.approx(prepared.gates(), abs=1e-6)
    assert len(found) == 2 * 3
    assert all(0 < gate < 1 for gate in found.values())


@pytest.mark.parametrize("part", ["adapter", "prefix", "lora"])
def test_a_part_with_low_gates_is_taken_out_of_a_decoder(places, tmp_path, part):
    asked = job(gates="network", options={"prune_below": 0.5}, steps=4)
    base, prepared = tiny_causal.built(places, asked)
    at = ("adapter", "prefix", "lora").index(part)
    kind = {"adapter": GatedBottleneck, "prefix": GatedPrefix, "lora": GatedLora}[part]
    with torch.no_grad():
        for network in (m for m in prepared.model.modules() if isinstance(m, GateNetwork)):
            network.second.bias.copy_(torch.where(torch.arange(3) == at, -30.0, 30.0))
    [batch] = tiny.work(places, asked).preview(1)
    prepared.model.train()
    task_loss(prepared.model, batch, task_of(asked), asked, CPU).backward()
    prepared.after_step(4)
    assert not [m for m in prepared.model.modules() if isinstance(m, kind)]
    assert prepared.fault() is None
    prepared.save(tmp_path)
    loaded = prepared.load(copy.deepcopy(base), tmp_path).eval()
    assert not [m for m in loaded.modules() if isinstance(m, kind)]
    prepared.model.eval()
    with torch.no_grad():
        one, other = (model(**batch.inputs).logits for model in (prepared.model, loaded))
    torch.testing.assert_close(one, other)


def test_gradient_checkpointing_gives_the_same_gradients(places):
    gradients = []
    for recompute in (False, True):
        asked = job(gates="network")
        _, prepared = tiny_causal.built(places, asked)
        stir(prepared.model)
        prepared.model.train()
        if recompute:
            prepared.model.activation_checkpointing_enable(
                activation_checkpointing_kwargs={"use_reentrant": False}
            )
        [batch] = tiny.work(places, asked).preview(1)
        loss = task_loss(prepared.model, batch, task_of(asked), asked, CPU)
        (loss + prepared.extra_loss()).backward()
        gradients.append({name: p.grad for name, p in trainable(prepared.model)})
    assert all(one is not None for one in gradients[0].values())
    torch.testing.assert_close(gradients[1], gradients[0])


@pytest.mark.slow
@pytest.mark.parametrize("gates", [*GATES, "none"])
@pytest.mark.parametrize("task", ["tiny-rank", "tiny-answer", "tiny-text"])
def test_a_job_trains_scores_saves_and_is_probed(places, task, gates):
    done = recipe.run(job(task, gates, steps=6), places, lambda _: None)
    assert done.status == "ok", done.status_reason
    assert math.isfinite(done.metrics[task_of(job(task)).metric])
    assert done.reload_max_error < 1e-5
    assert done.live_bytes is not None
    assert done.live_bytes == done.predicted_live_bytes


# --- decoders as classifiers, and what is refused -------------------------------------------------


def classifier(key, gates="paper"):
    asked = job_of(key, "classifier", "unipelt")
    own = replace(asked.recipe, options=options(gates), alpha=8.0, dropout=0.0, targets=None)
    return replace(asked, recipe=own)


@pytest.mark.parametrize("gates", GATES)
@pytest.mark.parametrize("key", ["llama", "qwen3"])
def test_a_decoder_that_classifies_has_a_gate_a_row(tmp_path, key, gates):
    make_tiny(key, "classifier", tmp_path)
    asked = classifier(key, gates)
    assert trial(tmp_path, "classifier", asked).error < 1e-6
    prepared, batches = trained(tmp_path, "classifier", asked)
    model = prepared.model.eval()
    stir(model)
    gate_of = next(m for m in model.modules() if isinstance(m, GatedPrefix)).gate
    ids, mask = (batches[0].inputs[name] for name in ("input_ids", "attention_mask"))
    read_alone_each_row_says_the_same(model, ids, mask)
    if gates == "paper":
        with torch.no_grad():
            last = int(mask.sum(1)[-1])  # of the row that was read last
            assert gate_of(torch.randn(1, last, 64)).shape == (1, 1, 1)


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("gpt2", "query, value and feed-forward block one by one, which are not known"),
        ("phi3", "query, value and feed-forward block one by one, which are not known"),
        ("gemma2", r"caps its scores \(attn_logit_softcapping\)"),
    ],
)
def test_decoders_that_it_cant_sit_on_are_refused_with_the_reason(tmp_path, key, why):
    make_tiny(key, "classifier", tmp_path)
    with pytest.raises(Unsupported, match=why):
        trained(tmp_path, "classifier", classifier(key))

"""Soft prompts: what the text attends to, where [CLS] is, and which bases can have them."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from safetensors.torch import load_file

import tiny
from citizen import build, check, inputs, logits, train
from citizen import job as job_for
from peftmark.catalog.method import ANY
from peftmark.lab.methods import trainable
from peftmark.lab.models import Unsupported

DEEP = ("prefix-tuning", "p-tuning-v2")
SHALLOW = ("prompt-tuning", "p-tuning")
TAKES_PREFIX = ("bert", "roberta")
PAIRS = [
    (architecture, method)
    for architecture in tiny.CONFIGS
    for method in (*SHALLOW, *(DEEP if architecture in TAKES_PREFIX else ()))
]
REFUSED = [(a, m) for a in tiny.CONFIGS if a not in TAKES_PREFIX for m in DEEP]
TOKENS = 3


def cell(method, quantization="none", **settings):
    options = {"hidden": 16} if method in ("prefix-tuning", "p-tuning") else {}
    return job_for(method, quantization, options=options, rank=TOKENS, **settings)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Architecture -> its tiny model."""
    root = tmp_path_factory.mktemp("models")
    for architecture in tiny.CONFIGS:
        tiny.make_model(root / architecture, architecture)
    return {architecture: root / architecture for architecture in tiny.CONFIGS}


@pytest.fixture(scope="module")
def bert(folders):
    return folders["bert"]


def seen(model, module, **given):
    """(positional inputs, keyword inputs, output) of a module in one forward pass."""
    found = []
    handle = model.get_submodule(module).register_forward_hook(
        lambda _, args, kwargs, output: found.append((args, kwargs, output)), with_kwargs=True
    )
    model.eval()
    with torch.no_grad():
        model(**(given or inputs()))
    handle.remove()
    return found[0]


@pytest.mark.parametrize("quantization", ANY)
@pytest.mark.parametrize("method", [*DEEP, *SHALLOW])
def test_it_freezes_trains_and_saves(bert, tmp_path, method, quantization):
    check(bert, tmp_path, cell(method, quantization), identity=False)


@pytest.mark.parametrize(("architecture", "method"), PAIRS)
def test_architectures_that_have_it(folders, tmp_path, architecture, method):
    check(folders[architecture], tmp_path, cell(method), identity=False)


@pytest.mark.parametrize(("architecture", "method"), REFUSED)
def test_architectures_without_past_key_values_are_refused(folders, architecture, method):
    with pytest.raises(Unsupported, match=r"past_key_values, which .* does not take; use prompt"):
        build(folders[architecture], cell(method))


@pytest.mark.parametrize(("architecture", "method"), PAIRS)
def test_padding_is_not_attended_to(folders, architecture, method):
    _, prepared, _ = build(folders[architecture], cell(method))
    model = prepared.model.eval()
    ids = inputs()["input_ids"]
    mask = torch.cat([torch.ones_like(ids), torch.zeros(6, 5, dtype=torch.long)], dim=1)
    with torch.no_grad():
        for filler in (0, 7):
            padded = torch.cat([ids, torch.full((6, 5), filler)], dim=1)
            found = model(input_ids=padded, attention_mask=mask).logits
            torch.testing.assert_close(found, logits(model), rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", DEEP)
def test_every_layer_attends_to_its_own_prefix(bert, method):
    """softmax(Q [P_k; K]ᵀ / √d) [P_v; V] in layer 1, P_k and P_v as PEFT lays them out."""
    _, prepared, _ = build(bert, cell(method))
    model, heads, size = prepared.model, 2, 32
    at = "base_model.bert.encoder.layer.1.attention.self"

    def split(x):
        return x.view(6, -1, heads, size).transpose(1, 2)

    query, key, value = (split(seen(model, f"{at}.{n}")[2]) for n in ("query", "key", "value"))
    with torch.no_grad():
        prefix = prepared.model.prompt_encoder["default"](torch.arange(TOKENS))
    prefix = prefix.view(TOKENS, 2, 2, heads, size)[:, 1].permute(1, 2, 0, 3)  # of layer 1
    key, value = (
        torch.cat([part.expand(6, -1, -1, -1), own], dim=2)
        for part, own in zip(prefix, (key, value), strict=True)
    )
    weights = torch.softmax(query @ key.transpose(2, 3) / math.sqrt(size), dim=-1)
    wanted = (weights @ value).transpose(1, 2).reshape(6, 9, 64)
    torch.testing.assert_close(seen(model, at)[2][0], wanted, rtol=1e-4, atol=1e-5)
    assert weights[..., :TOKENS].sum(-1).min() > 0.01


@pytest.mark.parametrize("method", DEEP)
def test_a_prefix_moves_the_texts_positions_back(bert, method):
    _, prepared, _ = build(bert, cell(method))
    positions = seen(prepared.model, "base_model.bert.embeddings.position_embeddings")[0][0]
    assert positions.flatten().tolist() == list(range(TOKENS, TOKENS + 9))


@pytest.mark.parametrize("method", SHALLOW)
@pytest.mark.parametrize("reloaded", [False, True])
def test_cls_stays_in_front_and_virtual_tokens_follow_it(bert, tmp_path, method, reloaded):
    base, prepared, _ = build(bert, cell(method))
    train(prepared)
    encoder = prepared.model.prompt_encoder["default"]
    with torch.no_grad():
        virtual = encoder(torch.arange(TOKENS)[None])[0]
    model = prepared.model
    if reloaded:
        prepared.save(tmp_path)
        model = prepared.load(copy.deepcopy(base), tmp_path)
    words = base.get_input_embeddings()(inputs()["input_ids"])
    given = seen(model, "base_model.bert")[1]["inputs_embeds"]
    torch.testing.assert_close(given[:, 0], words[:, 0])
    torch.testing.assert_close(given[:, 1 : TOKENS + 1], virtual.expand(6, -1, -1))
    torch.testing.assert_close(given[:, TOKENS + 1 :], words[:, 1:])
    pooled = seen(model, "base_model.bert.pooler")[0][0]
    assert pooled.shape == (6, TOKENS + 9, 64)  # of which the pooler reads position 0


@pytest.mark.parametrize("method", SHALLOW)
def test_token_types_follow_their_tokens(bert, method):
    _, prepared, _ = build(bert, cell(method))
    types = torch.tensor([[0, 0, 0, 0, 1, 1, 1, 1, 1]]).expand(6, -1)
    at = "base_model.bert.embeddings.token_type_embeddings"
    found = seen(prepared.model, at, **inputs(), token_type_ids=types)[0][0]
    assert found[0].tolist() == [0] * (TOKENS + 4) + [1] * 5


def test_prompt_tuning_starts_from_words_of_the_vocabulary(bert):
    base, prepared, _ = build(bert, cell("prompt-tuning"))
    start = prepared.model.prompt_encoder["default"].embedding.weight
    words = base.get_input_embeddings().weight
    assert all((words == row).all(dim=1).any() for row in start)


@pytest.mark.parametrize("method", [*DEEP, *SHALLOW])
def test_what_is_saved_is_the_prompt_without_its_encoder(bert, tmp_path, method):
    _, prepared, parts = build(bert, cell(method))
    prepared.save(tmp_path)
    saved = load_file(tmp_path / "adapter_model.safetensors")
    head = sum(
        p.numel() for n, p in trainable(prepared.model) if "classifier" in n or "pooler" in n
    )
    layers = len(parts.blocks)
    width = 2 * layers * 64 if method in DEEP else 64
    assert saved.pop("prompt_embeddings").shape == (TOKENS, width)
    assert sum(t.numel() for t in saved.values()) == head


@pytest.mark.parametrize(("architecture", "method"), PAIRS)
def test_text_and_tokens_must_fit_the_positions(folders, architecture, method):
    # The tables have 40 rows; RoBERTa (pad 0) and MPNet (pad 1) keep the first ones for padding.
    room = {"roberta": 39, "mpnet": 38}.get(architecture, 40)
    _, prepared, _ = build(folders[architecture], cell(method, max_length=room - TOKENS))
    longest = torch.full((2, room - TOKENS), 5)
    prepared.model(input_ids=longest, attention_mask=torch.ones_like(longest))
    with pytest.raises(Unsupported, match=f"need {room + 1} positions, tiny has {room}"):
        build(folders[architecture], cell(method, max_length=room - TOKENS + 1))


@pytest.mark.parametrize("method", DEEP)
def test_a_prefix_with_recomputed_layers_is_refused(bert, method):
    with pytest.raises(Unsupported, match="gradient_checkpointing: false"):
        build(bert, cell(method, gradient_checkpointing=True))


@pytest.mark.parametrize("method", SHALLOW)
def test_input_prompts_have_the_same_gradients_with_recomputed_layers(bert, method):
    gradients = []
    for recompute in (False, True):
        _, prepared, _ = build(bert, cell(method))
        if recompute:
            prepared.model.activation_checkpointing_enable(
                activation_checkpointing_kwargs={"use_reentrant": False}
            )
        prepared.model.train()
        torch.manual_seed(3)
        prepared.model(**inputs()).logits.square().sum().backward()
        gradients.append([p.grad for _, p in trainable(prepared.model)])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("method", [*DEEP, *SHALLOW])
def test_it_trains_in_fp32_under_bf16_autocast(bert, method):
    _, prepared, _ = build(bert, cell(method, "nf4", precision="bf16"))
    with torch.autocast("cpu", torch.bfloat16):
        prepared.model(**inputs()).logits.float().sum().backward()
    assert {p.dtype for _, p in trainable(prepared.model)} == {torch.float32}
    assert [n for n, p in trainable(prepared.model) if p.grad is None] == []
    assert prepared.merge is None
    assert "virtual tokens" in prepared.merge_reason

"""Virtual tokens before a language model's text against forward passes written out here:
embeddings put together by hand, keys and values handed over, one row at a time."""

from __future__ import annotations

import copy
from itertools import combinations

import pytest
import torch
from torch import nn
from transformers import DynamicCache

import tiny
import tiny_causal
from peftmark.catalog.methods import known_method
from peftmark.lab.data.causal_rows import write
from peftmark.lab.data.job_data import task_of
from peftmark.lab.scoring import all_outputs
from peftmark.lab.step import Step, task_loss
from peftmark.sources.assets import Places

CPU = torch.device("cpu")
TOKENS = 5
SHALLOW, DEEP = ("prompt-tuning", "p-tuning"), ("prefix-tuning", "p-tuning-v2")
EVERY = [*SHALLOW, *DEEP]


@pytest.fixture
def places(request, tmp_path, monkeypatch):
    tiny_causal.install(tmp_path / "mirror", monkeypatch, getattr(request, "param", "llama"))
    return Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")


BOTH = pytest.mark.parametrize("places", ["llama", "gpt2"], indirect=True)


def job(method, task="tiny-answer", **settings):
    given = {"hidden": 16} if method in ("prefix-tuning", "p-tuning") else {}
    options = known_method(method).resolved_options(given | settings.pop("options", {}))
    return tiny_causal.job(method, task, rank=TOKENS, options=options, **settings)


def trained(places, asked, steps=3):
    """(plain base, the method's model, losses of its steps)."""
    base, prepared = tiny_causal.built(places, asked)
    step, losses = Step(asked, task_of(asked), prepared, CPU), []
    for number, batch in enumerate(tiny.work(places, asked).preview(steps), 1):
        losses.append(float(step(number, batch).loss))
    prepared.model.eval()
    return base, prepared, losses


def by_hand(base, model, ids):
    """Logits of a row's own places, (tokens, vocabulary), without padding, mask or positions."""
    encoder = model.prompt_encoder["default"]
    with torch.no_grad():
        prompt = encoder(torch.arange(TOKENS)[None])[0]
        if prompt.shape[1] == base.get_input_embeddings().embedding_dim:
            words = base.get_input_embeddings()(ids)
            given = torch.cat([prompt, words])[None]
            return base(inputs_embeds=given, use_cache=False).logits[0, TOKENS:]
        layers = base.config.num_hidden_layers
        heads = getattr(base.config, "num_key_value_heads", base.config.num_attention_heads)
        width = base.config.hidden_size // base.config.num_attention_heads
        parts = prompt.view(TOKENS, layers, 2, heads, width).permute(1, 2, 3, 0, 4)
        cache = DynamicCache()
        for at, (keys, values) in enumerate(parts):
            cache.update(keys[None], values[None], at)
        return base(input_ids=ids[None], past_key_values=cache, use_cache=True).logits[0]


def rows_of(batch):
    """Each row's own tokens."""
    ids, mask = (batch.inputs[name] for name in ("input_ids", "attention_mask"))
    return [row[there.bool()] for row, there in zip(ids, mask, strict=True)]


@BOTH
@pytest.mark.parametrize("method", EVERY)
def test_the_loss_is_that_of_a_forward_pass_by_hand(places, method):
    asked = job(method)
    base, prepared, _ = trained(places, asked)
    [batch] = tiny.work(places, asked).preview(1)
    assert not batch.inputs["attention_mask"].all()
    each = []
    for ids, labels in zip(rows_of(batch), batch.labels, strict=True):
        chances = by_hand(base, prepared.model, ids).log_softmax(-1)
        each += [-chances[at - 1, ids[at]] for at in range(1, len(ids)) if labels[at] != -100]
    found = task_loss(prepared.model, batch, task_of(asked), asked, CPU)
    assert found.item() == pytest.approx(float(torch.stack(each).mean()), abs=1e-5)


@BOTH
@pytest.mark.parametrize("method", EVERY)
@pytest.mark.sweep(3)
def test_scores_of_a_padded_batch_are_those_of_rows_by_hand(places, method):
    asked = job(method, "tiny-rank")
    base, prepared, _ = trained(places, asked)
    batches = tiny.work(places, asked).eval.batches
    found, wanted, padded = all_outputs(prepared.model, batches, asked, CPU), [], 0
    for batch in batches:
        for ids in rows_of(batch):
            scores = []
            for words in batch.choices:
                whole = torch.cat([ids, torch.tensor(words)])
                chances = by_hand(base, prepared.model, whole).log_softmax(-1)
                said = [chances[len(ids) + i - 1, word] for i, word in enumerate(words)]
                scores.append(float(torch.stack(said).mean()))
            wanted.append(scores)
        padded += int((batch.inputs["attention_mask"] == 0).sum())
    assert padded
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=0, atol=1e-5)


@BOTH
@pytest.mark.parametrize("method", EVERY)
@pytest.mark.sweep(3)
def test_answers_are_those_of_greedy_decoding_without_any_cache(places, method):
    asked = job(method)
    base, prepared, _ = trained(places, asked)
    answers = tiny.work(places, asked).eval.answers
    batch = next(one for one in answers.batches if not one.inputs["attention_mask"].all())
    written = write(prepared.model, batch, answers.reader, answers.new_tokens)
    for ids, said in zip(rows_of(batch), written, strict=True):
        told = []
        while len(told) < answers.new_tokens and told[-1:] != [3]:
            whole = torch.cat([ids, torch.tensor(told, dtype=torch.long)])
            told.append(int(by_hand(base, prepared.model, whole)[-1].argmax()))
        assert said == told


@pytest.mark.parametrize("method", EVERY)
def test_what_is_loaded_again_scores_and_writes_the_same(places, tmp_path, method):
    asked = job(method)
    base, prepared, _ = trained(places, asked)
    prepared.save(tmp_path)
    loaded = prepared.load(copy.deepcopy(base), tmp_path).eval()
    held = tiny.work(places, asked).eval
    scores = [all_outputs(one, held.batches, asked, CPU) for one in (prepared.model, loaded)]
    assert (scores[0] - scores[1]).abs().max() <= 1e-5
    answers = held.answers
    first, again = (
        [write(one, batch, answers.reader, answers.new_tokens) for batch in answers.batches]
        for one in (prepared.model, loaded)
    )
    assert first == again


@pytest.mark.parametrize("depth", [("top", 1), ("bottom", 1)])
def test_keys_and_values_of_one_layer_are_those_that_it_was_given(places, depth):
    """Zeros in the other layer, which nothing attends to, and the prompt's own numbers in this."""
    asked = job("p-tuning-v2", options={"layers": depth[0], "depth": depth[1]})
    _, prepared, _ = trained(places, asked)
    at = 1 if depth[0] == "top" else 0
    cache = prepared.model.get_prompt(2)
    own = prepared.model.prompt_encoder["default"].embedding.weight.view(TOKENS, 2, 2, 16)
    torch.testing.assert_close(cache.layers[at].keys[1], own[:, 0].transpose(0, 1))
    torch.testing.assert_close(cache.layers[at].values[1], own[:, 1].transpose(0, 1))
    assert not cache.layers[1 - at].keys.any()


def test_every_prompt_method_learns_its_own_way(places):
    """Losses from the second step on, and what the trained models say, differ two by two."""
    curves, said = {}, {}
    cells = [(method, {}) for method in (*EVERY, "unipelt")]
    cells += [("p-tuning-v2", {"layers": which, "depth": 1}) for which in ("top", "bottom")]
    for method, options in cells:
        given = {"width": 4, "tokens": TOKENS} if method == "unipelt" else {}
        asked = job(method, options=options | given)
        _, prepared, losses = trained(places, asked)
        [batch] = tiny.work(places, asked).preview(1)
        name = method + "".join(map(str, options.values()))
        with torch.no_grad():
            curves[name], said[name] = losses[1:], prepared.model(**batch.inputs).logits
    for one, other in combinations(curves, 2):
        assert all(a != b for a, b in zip(curves[one], curves[other], strict=True)), (one, other)
        assert not torch.allclose(said[one], said[other], atol=1e-4), (one, other)


def test_a_prompt_of_embeddings_gives_logits_of_the_text_alone(places):
    asked = job("prompt-tuning")
    _, prepared, _ = trained(places, asked)
    [batch] = tiny.work(places, asked).preview(1)
    logits = prepared.model(**batch.inputs).logits
    assert logits.shape[:2] == batch.inputs["input_ids"].shape
    wanted = nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), batch.labels[:, 1:].flatten(), ignore_index=-100
    )
    found = task_loss(prepared.model, batch, task_of(asked), asked, CPU)
    assert found.item() == pytest.approx(wanted.item(), abs=1e-6)

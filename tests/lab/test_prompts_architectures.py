"""Virtual tokens before the text of every architecture that reads from left to right, as a language
model and as a classifier of a row's last token: what they do is what a real text would."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from peft import PeftModel

from alone import read_alone_each_row_says_the_same
from peftmark.catalog.tried_architectures import TRIED
from peftmark.lab.architecture_trials import job_of, make_tiny, task_of, trained, trial
from peftmark.lab.data.batches import Batch
from peftmark.lab.data.causal_rows import choice_likelihoods, write
from peftmark.lab.methods import trainable
from peftmark.lab.models import Unsupported, anatomy, load_model


class Ends:
    """All that writing asks of a reader."""

    pad, ends = 0, (3,)


REAL = [2, 17, 30, 44, 8]
TOKENS = len(REAL)
DECODERS = [
    (key, made)
    for key, tried in TRIED.items()
    for made in tried.classes
    if made == "language model" or tried.family == "decoder"
]
QUICK = [(key, made) for key, made in DECODERS if key in ("opt", "falcon", "gpt2", "llama")]
METHODS = ("prompt-tuning", "p-tuning-v2")


def cell(key, made, method, **recipe):
    return replace(job_of(key, made, method, **recipe), size=TOKENS)


def as_after_real_text(folder, key, made, method):
    """(largest difference to the base after the real text, to the base without it)."""
    asked = cell(key, made, method)
    prepared, batches = trained(folder, made, asked)
    model = prepared.model.eval()
    task = task_of(made)
    base = load_model(folder, asked, task, anatomy(folder, task)).eval()
    if made == "classifier":
        [head] = anatomy(folder, task).head
        saved = model.get_base_model().get_submodule(head).modules_to_save["default"]
        base.get_submodule(head).load_state_dict(saved.state_dict())
    real = torch.tensor([REAL])
    weight = model.prompt_encoder["default"].embedding.weight
    ids, mask = (batches[0].inputs[name] for name in ("input_ids", "attention_mask"))
    before = real.expand(len(ids), -1)
    with torch.no_grad():
        if method == "prompt-tuning":
            weight.copy_(base.get_input_embeddings()(real)[0])
        else:
            cache = base.base_model(real, use_cache=True).past_key_values
            pairs = [part[0] for layer in cache.layers for part in (layer.keys, layer.values)]
            weight.copy_(torch.stack(pairs).permute(2, 0, 1, 3).reshape(TOKENS, -1))
        found = model(input_ids=ids, attention_mask=mask).logits
        plain = base(input_ids=ids, attention_mask=mask).logits
        wanted = base(
            input_ids=torch.cat([before, ids], 1),
            attention_mask=torch.cat([torch.ones_like(before), mask], 1),
        ).logits
    if made == "language model":
        there = mask.bool()
        found, plain, wanted = found[there], plain[there], wanted[:, TOKENS:][there]
    return (found - wanted).abs().max(), (found - plain).abs().max()


def hold(folder, key, made, method):
    make_tiny(key, made, folder)
    apart, moved = as_after_real_text(folder, key, made, method)
    assert apart < 1e-5
    assert moved > 1e-3, "the prompt has no part in it"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("key", "made"), QUICK)
def test_a_prompt_is_what_a_real_text_would_be(tmp_path, key, made, method):
    hold(tmp_path, key, made, method)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("key", "made"), [one for one in DECODERS if one not in QUICK])
def test_a_prompt_is_what_a_real_text_would_be_in_all(tmp_path, key, made, method):
    hold(tmp_path, key, made, method)


@pytest.mark.parametrize("method", ["prompt-tuning", "p-tuning", "prefix-tuning", "p-tuning-v2"])
@pytest.mark.parametrize("key", ["llama", "opt"])
def test_a_decoder_that_classifies_is_trained_and_loaded_again(tmp_path, key, method):
    make_tiny(key, "classifier", tmp_path)
    asked = cell(key, "classifier", method)
    assert trial(tmp_path, "classifier", asked).error < 1e-6
    prepared, batches = trained(tmp_path, "classifier", asked)
    assert prepared.merge is None
    assert bool(prepared.beyond) == (method in ("prompt-tuning", "p-tuning"))
    assert any("score" in name for name, _ in trainable(prepared.model))
    ids, mask = (batches[0].inputs[name] for name in ("input_ids", "attention_mask"))
    model = prepared.model.eval()
    together = read_alone_each_row_says_the_same(model, ids, mask)
    if not prepared.beyond:  # then PEFT's own loading gives the same
        prepared.save(tmp_path / "saved")
        task = task_of("classifier")
        base = load_model(tmp_path, asked, task, anatomy(tmp_path, task))
        own = PeftModel.from_pretrained(base, str(tmp_path / "saved")).eval()
        with torch.no_grad():
            again = own(input_ids=ids, attention_mask=mask).logits
        torch.testing.assert_close(again, together, rtol=0, atol=1e-6)


@pytest.mark.parametrize("method", ["full", *METHODS])
@pytest.mark.parametrize("key", ["roberta", "opt", "falcon"])
def test_rows_padded_in_front_are_scored_and_gone_on_from_as_each_alone(tmp_path, key, method):
    """Also where positions are counted from behind the padding token, as RoBERTa's are."""
    made = "language model"
    make_tiny(key, made, tmp_path)
    asked = cell(key, made, method) if method in METHODS else job_of(key, made, method)
    prepared, batches = trained(tmp_path, made, asked)
    model = prepared.model.eval()
    ids, mask = (batches[0].inputs[name] for name in ("input_ids", "attention_mask"))
    texts = [row[there.bool()] for row, there in zip(ids, mask, strict=True)]
    front = torch.stack(
        [torch.roll(row, int((1 - m).sum())) for row, m in zip(ids, mask, strict=True)]
    )
    inputs = {"input_ids": front, "attention_mask": mask.flip(1)}
    words = ((5,), (6, 7, 9))
    batch = Batch(inputs, torch.zeros(len(ids)), int(mask.sum()), words)

    def alone(*tokens):
        whole = torch.cat(tokens)[None]
        return model(input_ids=whole, attention_mask=torch.ones_like(whole)).logits[0].float()

    with torch.no_grad():
        found = choice_likelihoods(model, batch)
        written = write(model, batch, Ends(), 5)
        for row, text in enumerate(texts):
            for at, ones in enumerate(words):
                chances = alone(text, torch.tensor(ones)).log_softmax(-1)
                said = [chances[len(text) + i - 1, word] for i, word in enumerate(ones)]
                assert found[row, at] == pytest.approx(float(torch.stack(said).mean()), abs=1e-5)
            told = []
            while len(told) < 5 and told[-1:] != [3]:
                told.append(int(alone(text, torch.tensor(told, dtype=torch.long))[-1].argmax()))
            assert written[row] == told


def test_virtual_tokens_and_text_must_fit_a_decoders_table(tmp_path):
    make_tiny("gpt2", "classifier", tmp_path)
    room = 64
    trained(tmp_path, "classifier", cell("gpt2", "classifier", "p-tuning-v2"))
    long = cell("gpt2", "classifier", "p-tuning-v2", max_length=room - TOKENS + 1)
    with pytest.raises(Unsupported, match=f"need {room + 1} positions, gpt2 has {room}"):
        trained(tmp_path, "classifier", long)

"""Virtual tokens before a language model's text: what it reads, says and writes after them is what
it would after a real text of as many tokens."""

from __future__ import annotations

import copy
import math
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from peft import PeftModel

import tiny
import tiny_causal
from peftmark.lab import recipe
from peftmark.lab.data.causal_rows import write
from peftmark.lab.data.job_data import task_of
from peftmark.lab.scoring import all_outputs
from peftmark.lab.step import language_loss, task_loss
from peftmark.sources.assets import Places

CPU = torch.device("cpu")
SHALLOW, DEEP = ("prompt-tuning", "p-tuning"), ("prefix-tuning", "p-tuning-v2")
TOKENS = 5
REAL = [2, 17, 30, 44, 8]
"""A real text of as many tokens, its first one that begins a text."""


@pytest.fixture(params=["llama", "gpt2"])
def places(request, tmp_path, monkeypatch):
    tiny_causal.install(tmp_path / "mirror", monkeypatch, request.param)
    return Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")


@pytest.fixture
def llama(tmp_path, monkeypatch):
    tiny_causal.install(tmp_path / "mirror", monkeypatch)
    return Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")


def job(method, task="tiny-rank", **settings):
    options = {"hidden": 16} if method in ("prefix-tuning", "p-tuning") else {}
    return tiny_causal.job(method, task, rank=TOKENS, **{"options": options, **settings})


def after_real_text(places, asked):
    """(plain base, the method's model with a prompt that is what the real text is to the base)."""
    base, prepared = tiny_causal.built(places, asked)
    model, real = prepared.model.eval(), torch.tensor([REAL])
    encoder = model.prompt_encoder["default"]
    with torch.no_grad():
        if asked.method == "prompt-tuning":
            encoder.embedding.weight.copy_(base.get_input_embeddings()(real)[0])
        else:
            cache = base(real, use_cache=True).past_key_values
            pairs = [part[0] for layer in cache.layers for part in (layer.keys, layer.values)]
            flat = torch.stack(pairs).permute(2, 0, 1, 3)  # tokens, layers * 2, heads, width
            encoder.embedding.weight.copy_(flat.reshape(TOKENS, -1))
    return base, model


def with_real_text(batch, labels=True):
    """A batch with the real text before each of its rows, which are padded on the right."""
    rows = len(batch.inputs["input_ids"])
    real = torch.tensor([REAL]).expand(rows, -1)
    ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    inputs = {
        "input_ids": torch.cat([real, ids], 1),
        "attention_mask": torch.cat([torch.ones_like(real), mask], 1),
    }
    if not labels:
        return replace(batch, inputs=inputs)
    ignored = torch.full_like(real, -100)
    return replace(batch, inputs=inputs, labels=torch.cat([ignored, batch.labels], 1))


def alone(batch, row):
    """A row of a batch that is padded on the left, without its padding."""
    known = batch.inputs["attention_mask"][row].bool()
    return batch.inputs["input_ids"][row][known]


READS = ("prompt-tuning", "p-tuning-v2")


@pytest.mark.parametrize("method", READS)
def test_logits_and_loss_are_those_after_a_real_text(places, method):
    asked = job(method, "tiny-answer")
    base, model = after_real_text(places, asked)
    for batch in tiny.work(places, asked).preview(2):
        longer = with_real_text(batch)
        with torch.no_grad():
            found = model(**batch.inputs).logits
            wanted = base(**longer.inputs).logits[:, TOKENS:]
        there = batch.inputs["attention_mask"].bool()
        torch.testing.assert_close(found[there], wanted[there], rtol=1e-4, atol=1e-4)
        loss = task_loss(model, batch, task_of(asked), asked, CPU)
        # The last virtual token predicts the text's first one, which is no label of any row here.
        assert loss.item() == pytest.approx(
            language_loss(base(**longer.inputs).logits, longer.labels).item(), abs=1e-5
        )
        assert not there.all(), "no row was padded"


@pytest.mark.parametrize("method", READS)
def test_scores_of_classes_are_those_after_a_real_text(places, method):
    asked = job(method)
    base, model = after_real_text(places, asked)
    batches = tiny.work(places, asked).eval.batches
    found = all_outputs(model, batches, asked, CPU)
    wanted = []
    for batch in batches:
        for row in range(batch.shape.rows):
            start = [*REAL, *alone(batch, row).tolist()]
            scores = []
            for words in batch.choices:
                ids = torch.tensor([[*start, *words]])
                with torch.no_grad():
                    chances = base(ids).logits[0, len(start) - 1 : -1].log_softmax(-1)
                scores.append(float(chances.gather(-1, torch.tensor(words)[:, None]).mean()))
            wanted.append(scores)
    assert (found - torch.tensor(wanted)).abs().max() < 1e-4
    assert {len(words) for words in batches[0].choices} == {1, 3}, "no second pass"


@pytest.mark.parametrize("method", READS)
def test_text_is_read_as_after_a_real_text(places, method):
    asked = job(method, "tiny-text")
    base, model = after_real_text(places, asked)
    batches = tiny.work(places, asked).eval.batches
    found = all_outputs(model, batches, asked, CPU)[:, 0]
    wanted = []
    for batch in batches:
        longer = with_real_text(batch)
        for ids, labels in zip(longer.inputs["input_ids"], longer.labels, strict=True):
            # A row's first token has nothing before it, also where virtual ones stand there.
            known = [at for at in range(TOKENS + 1, len(ids)) if labels[at] != -100]
            with torch.no_grad():
                chances = base(ids[None]).logits[0].log_softmax(-1)
            wanted.append(float(torch.stack([chances[at - 1, ids[at]] for at in known]).mean()))
    assert (found - torch.tensor(wanted)).abs().max() < 1e-4


@pytest.mark.parametrize("method", READS)
def test_what_is_written_is_what_is_written_after_a_real_text(places, method):
    asked = job(method, "tiny-answer")
    base, model = after_real_text(places, asked)
    answers = tiny.work(places, asked).eval.answers
    padded = False
    for batch in answers.batches:
        found = write(model, batch, answers.reader, answers.new_tokens)
        for row, ids in enumerate(found):
            start = torch.tensor([[*REAL, *alone(batch, row).tolist()]])
            told = base.generate(
                start,
                attention_mask=torch.ones_like(start),
                max_new_tokens=answers.new_tokens,
                do_sample=False,
                pad_token_id=0,
                eos_token_id=3,
            )[0, start.shape[1] :].tolist()
            assert ids == (told[: told.index(3) + 1] if 3 in told else told)
        padded |= not batch.inputs["attention_mask"].all()
    assert padded


@pytest.mark.parametrize("method", [*SHALLOW, *DEEP])
def test_a_padded_batch_says_what_its_rows_say_alone(places, method):
    asked = job(method)
    _, prepared = tiny_causal.built(places, asked)
    work = tiny.work(places, asked)
    together = all_outputs(prepared.model, work.eval.batches, asked, CPU)
    apart = []
    for batch in work.eval.batches:
        for row in range(batch.shape.rows):
            ids = alone(batch, row)[None]
            inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            one = replace(batch, inputs=inputs, labels=batch.labels[row : row + 1])
            apart.append(all_outputs(prepared.model, [one], asked, CPU))
    assert (together - torch.cat(apart)).abs().max() < 1e-4


@pytest.mark.parametrize("method", [*SHALLOW, *DEEP])
def test_peft_writes_the_same_after_a_row_without_padding(places, tmp_path, method):
    """Its own loading and its own generation, of one row, are a second reading of the same."""
    asked = job(method, "tiny-answer")
    base, prepared = tiny_causal.built(places, asked)
    prepared.save(tmp_path / "saved")
    model = PeftModel.from_pretrained(copy.deepcopy(base), str(tmp_path / "saved")).eval()
    answers = tiny.work(places, asked).eval.answers
    one = answers.batches[0]
    ids = alone(one, 0)[None]
    one = replace(one, inputs={"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    [found] = write(prepared.model.eval(), one, answers.reader, 6)
    # Of embeddings it says that it drops positions, which of one row are what they would be.
    dropped = pytest.warns(UserWarning, match="Position ids are not supported")
    with dropped if method in SHALLOW else nullcontext():
        [told] = write(model, one, answers.reader, 6)
    assert found == told


@pytest.mark.parametrize("method", [*SHALLOW, *DEEP])
@pytest.mark.parametrize("task", ["tiny-rank", "tiny-answer", "tiny-text"])
@pytest.mark.sweep(4)
def test_a_job_trains_scores_saves_and_is_probed(llama, method, task):
    done = recipe.run(job(method, task, steps=6), llama, lambda _: None)
    assert done.status == "ok", done.status_reason
    assert math.isfinite(done.metrics[task_of(job(method, task)).metric])
    assert done.reload_max_error < 1e-4
    assert done.live_bytes is not None
    assert done.live_bytes == done.predicted_live_bytes

"""What a job tells of its first step, of the rows it cut and of the classes it trained on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import tiny
from peftmark.catalog.prompts import Prompt
from peftmark.catalog.task import Example
from peftmark.catalog.tasks import TASKS
from peftmark.lab import recipe
from peftmark.lab.data.batches import Encoder
from peftmark.lab.data.causal_rows import Reader
from peftmark.lab.data.job_data import _class_rows
from peftmark.lab.models import load_model

pytestmark = pytest.mark.usefixtures("training_alone")


def run(places, job):
    return recipe.run(job, places, lambda message: None)


def by_hand(places, job):
    """Loss and gradients of the first batch, worked without a `Step`."""
    model = tiny.build(places, job).model
    model.train()
    batch = tiny.work(places, job).train(0)
    loss = torch.nn.functional.cross_entropy(model(**batch.inputs).logits.float(), batch.labels)
    loss.backward()
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    return float(loss.detach()), trained


def test_the_first_step_is_told_as_the_optimizer_took_it(places):
    job = tiny.job(
        "lora", dropout=0.0, head_dropout=0.0, learning_rate=4e-3, warmup_steps=4,
        weight_decay=0.3, max_grad_norm=0.5,
    )  # fmt: skip
    facts = run(places, job).first_step
    # The base's own dropout draws; without a head's, 2 layers have 3 each and the embeddings one.
    assert facts["dropout modules at 0.1"] == 7.0
    decays = (facts["group 1 weight decay"], facts["group 2 weight decay"])
    assert decays == (0.3, 0.0)
    assert facts["group 1 learning rate"] == facts["group 2 learning rate"] == 1e-3
    _, trained = by_hand(places, job)
    sizes = [sum(p.numel() for p in trained.values() if (p.dim() <= 1) == flat) for flat in (0, 1)]
    assert [facts["group 1 parameters"], facts["group 2 parameters"]] == sizes
    applied = (facts["group 1 gradient norm"] ** 2 + facts["group 2 gradient norm"] ** 2) ** 0.5
    assert applied == pytest.approx(0.5, rel=1e-4) and facts["gradient norm"] > 0.5
    assert (facts["beta 1"], facts["beta 2"], facts["epsilon"]) == (0.9, 0.999, 1e-8)
    assert "penalty" not in facts


def test_loss_and_gradients_of_the_first_step_are_those_of_the_first_batch(places, monkeypatch):
    plain = load_model

    def without_dropout(*given):
        model = plain(*given)
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        return model

    monkeypatch.setattr("peftmark.lab.quantized_cache.load_model", without_dropout)
    job = tiny.job("lora", dropout=0.0, max_grad_norm=1e9)
    facts = run(places, job).first_step
    loss, trained = by_hand(places, job)
    norm = torch.linalg.vector_norm(torch.cat([p.grad.flatten() for p in trained.values()]))
    assert facts["loss"] == pytest.approx(loss, rel=1e-6)
    assert facts["gradient norm"] == pytest.approx(float(norm), rel=1e-5)
    assert not any(name.startswith("dropout") for name in facts)


def test_a_penalty_is_a_fact_of_the_first_step(places):
    weights = (0.1, 0.4)
    found = [
        run(places, tiny.job("adalora", adalora=replace(tiny.SCHEDULE, orthogonal_weight=w)))
        for w in weights
    ]
    one, four = (done.first_step["penalty"] for done in found)
    assert four == pytest.approx(4 * one) and one > 0.1


def test_what_trains_by_no_steps_has_no_first_one(places):
    assert run(places, tiny.job("base", eval_every=12)).first_step == {}


# --- rows ---------------------------------------------------------------------------------------


def test_rows_that_are_cut_are_counted_in_every_batch(places):
    """The tiny rows have 3 to 7 words and two special tokens."""
    whole, cut = (tiny.work(places, tiny.job(max_length=most)) for most in (9, 7))
    assert whole.cut_share == 0.0
    lengths = [3 + i % 5 + 2 for i in range(96)]
    long = [lengths[i] > 7 for batch in cut.order for i in batch]
    assert cut.cut_share == sum(long) / len(long) and 0.2 < cut.cut_share < 0.6


def test_a_row_that_is_just_as_long_as_there_is_room_is_not_cut():
    encoder = Encoder(tiny.tokenizer(), 5, torch.int64)
    rows = [
        Example("w1 w2", None, 0),
        Example("w1 w2 w3", None, 0),
        Example("w1 w2 w3 w4", None, 0),
    ]
    assert encoder.cut(rows, encoder.encode(rows)) == [False, False, True]
    pairs = [Example("w1", "w2", 0), Example("w1 w2", "w3 w4", 0)]
    assert encoder.cut(pairs, encoder.encode(pairs)) == [False, True]
    assert encoder.cut([], []) == []


def test_a_text_and_a_prompt_that_lost_tokens_were_cut():
    tokenizer = tiny.tokenizer()
    tokenizer.eos_token = "[SEP]"
    texts = [Example("w1 w2 w3", None, 0), Example("w1 w2 w3 w4 w5 w6 w7 w8", None, 0)]
    reader = Reader(tokenizer, 7)
    assert reader.cut(texts, reader.encode(texts)) == [False, True]
    # Its answer is shorter than the room that is left for one: the row is cut, and not full.
    prompt = Prompt("{text}")
    asked = Reader(tokenizer, 7, prompt, new_tokens=4)
    rows = [Example("w1", "w2", 0), Example("w1 w2 w3 w4 w5 w6", "w2", 0)]
    encoded = asked.encode(rows)
    assert asked.cut(rows, encoded) == [False, True]
    assert len(encoded[1]["input_ids"]) < 7


def test_classes_are_counted_among_the_rows_that_may_be_trained_on(places):
    assert tiny.work(places, tiny.job()).class_rows == {"0": 48, "1": 48}
    assert tiny.work(places, tiny.job(task="tiny-score")).class_rows == {}
    several = replace(TASKS["sst-2"], kind="multi-label")
    assert _class_rows(torch.tensor([[1, 0, 1], [0, 0, 1]]).numpy(), several) == {
        "0": 1, "1": 0, "2": 2,
    }  # fmt: skip

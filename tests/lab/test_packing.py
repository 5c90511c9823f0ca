"""Rows of a training pass end to end in one row: the same losses, gradients and steps, no padding,
and nothing read across rows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers

import tiny
import tiny_causal
from peftmark.catalog.methods import all_methods
from peftmark.catalog.packing import PACKED, method_fault, model_fault
from peftmark.catalog.positions import AFTER_PADDING
from peftmark.catalog.tried_architectures import TRIED
from peftmark.lab import recipe
from peftmark.lab.architecture_trials import tiny_config
from peftmark.lab.data.causal_rows import Reader
from peftmark.lab.data.job_data import task_of
from peftmark.lab.errors import Unsupported
from peftmark.lab.methods import trainable
from peftmark.lab.step import Step, language_loss, task_loss
from peftmark.sources.assets import Places

CPU = torch.device("cpu")
METHODS = all_methods()
CLOSE = 1e-5
ROWS = ([5, 9, 3, 40], [11, 2])
"""Tokens of the rows of two batches; together more than the tiny models have positions for."""


@pytest.fixture
def llama(tmp_path, monkeypatch):
    return tiny_causal.with_all_parts(tmp_path, monkeypatch)


# --- rows and passes ----------------------------------------------------------------------------


def encoded(lengths):
    """Rows whose tokens are all different, of which the first half is a prompt."""
    numbers = iter(range(4, 1000))
    rows = [[next(numbers) % 60 + 4 for _ in range(length)] for length in lengths]
    return [
        {
            "input_ids": ids,
            "attention_mask": [1] * len(ids),
            "labels": [-100] * (len(ids) // 2) + ids[len(ids) // 2 :],
        }
        for ids in rows
    ]


def reader():
    return Reader(tiny_causal.tokenizer(), 64)


def test_packed_rows_stand_end_to_end_with_positions_that_begin_again():
    rows = [{"input_ids": ids, "labels": ids} for ids in ([7, 8, 9], [10, 11])]
    batch = reader().packed(rows)
    assert batch.inputs["input_ids"].tolist() == [[7, 8, 9, 10, 11]]
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert batch.labels.tolist() == [[-100, 8, 9, -100, 11]]  # no row goes on from another
    assert set(batch.inputs) == {"input_ids", "position_ids"}
    assert (batch.rows, batch.tokens, batch.shape.rows, batch.shape.padded) == (2, 5, 1, False)


def test_the_passes_of_a_packed_batch_hold_whole_rows_of_it():
    whole = reader().packed(encoded([3, 1, 4, 2, 5]))
    passes = whole.parts(2)
    assert [one.row_tokens for one in passes] == [(3, 1), (4, 2), (5,)]
    assert [one.shape.tokens for one in passes] == [4, 6, 5]
    assert [one.tokens for one in passes] == [4, 6, 5]
    for name, value in whole.inputs.items():
        assert torch.equal(torch.cat([one.inputs[name] for one in passes], 1), value)
    assert whole.parts(5) == [whole]


# --- architectures ------------------------------------------------------------------------------


def model_of(kind, attention):
    torch.manual_seed(3)
    config = tiny_config(kind, "language model")
    config.use_cache = False
    if kind in ("mistral", "gemma2", "gemma3_text"):
        config.sliding_window = 4  # shorter than the rows
    for name in vars(config):
        if "drop" in name:
            setattr(config, name, 0.0)
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=attention)
    with torch.no_grad():
        for p in model.parameters():
            if p.dim() > 1:
                p.mul_(5)  # so that what is attended to matters
    return model.train()


def both_losses(model, lengths):
    """Loss of rows one below the other and end to end, and of the latter as one long row."""
    padded, packed = reader().batch(encoded(lengths)), reader().packed(encoded(lengths))
    leaking = {"position_ids": torch.arange(packed.tokens)[None].clamp(max=60)}
    return [
        float(language_loss(model(**inputs).logits.float(), labels).detach())
        for inputs, labels in (
            (padded.inputs, padded.labels),
            (packed.inputs, packed.labels),
            ({**packed.inputs, **leaking}, packed.labels),
        )
    ]


SPEAK = [kind for kind, tried in TRIED.items() if "language model" in tried.classes]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", PACKED)
def test_a_packed_row_has_the_loss_of_its_rows_and_a_leak_another(kind, attention):
    if (kind, attention) == ("gemma2", "sdpa"):
        pytest.skip("transformers has no fused attention for it")
    model = model_of(kind, attention)
    for lengths in ROWS:
        apart, packed, leaking = both_losses(model, lengths)
        assert packed == pytest.approx(apart, rel=CLOSE)
        assert abs(leaking - apart) > 100 * CLOSE * apart


@pytest.mark.parametrize("kind", PACKED)
def test_no_token_of_a_row_moves_a_bit_of_another(kind):
    model = model_of(kind, "eager").eval()
    batch = reader().packed(encoded([6, 7, 5]))
    other = batch.inputs["input_ids"].clone()
    other[0, 6:13] = other[0, 6:13].flip(0)  # of the row in the middle
    with torch.inference_mode():
        before = model(**batch.inputs).logits
        after = model(**{**batch.inputs, "input_ids": other}).logits
    assert torch.equal(before[:, :6], after[:, :6])
    assert torch.equal(before[:, 13:], after[:, 13:])
    assert not torch.equal(before[:, 6:13], after[:, 6:13])


@pytest.mark.parametrize("kind", [kind for kind in SPEAK if kind not in PACKED])
def test_what_is_refused_does_read_across_rows(kind):
    apart, packed, _ = both_losses(model_of(kind, "eager"), ROWS[0][:3])
    assert abs(packed - apart) > 100 * CLOSE * apart
    assert kind in model_fault(kind)


def test_every_architecture_that_is_packed_is_tried_and_counts_positions_from_nought():
    assert set(PACKED) <= set(SPEAK)
    assert not set(PACKED) & set(AFTER_PADDING)


# --- methods ------------------------------------------------------------------------------------

DRAWN = {"peft:pvera"}
"""Types that draw numbers for each token in training."""
QUICK = {"lora", "adalora", "ia3", "adapter", "velora", "two-stage", "lora-by-rows", "bitfit-lora"}
READ = [key for key, m in METHODS.items() if m.trains and not m.not_causal]
PACK = [key for key in READ if not method_fault(METHODS[key])]


def job_of(key, **recipe):
    method = METHODS[key]
    few = {"batches": 2} if "batches" in {o.name for o in method.options or ()} else {}
    if key == "eva":
        few = {"batches": 16}
    dropout = {"dropout": 0.0} if "dropout" in method.settings else {}
    return tiny_causal.job(
        key,
        "tiny-answer",
        method.quantizations[0],
        rank=4,
        steps=10,
        options=method.resolved_options(few),
        **{**dropout, **recipe},
    )


def losses_and_gradients(places, job, prepared):
    batch = tiny.work(places, job).train(0)
    prepared.model.zero_grad(set_to_none=True)
    torch.manual_seed(0)  # DiffPruning draws its masks anew for each pass
    loss = task_loss(prepared.model, batch, task_of(job), job, CPU)
    loss.backward()
    found = {n: p.grad.clone() for n, p in trainable(prepared.model) if p.grad is not None}
    return float(loss.detach()), found


@pytest.mark.parametrize(
    "key", [pytest.param(k, marks=[] if k in QUICK else pytest.mark.slow) for k in PACK]
)
def test_a_methods_loss_and_gradients_are_those_of_padded_rows(key, llama):
    job = job_of(key)
    _, prepared = tiny_causal.built(llama, job)
    prepared.model.train(key not in DRAWN)
    loss, gradients = losses_and_gradients(llama, job, prepared)
    packed = replace(job, recipe=replace(job.recipe, packing=True))
    same, others = losses_and_gradients(llama, packed, prepared)
    assert same == pytest.approx(loss, rel=CLOSE)
    assert gradients.keys() == others.keys() and gradients
    # Of AdaMSS' gradients, of 1e-4 at most, rounding alone leaves 1.1e-4 of the largest.
    for name, gradient in gradients.items():
        scale = float(gradient.abs().max()) or 1.0
        assert float((others[name] - gradient).abs().max()) <= 2e-4 * scale, name


# --- jobs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("passes", [1, 2])
def test_a_packed_step_is_the_step_of_padded_rows(llama, passes):
    taken = []
    for packing in (False, True):
        job = job_of("lora", packing=packing, gradient_accumulation=passes)
        _, prepared = tiny_causal.built(llama, job)
        step = Step(job, task_of(job), prepared, CPU)
        work = tiny.work(llama, job)
        taken.append([(float(t.loss), float(t.norm)) for t in
                      (step(i + 1, work.train(i)) for i in range(4))])  # fmt: skip
    np.testing.assert_allclose(taken[1], taken[0], rtol=CLOSE)


def test_a_packed_job_has_the_rows_and_scores_of_a_padded_one_and_no_padding(llama):
    plain, done = (
        recipe.run(job_of("lora", packing=packing), llama, lambda _: None)
        for packing in (False, True)
    )
    assert (plain.status, done.status) == ("ok", "ok")
    assert done.batch_order_hash == plain.batch_order_hash
    assert done.loss == pytest.approx(plain.loss, rel=1e-4)
    assert done.metric_value == plain.metric_value
    assert plain.padding_share > done.padding_share == 0.0
    rows = done.timed_steps * 8 / done.train_seconds
    assert done.samples_per_second == pytest.approx(rows)
    tokens = done.tokens_per_second * done.train_seconds
    assert tokens == pytest.approx(plain.tokens_per_second * plain.train_seconds)
    assert done.prediction_error == 0.0
    assert done.flops_per_step > 0


def test_operations_of_a_packed_step_are_those_that_each_step_has(llama):
    from peftmark.lab.measure.flop_counter import Operations

    job = job_of("lora", packing=True)
    build = tiny.builder(llama, job)
    step = Step(job, build.task, build.prepare(build.base()), CPU)
    counted = []
    for number in range(1, 11):
        with Operations(job) as operations:
            step(number, build.work.train(number - 1))
        counted.append(operations.total)
    done = recipe.run(job, llama, lambda _: None)
    assert done.flops_per_step == pytest.approx(sum(counted) / len(counted), rel=1e-9)


@pytest.mark.parametrize("changes", [{"attention": "eager"}, {"gradient_accumulation": 4}])
@pytest.mark.sweep(1)
def test_the_peak_of_packed_passes_is_predicted_as_it_is_measured(llama, changes):
    done = recipe.run(job_of("lora", packing=True, **changes), llama, lambda _: None)
    assert done.status == "ok"
    assert done.prediction_error == 0.0
    if "gradient_accumulation" in changes:
        assert (done.flops_per_step, done.mfu) == (None, None)
        assert "each packed pass" in done.null_reasons["flops_per_step"]


def test_a_model_that_leaks_is_refused_when_it_is_loaded(tmp_path, monkeypatch):
    sizes = {**tiny_causal.SIZES, "hidden_size": 64, "num_hidden_layers": 2}
    config = transformers.OPTConfig(
        num_attention_heads=4, ffn_dim=96, word_embed_proj_dim=64, max_position_embeddings=64,
        **sizes,
    )  # fmt: skip
    monkeypatch.setitem(tiny_causal.CONFIGS, "opt", lambda: config)
    tiny_causal.install(tmp_path / "mirror", monkeypatch, "opt")
    places = Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")
    with pytest.raises(Unsupported, match=r"type opt was not seen to keep.*packing: false"):
        tiny.base(places, job_of("lora", packing=True))

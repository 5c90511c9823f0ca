"""How a step is computed: padding to a multiple, which attention, and compiled layers."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from torch import nn

import tiny
from peftmark.catalog.tasks import TASKS
from peftmark.lab import after_training, recipe
from peftmark.lab import attention as attending
from peftmark.lab import compiled as compiling
from peftmark.lab.data.batches import Encoder, padded_length
from peftmark.lab.errors import Unsupported
from peftmark.lab.memory.fake_step import NotSymbolic, run
from peftmark.lab.scoring import outputs_of
from peftmark.lab.step import task_loss
from peftmark.record.outcome import Outcome
from peftmark.sources.assets import Places

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("longest", "pad_to", "most", "width"),
    [
        (17, None, 128, 17),
        (17, 8, 128, 24),
        (16, 8, 128, 16),
        (17, 64, 128, 64),
        (17, 16, 20, 20),  # no row may be longer, so no padding is
        (21, 16, 20, 21),  # a row that is longer all the same stays whole
    ],
)
def test_a_length_is_the_next_multiple_and_none_beyond_the_longest_row_there_may_be(
    longest, pad_to, most, width
):
    assert padded_length(longest, pad_to, most) == width


def test_parts_of_a_padded_batch_have_lengths_of_the_multiple_too():
    encoder = Encoder(tiny.tokenizer(), 40, torch.int64, 8)
    encoded = [
        {"input_ids": [2] * length, "attention_mask": [1] * length} for length in (3, 9, 17, 5)
    ]
    whole = encoder.batch(encoded, [0, 1, 0, 1])
    assert (whole.shape.tokens, whole.tokens) == (24, 34)
    assert [part.shape.tokens for part in whole.parts(2)] == [16, 24]
    plain = Encoder(tiny.tokenizer(), 40, torch.int64).batch(encoded, [0, 1, 0, 1])
    assert [part.shape.tokens for part in plain.parts(2)] == [9, 17]


def built(places, **changes):
    build = tiny.builder(places, tiny.job("lora", steps=8, **changes))
    model = build.prepare(build.base()).model
    return build, model


def losses(places, **changes):
    """Loss of every training batch and the outputs on the evaluation rows, nothing dropped out."""
    build, model = built(places, **changes)
    model.eval()
    with torch.inference_mode():
        of_steps = [
            float(task_loss(model, build.work.train(i), build.task, build.job, CPU))
            for i in range(8)
        ]
        outputs = [outputs_of(model, one, build.job, CPU) for one in build.work.eval.batches]
    return build.work, of_steps, torch.cat(outputs).numpy()


def test_padding_to_a_multiple_makes_lengths_few_and_moves_no_loss(places):
    work, plain, outputs = losses(places)
    padded, same, same_outputs = losses(places, pad_to=8)
    assert all(length % 8 == 0 for length in padded.longest)
    assert len(set(padded.longest)) < len(set(work.longest))
    assert padded.order == work.order
    assert padded.padding_share > work.padding_share
    shapes = {padded.train(i).shape.tokens for i in range(8)}
    assert shapes == set(padded.longest)
    assert all(one.shape.tokens % 8 == 0 for one in padded.eval.batches)
    np.testing.assert_allclose(same, plain, rtol=1e-5)
    np.testing.assert_allclose(same_outputs, outputs, atol=1e-5)


def test_both_ways_to_attend_give_one_loss(places):
    _, fused, outputs = losses(places, attention="sdpa")
    _, one_by_one, same_outputs = losses(places, attention="eager")
    _, by_itself, _ = losses(places)
    assert fused == by_itself
    np.testing.assert_allclose(one_by_one, fused, rtol=1e-5)
    np.testing.assert_allclose(same_outputs, outputs, atol=1e-5)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_model_attends_as_the_recipe_asks(places, attention):
    _, model = built(places, attention=attention)
    assert model.config._attn_implementation == attention


def test_a_model_without_fused_attention_says_so(tmp_path, monkeypatch):
    tiny.install(tmp_path / "mirror", monkeypatch, "deberta-v2")
    places = Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")
    with pytest.raises(Unsupported, match=r"has no fused attention.*attention: eager"):
        tiny.base(places, tiny.job("lora", attention="sdpa"))


class Made:
    """Stands in for a class of transformers'."""

    def __init__(self, flash):
        self._supports_flash_attn = flash


def flash_job(device="cuda"):
    return replace(tiny.job("lora", attention="flash"), device=device)


def test_flash_attention_is_transformers_own_where_its_package_is(monkeypatch):
    config = transformers.LlamaConfig()
    monkeypatch.setattr(attending, "find_spec", lambda name: object())
    found = attending.attention_settings(config, flash_job(), Made(True))
    assert found == {"attn_implementation": "flash_attention_2"}
    with pytest.raises(Unsupported, match="a model of type llama has no FlashAttention"):
        attending.attention_settings(config, flash_job(), Made(False))
    with pytest.raises(Unsupported, match="attention: flash needs a GPU"):
        attending.attention_settings(config, flash_job("cpu"), Made(True))
    monkeypatch.setattr(attending, "find_spec", lambda name: None)
    with pytest.raises(Unsupported, match="pip install flash-attn --no-build-isolation"):
        attending.attention_settings(config, flash_job(), Made(True))


def test_steps_of_flash_attention_are_not_predicted():
    with pytest.raises(NotSymbolic, match="kernels of others run on values alone"):
        run(flash_job(), TASKS["sst-2"], transformers.BertConfig(), [])


@pytest.mark.parametrize(
    ("recipe", "why"),
    [
        ({"attention": "flash"}, after_training.OF_FLASH),
        ({"packing": True, "gradient_accumulation": 2}, after_training.OF_PASSES),
        ({"packing": True}, None),
        ({"attention": "sdpa"}, None),
    ],
)
def test_operations_that_are_not_counted_are_null_with_the_reason(recipe, why):
    job = tiny.job("lora", **recipe)
    counted = Outcome(status="ok", flops_per_step=5.0, mfu=0.5)
    found = after_training._counted(counted, SimpleNamespace(job=job))
    assert (found.flops_per_step, found.mfu) == ((5.0, 0.5) if why is None else (None, None))
    assert found.null_reasons.get("flops_per_step") == why


@pytest.mark.parametrize("changes", [{"pad_to": 8}, {"attention": "eager"}])
def test_the_peak_of_such_steps_is_predicted_as_it_is_measured(outcome, changes):
    done = outcome(tiny.job("lora", steps=8, **changes))
    assert done.status == "ok"
    assert done.prediction_error == 0.0
    assert done.batch_lengths <= 8
    assert done.null_reasons["compile_seconds"] == "the recipe compiles no layers"


def test_of_repeated_layers_the_outermost_are_found():
    inner = [nn.Sequential(nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])) for _ in range(3)]
    mixed = nn.ModuleList([nn.Linear(2, 2), nn.LayerNorm(2)])
    empty = nn.ModuleList([nn.ReLU(), nn.ReLU()])
    model = nn.Sequential(nn.ModuleList(inner), mixed, empty)
    assert compiling.repeated_layers(model) == inner


@pytest.fixture
def traced(monkeypatch):
    """Layers are traced as for kernels, and run by torch's own: no C++ compiler is asked."""
    monkeypatch.setattr(compiling, "BACKEND", "aot_eager")
    yield
    torch.compiler.reset()


@pytest.mark.slow
def test_a_compiled_job_is_that_job_and_says_what_it_lacks(traced, outcome, places):
    plain = outcome(tiny.job("lora", steps=8))
    done = recipe.run(tiny.job("lora", steps=8, compile=True), places, lambda message: None)
    assert done.status == "ok"
    assert done.loss == pytest.approx(plain.loss, rel=1e-4)
    assert done.initial_weights_hash == plain.initial_weights_hash
    assert done.compile_seconds > 0
    assert 0 < done.compile_seconds <= done.phase_seconds["compile"]
    assert not [text for text in done.warnings if "compiled again" in text]
    assert done.flops_per_step == plain.flops_per_step
    assert (done.live_bytes, done.peak_memory_bytes, done.predicted_live_bytes) == (None,) * 3
    reason = "a compiled step keeps other tensors than one that is followed"
    assert done.null_reasons["live_activation_bytes"] == reason
    assert done.null_reasons["peak_memory_bytes"] == reason
    assert "can't" not in done.null_reasons["predicted_live_bytes"]


@pytest.fixture
def nothing_found():
    """torch keeps for good which C++ compiler it found, and an earlier test may have asked."""
    from torch._inductor import cpp_builder

    cpp_builder.cpp_compiler_search.cache_clear()
    yield
    cpp_builder.cpp_compiler_search.cache_clear()


def test_without_a_compiler_a_compiled_job_is_refused_with_the_remedy(
    places, monkeypatch, tmp_path, nothing_found
):
    monkeypatch.setenv("PATH", str(tmp_path))
    job = tiny.job("lora", steps=4, compile=True)
    with pytest.raises(Unsupported, match=r"needs a C\+\+ compiler.*compile: false"):
        recipe.run(job, places, lambda message: None)


def test_a_method_of_two_stages_is_not_compiled(places):
    job = tiny.job("two-stage", steps=20, compile=True)
    with pytest.raises(Unsupported, match="changes its layers in the middle of training"):
        recipe.run(job, places, lambda message: None)

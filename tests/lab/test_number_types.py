"""A base stored in fewer bits: what is fp32 all the same, what it costs, what it changes."""

from __future__ import annotations

import pytest
import torch

import tiny
import tiny_causal
from peftmark.catalog.methods import METHODS
from peftmark.lab import recipe
from peftmark.lab.models import anatomy
from peftmark.lab.number_types import raised
from peftmark.record.recipe import AdaLoraSchedule
from peftmark.sources.assets import Places

LOW = {"precision": "bf16", "weights": "bf16"}
LONG = {"two-stage": {"steps": 24, "adalora": AdaLoraSchedule(4, 2, 3, 1, 0.85, 0.85, 0.1)}}
BIG = ("hybrid",)  # needs more layers than the tiny model has
TRAINED = [
    key for key, m in METHODS.items() if m.freezes and m.trains and key not in BIG
]  # fmt: skip


def run(places, job):
    return recipe.run(job, places, lambda message: None)


def held_to_the_forecast(found):
    """Trained, saved and loaded again, and as many live bytes as predicted."""
    assert found.status == "ok" and found.reload_max_error < 1e-3
    if found.predicted_live_bytes is not None:
        assert found.live_bytes == found.predicted_live_bytes


SLOW = pytest.mark.slow


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    ["lora", "bitfit", *(pytest.param(m, marks=SLOW) for m in ("adalora", "diff-pruning", "head"))],
)
def test_a_base_in_bf16_takes_the_bytes_that_are_predicted(places, method):
    low, plain = (run(places, tiny.job(method, **one)) for one in (LOW, {"precision": "bf16"}))
    held_to_the_forecast(low)
    held_to_the_forecast(plain)
    stored = low.base_format["bfloat16"]
    assert low.base_format == {"bfloat16": stored, "float32": plain.base_format["float32"] - stored}
    trained = 0 if method != "bitfit" else plain.adapter_parameters  # biases of the base
    norms = sum(p.numel() for p in norm_biases(places)) if trained else 0
    frozen = plain.live_weight_bytes - low.live_weight_bytes
    assert frozen == 2 * (stored - (trained - norms))
    assert low.trainable_parameters == plain.trainable_parameters
    assert low.live_adapter_bytes == plain.live_adapter_bytes == 4 * low.trainable_parameters


def norm_biases(places):
    model = tiny.base(places, tiny.job("lora"))
    return [m.bias for m in model.modules() if isinstance(m, torch.nn.LayerNorm)]


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["none", "nf4", "int8", "int8-torchao", "int8-quanto"])
@pytest.mark.parametrize("method", TRAINED)
def test_every_method_sits_on_a_base_in_bf16(places, method, quantization):
    if quantization not in METHODS[method].quantizations:
        pytest.skip("the method takes no such base")
    held_to_the_forecast(
        run(places, tiny.job(method, quantization, **{**LOW, **LONG.get(method, {})}))
    )


@pytest.mark.slow
@pytest.mark.parametrize("quantization", ["none", pytest.param("nf4", marks=SLOW)])
def test_a_language_model_in_bf16(tmp_path, monkeypatch, request, quantization):
    tiny_causal.install(tmp_path / "mirror", monkeypatch)
    places = Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")
    found = run(places, tiny_causal.job("lora", quantization=quantization, **LOW))
    held_to_the_forecast(found)
    assert "float32" not in found.base_format  # its norms are of its own kind, and it has no head
    request.getfixturevalue("training_alone")
    again = run(places, tiny_causal.job("lora", quantization=quantization, **LOW))
    assert again.final_weights_hash == found.final_weights_hash


@pytest.mark.parametrize("architecture", ["bert", "roberta", "deberta-v2"])
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_the_head_is_the_one_an_fp32_base_gets(tmp_path, monkeypatch, architecture, quantization):
    tiny.install(tmp_path / "mirror", monkeypatch, architecture)
    places = Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")
    jobs = [tiny.job("lora", quantization, **one) for one in (LOW, {"precision": "bf16"})]
    folder = tmp_path / "mirror" / "models" / "tiny"
    low, plain = (tiny.base(places, job).state_dict() for job in jobs)
    fresh = anatomy(folder, tiny.task_of(jobs[0])).fresh
    heads = [name for name in plain if name.startswith(tuple(f"{one}." for one in fresh))]
    assert heads
    for name in heads:
        assert low[name].dtype == torch.float32 and torch.equal(low[name], plain[name]), name


def test_everything_that_trains_is_fp32(places):
    for method in ("lora", "bitfit", "unipelt", "adapter", "dora"):
        model = tiny.build(places, tiny.job(method, **LOW)).model
        types = {p.dtype for p in model.parameters() if p.requires_grad}
        assert types == {torch.float32}, method
        assert any(p.dtype == torch.bfloat16 for p in model.parameters()), method


@pytest.mark.slow
def test_a_merge_says_that_it_rounds(places):
    found = run(places, tiny.job("lora", **LOW))
    assert found.merge_target == "bf16 weights, rounded"
    plain = run(places, tiny.job("lora", precision="bf16"))
    assert plain.merge_target == "fp32 weights" and plain.merge_max_error < found.merge_max_error


def test_a_raised_model_is_itself_again_afterwards(places):
    model = tiny.build(places, tiny.job("lora", "nf4", **LOW)).model
    before = {name: (p.dtype, p.clone()) for name, p in model.state_dict().items()}
    with raised(model):
        low = [p for p in model.parameters() if p.dtype in (torch.bfloat16, torch.float16)]
        assert not low
    after = model.state_dict()
    assert all(
        after[n].dtype == kind and torch.equal(after[n], p) for n, (kind, p) in before.items()
    )


def test_bf16_linear_layers_give_the_same_first_loss_bit_for_bit(places):
    """Autocast rounds an fp32 weight to the bf16 that the other base holds."""
    losses = []
    for one in (LOW, {"precision": "bf16"}):
        job = tiny.job("head", **one)
        model, work = tiny.build(places, job).model.eval(), tiny.work(places, job)
        for name, module in model.named_modules():
            if "embeddings" in name and isinstance(module, torch.nn.Embedding):
                module.weight.data = module.weight.data.bfloat16().float()
        batch = work.train(0)
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
            losses.append(model(**batch.inputs).logits)
    assert torch.equal(*losses)


def test_a_step_in_fp16_scales_its_loss_and_leaves_out_what_overflows(places, training_alone):
    found = run(places, tiny.job("lora", precision="fp16", weights="fp16"))
    assert found.status == "ok" and found.base_format["float16"] > 0
    plain = run(places, tiny.job("lora", precision="fp32"))
    assert found.curve[0].loss == pytest.approx(plain.curve[0].loss, abs=0.02)
    # Unscaled, the largest gradient: it is clipped as an fp32 one is.
    assert found.curve[0].gradient_norm == pytest.approx(plain.curve[0].gradient_norm, rel=0.2)


def test_an_overflow_is_counted_and_changes_nothing(places, monkeypatch, training_alone):
    real = torch.amp.GradScaler
    monkeypatch.setattr(torch.amp, "GradScaler", lambda kind: real(kind, init_scale=2.0**60))
    job = tiny.job("adalora", precision="fp16", weights="fp16", steps=12)
    found = run(places, job)
    (told,) = [text for text in found.warnings if "left out" in text]
    assert told.endswith("of 12 steps were left out: their gradients overflowed fp16")
    assert int(told.split()[0]) == 12
    assert found.status == "invalid" and "no trainable weight changed" in found.status_reason

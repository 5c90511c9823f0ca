"""Steps without values against real ones, and what they refuse."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from itertools import product

import pytest
import torch
from torch import nn

import tiny
from peftmark.catalog.architectures import ARCHITECTURES
from peftmark.catalog.methods import METHODS
from peftmark.catalog.quantizations import QUANTIZATIONS
from peftmark.catalog.tasks import TASKS
from peftmark.lab.data.batches import Batch, Shape
from peftmark.lab.measure.probe import probe
from peftmark.lab.memory import fake_step
from peftmark.lab.memory.both_stages import predicted_peak
from peftmark.lab.memory.cuda_emulation import AsCuda
from peftmark.lab.memory.fake_step import NotSymbolic, run
from peftmark.lab.memory.live_tensors import LiveTensors
from peftmark.lab.memory.meta_model import blank, config_of
from peftmark.lab.memory.scaling import family
from peftmark.lab.models import anatomy_of
from peftmark.lab.step import Step, chunked_language_loss, language_loss, task_loss
from peftmark.machine.gpus import ALLOCATOR_BLOCK
from peftmark.record.job import Form
from peftmark.sources.assets import Places
from symbolic_jobs import LANGUAGE, LARGE, ONE_LAYER, SMALL, SMALL_LANGUAGE, job_for

CPU = torch.device("cpu")
TASK = TASKS["sst-2"]
_peaks = {}


def peak(job, form=None):
    """Of a step on the small model; each is taken once."""
    key = job.to_json(), form
    if key not in _peaks:
        _peaks[key] = run(job, TASK, config_of(SMALL, 2), [[Shape(8, 32)]], form).trace.peak()
    return _peaks[key]


# --- predicted and measured ---------------------------------------------------------------------

CELLS = [
    (m.key, q)
    for m in METHODS.values()
    for q in ("none", "nf4")
    if m.trains and q in m.quantizations
]
CELLS += [("lora", "int8"), ("lora", "fp4")]
CELLS += [(key, "int8-torchao") for key in ("head", "lora", "dora", "adalora", "bitfit", "ia3")]
CELLS += [("lora", "fp8-torchao")]
CELLS += [(key, "int4-quanto") for key in ("head", "lora", "dora", "adalora", "bitfit", "ia3")]
CELLS += [("lora", "int8-quanto"), ("lora", "fp8-quanto")]
# One of each kind of tuner; `make test-gpu` does them all.
KINDS = ("c3a", "delora", "hra", "ia3", "ln_tuning", "loha", "miss", "oft", "osf", "road", "vera")
CELLS += [(f"peft:{kind}", "none") for kind in KINDS]
# In `make test` each method once, the quantised base under some, and some of PEFT's tuners.
OFTEN = {
    ("lora", "nf4"),
    ("adalora", "nf4"),
    ("lora", "int8"),
    ("lora", "int8-torchao"),
}
OFTEN |= {("peft:ia3", "none"), ("peft:oft", "none"), ("peft:loha", "none")}
SELDOM = {"rslora", "olora", "eva", "corda", "lora-ga", "lora-plus", "p-tuning", "prompt-tuning"}
SELDOM |= {"bitfit-lora", "adapter-lora", "kasa", "milora", "init-b", "init-ab", "mica"}
SELDOM |= {"lily", "loft", "mora", "hira", "velora", "lora-fa", "pissa", "growing-lora"}
SELDOM |= {"riemannian-lora", "lora-by-rows", "lora-prefix", "adapter-ia3", "bitfit-distilled"}
"""Start, scale or step otherwise than `lora`, are like P-tuning v2 and prefix tuning, or put
together from two that are tried."""
VALUES = {"sensitive-layers", "sensitive-ranks", "peft:loha"}
"""Values decide what these do."""


@pytest.fixture
def built(tmp_path, monkeypatch):
    """Install the tiny model with so many layers."""

    def install(layers):
        monkeypatch.setitem(tiny.SMALL, "num_hidden_layers", layers)
        tiny.install(tmp_path / "mirror", monkeypatch)
        return Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")

    return install


SLOW = pytest.mark.slow


def cells():
    """Every cell of a model of three layers; those that are like another one only in
    `make test-all`, and often with one layer in `make test`."""
    for method, quantization in CELLS:
        ours = quantization == "none" and not method.startswith("peft:") and method not in SELDOM
        often = ours or (method, quantization) in OFTEN
        # The hybrid has three bands.
        whole = method == "hybrid" or (method, quantization) == ("lora", "none")
        yield pytest.param(method, quantization, 3, marks=() if often and whole else SLOW)
        if often and not whole:
            yield pytest.param(method, quantization, 1)


@pytest.mark.parametrize(("method", "quantization", "layers"), [*cells()], ids=str)
@pytest.mark.sweep(8)
def test_every_methods_peak_is_predicted_or_says_why_not(built, method, quantization, layers):
    if library := QUANTIZATIONS[quantization].imported:
        pytest.importorskip(library)
    wanted = tiny.job(method, quantization, precision="bf16")
    builder = tiny.builder(built(layers), wanted)
    try:
        prepared = builder.prepare(builder.base())
    except fake_step.Unsupported as error:
        pytest.skip(str(error))
    found = probe(wanted, TASKS[wanted.task], prepared, builder.work, CPU)
    if method in VALUES:
        with pytest.raises(NotSymbolic, match=r"by data|without values"):
            predicted_peak(builder, found)
        return
    assert predicted_peak(builder, found) == pytest.approx(found.live.total, rel=1e-3)


def steps():
    """Every combination; in `make test` those that hold every two of the settings together."""
    for checkpointing, precision, attention in product(
        (False, True), ("fp32", "bf16"), ("sdpa", "eager")
    ):
        odd = (checkpointing + (precision == "bf16") + (attention == "eager")) % 2
        marks = pytest.mark.slow if odd else ()
        yield pytest.param(checkpointing, precision, attention, marks=marks)


@pytest.mark.slow
@pytest.mark.parametrize(("checkpointing", "precision", "attention"), [*steps()])
def test_a_language_models_step_is_predicted(checkpointing, precision, attention):
    small = SMALL_LANGUAGE | {
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "intermediate_size": 96,
        "vocab_size": 300,
    }
    settings = {"precision": precision, "gradient_checkpointing": checkpointing}
    wanted = job_for("full", **settings, batch_size=6, gradient_accumulation=2)
    form = Form(attention=attention)
    config = config_of(small, 1)
    model = blank(config, "language", "fp32", attention).to_empty(device="cpu")
    for p in model.parameters():
        nn.init.normal_(p, std=0.02)
    for name, buffer in model.named_buffers():
        if "inv_freq" in name:
            buffer.fill_(0.1)
    model.requires_grad_(True)
    live = LiveTensors(model)
    prepared = fake_step.Prepared(model, None, None, None)
    step = Step(wanted, LANGUAGE, prepared, CPU, passes=live.start_pass)
    shape = Shape(3, 40, False)
    with live:
        for number in (1, 2):
            ids = torch.randint(0, 300, (6, shape.tokens))
            step(number, Batch({"input_ids": ids}, ids.clone(), ids.numel()))
            live.end_step()
    found = run(wanted, LANGUAGE, config_of(small, 1), [[shape, shape]] * 2, form).trace.peak()
    assert found.total == pytest.approx(live.peak().total, rel=1e-3)


@pytest.mark.slow
def test_the_states_made_beforehand_stand_for_a_first_step():
    for method in ("full", "lora", "adalora"):
        wanted = job_for(method)
        config = config_of(SMALL, 2)
        two = run(wanted, TASK, config, [[Shape(8, 32)]] * 2).trace.peak()
        assert peak(wanted).total == pytest.approx(two.total, rel=1e-3)


def test_nothing_is_left_behind_of_steps_without_values(built):
    """A real job of the same process has the same bits as before."""
    wanted, places = tiny.job("lora", "nf4"), built(1)
    before = tiny.build(places, wanted).model
    run(wanted, TASK, config_of(ONE_LAYER, 2), [[Shape(8, 32)]])
    after = tiny.build(places, wanted).model
    pairs = zip(before.parameters(), after.parameters(), strict=True)
    assert all(torch.equal(one, two) for one, two in pairs)
    assert nn.Module._apply is not fake_step._apply


def _slow(*values):
    """A case that is like another one: only in `make test-all`."""
    return pytest.param(*values, marks=pytest.mark.slow)


# Bytes of live tensors that two steps on an H100 showed (docs/memory.md, test_gpu_memory.py).
SIX_LAYERS = ARCHITECTURES["roberta-base"] | {"num_hidden_layers": 6}
ON_A_GPU = [
    ("full", "none", "bf16", Shape(32, 128), 1_944_093_080),
    _slow("full", "none", "fp32", Shape(16, 512, False), 3_643_016_392),
    _slow("lora", "none", "bf16", Shape(32, 128), 1_573_365_152),
    _slow("lora", "none", "bf16", Shape(8, 100), 644_419_168),
    _slow("lora", "none", "bf16", Shape(16, 512, False), 2_713_724_192),
    _slow("lora", "none", "fp32", Shape(32, 128), 2_099_388_736),
    _slow("lora", "none", "fp32", Shape(8, 100), 681_267_968),
    ("adalora", "nf4", "bf16", Shape(8, 100), 447_273_232),
]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "quantization", "precision", "shape", "live"), ON_A_GPU)
def test_a_gpus_step_is_predicted_as_it_was_seen(method, quantization, precision, shape, live):
    wanted = job_for(method, quantization, device="cuda", precision=precision)
    # 0.02 % too much in bf16 where rows are no multiple of eight tokens; why is open.
    exact = precision == "fp32" or shape.tokens % 8 == 0
    found = run(wanted, TASK, config_of(SIX_LAYERS, 2), [[shape]]).trace.peak().total
    assert found == pytest.approx(live, rel=1e-5 if exact else 3e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "quantization", "optimizer", "live"),
    [
        _slow("full", "none", "adamw", 67_383_656_962),
        ("lora", "none", "adamw", 29_938_902_024),
        _slow("lora", "nf4", "paged_adamw_8bit", 20_298_082_696),
    ],
)
def test_a_large_language_models_step_is_predicted_as_it_was_seen(
    method, quantization, optimizer, live
):
    low = {"precision": "bf16", "weights": "bf16"}
    wanted = job_for(method, quantization, device="cuda", optimizer=optimizer, **low)
    config = config_of(LARGE, 1)
    config.use_cache = False
    seen = run(wanted, LANGUAGE, config, [[Shape(2, 1024, False)]], Form(pure=True))
    assert seen.trace.peak().total == pytest.approx(live, rel=1e-5)


# --- what shapes a step -------------------------------------------------------------------------


@pytest.mark.slow
def test_checkpointing_quantization_and_eager_attention_move_the_right_components():
    plain = peak(job_for())
    saved = peak(job_for(gradient_checkpointing=True))
    assert saved.activations < 0.5 * plain.activations
    assert saved.weights == plain.weights
    four = peak(job_for(quantization="nf4"))
    linear = 3 * 64 * (4 * 64 + 2 * 128)
    assert plain.weights - four.weights == 4 * linear - linear // 2
    assert four.quantization > 0 == plain.quantization
    # On a CPU torch has no fused attention with dropout.
    whole = job_for("full", device="cuda")
    sdpa, eager = (peak(whole, form=Form(attention=kind)) for kind in ("sdpa", "eager"))
    assert eager.activations > sdpa.activations


def test_adalora_sits_on_four_bit_layers_as_peft_knows_them():
    wanted = job_for("adalora", "nf4")
    with fake_step._without_values(wanted):
        maker = fake_step._Maker(wanted, TASK, config_of(SMALL, 2), Form())
        found = {type(module).__name__ for module in maker.prepare().model.modules()}
    assert "SVDLinear4bit" in found and "SVDLinear" not in found


def test_four_bit_weights_are_stored_as_bitsandbytes_stores_them():
    """Half a byte a weight; a byte a block of 64, a float a block of 256 of those (QLoRA, 3)."""
    found = peak(job_for(quantization="nf4"))
    weights, layers = 3 * 64 * (4 * 64 + 2 * 128), 3 * 6
    constants = weights // 64 + sum(
        4 * -(-(n // 64) // 256) for n in [64 * 64] * 12 + [64 * 128] * 6
    )
    books = layers * 4 * (16 + 256 + 1)  # of 4 and of 8 bits, and an offset
    assert found.quantization == constants + books


@pytest.mark.slow
def test_a_gpus_step_keeps_masks_of_bytes_and_norms_in_fp32():
    wanted = job_for("full", precision="bf16")
    on_cpu, on_gpu = (peak(replace(wanted, device=device)) for device in ("cpu", "cuda"))
    assert on_gpu.activations < on_cpu.activations
    with torch.autocast("cpu", torch.bfloat16):
        low = torch.ones(2, 8, dtype=torch.bfloat16)
        assert nn.functional.layer_norm(low, (8,)).dtype == torch.bfloat16
        with AsCuda():
            assert nn.functional.layer_norm(low, (8,)).dtype == torch.float32
            assert low.softmax(-1).dtype == torch.float32


def test_paged_states_are_counted_apart():
    wide = ONE_LAYER | {"hidden_size": 512, "intermediate_size": 1024}
    plain, paged, unpaged = (
        run(
            job_for("full", device="cuda", optimizer=name),
            TASK,
            config_of(wide, 2),
            [[Shape(2, 8)]],
        )
        for name in ("adamw", "paged_adamw_8bit", "adamw_8bit")
    )
    large = sum(p.numel() for p in blank(config_of(wide, 2)).parameters() if p.numel() >= 100_000)
    assert plain.paged == unpaged.paged == 0
    assert paged.paged == 2 * large
    # States of 8 bits that stay on the device are in the peak.
    assert unpaged.trace.peak().optimizer == paged.trace.peak().optimizer + paged.paged
    rest = paged.trace.peak().optimizer
    assert rest < plain.trace.peak().optimizer - 8 * large + large


def test_int8_on_a_gpu_says_that_values_decide():
    with pytest.raises(NotSymbolic, match="int8_vectorwise_quant"):
        peak(job_for(quantization="int8", device="cuda"))


def test_a_method_that_chooses_by_data_says_so():
    with pytest.raises(NotSymbolic, match="chooses by data"):
        peak(job_for("sensitive-layers"))


# --- language models ----------------------------------------------------------------------------


def test_a_language_model_trains_no_head_and_quantises_none():
    parts = anatomy_of(blank(config_of(SMALL_LANGUAGE, 1), "language"))
    assert parts.head == () and parts.fresh == ()
    assert parts.head_linears == ("lm_head",)
    assert len(parts.encoder_linears) == 4 * 7


def test_the_loss_of_a_language_model_is_that_of_the_next_token():
    logits, labels = torch.randn(2, 5, 7), torch.randint(0, 7, (2, 5))
    by_hand = nn.functional.cross_entropy(logits[:, :-1].reshape(-1, 7), labels[:, 1:].reshape(-1))
    assert torch.allclose(language_loss(logits, labels), by_hand)


def test_a_loss_in_chunks_is_the_same_loss(monkeypatch):
    monkeypatch.setattr("peftmark.lab.step.CHUNK", 7)
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    config = config_of(SMALL_LANGUAGE | {"hidden_size": 64, "vocab_size": 50}, 1)
    model = AutoModelForCausalLM.from_config(config)
    ids = torch.randint(0, 50, (2, 10))
    batch, wanted = Batch({"input_ids": ids}, ids.clone(), 0), job_for(precision="fp32")
    grads = []
    for loss in (task_loss, chunked_language_loss):
        model.zero_grad()
        value = loss(model, batch, LANGUAGE, wanted, CPU)
        value.backward()
        grads.append([value, *(p.grad for p in model.parameters())])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*grads, strict=True))


# --- other sizes --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "quantization", "device"),
    [
        ("lora", "nf4", "cpu"),
        ("full", "none", "cuda"),
        _slow("lora", "nf4", "cuda"),
        _slow("full", "none", "cpu"),
        _slow("adalora", "none", "cpu"),
        _slow("adalora", "none", "cuda"),
    ],
)
def test_a_few_runs_tell_every_other_size(method, quantization, device):
    wanted = job_for(method, quantization, device=device, precision="bf16")

    @cache
    def trace(rows, tokens=64):
        return run(wanted, TASK, config_of(ONE_LAYER, 2), [[Shape(rows, tokens)]]).trace

    rows = family({n: trace(n) for n in (2, 3)})
    tokens = family({n: trace(4, n) for n in (64, 128, 192)})
    for n in (17,) if method == "lora" else (5,):
        assert rows.peak_at(n) == trace(n).peak()
        assert rows.total_at(n, ALLOCATOR_BLOCK) == trace(n).peak(ALLOCATOR_BLOCK).total
    assert tokens.total_at(320) == trace(4, 320).peak().total
    limit = rows.total_at(9, ALLOCATOR_BLOCK)
    assert rows.largest(limit, ALLOCATOR_BLOCK, 1, 100) == 9
    assert rows.largest(limit - 1, ALLOCATOR_BLOCK, 1, 100) == 8
    assert rows.largest(0, ALLOCATOR_BLOCK, 1, 100) == 0


def test_runs_of_other_programs_are_no_family():
    one, other = (
        run(job_for(method), TASK, config_of(ONE_LAYER, 2), [[Shape(rows, 8)]]).trace
        for method, rows in (("lora", 2), ("full", 3))
    )
    assert family({2: one, 3: other}) is None

"""Predictions of memory against a CUDA device: `make test-gpu`; with `-s` it prints what it saw."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn
from transformers.quantizers.auto import AutoHfQuantizer

from peftmark.catalog.tasks import TASKS
from peftmark.lab.data.batches import Batch, Shape
from peftmark.lab.determinism import ask_for_same_bits
from peftmark.lab.memory.fake_step import run
from peftmark.lab.memory.live_tensors import LiveTensors
from peftmark.lab.memory.meta_model import config_of
from peftmark.lab.methods import prepare
from peftmark.lab.models import anatomy_of, quantization_settings
from peftmark.lab.number_types import TYPES
from peftmark.lab.parameter_budget import Budgeted
from peftmark.lab.step import Step, chunked_language_loss, task_loss
from peftmark.machine.gpus import ALLOCATOR_BLOCK
from peftmark.record.job import Form
from symbolic_jobs import LANGUAGE, LARGE, SMALL_LANGUAGE, job_for

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
    pytest.mark.filterwarnings("ignore"),
]

WORKSPACES = 96 * 2**20
"""Most that cuBLAS and kernels may take besides tensors that operations return."""


def with_values(job, task, config, form):
    """The base of a job with random weights, on the GPU."""
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    language = task.kind == "language"
    maker = AutoModelForCausalLM if language else AutoModelForSequenceClassification
    kind = TYPES[job.recipe.weights]
    with torch.device("cuda"):
        model = maker.from_config(config, dtype=kind, attn_implementation=form.attention)
    settings = quantization_settings(job, anatomy_of(model))
    if settings:
        plain = {n: m.weight.data for n, m in model.named_modules() if isinstance(m, nn.Linear)}
        biases = {n: m.bias for n, m in model.named_modules() if isinstance(m, nn.Linear)}
        quantizer = AutoHfQuantizer.from_config(
            settings["quantization_config"], pre_quantized=False
        )
        quantizer.preprocess_model(model=model, device_map={"": "cuda"})
        quantizer.postprocess_model(model)
        for name, module in model.named_modules():
            if hasattr(module, "source_cls"):
                old = module.weight
                names = ("blocksize", "compress_statistics", "quant_type", "quant_storage")
                settings = {
                    n: getattr(old, n) for n in (*names, "has_fp16_weights") if hasattr(old, n)
                }
                if hasattr(old, "quant_type"):
                    settings["module"] = module
                new = type(old)(plain.pop(name).cpu(), requires_grad=False, **settings)
                module.weight = new.to("cuda")
                if module.bias is not None:
                    module.bias = biases[name]
    return model


def prepared_for(job, task, config, form, preview):
    torch.manual_seed(0)
    base = with_values(job, task, config, form)
    device = torch.device("cuda")
    setting = Budgeted(
        job=job,
        parts=anatomy_of(base),
        device=device,
        preview=preview,
        loss=lambda model, batch: task_loss(model, batch, task, job, device),
        fresh_base=None,
        plain_base=None,
        size=job.size,
    )
    made = prepare(base, setting)
    made.model.to(device)
    return made


def a_batch(shape, task, vocabulary):
    ids = torch.randint(5, vocabulary, (shape.rows, shape.tokens))
    inputs = {"input_ids": ids}
    if shape.padded:
        mask = torch.ones_like(ids)
        mask[:, -1] = 0
        mask[0, -1] = 1
        inputs["attention_mask"] = mask
    labels = ids if task.kind == "language" else torch.zeros(shape.rows, dtype=torch.long)
    return Batch(inputs, labels, 0)


def free():
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()


def steps(job, task, config, shape, form, live):
    """Two steps on the GPU: the live tensors that were seen, or torch's peak."""
    free()
    before = torch.cuda.memory_allocated()
    made = prepared_for(job, task, config, form, None)
    device = torch.device("cuda")
    loss = chunked_language_loss if form.fused_loss else None
    step = Step(job, task, made, device, loss)
    gc.collect()
    torch.cuda.reset_peak_memory_stats()

    def take(number):
        passes = job.recipe.gradient_accumulation
        for place in range(passes):
            if tensors is not None:
                tensors.start_pass()
            batch = a_batch(shape, task, config.vocab_size).to(device)
            step.gradients(number, batch, 1 / passes, place == passes - 1)
        step.update(number)

    tensors = LiveTensors(made.model) if live else None
    if tensors is not None:
        with tensors:
            for number in (1, 2):
                take(number)
                tensors.end_step()
        found = tensors.peak()
    else:
        for number in (1, 2):
            take(number)
        found = torch.cuda.max_memory_allocated() - before
    return found


def held_against_a_gpu(job, task, plain, classes, shape, form):
    def config():
        found = config_of(plain, classes)
        found.use_cache = False
        return found

    ask_for_same_bits(torch.device("cuda"))  # as the recipe
    try:
        live = steps(job, task, config(), shape, form, live=True)
        peak = steps(job, task, config(), shape, form, live=False)
        free()
    finally:
        torch.use_deterministic_algorithms(False)
    passes = [shape] * job.recipe.gradient_accumulation
    seen = run(job, task, config(), [passes, passes], form)
    told, rounded = seen.trace.peak(), seen.trace.peak(ALLOCATOR_BLOCK)
    print(
        f"\nlive {live.total:,} predicted {told.total:,} ({told.total / live.total - 1:+.4%}); "
        f"torch's peak {peak:,}, rounded {rounded.total:,}, over it {peak - rounded.total:,} "
        f"({peak / rounded.total - 1:+.3%}); paged {seen.paged:,}"
    )
    if told != live:
        print(f"  live      {live}\n  predicted {told}")
    return live, told, rounded, peak


ENCODER = {
    "model_type": "roberta",
    "vocab_size": 50_265,
    "hidden_size": 768,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "max_position_embeddings": 514,
    "type_vocab_size": 1,
    "pad_token_id": 1,
}


@pytest.mark.parametrize("shape", [Shape(32, 128), Shape(8, 100), Shape(16, 512, False)], ids=str)
@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize(
    ("method", "quantization", "changes"),
    [
        ("full", "none", {}),
        ("lora", "none", {}),
        ("lora", "nf4", {}),
        ("adalora", "none", {}),
        ("adalora", "nf4", {}),
        ("dora", "none", {}),
        ("head", "none", {}),
        ("full", "none", {"optimizer": "paged_adamw_8bit"}),
        ("lora", "none", {"gradient_checkpointing": True}),
    ],
    ids=lambda value: value if isinstance(value, str) else ",".join(value),
)
def test_an_encoders_step(method, quantization, changes, precision, shape):
    wanted = job_for(method, quantization, device="cuda", precision=precision, **changes)
    live, told, rounded, peak = held_against_a_gpu(
        wanted, TASKS["sst-2"], ENCODER, 2, shape, Form()
    )
    assert told.total == pytest.approx(live.total, rel=1e-3)
    assert rounded.total * 0.999 <= peak <= rounded.total + WORKSPACES


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("size", ["small", "7b"])
@pytest.mark.parametrize(
    ("method", "quantization", "optimizer"),
    [
        ("full", "none", "adamw"),
        ("lora", "none", "adamw"),
        ("lora", "nf4", "paged_adamw_8bit"),
        ("adalora", "nf4", "adamw"),
    ],
)
def test_a_language_models_step(method, quantization, optimizer, size, checkpointing, attention):
    if size == "7b" and attention == "eager":
        pytest.skip("one size is enough")
    free()
    plain = LARGE if size == "7b" else SMALL_LANGUAGE
    needed = 72e9 if method == "full" else 30e9
    if size == "7b" and torch.cuda.mem_get_info()[0] < needed:
        pytest.skip("the GPU is too small")
    wanted = job_for(
        method,
        quantization,
        device="cuda",
        precision="bf16",
        weights="bf16",
        optimizer=optimizer,
        gradient_checkpointing=checkpointing,
    )
    form = Form(attention=attention, pure=True)
    live, told, rounded, peak = held_against_a_gpu(
        wanted, LANGUAGE, plain, 1, Shape(2, 1024, False), form
    )
    assert told.total == pytest.approx(live.total, rel=1e-3)
    assert rounded.total * 0.999 <= peak <= rounded.total * 1.01 + WORKSPACES


def test_a_loss_in_chunks_and_added_up_gradients():
    low = {"precision": "bf16", "weights": "bf16", "gradient_accumulation": 2}
    wanted = job_for("lora", "nf4", device="cuda", **low)
    form = Form(fused_loss=True, pure=True)
    live, told, rounded, peak = held_against_a_gpu(
        wanted, LANGUAGE, SMALL_LANGUAGE, 1, Shape(2, 2048, False), form
    )
    assert told.total == pytest.approx(live.total, rel=1e-3)
    assert rounded.total * 0.999 <= peak <= rounded.total * 1.01 + WORKSPACES

"""The pretrained base, of an encoder with a fresh classifier, quantised where the cell says so."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (  # its own annotations are partial
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    GenerationConfig,
)

from peftmark.catalog.task import SPOKEN, Task, TaskKind
from peftmark.lab.rng import seed_all
from peftmark.record.job import Job


class Unsupported(Exception):
    """The cell can't run on this machine or with these library versions."""


@dataclass(frozen=True)
class Block:
    """One transformer layer's linear layers, by full module name.

    Attributes:
        name: the layer itself.
        attention_output: projects the heads' outputs back.
        ffn_in, ffn_out: first and second layer of the feed-forward block.
    """

    name: str
    query: str
    key: str
    value: str
    attention_output: str
    ffn_in: str
    ffn_out: str


@dataclass(frozen=True)
class Anatomy:
    """Where things are in an architecture, by full module name.

    Attributes:
        blocks: the transformer layers from the input up; empty for an architecture whose layers
            are not recognised.
        fresh: modules outside the pretrained base, whose weights the job's seed draws.
        head: modules that make the classification head, such as `classifier`.
        pooler: the pooler between encoder and head, None if the architecture has none.
        head_linears: linear layers of head and pooler, or the one that gives a language model's
            logits; they are never quantised.
        encoder_linears: every other linear layer: what an adapter may sit on.
    """

    head: tuple[str, ...]
    pooler: str | None
    head_linears: tuple[str, ...]
    encoder_linears: tuple[str, ...]
    blocks: tuple[Block, ...] = ()
    fresh: tuple[str, ...] = ()


def maker_of(kind: TaskKind) -> Any:
    """transformers' class that makes a model for a kind of task."""
    return AutoModelForCausalLM if kind in SPOKEN else AutoModelForSequenceClassification


def anatomy(folder: Path, task: Task) -> Anatomy:
    """Read the structure of the architecture from its config, on the meta device."""
    classes = max(1, len(task.labels))
    config = AutoConfig.from_pretrained(folder, num_labels=classes, local_files_only=True)
    with torch.device("meta"):
        model: nn.Module = maker_of(task.kind).from_config(config)
    return anatomy_of(model)


def anatomy_of(model: nn.Module) -> Anatomy:
    """Split a sequence classifier into encoder, pooler and head.

    The head is everything outside the base model that has parameters. Libraries find it by name
    and miss some: transformers quantises RoBERTa's `classifier.dense`, and PEFT leaves DeBERTa's
    fresh pooler frozen. A language model has no head in this sense: what gives its logits is
    pretrained, stays frozen and is never quantised.
    """
    base_name = str(getattr(model, "base_model_prefix", ""))
    speaks = any(child is _output(model) for child in model.children())
    head = [
        name
        for name, child in model.named_children()
        if name != base_name and not speaks and any(True for _ in child.parameters())
    ]
    fresh = tuple(head)
    pooler = f"{base_name}.pooler" if _has_parameters(model, f"{base_name}.pooler") else None
    tops = [*head, *([pooler] if pooler else [])]
    linears = [name for name, module in model.named_modules() if isinstance(module, nn.Linear)]

    def in_head(name: str) -> bool:
        if speaks and model.get_submodule(name) is _output(model):
            return True
        return any(name == top or name.startswith(f"{top}.") for top in tops)

    if "pooler" in head:  # DeBERTa keeps its pooler outside the base model
        head.remove("pooler")
        pooler = "pooler"
    return Anatomy(
        head=tuple(head),
        pooler=pooler,
        head_linears=tuple(name for name in linears if in_head(name)),
        encoder_linears=tuple(name for name in linears if not in_head(name)),
        blocks=_blocks(linears),
        fresh=fresh,
    )


def _output(model: Any) -> nn.Module | None:
    """The layer that gives a language model's logits; None for a classifier."""
    get = getattr(model, "get_output_embeddings", None)
    found: nn.Module | None = get() if get is not None else None
    return found


# What architectures call a layer's linear layers, below the layer's own name.
_BLOCK_NAMES = {
    "query": ("query", "query_proj", "q_lin", "q", "q_proj"),
    "key": ("key", "key_proj", "k_lin", "k", "k_proj"),
    "value": ("value", "value_proj", "v_lin", "v", "v_proj"),
    "attention_output": ("attention.output.dense", "out_lin", "o", "o_proj"),
    "ffn_in": ("intermediate.dense", "lin1", "up_proj"),
    "ffn_out": ("output.dense", "lin2", "down_proj"),
}  # fmt: skip


def _blocks(linears: Sequence[str]) -> tuple[Block, ...]:
    """The transformer layers, found by the names that models use; none if any is unknown."""
    found: dict[str, dict[str, str]] = {}
    for linear in linears:
        match = re.fullmatch(r"(.*\.layers?\.\d+)\.(.*)", linear)
        if match is None:
            continue
        for part, names in _BLOCK_NAMES.items():
            if any(f".{match[2]}".endswith(f".{name}") for name in names):
                found.setdefault(match[1], {}).setdefault(part, linear)
                break
    if any(len(parts) != len(_BLOCK_NAMES) for parts in found.values()):
        return ()
    return tuple(Block(name, **parts) for name, parts in found.items())


def _has_parameters(model: nn.Module, name: str) -> bool:
    try:
        module = model.get_submodule(name)
    except AttributeError:
        return False
    return any(True for _ in module.parameters())


def trained_head(parts: Anatomy, train_pooler: bool) -> list[str]:
    """Names of the head modules that train."""
    pooler = [parts.pooler] if parts.pooler and train_pooler else []
    return [*parts.head, *pooler]


def load_tokenizer(folder: Path) -> Any:
    """The model's fast tokenizer."""
    return AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True)


def load_model(
    folder: Path, job: Job, task: Task, parts: Anatomy, quantised: bool = False
) -> nn.Module:
    """Load the base, of an encoder with a classifier drawn from the job's `head` stream.

    Weights are loaded as fp32 and bf16 is autocast, for every method alike. A quantised base keeps
    head and pooler in fp32 and its embeddings and norms in fp32.

    Args:
        quantised: the folder holds the quantised base already.

    Raises:
        Unsupported: if the quantization can't run here.
    """
    seed_all(job.seed, "head")
    model: nn.Module = maker_of(task.kind).from_pretrained(
        folder,
        config=config_for(folder, job, max(1, len(task.labels))),
        dtype=torch.float32,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        # For every cell alike: it decides which generator the fresh head is drawn from.
        device_map={"": job.device},
        **({} if quantised else quantization_settings(job, parts)),
    )
    if task.kind in SPOKEN:
        # Answers are written as the job says, whatever habits lie beside the weights.
        made: Any = model
        made.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    module: Any
    for module in model.modules():
        # On a CPU with AVX512-BF16, bitsandbytes repacks 4-bit weights in place at the first
        # evaluation, after which they can no longer train.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


# Where architectures keep the dropout before the classifier.
_HEAD_DROPOUT = {
    "bert": "classifier_dropout",
    "roberta": "classifier_dropout",
    "distilbert": "seq_classif_dropout",
    "deberta-v2": "cls_dropout",
}


def config_for(folder: Path, job: Job, classes: int) -> Any:
    """The model's configuration for a number of classes, with the job's dropout of the head.

    Raises:
        Unsupported: if the architecture keeps that dropout somewhere unknown.
    """
    config = AutoConfig.from_pretrained(folder, num_labels=classes, local_files_only=True)
    if job.causal is not None:
        # What goes on from keys and values asks for them; in training they would only be kept.
        config.use_cache = False
    if job.recipe.head_dropout is not None:
        if config.model_type not in _HEAD_DROPOUT:
            raise Unsupported(f"head_dropout can't be set for a model of type {config.model_type}")
        setattr(config, _HEAD_DROPOUT[config.model_type], job.recipe.head_dropout)
    return config


@contextmanager
def quantization_clock(device: torch.device) -> Iterator[list[float]]:
    """Collect the seconds that bitsandbytes spends on quantising weights inside.

    transformers reads and quantises tensor by tensor, so the two can't be told apart from outside.
    """
    spent: list[float] = []
    try:
        import bitsandbytes
    except Exception:  # loading the model says so
        yield spent
        return
    layers: Any = bitsandbytes.nn
    classes: list[Any] = [layers.Params4bit, layers.Int8Params]
    plain = [kind._quantize for kind in classes]

    def timed(quantize: Any) -> Any:
        def call(*arguments: Any) -> Any:
            start = time.perf_counter()
            result = quantize(*arguments)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            spent.append(time.perf_counter() - start)
            return result

        return call

    for kind, quantize in zip(classes, plain, strict=True):
        kind._quantize = timed(quantize)
    try:
        yield spent
    finally:
        for kind, quantize in zip(classes, plain, strict=True):
            kind._quantize = quantize


def quantization_settings(job: Job, parts: Anatomy) -> dict[str, Any]:
    """How transformers is told to quantise a base; nothing for a base that isn't quantised.

    Raises:
        Unsupported: if bitsandbytes can't be loaded.
    """
    if job.quantization == "none":
        return {}
    try:
        import bitsandbytes  # noqa: F401
    except Exception as error:  # its native library can fail in many ways
        raise Unsupported(f"bitsandbytes can't be loaded: {error}") from error
    skip = list(parts.head_linears)
    make: Any = BitsAndBytesConfig
    if job.quantization == "int8":
        config = make(load_in_8bit=True, llm_int8_skip_modules=skip)
    else:
        config = make(
            load_in_4bit=True,
            bnb_4bit_quant_type=job.quantization,
            bnb_4bit_use_double_quant=bool(job.recipe.double_quantization),
            bnb_4bit_compute_dtype=(
                torch.bfloat16 if job.recipe.precision == "bf16" else torch.float32
            ),
            llm_int8_skip_modules=skip,
        )
    return {"quantization_config": config}


def _names_of(*parts: str) -> tuple[str, ...]:
    return tuple(name for part in parts for name in _BLOCK_NAMES[part])


def adapter_targets(job: Job, parts: Anatomy) -> list[str]:
    """Full names of the modules that get an adapter.

    Raises:
        Unsupported: if the recipe's targets match nothing in this architecture.
    """
    wanted = job.recipe.targets
    if wanted == "all-linear" and parts.encoder_linears:
        return list(parts.encoder_linears)
    suffixes = {
        "query-value": _names_of("query", "value"),
        "attention": (
            *_names_of("query", "key", "value"),
            "attention.output.dense",
            "out_lin",
            "attn.o",
            "o_proj",
        ),
    }.get(str(wanted), wanted)
    found = [
        name
        for name in parts.encoder_linears
        if any(name == s or name.endswith(f".{s}") for s in suffixes or ())
    ]
    if not found:
        raise Unsupported(f"targets {wanted!r} match no linear layer of {job.model}")
    return found

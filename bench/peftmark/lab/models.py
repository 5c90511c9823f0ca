"""The pretrained base, of an encoder with a fresh classifier, quantised where the cell says so."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (  # its own annotations are partial
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
)

from peftmark.catalog.layer_names import Part, endings, ends_with, head_dropout, part_of
from peftmark.catalog.task import SPOKEN, Task, TaskKind
from peftmark.lab.errors import Unsupported as Unsupported  # as most of lab knows it
from peftmark.lab.own_weights import as_loaded, own_settings
from peftmark.lab.quantization.table import backend_of
from peftmark.lab.rng import seed_all
from peftmark.record.job import Job


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


def _blocks(linears: Sequence[str]) -> tuple[Block, ...]:
    """The transformer layers, found by the names that models use; none if any is unknown."""
    parts = [field.name for field in fields(Block) if field.name != "name"]
    found: dict[str, dict[str, str]] = {}
    for linear in linears:
        match = re.fullmatch(r"(.*\.layers?\.\d+)\.(.*)", linear)
        part = part_of(match[2], lab=True) if match is not None else None
        if match is not None and part in parts:
            found.setdefault(match[1], {}).setdefault(part, linear)
    if any(len(named) != len(parts) for named in found.values()):
        return ()
    return tuple(Block(name, **named) for name, named in found.items())


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
        Unsupported: if the quantization can't run here, or the user's own weights are others than
            the model's class has.
    """
    seed_all(job.seed, "head")
    found = maker_of(task.kind).from_pretrained(
        folder,
        config=config_for(folder, job, max(1, len(task.labels))),
        dtype=torch.float32,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        # For every cell alike: it decides which generator the fresh head is drawn from.
        device_map={"": job.device},
        **({} if quantised else quantization_settings(job, parts)),
        **own_settings(job),
    )
    model: nn.Module = as_loaded(found, job, parts.fresh, parts.pooler)
    if task.kind in SPOKEN:
        # Answers are written as the job says, whatever habits lie beside the weights.
        made: Any = model
        made.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    backend_of(job.quantization).loaded(model)
    return model


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
        setting = head_dropout(config.model_type)
        if not setting:
            raise Unsupported(f"head_dropout can't be set for a model of type {config.model_type}")
        setattr(config, setting, job.recipe.head_dropout)
    return config


def quantization_settings(job: Job, parts: Anatomy) -> dict[str, Any]:
    """How transformers is told to quantise a base; nothing for a base that isn't quantised.

    Raises:
        Unsupported: if there is no such quantization, or its library can't be loaded.
    """
    config = backend_of(job.quantization).config(job, parts.head_linears)
    return {} if config is None else {"quantization_config": config}


TARGETS: Mapping[str, tuple[Part, ...]] = {
    "query-value": ("query", "value"),
    "attention": ("query", "key", "value", "attention_output"),
}
"""A recipe's word for targets -> what gets an adapter."""


def adapter_targets(job: Job, parts: Anatomy) -> list[str]:
    """Full names of the modules that get an adapter.

    Raises:
        Unsupported: if the recipe's targets match nothing in this architecture.
    """
    wanted = job.recipe.targets
    if wanted == "all-linear" and parts.encoder_linears:
        return list(parts.encoder_linears)
    if isinstance(wanted, str):
        suffixes = tuple(e for part in TARGETS.get(wanted, ()) for e in endings(part, lab=True))
    else:
        suffixes = wanted or ()
    found = [name for name in parts.encoder_linears if ends_with(name, suffixes)]
    if not found:
        raise Unsupported(f"targets {wanted!r} match no linear layer of {job.model}")
    return found

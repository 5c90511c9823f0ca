"""The pretrained base, of an encoder with a fresh classifier, quantised where the cell says so."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
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
from transformers.pytorch_utils import Conv1D

from peftmark.catalog.layer_names import (
    Part,
    endings,
    ends_with,
    head_dropout,
    part_of,
)
from peftmark.catalog.packing import model_fault
from peftmark.catalog.task import SPOKEN, Task, TaskKind
from peftmark.lab.attention import attend_in_one_type, attention_settings
from peftmark.lab.errors import Unsupported as Unsupported  # as most of lab knows it
from peftmark.lab.kernels import run_on_kernels
from peftmark.lab.last_token import is_encoder, padding_in, read_last_token
from peftmark.lab.number_types import TYPES
from peftmark.lab.own_weights import as_loaded, own_settings
from peftmark.lab.quantization.stored import (
    as_stored,
    compute_as,
    is_stored,
    left_whole,
    packed_of,
    stays_whole,
    unpack,
    unpack_all,
)
from peftmark.lab.quantization.table import backend_of, is_quantised
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

    A linear layer is a `nn.Linear` or GPT-2's `Conv1D`, which is the same with its weights turned.

    Attributes:
        blocks: the transformer layers from the input up; empty for an architecture whose layers
            are not recognised.
        fresh: modules outside the pretrained base, whose weights the job's seed draws.
        head: modules that make the classification head, such as `classifier`.
        pooler: the pooler between encoder and head, None if the architecture has none.
        head_linears: linear layers of head and pooler, or the one that gives a language model's
            logits; they are never quantised.
        encoder_linears: every other linear layer: what an adapter may sit on.
        turned: whether their weights have the shape (in, out), as those of `Conv1D`.
        uses: layers that run on one stored layer: more than one where layers share their weights.
        padding: the token that a decoder which classifies finds the end of a row by; None for other
            models, and for one that has no such token.
    """

    head: tuple[str, ...]
    pooler: str | None
    head_linears: tuple[str, ...]
    encoder_linears: tuple[str, ...]
    blocks: tuple[Block, ...] = ()
    fresh: tuple[str, ...] = ()
    turned: bool = False
    uses: int = 1
    padding: int | None = None


def maker_of(kind: TaskKind) -> Any:
    """transformers' class that makes a model for a kind of task."""
    return AutoModelForCausalLM if kind in SPOKEN else AutoModelForSequenceClassification


def check_class(config: Any, kind: TaskKind) -> None:
    """
    Raises:
        Unsupported: if transformers has no class for a kind of task and an architecture, or the
            class sees what it is to predict.
    """
    name = config.model_type
    if type(config) not in maker_of(kind)._model_mapping:
        what = "language model" if kind in SPOKEN else "sequence classifier"
        raise Unsupported(f"transformers has no {what} of type {name}")
    if kind in SPOKEN and is_encoder(config) and not getattr(config, "is_decoder", True):
        raise Unsupported(
            f"a model of type {name} reads in both directions and would see the text it is to "
            "predict (its config has is_decoder: false); use it as a sequence classifier"
        )


def anatomy(folder: Path, task: Task) -> Anatomy:
    """Read the structure of the architecture from its config, on the meta device.

    Raises:
        Unsupported: see `check_class`.
    """
    classes = max(1, len(task.labels))
    config = AutoConfig.from_pretrained(folder, num_labels=classes, local_files_only=True)
    check_class(config, task.kind)
    with torch.device("meta"):
        model: nn.Module = maker_of(task.kind).from_config(config)
    padding = None if task.kind in SPOKEN else padding_in(folder, config)
    return replace(anatomy_of(model), padding=padding)


def anatomy_of(model: nn.Module) -> Anatomy:
    """Split a sequence classifier into encoder, pooler and head.

    The head is everything outside the base model that has parameters. Libraries find it by name
    and miss some: transformers quantises RoBERTa's `classifier.dense`, and PEFT leaves DeBERTa's
    fresh pooler frozen. A language model has no head in this sense: what gives its logits is
    pretrained, stays frozen and is never quantised.
    """
    base_name = str(getattr(model, "base_model_prefix", ""))
    outside = [
        name
        for name, child in model.named_children()
        if name != base_name and any(True for _ in child.parameters())
    ]
    head = [] if _speaks(model) else outside
    fresh = tuple(head)
    pooler = f"{base_name}.pooler" if _has_parameters(model, f"{base_name}.pooler") else None
    tops = [*outside, *([pooler] if pooler else [])]
    layers = {name: module for name, module in model.named_modules() if is_linear(module)}

    def in_head(name: str) -> bool:
        return any(name == top or name.startswith(f"{top}.") for top in tops)

    if "pooler" in head:  # DeBERTa keeps its pooler outside the base model
        head.remove("pooler")
        pooler = "pooler"
    inside = tuple(name for name in layers if not in_head(name))
    return Anatomy(
        head=tuple(head),
        pooler=pooler,
        head_linears=tuple(name for name in layers if in_head(name)),
        encoder_linears=inside,
        blocks=_blocks(list(layers)),
        fresh=fresh,
        turned=any(isinstance(layers[name], Conv1D) for name in inside),
        uses=_uses(model),
    )


def is_linear(module: nn.Module) -> bool:
    """Whether a module multiplies by a matrix: a linear layer, or GPT-2's `Conv1D`."""
    return isinstance(module, nn.Linear | Conv1D)


def _uses(model: Any) -> int:
    """Layers that run on one stored layer; ALBERT says how many groups of layers it stores."""
    groups: int = getattr(model.config, "num_hidden_groups", 0)
    return int(model.config.num_hidden_layers) // groups if groups else 1


def _speaks(model: Any) -> bool:
    """Whether it is a language model, which has a layer that gives its logits."""
    get = getattr(model, "get_output_embeddings", None)
    return get is not None and get() is not None


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


def outside(parts: Anatomy) -> tuple[str, ...]:
    """Modules that are fp32 whatever type the base is stored in: head and pooler."""
    return (*parts.fresh, *([parts.pooler] if parts.pooler else []))


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

    Weights are loaded in the recipe's type, for every method alike; head and pooler are fp32
    whatever it is, and of a quantised base its embeddings and norms are of that type.

    Args:
        quantised: the folder holds the quantised base already.

    Raises:
        Unsupported: if the quantization can't run here or leaves layers as they are, or the
            user's own weights are others than the model's class has, or it can't attend as asked.
    """
    if is_stored(job) and job.quantization == "none":
        plain: nn.Module = unpack_all(load_model(folder, as_stored(job), task, parts))
        return plain
    config = config_for(folder, job, max(1, len(task.labels)))
    if job.recipe.packing and (fault := model_fault(config.model_type)):
        raise Unsupported(fault)
    made = maker_of(task.kind)._model_mapping.get(type(config), None)
    whole: Sequence[str] = ()
    if is_stored(job):
        prefix, quantised = made.base_model_prefix, True
        whole = left_whole(config, prefix) or ()
        packed = packed_of(parts.head_linears, folder)
        compute_as(config, job, prefix, set(parts.head_linears) - set(packed))
    seed_all(job.seed, "head")
    found = maker_of(task.kind).from_pretrained(
        folder,
        config=config,
        dtype=TYPES[job.recipe.weights],
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        # For every cell alike: it decides which generator the fresh head is drawn from.
        device_map={"": str(torch.device(job.loads_on))},
        **({} if quantised else quantization_settings(job, parts)),
        **own_settings(job),
        **attention_settings(config, job, made),
    )
    if is_stored(job):
        unpack(found[0], parts.head_linears)
    model: nn.Module = as_loaded(found, job, parts.fresh, parts.pooler)
    if task.kind in SPOKEN:
        # Answers are written as the job says, whatever habits lie beside the weights.
        spoken: Any = model
        spoken.generation_config = GenerationConfig()  # type: ignore[no-untyped-call]
    else:
        read_last_token(model, parts.padding)
    check_quantised(model, job, parts, whole)
    attend_in_one_type(model, job)
    backend_of(job.quantization).loaded(model)
    run_on_kernels(model, job)
    return model


def check_quantised(model: nn.Module, job: Job, parts: Anatomy, left: Sequence[str] = ()) -> None:
    """
    Args:
        left: names of modules that files which are quantised already leave as they are.

    Raises:
        Unsupported: if layers that were to be quantised are as they were.
    """
    if job.quantization == "none":
        return
    layers = {n: model.get_submodule(n) for n in parts.encoder_linears if not stays_whole(n, left)}
    whole = [m for m in layers.values() if not any(map(is_quantised, m.parameters(recurse=False)))]
    if whole:
        # A prediction is asked for without the model's name.
        named = job.model or getattr(model.config, "model_type", "the model")
        if is_stored(job):
            raise Unsupported(
                f"{len(whole)} of the {len(layers)} linear layers of {named} are whole in its "
                "files, and llm_int8_skip_modules of its quantization_config doesn't name them; "
                "save the model again, or use the one that it was made of"
            )
        raise Unsupported(
            f"transformers leaves {len(whole)} of the {len(layers)} linear layers of {named} "
            f"as they are with quantization {job.quantization} ({type(whole[0]).__name__} is no "
            "plain linear layer); use quantization: none"
        )


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


def quantization_settings(job: Job, parts: Anatomy, left: Sequence[str] = ()) -> dict[str, Any]:
    """How transformers is told to quantise a base; nothing for a base that isn't quantised.

    Args:
        left: names of further modules that stay whole.

    Raises:
        Unsupported: if there is no such quantization, or its library can't be loaded.
    """
    config = backend_of(job.quantization).config(job, [*parts.head_linears, *left])
    return {} if config is None else {"quantization_config": config}


TARGETS: Mapping[str, tuple[Part, ...]] = {
    "query-value": ("query", "value"),
    "attention": ("query", "key", "value", "attention_output"),
}
"""A recipe's word for targets -> what gets an adapter."""

_FUSED: Part = "query_key_value"


def adapter_targets(job: Job, parts: Anatomy) -> list[str]:
    """Full names of the modules that get an adapter.

    Where query, key and value are one layer, that layer stands for each of them.

    Raises:
        Unsupported: if the recipe's targets match nothing in this architecture.
    """
    wanted = job.recipe.targets
    if wanted == "all-linear" and parts.encoder_linears:
        return list(parts.encoder_linears)
    if isinstance(wanted, str):
        named = TARGETS.get(wanted, ())
        fused = (_FUSED,) if "query" in named and _is_fused(parts) else ()
        suffixes = tuple(e for part in (*named, *fused) for e in endings(part))
    else:
        suffixes = wanted or ()
    found = [name for name in parts.encoder_linears if ends_with(name, suffixes)]
    if not found:
        raise Unsupported(f"targets {wanted!r} match no linear layer of {job.model}")
    return found


def _is_fused(parts: Anatomy) -> bool:
    """Whether query, key and value are one layer in this architecture."""
    return any(ends_with(name, endings(_FUSED)) for name in parts.encoder_linears)


def target_notes(job: Job, parts: Anatomy) -> list[str]:
    """What the recipe's targets mean in this architecture, where it isn't what they say."""
    notes = []
    if job.recipe.targets == "query-value" and _is_fused(parts):
        notes.append(
            "query and value are one layer in this architecture: query, key and value are adapted"
        )
    if job.recipe.targets is not None and parts.uses > 1:
        notes.append(
            f"{parts.uses} layers share one set of weights in this architecture: an adapter is "
            "there once, is counted once and serves all of them"
        )
    return notes

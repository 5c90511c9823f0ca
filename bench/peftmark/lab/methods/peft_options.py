"""The config of a PEFT tuner, from its defaults, the suite's options and the base.

Options are any names of the type's config class, except those that the job decides and those that
name files, models or code.
"""

from __future__ import annotations

import difflib
import math
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any

import torch
from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from torch import nn

from peftmark.catalog.peft_types import DIVISOR, SEEN, PeftType
from peftmark.lab.methods import Setting
from peftmark.lab.methods.prompts import of_keys, task_type, width
from peftmark.lab.models import Unsupported, adapter_targets

SEEN_BATCHES = 10

_OURS = {f.name for f in fields(PeftConfig)} | {
    "modules_to_save",
    "total_step",
    "token_dim",
    "num_transformer_submodules",
    "num_attention_heads",
    "num_layers",
    "num_tasks",
    "n_tasks",
}
"""Options that follow from the job."""

_FROM_FILES = re.compile(r".*(_path|_config|_text|_kwargs|_core)|adapters|shadow_model")
"""Options that name files, modules or models, or need objects that a suite can't write."""

PREFIXES = ("prefix_tuning", "cartridge")
"""Types that give trained keys and values, which are as wide as hidden states."""

_ALPHAS = {"alpha", "lora_alpha", "psoft_alpha", "randlora_alpha"}
"""Options that the rank divides to give the update's scale."""

_OWN_METHODS = {
    "pissa": "pissa",
    "olora": "olora",
    "eva": "eva",
    "corda": "corda",
    "loftq": "loftq",
    "lora_ga": "lora-ga",
}


def config_of(kind: PeftType, model: Any, setting: Setting, head: Sequence[str]) -> Any:
    """The type's config, filled in.

    Args:
        head: names of the modules that make the classification head.

    Raises:
        Unsupported: for options that can't be.
    """
    job = setting.job
    classes: dict[str, Any] = {k.value.lower(): v for k, v in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    make = classes[kind.key]
    known: dict[str, Any] = {f.name: f.default for f in fields(make)}
    given: dict[str, Any] = job.recipe.options
    for name, value in given.items():
        if fault := _option_fault(kind, name, value, sorted(known), setting):
            raise Unsupported(f"option {name} of {job.method}: {fault}")
    options = kind.defaults | given
    if kind.size and setting.size is not None:
        options[kind.size] = setting.size
        for name in _ALPHAS & known.keys() - given.keys():
            # At another rank PEFT's fixed alpha would be another scale.
            if known[name] is not None:
                options[name] = known[name] * setting.size / known[kind.size]
    if "target_modules" in known and "target_modules" not in given:
        options |= _targets(kind, model, setting)
    if "fan_in_fan_out" in known and setting.parts.turned and job.quantization == "none":
        options["fan_in_fan_out"] = True
    targets = options.get("target_modules") or []
    for name, value in options.items():
        if value == DIVISOR:
            options[name] = _divisor(model, targets, known[name])
        elif value == SEEN:
            options[name] = _seen(setting)
        elif isinstance(value, str) and re.fullmatch(r"\d{1,2}(\.\d+)?%", value):
            options[name] = max(1, round(float(value[:-1]) / 100 * job.recipe.steps))
    if kind.where == "input":
        options |= {  # PEFT knows these by fewer names than architectures use
            "token_dim": width(model),
            "num_attention_heads": model.config.num_attention_heads,
            "num_layers": model.config.num_hidden_layers,
        }
    if kind.key in PREFIXES:
        options |= of_keys(model)
    if kind.where == "input" or kind.key == "poly":
        options["task_type"] = task_type(job)  # for the forward pass with the prompt or the task
        options["modules_to_save"] = list(head) or None
    elif "modules_to_save" in known:
        # PEFT can't merge beside a saved module that has no weight of its own, such as a pooler.
        options["modules_to_save"] = _leaves(model, head)
    with quiet(), peft_says(kind, "refuses its options"):
        if kind.key == "adalora":
            final = options.setdefault("target_r", known["target_r"])
            options.setdefault("init_r", max(final + 1, round(1.5 * final)))
            options["total_step"] = job.recipe.steps
        if kind.key == "adamss":  # the last pruning must reach the target
            options["final_warmup"] -= options["final_warmup"] % options["mask_interval"]
        if kind.key == "hra" and options.get("r", known["r"]) % 2:
            raise ValueError("with an odd r it does not start as the base; r must be even")
        return make(**options)


def _option_fault(
    kind: PeftType, name: str, value: Any, known: list[str], setting: Setting
) -> str | None:
    """Why an option of the suite can't be; None if it can."""
    free = [n for n in known if n not in _OURS and not _FROM_FILES.fullmatch(n)]
    if name not in known:
        near = difflib.get_close_matches(name, free, n=3)
        return f"{kind.title} has none of that name; " + (
            f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(free)}"
        )
    if name in _OURS:
        return "it follows from the job; remove it"
    if _FROM_FILES.fullmatch(name):
        return "it can name files, models or code, which a suite can't set here; remove it"
    if name == "target_modules" and kind.where == "recipe":
        return "set targets in the recipe instead"
    if name == kind.size and setting.size is not None:
        return "the cell's size sets it; remove one of the two"
    if name == "prompt_tuning_init" and value == "TEXT":
        return "PEFT would load a tokenizer for it; use RANDOM or SAMPLE_VOCAB"
    if (kind.key, name) == ("adalora", "r"):
        return "PEFT ignores it; the rank is target_r"
    if name == "init_lora_weights" and isinstance(value, str):
        for start, method in _OWN_METHODS.items():
            if value.startswith(start):
                return f"use the method {method}, which gives it what it needs"
    return None if _plain(value) else "only numbers, words, lists and mappings"


def _plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str) and _plain(v) for k, v in value.items())
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _targets(kind: PeftType, model: Any, setting: Setting) -> dict[str, Any]:
    """The modules that a type sits on, as options."""
    if kind.where == "recipe":
        return {"target_modules": adapter_targets(setting.job, setting.parts)}
    blocks = setting.parts.blocks
    if kind.where == "norms":
        tops = (*setting.parts.head, *([setting.parts.pooler] if setting.parts.pooler else []))
        norms = [
            name
            for name, module in model.named_modules()
            if type(module).__name__.endswith("Norm") and not name.startswith(tops)
        ]
        return {"target_modules": norms}
    if kind.where == "embeddings":
        words = model.get_input_embeddings()
        return {"target_modules": [n for n, module in model.named_modules() if module is words]}
    if not blocks:
        raise Unsupported(
            f"{kind.title} sits on each layer's own modules, which are not known for the "
            f"architecture of {setting.job.model}; name them in the option target_modules"
        )
    values = [block.value for block in blocks]
    if kind.where == "values":
        return {"target_modules": values}
    inputs = [block.ffn_out for block in blocks]
    keys = [block.key for block in blocks]
    return {"target_modules": [*keys, *values, *inputs], "feedforward_modules": inputs}


def _divisor(model: nn.Module, targets: Sequence[str], most: Any) -> int:
    assert isinstance(most, int)
    layers: list[Any] = [model.get_submodule(name) for name in targets]
    common = math.gcd(*(width for m in layers for width in (m.in_features, m.out_features)))
    return max(number for number in range(1, most + 1) if common % number == 0)


def _seen(setting: Setting) -> list[int]:
    batches = setting.preview(SEEN_BATCHES)
    return sorted({i for batch in batches for i in batch.inputs["input_ids"].flatten().tolist()})


def _leaves(model: nn.Module, tops: Sequence[str]) -> list[str]:
    """The modules in `tops` that hold parameters themselves."""
    return [
        f"{top}.{name}" if name else top
        for top in tops
        for name, module in model.get_submodule(top).named_modules()
        if any(True for _ in module.parameters(recurse=False))
    ]


@contextmanager
def peft_says(kind: PeftType, what: str) -> Iterator[None]:
    """Turn what PEFT raises inside into a reason. It raises any kind: options reach its layers
    unchecked."""
    try:
        yield
    except (torch.OutOfMemoryError, Unsupported):
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:300]
        raise Unsupported(f"{kind.title} {what}: {type(error).__name__} in PEFT: {text}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Keep from the user what PEFT warns of and is meant here."""
    with warnings.catch_warnings():
        for text in (
            "Unsupported layer type .*Norm",  # LayerNorm tuning
            "Failed to load the CUDA extension",  # BOFT has plain code as well
            "Setting boft_n_butterfly_factor to 1",
            "Sparse invariant checks are implicitly disabled",  # FRoD's rotation
        ):
            warnings.filterwarnings("ignore", message=text)
        yield

"""LoRA (Hu et al. 2021, arXiv 2106.09685): h = W x + (alpha / r) B A x, B zero at the start.

On an NF4 base with double quantisation it is QLoRA (Dettmers et al. 2023, arXiv 2305.14314). The
base stays as loaded: PEFT's `prepare_model_for_kbit_training` would switch on gradient
checkpointing for quantised cells alone and make the comparison unequal.
"""

from __future__ import annotations

import copy
import math
import re
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from safetensors.torch import save_file
from torch import nn

from peftmark.catalog.quantizations import QUANTIZATIONS
from peftmark.lab.methods import Prepared, Setting
from peftmark.lab.models import adapter_targets, trained_head
from peftmark.lab.quantization.table import backend_of
from peftmark.record.job import Job

FEW_ROWS, MANY_ROWS = 500, 1_000_000
"""Training rows between which `rank_by_rows` follows their number."""


def lora(model: nn.Module, setting: Setting) -> Prepared:
    """Put LoRA on the recipe's targets; head and pooler train beside it."""
    ranks = ranks_of(setting)
    return as_lora(wrap(model, lora_config(ranks, setting)), ranks, setting)


def lora_by_rows(model: nn.Module, setting: Setting) -> Prepared:
    """LoRA of the rank that the training rows give (`rank_by_rows`)."""
    recipe = setting.job.recipe
    all_rows = setting.job.task_facts.train_rows - recipe.selection_rows
    rows = all_rows if recipe.train_rows is None else min(recipe.train_rows, all_rows)
    rank = rank_by_rows(rows, recipe.options["min_rank"], recipe.options["max_rank"])
    prepared = lora(model, replace(setting, size=rank))
    prepared.matched_rank = None
    return prepared


def rank_by_rows(rows: int, lowest: int, highest: int) -> int:
    """log2(rows) / 2, rounded down and kept between two ranks, as a practitioners' guide has it for
    1,000 to 500,000 rows; the lowest below 500 rows, the highest above a million.

    Args:
        rows: that are trained on.
    """
    if rows < FEW_ROWS:
        return lowest
    if rows > MANY_ROWS:
        return highest
    return min(max(int(math.log2(rows) / 2), lowest), highest)


def ranks_of(setting: Setting) -> dict[str, int]:
    """Rank of each of the recipe's targets."""
    return setting.sized(adapter_targets(setting.job, setting.parts))


def lora_config(
    ranks: Mapping[str, int], setting: Setting, power: float = 1.0, **options: Any
) -> LoraConfig:
    """PEFT's configuration; `power` is that of the rank in the scale alpha / r^power, and further
    names are PEFT's own options."""
    shared = rank_options(ranks, setting, power) | common_options(setting, list(ranks))
    return LoraConfig(**shared, **options)


def as_lora(wrapped: Any, ranks: dict[str, int], setting: Setting, **hooks: Any) -> Prepared:
    """A LoRA model with the calls all variants share; further names replace some of them."""
    job = setting.job
    obstacle = backend_of(job.quantization).unmergeable(wrapped.peft_config["default"])
    shared: dict[str, Any] = {
        "save": saver(wrapped),
        "load": load_adapter,
        "merge": None if obstacle else lambda model: merge_adapter(model, job),
        "merge_reason": obstacle,
        "ranks": lambda: ranks,
        "matched_rank": "r",
    }
    return Prepared(wrapped, **{**shared, **hooks})


def common_options(setting: Setting, targets: list[str]) -> dict[str, Any]:
    """Options every PEFT adapter of ours shares."""
    recipe, plain = setting.job.recipe, setting.job.quantization == "none"
    return {
        # GPT-2's layers hold their weights turned, until bitsandbytes puts its own in their place.
        "fan_in_fan_out": setting.parts.turned and plain,
        "target_modules": targets,
        "modules_to_save": trained_head(setting.parts, recipe.train_pooler),
        "lora_alpha": recipe.alpha,
        "lora_dropout": recipe.dropout,
    }


def rank_options(ranks: Mapping[str, int], setting: Setting, power: float = 1.0) -> dict[str, Any]:
    """LoRA's rank by module. Where ranks differ, alpha follows them, so that alpha / r^power stays
    what the recipe says at the setting's size: PEFT's `rank_pattern` alone would change the scale.
    """
    size, alpha = setting.size, setting.job.recipe.alpha
    assert size is not None and alpha is not None
    other = {name: rank for name, rank in ranks.items() if rank != size}
    # Anchored: PEFT matches the keys as patterns at the end of a module's name.
    return {
        "r": size,
        "rank_pattern": {f"^{re.escape(name)}$": rank for name, rank in other.items()},
        "alpha_pattern": {
            f"^{re.escape(name)}$": alpha * (rank / size) ** power for name, rank in other.items()
        },
    }


def wrap(model: nn.Module, config: Any) -> Any:
    """Freeze the base and add the adapter."""
    model.requires_grad_(False)
    return get_peft_model(model, config)


def saver(wrapped: Any) -> Any:
    """A function that saves adapter and head as PEFT does, in safetensors."""

    def save(folder: Path) -> None:
        with warnings.catch_warnings():
            # AdaLoRA may prune a module to rank 0; PEFT takes its empty tensors for lost shards.
            warnings.filterwarnings("ignore", message=r".*LoRA tensor\(s\) have invalid shape")
            wrapped.save_pretrained(str(folder), save_embedding_layers=False)

    return save


def saver_of_change(wrapped: Any) -> Any:
    """A function that saves what training changed, as a LoRA of twice the rank on the plain base.

    For variants that take their start s B0 A0 out of the weights, so that W' = W - s B0 A0. The
    trained weight is W' + s B A = W + s [B, -B0] [A; A0], which any LoRA loader understands, and
    needs neither the data nor the decomposition that gave the start (PiSSA, appendix). PEFT's own
    conversion would drop the head.

    Args:
        wrapped: the model as it starts; the factors are copied now.
    """
    start = {name: p.cpu() for name, p in get_peft_model_state_dict(wrapped).items()}
    start = {name: p.clone() for name, p in start.items() if ".lora_" in name}

    def save(folder: Path) -> None:
        tensors: dict[str, torch.Tensor] = {}
        state = get_peft_model_state_dict(wrapped, save_embedding_layers=False)
        for name, tensor in state.items():
            now = tensor.detach().cpu()
            if ".lora_A." in name:
                now = torch.cat([now, start[name]])
            elif ".lora_B." in name:
                now = torch.cat([now, -start[name]], dim=1)
            tensors[name] = now.contiguous()
        save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
        config = copy.deepcopy(wrapped.peft_config["default"])
        config.init_lora_weights, config.corda_config, config.inference_mode = True, None, True
        config.r, config.lora_alpha = 2 * config.r, 2 * config.lora_alpha
        config.rank_pattern = {key: 2 * rank for key, rank in config.rank_pattern.items()}
        config.alpha_pattern = {key: 2 * alpha for key, alpha in config.alpha_pattern.items()}
        config.save_pretrained(str(folder))

    return save


def load_adapter(base: nn.Module, folder: Path) -> nn.Module:
    """Put a saved adapter and head onto a fresh base, as a user would."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r".*LoRA tensor\(s\) have invalid shape")
        # AdaLoRA keeps its final ranks there, under keys PEFT reads later than it checks them.
        warnings.filterwarnings("ignore", message="The following rank_pattern keys did not match")
        attach: Any = PeftModel.from_pretrained
        loaded: nn.Module = attach(base, str(folder))
    return loaded


def merge_adapter(model: nn.Module, job: Job) -> tuple[nn.Module, str]:
    """Fold the adapter into its base as PEFT does, and say into what."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Merge lora module to")
        merged: Any = model
        merged = merged.merge_and_unload()
    return merged, merged_into(job)


def merged_into(job: Job) -> str:
    """What a merge into the base's linear layers leaves behind, in words."""
    if job.quantization == "none" and job.recipe.weights != "fp32":
        return f"{job.recipe.weights} weights, rounded"
    return QUANTIZATIONS[job.quantization].merged

"""LoRA (Hu et al. 2021, arXiv 2106.09685): h = W x + (alpha / r) B A x, B zero at the start.

On an NF4 base with double quantisation it is QLoRA (Dettmers et al. 2023, arXiv 2305.14314). The
base stays as loaded: PEFT's `prepare_model_for_kbit_training` would switch on gradient
checkpointing for quantised cells alone and make the comparison unequal.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from peft import LoraConfig, get_peft_model
from torch import nn

from bench.lab.methods import Prepared
from bench.lab.models import Anatomy, adapter_targets, trained_head
from bench.record import Job


def lora(model: nn.Module, job: Job, parts: Anatomy) -> Prepared:
    """Put LoRA on the recipe's targets; head and pooler train beside it."""
    targets = adapter_targets(job, parts)
    assert job.rank is not None
    config = LoraConfig(r=job.rank, **common_options(job, parts, targets))
    wrapped = wrap(model, config)
    rank = job.rank * len(targets)
    return Prepared(
        wrapped, save=saver(wrapped), final_rank=lambda: rank, adapters=len(targets)
    )  # fmt: skip


def common_options(job: Job, parts: Anatomy, targets: list[str]) -> dict[str, Any]:
    """Options every PEFT adapter of ours shares."""
    return {
        "target_modules": targets,
        "modules_to_save": trained_head(parts, job.recipe.train_pooler),
        "lora_alpha": job.recipe.alpha,
        "lora_dropout": job.recipe.dropout,
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

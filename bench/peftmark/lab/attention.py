"""How a model attends: by which of transformers' implementations, and in which type."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import torch
from torch import nn

from peftmark.catalog import flash
from peftmark.catalog.layer_names import masks_by_query, part_of
from peftmark.lab.errors import Unsupported
from peftmark.record.job import Job

LIBRARY = "flash_attn"


def attention_settings(config: Any, job: Job, made: Any) -> dict[str, str]:
    """How transformers is told which attention to take; nothing where it chooses by itself.

    Args:
        made: transformers' class of the model.

    Raises:
        Unsupported: the class can't attend as asked.
    """
    asked = job.recipe.attention
    if asked == "flash":
        _check_flash(config, job, made)
        return {"attn_implementation": "flash_attention_2"}
    if asked == "sdpa" and not getattr(made, "_supports_sdpa", True):
        raise Unsupported(
            f"a model of type {config.model_type} has no fused attention in transformers; use "
            "attention: eager, or leave it out"
        )
    return {} if asked is None else {"attn_implementation": asked}


def _check_flash(config: Any, job: Job, made: Any) -> None:
    if job.device != "cuda":
        raise Unsupported(flash.NEEDS_GPU)
    if not getattr(made, "_supports_flash_attn", False):
        raise Unsupported(
            f"a model of type {config.model_type} has no FlashAttention in transformers; "
            f"{flash.WITHOUT}"
        )
    # Without it transformers would fetch code from the hub.
    if find_spec(LIBRARY) is None:
        raise Unsupported(
            "attention: flash needs the package flash-attn, which isn't installed here and is "
            "built for a machine's GPU (pip install flash-attn --no-build-isolation); "
            f"{flash.WITHOUT}"
        )


def attend_in_one_type(model: Any, job: Job) -> None:
    """Let a model that masks its scores by its queries attend over a quantised base in bf16.

    transformers 5 masks DeBERTa-v2's scores with the least number of the queries' type. A quantised
    layer gives back the type of its input, fp32, where a plain one under autocast gives bf16, which
    the scores have and which doesn't hold that number. Scores are the same bits.
    """
    if job.quantization == "none" or not masks_by_query(model.config.model_type):
        return
    if job.recipe.precision == "fp32":  # a hook is paid for in every timed step
        return

    def as_plain(_: nn.Module, __: Any, out: torch.Tensor) -> torch.Tensor:
        kind = out.device.type
        on = torch.is_autocast_enabled(kind)
        return out.to(torch.get_autocast_dtype(kind)) if on else out

    for name, module in model.named_modules():
        if part_of(name) == "query":
            module.register_forward_hook(as_plain)

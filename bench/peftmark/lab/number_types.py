"""Number types: those of matrix products, of frozen weights and of what trains.

A base is stored as the recipe's `weights` says, as `from_pretrained(dtype=...)` loads it, and
matrix products run in the recipe's `precision` by autocast. What trains is fp32 whatever the base
is: adapters, classifier, pooler, and weights of the base where those train. An optimizer's small
steps would be lost in bf16's 8 bits (Micikevicius et al. 2017, arXiv 1710.03740, section 3.1).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import nn

from peftmark.record.job import Job

TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""A recipe's word -> torch's type."""
LOW = (torch.bfloat16, torch.float16)


def autocast(job: Job, device: torch.device) -> AbstractContextManager[Any]:
    """Matrix products in the recipe's precision."""
    kind, low = TYPES[job.recipe.precision], job.recipe.precision != "fp32"
    # Where it is off its type counts for nothing, and fp32 is none that it takes.
    return torch.autocast(device.type, kind if low else torch.bfloat16, enabled=low)


def raise_kept(model: nn.Module, names: Iterable[str]) -> None:
    """Make fp32 what the recipe's `weights` says nothing of: the modules named, head and pooler,
    and LayerNorms, which torch's kernels on a CPU compute for fp32 inputs in no other type, and
    autocast on a GPU in fp32 whatever theirs is."""
    for name in names:
        model.get_submodule(name).float()
    for module in model.modules():
        if isinstance(module, nn.LayerNorm):
            module.float()


def raise_trained(model: nn.Module, job: Job) -> None:
    """Make what trains fp32; a base that is fp32 already is left alone."""
    if job.recipe.weights != "fp32":
        raise_parameters(model, {name for name, p in model.named_parameters() if p.requires_grad})


def raise_parameters(model: nn.Module, names: Collection[str]) -> None:
    """Make parameters fp32."""
    for name, p in model.named_parameters():
        if name in names and p.dtype in LOW:
            p.data = p.data.float()


@contextmanager
def raised(model: nn.Module) -> Iterator[None]:
    """Everything that isn't quantised in fp32 for the time being; then the same bits as before.

    What was there waits on the host: beside the fp32 copy a GPU would hold it for nothing.
    """
    held: list[tuple[torch.Tensor, torch.Tensor]] = []
    try:
        for p in (*model.parameters(), *model.buffers()):
            # Those of another class are quantised.
            if p.dtype in LOW and type(p) in (nn.Parameter, torch.Tensor):
                held.append((p, p.data.to("cpu")))
                p.data = p.data.float()
        yield
    finally:
        for p, data in held:
            p.data = data.to(p.device)

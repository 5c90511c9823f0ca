"""A base whose frozen weights lie in parts on the devices of a job, by torch's FSDP2.

Each transformer layer is a unit: a process keeps its part of the layer's frozen weights, and all of
them are there only while the layer computes, forwards and backwards (fully sharded data
parallelism, Zhao et al. 2023, arXiv 2304.11277). What trains, what lies outside the layers
(embeddings, head) and the constants of 4-bit weights is whole in every process, so optimizer,
clipping and saving know nothing of it, and gradients are added up as ever (`peftmark.lab.team`).

FSDP2 gathers a layer's tensors as bytes, whatever their types: 4-bit weights may stay stored as
bitsandbytes stores them. The layers then find their constants by bitsandbytes' own code.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import nn

from peftmark.catalog.task import TaskKind
from peftmark.lab.errors import Unsupported
from peftmark.lab.memory.meta_model import blank
from peftmark.lab.models import Anatomy, anatomy_of
from peftmark.lab.quantization.table import maker_of_weight
from peftmark.lab.team import Team
from peftmark.record.job import Job

AT_ONCE = 2
"""Layers that are whole at the same time at most: the one that computes, and the next one, which is
gathered meanwhile."""


def shard(
    model: nn.Module, base: Sequence[nn.Parameter], parts: Anatomy, team: Team
) -> list[nn.Parameter]:
    """Leave a process its part of a model's weights, on its device; what was whole is freed once
    nothing else holds it.

    Args:
        model: with the method on it, on the CPU.
        base: those of its parameters that were there before the method.
        team: the job's processes; of one that is alone nothing is cut.

    Returns:
        What became of the parameters of the base, for those that are still in the model.

    Raises:
        Unsupported: layers that aren't recognised, or serve several times.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    layers = units(model, parts)
    if team.device is None:
        return list(base)
    known = {id(p) for p in base}
    names = {name for name, p in model.named_parameters() if id(p) in known}
    whole = set(model.parameters()).difference(*map(_frozen, layers))
    with torch.no_grad():
        for p in whole:  # FSDP leaves them where they are
            p.data = p.to(team.device)
    mesh = init_device_mesh(team.device.type, (team.size,))
    for layer in layers:
        fully_shard(layer, mesh=mesh, ignored_params=whole)
    # Nothing is left to cut; under one roof a layer is gathered while the one before computes.
    fully_shard(model, mesh=mesh, ignored_params=whole)
    return [p for name, p in model.named_parameters() if name in names]


def units(model: nn.Module, parts: Anatomy) -> list[nn.Module]:
    """The layers that are cut.

    Raises:
        Unsupported: see `shard`.
    """
    if not parts.blocks or parts.uses > 1:
        what = "serve several times" if parts.uses > 1 else "aren't recognised"
        raise Unsupported(
            f"the layers of this architecture {what}, and shard cuts each layer by itself; use "
            "shard: false"
        )
    wrapped: Any = model
    base = wrapped.get_base_model() if hasattr(wrapped, "get_base_model") else model
    return [base.get_submodule(block.name) for block in parts.blocks]


def spared(layers: Sequence[nn.Module], devices: int) -> int:
    """Bytes that a process is spared at the peak: all layers' frozen weights, less its part of
    each and `AT_ONCE` of the largest layer, gathered. Tensors are cut along their first dimension,
    and the parts of one are equally long: the last are filled up."""
    tensors = [[t for p in _frozen(one) for t in maker_of_weight(p).values(p)] for one in layers]
    parts = [sum(t.nbytes // len(t) * -(-len(t) // devices) for t in one) for one in tensors]
    gathered = min(AT_ONCE, len(parts)) * devices * max(parts)
    return sum(t.nbytes for one in tensors for t in one) - sum(parts) - gathered


def spared_by(job: Job, config: Any, kind: TaskKind, model: nn.Module) -> int:
    """`spared` of a job's model, which may be without values; 0 where nothing is sharded.

    Raises:
        Unsupported: see `shard`.
    """
    if not job.recipe.shard:
        return 0
    parts = anatomy_of(blank(copy.deepcopy(config), kind))
    return spared(units(model, parts), job.recipe.devices)


def _frozen(layer: nn.Module) -> Iterator[nn.Parameter]:
    return (p for p in layer.parameters() if not p.requires_grad)

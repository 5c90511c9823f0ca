"""How far trained weights lie from what a 4-bit data type makes of them; no layer is run.

All types are told alike: blocks of 64 weights are divided by the largest magnitude in them and each
weight becomes the nearest level of the type, as in QLoRA (Dettmers et al. 2023, arXiv 2305.14314,
section 3). Levels of NF4 and FP4 are bitsandbytes' own. int4 is the uniform grid that bitsandbytes
has by that name: -7 to 7, over 7.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

BLOCK = 64
INT4 = tuple(step / 7 for step in range(-7, 8))


def levels_of(kind: str) -> torch.Tensor:
    """The levels of a data type, ascending, the largest magnitude 1."""
    if kind == "int4":
        return torch.tensor(INT4)
    import bitsandbytes.functional as functional

    table: Any = functional.get_4bit_type
    levels: torch.Tensor = table(kind, device="cpu")
    ascending: torch.Tensor = torch.unique(levels)
    return ascending


DOUBLE = "_double"
"""What a data type's name ends with where its constants are quantised too."""


@dataclass(frozen=True)
class Errors:
    """How far a model's weights lie from what data types keep of them.

    Attributes:
        count: how many weights.
        relative: type -> root mean squared error over the root mean square of the weights (of
            matrices: Frobenius norm of the difference over that of the weights).
        largest: type -> largest absolute difference over the root mean square of the weights.
        constants: root mean squared error of constants that were quantised too, in the unit of
            the weights.
    """

    count: int
    relative: dict[str, float]
    largest: dict[str, float]
    constants: float


def largest_of(weight: torch.Tensor) -> torch.Tensor:
    """The constants of a weight: the largest magnitude in each block, shape (blocks, 1)."""
    flat = weight.detach().float().flatten()
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    return blocks.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)


def doubly(constants: torch.Tensor) -> torch.Tensor:
    """Constants as double quantisation keeps them: less their mean, in 8-bit floats, blocks of 256
    (Dettmers et al. 2023, section 3), by bitsandbytes' own code."""
    import bitsandbytes.functional as functional

    mean = constants.mean()
    make: Any = functional.quantize_blockwise
    packed, state = make((constants - mean).flatten(), blocksize=256)
    back: Any = functional.dequantize_blockwise
    kept: torch.Tensor = back(packed, state)
    return kept.view_as(constants) + mean


def quantised(
    weight: torch.Tensor, levels: torch.Tensor, kept: torch.Tensor | None = None
) -> torch.Tensor:
    """A weight as the data type keeps it, in fp32.

    Args:
        kept: what is kept of its constants; None for themselves.
    """
    flat = weight.detach().float().flatten()
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % BLOCK)).view(-1, BLOCK)
    largest = largest_of(weight)
    middles = (levels[1:] + levels[:-1]) / 2
    nearest = levels[torch.bucketize(blocks / largest, middles)]
    nearest = nearest * (largest if kept is None else kept)
    return nearest.flatten()[: len(flat)].view(weight.shape)


def errors(weights: Iterable[torch.Tensor], kinds: Iterable[str]) -> Errors:
    """The errors of data types on weights.

    Args:
        kinds: names of types, with `DOUBLE` behind them for constants that are quantised too.
    """
    tables = {kind: levels_of(kind.removesuffix(DOUBLE)) for kind in kinds}
    lost, most = dict.fromkeys(tables, 0.0), dict.fromkeys(tables, 0.0)
    power, count, off, blocks = 0.0, 0, 0.0, 0
    for weight in weights:
        count += weight.numel()
        power += float(weight.double().square().sum())
        kept = None
        if any(kind.endswith(DOUBLE) for kind in tables):
            constants = largest_of(weight)
            kept = doubly(constants)
            off += float((kept - constants).double().square().sum())
            blocks += constants.numel()
        for kind, levels in tables.items():
            apart = quantised(weight, levels, kept if kind.endswith(DOUBLE) else None) - weight
            lost[kind] += float(apart.double().square().sum())
            most[kind] = max(most[kind], float(apart.abs().max()))
    size = (power / count) ** 0.5
    return Errors(
        count,
        {kind: (one / power) ** 0.5 for kind, one in lost.items()},
        {kind: one / size for kind, one in most.items()},
        (off / blocks) ** 0.5 if blocks else 0.0,
    )


def linear_weights(file: Path) -> Iterable[torch.Tensor]:
    """The matrices of an encoder's layers, which are what a quantised base quantises."""
    with safe_open(file, "pt") as tensors:
        for name in sorted(tensors.keys()):
            if ".layer." in f".{name}":
                weight = tensors.get_tensor(name)
                if weight.ndim == 2:
                    yield weight.float()

"""How far trained weights lie from what a 4-bit data type makes of them; no layer is run.

All types are told alike: blocks of 64 weights are divided by the largest magnitude in them and each
weight becomes the nearest level of the type, as in QLoRA (Dettmers et al. 2023, arXiv 2305.14314,
section 3). Levels of NF4 and FP4 are bitsandbytes' own. int4 is the uniform grid that bitsandbytes
has by that name: -7 to 7, over 7.
"""

from __future__ import annotations

from collections.abc import Iterable
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


def quantised(weight: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """A weight as the data type keeps it, in fp32."""
    flat = weight.detach().float().flatten()
    short = -len(flat) % BLOCK
    blocks = torch.nn.functional.pad(flat, (0, short)).view(-1, BLOCK)
    largest = blocks.abs().amax(1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    middles = (levels[1:] + levels[:-1]) / 2
    nearest = levels[torch.bucketize(blocks / largest, middles)] * largest
    return nearest.flatten()[: len(flat)].view(weight.shape)


def errors(weights: Iterable[torch.Tensor], kinds: Iterable[str]) -> tuple[int, dict[str, float]]:
    """How many weights there are, and by type their root mean squared error over their root mean
    square."""
    tables = {kind: levels_of(kind) for kind in kinds}
    lost, power, count = dict.fromkeys(tables, 0.0), 0.0, 0
    for weight in weights:
        count += weight.numel()
        power += float(weight.double().square().sum())
        for kind, levels in tables.items():
            lost[kind] += float((quantised(weight, levels) - weight).double().square().sum())
    return count, {kind: (one / power) ** 0.5 for kind, one in lost.items()}


def linear_weights(file: Path) -> Iterable[torch.Tensor]:
    """The matrices of an encoder's layers, which are what a quantised base quantises."""
    with safe_open(file, "pt") as tensors:
        for name in sorted(tensors.keys()):
            if ".layer." in f".{name}":
                weight = tensors.get_tensor(name)
                if weight.ndim == 2:
                    yield weight.float()

"""MoRA (Jiang et al. 2024, arXiv 2405.12130): h = W x + decompress(M compress(x)), M square.

W maps k numbers to d. LoRA of rank r trains (d + k) r numbers for a change of rank r; M has about
as many, and a rank of up to r̂ = round(√((d + k) r)). What compresses and decompresses trains
nothing.
With x cut into n = ⌈k / r̂⌉ pieces x_1 ... x_n of r̂ (the last is filled with x from its start on):

    sharing   M (x_1 + ... + x_n), written d / r̂ times over, cut at d                    (eq. 6)
    rotation  [M R_1 x_1; ...; M R_n x_n], written over until it is d long, cut at d      (eq. 9)

R_j turns each pair of numbers i and i + r̂ / 2 of a piece by (j - 1) 10000^(-2 i / r̂), so that equal
pieces differ; r̂ is rounded down to an even number there. The authors take rotation for low ranks
such as 8 and sharing for high ones. M is zero at the start and there is no alpha, as in their code.

An article on AdaLoRA calls something else MoRA, ranks of attention and feed-forward with caps of
their own behind gates, under a number of arXiv that is another paper's; this is the published one.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from peftmark.lab.methods import Prepared, Setting
from peftmark.lab.methods.lora import merged_into, ranks_of
from peftmark.lab.methods.reference import load_trained, save_trained, train_head_alone

BASE = 10_000
"""Of the angles, as in rotary position embeddings (arXiv 2104.09864)."""


class Square(nn.Module):
    """A linear layer and the square matrix beside it.

    Args:
        linear: plain or quantised, from k to d.
        rank: r, of the LoRA with as many parameters.
        rotation: whether pieces are rotated; else they share.
        dropout: on what M reads, in training.

    Attributes:
        M: shape (r̂, r̂).
    """

    def __init__(self, linear: Any, rank: int, rotation: bool, dropout: float) -> None:
        super().__init__()
        self.linear, self.rotation, self.dropout = linear, rotation, dropout
        self.inputs, self.outputs = _features(linear)
        side = math.floor(math.sqrt((self.inputs + self.outputs) * rank) + 0.5)
        side = side // 2 * 2 if rotation else side
        device = next(linear.parameters()).device
        self.M = nn.Parameter(torch.zeros(side, side, device=device))

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """What M adds: (..., k) to (..., d)."""
        side = len(self.M)
        pieces = math.ceil(self.inputs / side)
        x = x[..., torch.arange(pieces * side, device=x.device) % self.inputs]
        x = x.view(*x.shape[:-1], pieces, side)
        x = rotated(x) if self.rotation else x.sum(-2)
        found = nn.functional.linear(x, self.M)
        found = found.flatten(-2) if self.rotation else found
        return found[..., torch.arange(self.outputs, device=x.device) % found.shape[-1]]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., k) to (..., d)."""
        y: torch.Tensor = self.linear(x)
        change = self.change(nn.functional.dropout(x, self.dropout, self.training))
        return y + change.to(y.dtype)

    def weight(self) -> torch.Tensor:
        """The change as a matrix of shape (d, k), fp32."""
        return self.change(torch.eye(self.inputs, device=self.M.device)).T


def _features(linear: Any) -> tuple[int, int]:
    """How many numbers a layer reads and gives; GPT-2's says so by its weight's shape alone."""
    if hasattr(linear, "in_features"):
        return int(linear.in_features), int(linear.out_features)
    inputs, outputs = linear.weight.shape
    return inputs, outputs


def rotated(pieces: torch.Tensor) -> torch.Tensor:
    """R_j of each piece j.

    Args:
        pieces: shape (..., n, r̂), r̂ even.
    """
    count, side = pieces.shape[-2:]
    half = torch.arange(0, side, 2, device=pieces.device, dtype=torch.float32)
    angles = torch.arange(count, device=pieces.device)[:, None] * BASE ** (-half / side)
    cos, sin = (part.to(pieces.dtype) for part in (angles.cos(), angles.sin()))
    first, second = pieces.chunk(2, dim=-1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1)


def mora(model: nn.Module, setting: Setting) -> Prepared:
    """Put a square matrix beside the recipe's targets; head and pooler train beside them."""
    job, ranks = setting.job, ranks_of(setting)
    rotation, dropout = job.recipe.options["kind"] == "rotation", job.recipe.dropout
    assert dropout is not None

    def put(base: nn.Module) -> nn.Module:
        train_head_alone(base, setting)
        for name, rank in ranks.items():
            base.set_submodule(name, Square(base.get_submodule(name), rank, rotation, dropout))
        return base

    put(model)
    sides = {name: len(module.M) for name, module in squares(model).items()}
    plain = job.quantization == "none"

    def merge(loaded: nn.Module) -> tuple[nn.Module, str]:
        for name, module in squares(loaded).items():
            layer, change = module.linear, module.weight()
            with torch.no_grad():
                layer.weight += (change.T if setting.parts.turned else change).to(layer.weight)
            loaded.set_submodule(name, layer)
        return loaded, merged_into(job)

    return Prepared(
        model,
        save=lambda folder: save_trained(model, folder),
        load=lambda base, folder: load_trained(put(base), folder),
        merge=merge if plain else None,
        merge_reason="" if plain else "peftmark merges no square matrix into quantised weights",
        ranks=lambda: sides,
        matched_rank="r",
    )


def squares(model: nn.Module) -> dict[str, Square]:
    """The layers with a square matrix, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Square)}

"""Bottleneck adapter (Houlsby et al. 2019, arXiv 1902.00751), one a layer as in Pfeiffer et al.
2020 (arXiv 2005.00247): y' = y + U act(D y + d) + u on the output y of the feed-forward block.

D (width × hidden) projects down and U (hidden × width) up; U, u and d are zero at the start, so the
model starts as the base, and D is drawn as torch draws a linear layer.

It sits right behind the block's second linear layer: before its dropout, before the residual sum
and before LayerNorm, which then sees dropout(y') + residual. In Houlsby et al. it stands after that
dropout, a second one follows the attention, the layers' LayerNorms train too, and all weights start
near zero instead of U at zero. In Pfeiffer et al. it stands, alone, after residual and LayerNorm,
with a residual and a LayerNorm of its own. LayerNorms stay frozen here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from peft import LoraConfig
from torch import nn

from peftmark.lab.methods import Prepared, Setting
from peftmark.lab.methods.lora import common_options, rank_options, wrap
from peftmark.lab.methods.reference import load_trained, save_trained, train_head_alone
from peftmark.lab.models import Block, Unsupported, adapter_targets

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": nn.functional.relu,
    "gelu": nn.functional.gelu,
}
NOT_LINEAR = "the adapter's activation lies between its two layers: they can't become one weight"


class Bottleneck(nn.Module):
    """A linear layer and the adapter behind it.

    Args:
        linear: any module from (..., in) to (..., features) that has `out_features`: plain,
            quantised or with LoRA on it.
        width: of the bottleneck.
        activation: a key of `ACTIVATIONS`.
    """

    def __init__(self, linear: Any, width: int, activation: str) -> None:
        super().__init__()
        device = next(linear.parameters()).device
        self.linear = linear
        self.activation = ACTIVATIONS[activation]
        self.down = nn.Linear(linear.out_features, width, device=device)
        self.up = nn.Linear(width, linear.out_features, device=device)
        for start in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(start)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., features)."""
        y: torch.Tensor = self.linear(x)
        change: torch.Tensor = self.up(self.activation(self.down(y)))
        return y + change


def adapter(model: nn.Module, setting: Setting) -> Prepared:
    """Put a bottleneck into every layer, or the last few; head and pooler train beside them.

    Raises:
        Unsupported: if the layers are not recognised, or are fewer than `last_layers`.
    """
    options, blocks = setting.job.recipe.options, _blocks(setting)
    last = int(options["last_layers"])
    if last > len(blocks):
        raise Unsupported(
            f"last_layers is {last}, but {setting.job.model} has {len(blocks)} layers; "
            f"0 means all of them"
        )
    sizes = setting.sized([block.name for block in blocks[-last:]])
    widths = {b.ffn_out: sizes[b.name] for b in blocks if b.name in sizes}

    def put(base: nn.Module) -> nn.Module:
        train_head_alone(base, setting)
        _insert(base, widths, str(options["activation"]))
        return base

    return _prepared(model, put)


def adapter_lora(model: nn.Module, setting: Setting) -> Prepared:
    """LoRA on the recipe's targets and a bottleneck in every layer, behind the LoRA of its linear
    layer where that has one; head and pooler beside them.

    Raises:
        Unsupported: if the layers are not recognised.
    """
    options = setting.job.recipe.options
    widths = {block.ffn_out: int(options["width"]) for block in _blocks(setting)}
    ranks = setting.sized(adapter_targets(setting.job, setting.parts))

    def put(base: nn.Module) -> nn.Module:
        config = LoraConfig(**rank_options(ranks, setting), **common_options(setting, list(ranks)))
        wrapped = wrap(base, config)
        _insert(wrapped.get_base_model(), widths, str(options["activation"]))
        whole: nn.Module = wrapped
        return whole

    prepared = _prepared(model, put)
    prepared.ranks = lambda: ranks
    prepared.matched_rank = "r"
    return prepared


def _blocks(setting: Setting) -> tuple[Block, ...]:
    if not setting.parts.blocks:
        raise Unsupported(
            f"an adapter needs each layer's feed-forward block, which is not known for the "
            f"architecture of {setting.job.model}; use lora"
        )
    return setting.parts.blocks


def _insert(model: nn.Module, widths: Mapping[str, int], activation: str) -> None:
    """Put a bottleneck of that width behind each named layer."""
    for name, width in widths.items():
        parent, _, leaf = name.rpartition(".")
        linear = model.get_submodule(name)
        setattr(model.get_submodule(parent), leaf, Bottleneck(linear, width, activation))


def _prepared(model: nn.Module, put: Callable[[nn.Module], nn.Module]) -> Prepared:
    built = put(model)
    return Prepared(
        built,
        save=lambda folder: save_trained(built, folder),
        load=lambda base, folder: load_trained(put(base), folder),
        merge=None,
        merge_reason=NOT_LINEAR,
    )

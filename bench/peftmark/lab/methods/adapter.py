"""Bottleneck adapter (Houlsby et al. 2019, arXiv 1902.00751), one a layer as in Pfeiffer et al.
2020 (arXiv 2005.00247): y' = y + U act(D y + d) + u on the output y of the feed-forward block.

D (width × hidden) projects down and U (hidden × width) up; U, u and d are zero at the start, so the
model starts as the base, and D is drawn as torch draws a linear layer.

It sits right behind the block's second linear layer: before its dropout, before the residual sum
and before LayerNorm, which then sees dropout(y') + residual. In Houlsby et al. it stands after that
dropout, a second one follows the attention, the layers' LayerNorms train too, and all weights start
near zero instead of U at zero. In Pfeiffer et al. it stands, alone, after residual and LayerNorm,
with a residual and a LayerNorm of its own. The base's LayerNorms stay frozen here.

Options move and change it: behind the attention's output layer as well or instead, or beside the
feed-forward block, which it then adds U act(D x + d) + u of the block's input x to (the parallel
adapter of He et al. 2021, arXiv 2110.04366, with a scale of one); without biases; with a LayerNorm
of its own in front; with dropout on what it adds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from peft import LoraConfig
from torch import nn

from peftmark.catalog.methods import known_method
from peftmark.lab.methods import Prepared, Setting
from peftmark.lab.methods.in_phases import LORA, in_phases
from peftmark.lab.methods.lora import common_options, rank_options, wrap
from peftmark.lab.methods.reference import load_trained, save_trained, train_head_alone
from peftmark.lab.models import Block, Unsupported, adapter_targets

ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": nn.functional.relu,
    "gelu": nn.functional.gelu,
}
NOT_LINEAR = "the adapter's activation lies between its two layers: they can't become one weight"


@dataclass(frozen=True)
class Shape:
    """How a bottleneck is made.

    Attributes:
        activation: a key of `ACTIVATIONS`.
        bias: whether its layers have biases.
        norm: whether a LayerNorm comes first.
        dropout: on what it adds, in training.
    """

    activation: str
    bias: bool = True
    norm: bool = False
    dropout: float = 0.0


class Change(nn.Module):
    """What an adapter adds.

    Args:
        features: of what it reads and of what it is added to.
        width: of the bottleneck.
    """

    def __init__(self, features: int, width: int, shape: Shape, device: torch.device) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[shape.activation]
        self.dropout = shape.dropout
        self.norm = nn.LayerNorm(features, device=device) if shape.norm else None
        self.down = nn.Linear(features, width, shape.bias, device)
        self.up = nn.Linear(width, features, shape.bias, device)
        nn.init.zeros_(self.up.weight)
        for bias in (self.down.bias, self.up.bias):
            if bias is not None:
                nn.init.zeros_(bias)

    def change(self, x: torch.Tensor) -> torch.Tensor:
        """(..., features) of what it reads to (..., features) of what it adds."""
        if self.norm is not None:
            x = self.norm(x)
        found: torch.Tensor = self.up(self.activation(self.down(x)))
        if self.dropout:
            found = nn.functional.dropout(found, self.dropout, self.training)
        return found


class Bottleneck(Change):
    """A linear layer and the adapter behind it.

    Args:
        linear: any module from (..., in) to (..., features) that has `out_features`: plain,
            quantised or with LoRA on it.
    """

    def __init__(self, linear: Any, width: int, shape: Shape) -> None:
        device = next(linear.parameters()).device
        super().__init__(linear.out_features, width, shape, device)
        self.linear = linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., features)."""
        y: torch.Tensor = self.linear(x)
        return y + self.change(y)


class Entry(nn.Module):
    """The first layer of a block beside which an adapter stands: it hands on what it reads."""

    def __init__(self, linear: Any) -> None:
        super().__init__()
        self.linear = linear
        self.read: torch.Tensor | None = None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the layer alone."""
        self.read = x
        found: torch.Tensor = self.linear(x)
        return found


class Parallel(Change):
    """The last layer of a block and the adapter beside the block.

    Args:
        entry: of the same block; it isn't part of this module.
    """

    def __init__(self, linear: Any, width: int, shape: Shape, entry: Entry) -> None:
        device = next(linear.parameters()).device
        super().__init__(linear.out_features, width, shape, device)
        self.linear = linear
        self._entry = (entry,)  # in a tuple, so that its parameters are not counted twice

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in) to (..., features)."""
        entry = self._entry[0]
        read, entry.read = entry.read, None  # nothing outlives the block
        assert read is not None
        y: torch.Tensor = self.linear(x)
        return y + self.change(read)


def adapter(model: nn.Module, setting: Setting) -> Prepared:
    """Put a bottleneck into every layer, or the last few; head and pooler train beside them.

    Raises:
        Unsupported: if the layers are not recognised, or are fewer than `last_layers`.
    """
    options, blocks = setting.job.recipe.options, blocks_of(setting)
    last = int(options["last_layers"])
    if last > len(blocks):
        raise Unsupported(
            f"last_layers is {last}, but {setting.job.model} has {len(blocks)} layers; "
            f"0 means all of them"
        )
    sizes = setting.sized([block.name for block in blocks[-last:]])
    kept = [block for block in blocks if block.name in sizes]
    known = known_method("adapter")
    place, shape = known.option(options, "place"), _shape(options)

    def put(base: nn.Module) -> nn.Module:
        train_head_alone(base, setting)
        if place == "parallel":
            for block in kept:
                _beside(base, block, sizes[block.name], shape)
            return base
        if place != "attention":
            insert(base, {b.ffn_out: sizes[b.name] for b in kept}, shape)
        if place != "feed-forward":
            insert(base, {b.attention_output: sizes[b.name] for b in kept}, shape)
        return base

    return prepared_with(model, put)


def adapter_lora(model: nn.Module, setting: Setting) -> Prepared:
    """LoRA on the recipe's targets and a bottleneck in every layer, behind the LoRA of its linear
    layer where that has one; head and pooler beside them.

    Raises:
        Unsupported: if the layers are not recognised.
    """
    options = setting.job.recipe.options
    widths = {block.ffn_out: int(options["width"]) for block in blocks_of(setting)}
    ranks = setting.sized(adapter_targets(setting.job, setting.parts))

    def put(base: nn.Module) -> nn.Module:
        config = LoraConfig(**rank_options(ranks, setting), **common_options(setting, list(ranks)))
        wrapped = wrap(base, config)
        insert(wrapped.get_base_model(), widths, Shape(str(options["activation"])))
        whole: nn.Module = wrapped
        return whole

    prepared = prepared_with(model, put)
    prepared.ranks = lambda: ranks
    prepared.part_of = lambda name: LORA if ".lora_" in name else "adapter"
    prepared.matched_rank = "r"
    return in_phases(prepared, setting)


def blocks_of(setting: Setting) -> tuple[Block, ...]:
    """The layers, from the input up.

    Raises:
        Unsupported: if they are not recognised.
    """
    if not setting.parts.blocks:
        raise Unsupported(
            f"an adapter needs each layer's feed-forward block, which is not known for the "
            f"architecture of {setting.job.model}; use lora"
        )
    return setting.parts.blocks


def _shape(options: Mapping[str, Any]) -> Shape:
    known = known_method("adapter")
    bias, norm, dropout = (known.option(options, name) for name in ("bias", "norm", "dropout"))
    return Shape(str(options["activation"]), bool(bias), bool(norm), float(dropout))


def insert(model: nn.Module, widths: Mapping[str, int], shape: Shape) -> None:
    """Put a bottleneck of that width behind each named layer."""
    for name, width in widths.items():
        model.set_submodule(name, Bottleneck(model.get_submodule(name), width, shape))


def _beside(model: nn.Module, block: Block, width: int, shape: Shape) -> None:
    """Put a bottleneck beside a layer's feed-forward block.

    Raises:
        Unsupported: the block's first layer reads something of another size than its last gives.
    """
    first: Any = model.get_submodule(block.ffn_in)
    last: Any = model.get_submodule(block.ffn_out)
    if first.in_features != last.out_features:
        raise Unsupported(
            f"the feed-forward block of {block.name} reads {first.in_features} features and gives "
            f"{last.out_features}: no adapter can stand beside it"
        )
    entry = Entry(first)
    model.set_submodule(block.ffn_in, entry)
    model.set_submodule(block.ffn_out, Parallel(last, width, shape, entry))


def prepared_with(
    model: nn.Module, put: Callable[[nn.Module], nn.Module], merge_reason: str = NOT_LINEAR
) -> Prepared:
    """A model with what `put` puts onto a base, which saves and loads what trains."""
    built = put(model)
    return Prepared(
        built,
        save=lambda folder: save_trained(built, folder),
        load=lambda base, folder: load_trained(put(base), folder),
        merge=None,
        merge_reason=merge_reason,
    )

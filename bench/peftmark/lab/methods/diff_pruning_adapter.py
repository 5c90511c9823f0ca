"""DiffPruning, then adapters on what it left.

A practitioners' guide has it so: DiffPruning picks the 5 % of the weights that matter most (Guo et
al. 2020, arXiv 2012.07463, `peftmark.lab.methods.diff_pruning`); then its mask is frozen, a
bottleneck of width 64 comes behind each feed-forward block (Houlsby et al. 2019, arXiv 1902.00751)
and trains alone. Here everything up to the cut is `diff-pruning`'s. After it W + delta stays as it
is, values as well as positions, and the layers give, for their feed-forward output y,

    y + U act(D y + d) + u,  y by W + delta

with U, u and d zero at the start, so the second stage begins as the function that the cut left.
Head and pooler train in both stages. `second_rate` is the adapters' learning rate over that before
the cut.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from peftmark.lab.methods import Prepared, Setting, Stage
from peftmark.lab.methods.adapter import NOT_LINEAR, Change, Shape, blocks_of
from peftmark.lab.methods.diff_pruning import Sparse, diff_pruning


def diff_pruning_adapter(model: nn.Module, setting: Setting) -> Prepared:
    """Put a difference on the recipe's targets, with adapters as second stage.

    Raises:
        Unsupported: if the layers are not recognised.
    """
    shape = Shape(str(setting.job.recipe.options["activation"]))
    sizes = setting.sized([block.name for block in blocks_of(setting)])
    widths = {b.ffn_out: sizes[b.name] for b in blocks_of(setting) if b.name in sizes}
    prepared = diff_pruning(model, setting)
    stage, load, kept = prepared.stage, prepared.load, prepared.active_parameters
    assert stage is not None and kept is not None

    def put(base: nn.Module) -> nn.Module:
        for name, width in widths.items():
            attach(base.get_submodule(name), width, shape)
        return base

    def begin() -> None:
        stage.begin()
        for module in model.modules():
            if isinstance(module, Sparse):
                module.requires_grad_(False)
        put(model)
        prepared.active_parameters = lambda: kept() + _adapters(model)

    prepared.stage = Stage(stage.after, begin, stage.rate)
    prepared.load = lambda base, folder: load(put(base), folder)
    prepared.merge, prepared.merge_reason = None, NOT_LINEAR
    prepared.part_of = lambda name: "adapter" if ".adapter." in name else "difference"
    return prepared


def attach(layer: Any, width: int, shape: Shape) -> None:
    """Let a bottleneck follow a layer that keeps its name, by which its difference is saved.

    Args:
        layer: from (..., in) to (..., features).
    """
    features = layer.out_features if hasattr(layer, "out_features") else layer.weight.shape[1]
    layer.add_module("adapter", Change(features, width, shape, next(layer.parameters()).device))
    layer.register_forward_hook(_follow)


def _follow(layer: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
    change: torch.Tensor = layer.adapter.change(output)
    return output + change


def _adapters(model: nn.Module) -> int:
    return sum(p.numel() for name, p in model.named_parameters() if ".adapter." in name)

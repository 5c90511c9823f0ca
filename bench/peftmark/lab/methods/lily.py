"""Lily (Zhong et al. 2024, arXiv 2407.09946): LoRA whose B matrices layers share.

h = W x + s (x A) sum_j p_j B_j, where p is the mean over all tokens of a batch of the softmax of a
router's x A R, one router a module. `stride_A` neighbouring layers share an A, and all layers the
`num_B` matrices B, each among modules of one kind: queries with queries.

PEFT tells a module's kind by the target that its name ends with. Given full names, as here and in
`peft:lily`, no two are of one kind and nothing is shared; given endings, it takes the last one that
fits of a set without an order, and `attention.output.dense` ends with `output.dense`. So what is
shared is made so here, after PEFT has put its layers in. `peft:lily` stays what it was, for the
rows that were made with it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from peft.tuners.lily.layer import LilyLayer
from torch import nn

from peftmark.lab.methods import Prepared, Setting
from peftmark.lab.methods.any_peft import any_peft


def lily(model: nn.Module, setting: Setting) -> Prepared:
    """Put Lily on the recipe's targets; head and pooler train beside it."""
    prepared = any_peft(model, setting)
    _share(prepared.model)

    def load(base: nn.Module, folder: Path) -> nn.Module:
        loaded = prepared.load(base, folder)
        _share(loaded)
        return loaded

    return replace(prepared, load=load)


def _share(wrapped: Any) -> None:
    """Let layers share A and B; the first layer's stand for all that share them."""
    stride = wrapped.peft_config["default"].stride_A
    kinds: dict[tuple[Any, ...], list[Any]] = {}
    for name, module in wrapped.named_modules():
        if isinstance(module, LilyLayer):
            kinds.setdefault((_kind(name), module.get_base_layer().weight.shape), []).append(module)
    for modules in kinds.values():
        for number, module in enumerate(modules):
            module.lily_A["default"] = modules[number - number % stride].lily_A["default"]
            module.lily_B["default"] = modules[0].lily_B["default"]


def _kind(name: str) -> str:
    """A module's name without the number of its layer."""
    return re.sub(r"\.\d+\.", ".", name, count=1)

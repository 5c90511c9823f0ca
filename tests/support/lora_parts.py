"""A LoRA model's parts, by the names of its equation: W, A, B and s."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from peftmark.lab.methods import Prepared

QUERY = "bert.encoder.layer.0.attention.self.query"
WIDE = "bert.encoder.layer.1.output.dense"
SCALE = 8 / 2
"""alpha / r of `tiny.job`."""


def layer_of(prepared: Prepared, name: str = QUERY) -> Any:
    model: Any = prepared.model
    return model.get_base_model().get_submodule(name)


def factors(prepared: Prepared, name: str = QUERY) -> tuple[torch.Tensor, torch.Tensor]:
    """A of shape (r, in) and B of shape (out, r)."""
    layer = layer_of(prepared, name)
    return layer.lora_A["default"].weight.detach(), layer.lora_B["default"].weight.detach()


def update(prepared: Prepared, name: str = QUERY) -> torch.Tensor:
    """s B A."""
    a, b = factors(prepared, name)
    found: torch.Tensor = layer_of(prepared, name).scaling["default"] * b @ a
    return found


def weight(model: nn.Module, name: str = QUERY) -> torch.Tensor:
    return model.get_parameter(f"{name}.weight").detach()


def rest(prepared: Prepared, name: str = QUERY) -> torch.Tensor:
    """What W keeps."""
    found: torch.Tensor = layer_of(prepared, name).base_layer.weight.detach()
    return found

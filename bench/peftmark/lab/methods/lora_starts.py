"""LoRA's variants that differ in their start alone: MiLoRA, Init[B], Init[AB] and MiCA.

As in `lora_variants`, h = W x + s B A x with s = alpha / r, A of shape (r, in) and B of shape
(out, r), and a start that is taken out of W is saved as a plain LoRA on the plain base. Init[A] is
plain LoRA: B zero, A drawn evenly within 1 / sqrt(in), as PEFT draws it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from peftmark.lab.methods import Prepared, Setting
from peftmark.lab.methods.lora import as_lora, lora_config, ranks_of, saver_of_change, wrap
from peftmark.lab.methods.lora_variants import Factors, check_ranks, from_factors, scale_of


def milora(model: nn.Module, setting: Setting) -> Prepared:
    """MiLoRA (Wang et al. 2024, arXiv 2406.09044): s B A starts as the r smallest singular triplets
    of W = U S V, with A = sqrt(S / s) V and B = U sqrt(S / s); W keeps the others.

    PiSSA with the other end of the spectrum. The scale is divided out as arXiv 2602.04998 does it,
    so that the model starts as the base's function whatever alpha is.
    """
    ranks, scale = ranks_of(setting), scale_of(setting)
    check_ranks(model, ranks)
    start: Factors = {}
    for name, rank in ranks.items():
        weight = model.get_parameter(f"{name}.weight").detach().float()
        u, s, v = torch.linalg.svd(weight, full_matrices=False)
        root = (s[-rank:] / scale).sqrt()
        start[name] = root[:, None] * v[-rank:], u[:, -rank:] * root
    return from_factors(model, setting, ranks, start)


def init_b(model: nn.Module, setting: Setting) -> Prepared:
    """Init[B] (Hayou et al. 2024, arXiv 2406.08447): A is zero at the start and B is drawn.

    B is drawn as PEFT draws A, evenly within 1 / sqrt(fan-in), which is r for B: a variance in
    proportion to 1 / r, as the paper has it.
    """
    ranks = ranks_of(setting)
    wrapped = wrap(model, lora_config(ranks, setting))
    for name, rank in ranks.items():
        layer = wrapped.get_base_model().get_submodule(name)
        nn.init.zeros_(layer.lora_A["default"].weight)
        _draw(layer.lora_B["default"].weight, rank)
    return as_lora(wrapped, ranks, setting)


def init_ab(model: nn.Module, setting: Setting) -> Prepared:
    """Init[AB] (Li et al. 2025, arXiv 2505.23194): A and B are both drawn, and W keeps W - s B A.

    As arXiv 2602.04998 compares it: both evenly within 1 / sqrt(in), and the start taken out of W,
    so that the model starts as the base's function.
    """
    ranks = ranks_of(setting)
    wrapped = wrap(model, lora_config(ranks, setting))
    for name in ranks:
        layer = wrapped.get_base_model().get_submodule(name)
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        _draw(b, a.shape[1])
        layer.base_layer.weight.data -= layer.get_delta_weight("default").detach()
    return as_lora(wrapped, ranks, setting, save=saver_of_change(wrapped))


def mica(model: nn.Module, setting: Setting) -> Prepared:
    """MiCA (arXiv 2604.01694): B is the r left singular vectors of W with the smallest singular
    values, and stays so; A starts as zero and trains alone.

    In PEFT's form, whose s is alpha / r.
    """
    ranks = ranks_of(setting)
    check_ranks(model, ranks)
    return as_lora(
        wrap(model, lora_config(ranks, setting, init_lora_weights="mica")), ranks, setting
    )


def _draw(weight: Any, fan_in: int) -> None:
    """Draw a factor evenly within 1 / sqrt(fan_in)."""
    bound = 1 / math.sqrt(fan_in)
    nn.init.uniform_(weight, -bound, bound)

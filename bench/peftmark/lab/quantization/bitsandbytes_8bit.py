"""LLM.int8() by bitsandbytes (Dettmers et al. 2022): weights and activations in 8 bits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from peftmark.catalog.peft_types import ON_8BIT
from peftmark.lab.memory.code_books import code_books
from peftmark.lab.quantization import bitsandbytes_layers
from peftmark.lab.quantization.backend import Backend
from peftmark.record.job import Job

CLASS = "Int8Params"


def _config(job: Job, whole: Sequence[str]) -> Any:
    return bitsandbytes_layers.config(load_in_8bit=True, llm_int8_skip_modules=list(whole))


def _constants(module: nn.Module) -> Iterable[torch.Tensor]:
    """Scales, which the weight has at first and the layer's state later."""
    found = [getattr(p, "SCB", None) for p in module.parameters(recurse=False)]
    state: Any = getattr(module, "state", None)
    found += [getattr(state, "CB", None), getattr(state, "SCB", None)]
    return [held for held in found if isinstance(held, torch.Tensor)]


def _quantisers() -> Iterable[tuple[Any, str]]:
    import bitsandbytes

    layers: Any = bitsandbytes.nn
    return ((layers.Int8Params, "_quantize"),)


def _keep_constants(model: nn.Module) -> None:
    """Let layers on a CPU find their scales again.

    DoRA dequantises the weight in each forward pass. On a CPU PEFT 0.21 then gives the layer a new
    weight, which bitsandbytes takes for a freshly quantised one and whose missing scales it would
    put in the place of the true ones.
    """

    def known(layer: Any, inputs: object) -> None:
        if layer.state.SCB is not None and layer.state.CB is not None:
            layer.weight.CB = None

    for module in model.modules():
        # PEFT's wrapper goes by the same name.
        if type(module).__name__ == "Linear8bitLt" and hasattr(module, "state"):
            module.register_forward_pre_hook(known)


def _without_values(layer: Any) -> nn.Parameter:
    """A layer's weight, quantised by bitsandbytes' own code."""
    import bitsandbytes.functional as functional

    plain = torch.empty(layer.out_features, layer.in_features, dtype=layer.weight.dtype)
    packed, scales, _ = functional.int8_vectorwise_quant(plain.to(torch.float16))
    held = {"CB": packed, "SCB": scales, "has_fp16_weights": False}
    return bitsandbytes_layers.stand_in(packed, CLASS, held)


def _stand_in(model: nn.Module, quantizer: Any) -> None:
    bitsandbytes_layers.replace_layers(model, quantizer, _without_values, "state")


def _formulas() -> dict[Any, Any]:
    """The backward pass unpacks the weights and multiplies with torch's own operations."""
    import bitsandbytes  # noqa: F401 (registers the operations)

    def product(left: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
        return 2 * math.prod(left) * weight[0]  # (m, k) times (n, k) transposed

    def mixed(_: Any, left: Sequence[int], weight: Sequence[int], *__: Any, **___: Any) -> int:
        return product(left, weight)

    known: Any = torch.ops.bitsandbytes
    return {known.int8_scaled_mm: product, known.int8_mixed_scaled_mm: mixed}


BACKEND = Backend(
    "bitsandbytes-8bit",
    bitsandbytes_layers.LIBRARY,
    _config,
    classes=frozenset({CLASS}),
    constants=_constants,
    quantisers=_quantisers,
    keep_constants=_keep_constants,
    without_values=code_books,
    stand_in=_stand_in,
    formulas=_formulas,
    takes=lambda kind: kind.quantized or kind.key in ON_8BIT,
)

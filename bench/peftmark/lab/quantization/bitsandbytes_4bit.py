"""4-bit weights in blocks with a constant each, by bitsandbytes (Dettmers et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from peftmark.lab.memory.code_books import code_books
from peftmark.lab.number_types import TYPES
from peftmark.lab.quantization import bitsandbytes_layers
from peftmark.lab.quantization.backend import Backend
from peftmark.record.job import Job

CLASS = "Params4bit"


def _config(job: Job, whole: Sequence[str]) -> Any:
    return bitsandbytes_layers.config(
        load_in_4bit=True,
        bnb_4bit_quant_type=job.quantization,
        bnb_4bit_use_double_quant=bool(job.recipe.double_quantization),
        bnb_4bit_compute_dtype=TYPES[job.recipe.precision],
        llm_int8_skip_modules=list(whole),
    )


def _size(weight: Any) -> int:
    state = getattr(weight, "quant_state", None)
    return math.prod(state.shape) if state is not None else int(weight.numel())


def _format(weight: Any) -> str:
    state = getattr(weight, "quant_state", None)
    if state is None:
        return str(weight.dtype).removeprefix("torch.")
    constants = ", constants quantised" if state.nested else ""
    return f"{state.quant_type} in blocks of {state.blocksize}{constants}"


def _constants(module: nn.Module) -> Iterable[torch.Tensor]:
    """Block constants, code books and offsets, nested ones included."""
    for parameter in module.parameters(recurse=False):
        state = getattr(parameter, "quant_state", None)
        while state is not None:
            for held in (state.absmax, state.code, state.offset):
                if isinstance(held, torch.Tensor):
                    yield held
            state = state.state2


def _quantisers() -> Iterable[tuple[Any, str]]:
    import bitsandbytes

    layers: Any = bitsandbytes.nn
    return ((layers.Params4bit, "_quantize"),)


def _loaded(model: nn.Module) -> None:
    """On a CPU with AVX512-BF16, bitsandbytes repacks 4-bit weights in place at the first
    evaluation, after which they can no longer train."""
    module: Any
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


@contextmanager
def _exact(model: nn.Module) -> Iterator[None]:
    layers: list[Any] = [m for m in model.modules() if getattr(m, "compute_dtype", None)]
    before = [layer.compute_dtype for layer in layers]
    for layer in layers:
        layer.compute_dtype = torch.float32
    try:
        yield
    finally:
        for layer, kind in zip(layers, before, strict=True):
            layer.compute_dtype = kind


_HELD = ("blocksize", "compress_statistics", "quant_type", "quant_storage", "module")


def _without_values(layer: Any) -> nn.Parameter:
    """A layer's weight, quantised by bitsandbytes' own code."""
    import bitsandbytes.functional as functional

    weight = layer.weight
    packed, state = functional.quantize_4bit(
        torch.empty(layer.out_features, layer.in_features, dtype=weight.dtype),
        blocksize=weight.blocksize,
        compress_statistics=weight.compress_statistics,
        quant_type=weight.quant_type,
        quant_storage=weight.quant_storage,
    )
    held = {name: getattr(weight, name) for name in _HELD} | {"quant_state": state}
    layer.quant_state = state
    return bitsandbytes_layers.stand_in(packed, CLASS, held)


def _stand_in(model: nn.Module, quantizer: Any) -> None:
    bitsandbytes_layers.replace_layers(model, quantizer, _without_values, "quant_state")


def _formulas() -> dict[Any, Any]:
    """The backward pass unpacks the weights and multiplies with torch's own operations."""
    import bitsandbytes  # noqa: F401 (registers the operations)

    def product(left: Sequence[int], _: Any, weight: Sequence[int], *__: Any, **___: Any) -> int:
        return 2 * math.prod(left) * weight[0]  # (m, k) times (n, k) transposed

    known: Any = torch.ops.bitsandbytes
    return {known.gemm_4bit: product}


def unpacked(layer: Any) -> torch.Tensor:
    """A layer's weight as fp32 numbers."""
    from bitsandbytes.functional import dequantize_4bit

    found: torch.Tensor = dequantize_4bit(layer.weight.data, layer.weight.quant_state).float()
    return found


def replace(layer: Any, weight: torch.Tensor) -> None:
    """Put another weight into a layer, in the format that its own has."""
    from bitsandbytes.nn.modules import Params4bit

    old, make = layer.weight, cast(Any, Params4bit)  # its own annotations are partial
    layer.weight = make(
        weight.cpu(),
        requires_grad=False,
        quant_type=old.quant_type,
        blocksize=old.blocksize,
        compress_statistics=old.compress_statistics,
        quant_storage=old.quant_storage,
        module=layer,
    ).to(old.device)


BACKEND = Backend(
    "bitsandbytes-4bit",
    bitsandbytes_layers.LIBRARY,
    _config,
    classes=frozenset({CLASS}),
    size=_size,
    format=_format,
    constants=_constants,
    quantisers=_quantisers,
    loaded=_loaded,
    exact=_exact,
    without_values=code_books,
    stand_in=_stand_in,
    formulas=_formulas,
    unpacked=unpacked,
)

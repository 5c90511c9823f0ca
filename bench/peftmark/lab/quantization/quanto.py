"""8-bit and 4-bit weights by quanto (optimum-quanto); activations are not quantised.

The weight is a tensor class of quanto's that holds the numbers and their scales: a scale a row for
8 bits (integers or floats e4m3), scale and shift of a group of 128 (of a row where it has no more)
for 4 bits. An operation that the class has no code for gets the weight unpacked, so PEFT takes the
layers for plain ones. It can't merge into them: what it adds, it adds to an unpacked copy.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from peftmark.catalog.peft_types import NOT_ON_QUANTO, PeftType
from peftmark.lab.errors import Unsupported
from peftmark.lab.quantization.backend import Backend
from peftmark.record.job import Job

LIBRARY = "optimum-quanto"
KINDS = {"int8-quanto": "int8", "fp8-quanto": "float8", "int4-quanto": "int4"}
"""Quantization -> quanto's own name of it."""
EIGHT, FOUR = "WeightQBytesTensor", "WeightQBitsTensor"
OF_16_BITS = ("int8-quanto",)
"""Those whose weights stay of the classes above where their scales have 16 bits."""
TOUCH_NONE = frozenset(("beft", "ln_tuning", "trainable_tokens"))
"""Types of PEFT whose merge changes no quantised weight."""


def _config(job: Job, whole: Sequence[str]) -> Any:
    try:
        import optimum.quanto  # noqa: F401
        from transformers import QuantoConfig
    except Exception as error:  # it defines operations of its own
        raise Unsupported(
            f'optimum-quanto can\'t be loaded: {error}; install it: pip install "peftmark[quanto]"'
        ) from error
    if job.recipe.weights != "fp32" and job.quantization not in OF_16_BITS:
        raise Unsupported(
            f"{job.quantization} with weights: {job.recipe.weights}: of scales in 16 bits quanto "
            "makes weights of other classes, for kernels that take no part in training here; use "
            f"weights: fp32, or quantization: {', '.join(OF_16_BITS)}"
        )
    _fill_in()
    make: Any = QuantoConfig
    return make(weights=KINDS[job.quantization], modules_to_not_convert=list(whole))


def _fill_in() -> None:
    """Give quanto what it lacks: copies of its weights, and unpacking without a compiler, which it
    would call at the first 4-bit weight to build a function of a few lines."""
    from optimum.quanto import WeightQBitsTensor, WeightQBytesTensor
    from optimum.quanto.library.extensions.extension import get_extension, is_extension_available

    for kind in (WeightQBytesTensor, WeightQBitsTensor):
        kind.__deepcopy__ = _copied
    for name in ("quanto_cpp", "quanto_cuda"):
        if is_extension_available(name):
            get_extension(name)._lib = SimpleNamespace(unpack=_unpack)


def _copied(self: Any, memo: Any) -> Any:
    made = _clone(self)
    return nn.Parameter(made, self.requires_grad) if isinstance(self, nn.Parameter) else made


def _clone(tensor: Any) -> Any:
    """A copy of the same class; quanto's own gives the numbers unpacked."""
    parts = getattr(tensor, "__tensor_flatten__", None)
    if parts is None:
        return tensor.clone()
    names, facts = parts()
    copies = {name: _clone(getattr(tensor, name)) for name in names}
    return type(tensor).__tensor_unflatten__(copies, facts, None, None)


def _unpack(packed: torch.Tensor, bits: int) -> torch.Tensor:
    """Numbers of a few bits, which share bytes with those that lie a part of the rows further."""
    mask = 2**bits - 1
    return torch.cat([(packed >> at) & mask for at in range(0, 8, bits)])


@cache
def _layer() -> Any:
    from optimum.quanto import QLinear

    base: Any = QLinear

    class Layer(base):  # type: ignore[misc]
        """quanto's layer, which multiplies in the type of its scales, under autocast too: quanto
        refuses to hold scales in another type."""

        def forward(self, given: torch.Tensor) -> torch.Tensor:
            weight: Any = self.weight
            # In this mode a 4-bit weight can't be turned.
            if type(weight).__name__ == FOUR and torch.is_inference_mode_enabled():
                weight = weight.dequantize()
            with torch.autocast(given.device.type, enabled=False):
                now = given.to(weight.dtype)
                return nn.functional.linear(now, weight, self.bias).to(given.dtype)

    return Layer


def _loaded(model: nn.Module) -> None:
    from optimum.quanto import QLinear

    for module in model.modules():
        if type(module) is QLinear:
            module.__class__ = _layer()


def _values(weight: Any) -> Iterable[torch.Tensor]:
    held = weight._data
    return (held._data if type(weight).__name__ == FOUR else held,)


def _format(weight: Any) -> str:
    if type(weight).__name__ == EIGHT:
        kind = "fp8" if weight._data.dtype.is_floating_point else "int8"
        return f"{kind} with a scale a row (quanto)"
    groups = f"groups of {weight._group_size}" if weight._group_size else "rows"
    return f"int4 in {groups} with scale and shift (quanto)"


def _constants(module: nn.Module) -> Iterable[torch.Tensor]:
    """Scales, and shifts of 4-bit weights."""
    for weight in module.parameters(recurse=False):
        held: Any = weight
        if type(weight).__name__ in (EIGHT, FOUR):
            yield held._scale
        if type(weight).__name__ == FOUR:
            yield held._shift


def _quantisers() -> Iterable[tuple[Any, str]]:
    from transformers.integrations.quanto import QuantoQuantize

    return ((QuantoQuantize, "convert"),)


def _stand_in(model: nn.Module, quantizer: Any) -> None:
    """Quantise, by quanto's own code, what transformers would quantise while it loads."""
    from optimum.quanto import QLinear
    from optimum.quanto.tensor.packed import PackedTensor

    for module in model.modules():
        if type(module) is QLinear:
            layer: Any = module
            size, kind = (layer.out_features, layer.in_features), layer.weight.dtype
            layer.weight = nn.Parameter(torch.empty(size, dtype=kind), requires_grad=False)
            layer.input_scale = torch.ones(layer.input_scale.shape)
            layer.output_scale = torch.ones(layer.output_scale.shape)
            layer.freeze()
            layer.weight.requires_grad = False
            if type(layer.weight).__name__ == FOUR:  # quanto packs tensors with values alone
                layer.weight._data = PackedTensor.pack(layer.weight._data, layer.weight.qtype.bits)


def _formulas() -> dict[Any, Any]:
    """The product with 8-bit weights; everything else is torch's own operations."""
    import optimum.quanto  # noqa: F401 (registers the operations)

    def product(left: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
        return 2 * left[0] * left[1] * weight[0]  # (m, k) times (n, k) transposed

    known: Any = torch.ops.quanto
    return {known.qbytes_mm: product}


def _takes(kind: PeftType) -> bool:
    return kind.key not in NOT_ON_QUANTO


def _unpacked(layer: Any) -> torch.Tensor:
    found: torch.Tensor = layer.weight.dequantize().float()
    return found


def _unmergeable(config: Any) -> str:
    kind = str(config.peft_type.value).lower()
    if kind in TOUCH_NONE:
        return ""
    return f"PEFT can't merge {kind} into quanto's weights: it adds to an unpacked copy of them"


BACKEND = Backend(
    "quanto",
    LIBRARY,
    _config,
    classes=frozenset({EIGHT, FOUR}),
    values=_values,
    format=_format,
    constants=_constants,
    quantisers=_quantisers,
    loaded=_loaded,
    stand_in=_stand_in,
    formulas=_formulas,
    takes=_takes,
    unpacked=_unpacked,
    unmergeable=_unmergeable,
    kept=False,
)

"""8-bit weights with a scale a row, by torchao; activations are not quantised.

The weight is a tensor class of torchao's that holds the 8-bit numbers, integers or floats (e4m3),
and the scales. A layer multiplies with the integers, converted to the type of its input, and scales
the product; floats it unpacks. Either way autograd keeps what it multiplied with for the backward
pass. PEFT has code of its own for LoRA on such weights; AdaLoRA treats the layer as any other, so
it trains on it and can't be merged into it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from peftmark.catalog.peft_types import NOT_ON_TORCHAO, PeftType
from peftmark.lab.errors import Unsupported
from peftmark.lab.quantization.backend import Backend
from peftmark.record.job import Job

LIBRARY = "torchao"
CLASSES = frozenset({"Int8Tensor", "Float8Tensor"})
MERGED = frozenset(
    ("lora", "boft", "miss", "oft", "shira", "vera", "ln_tuning", "trainable_tokens")
)
"""Types of PEFT that it merges into such weights, or that touch none of them."""


def _config(job: Job, whole: Sequence[str]) -> Any:
    try:
        from torchao.quantization import Float8WeightOnlyConfig, Int8WeightOnlyConfig
        from transformers import TorchAoConfig
    except Exception as error:  # native code, and many imports of its own
        raise Unsupported(
            f'torchao can\'t be loaded: {error}; install it: pip install "peftmark[torchao]"'
        ) from error
    # It would also change settings of torch.compile for the whole process.
    kinds = {"int8-torchao": Int8WeightOnlyConfig, "fp8-torchao": Float8WeightOnlyConfig}
    make: Any = TorchAoConfig
    return make(
        kinds[job.quantization](set_inductor_config=False), modules_to_not_convert=list(whole)
    )


def _values(weight: Any) -> Iterable[torch.Tensor]:
    return (weight.qdata,)


def _format(weight: Any) -> str:
    kind = "fp8" if weight.qdata.dtype.is_floating_point else "int8"
    return f"{kind} with a scale a row"


def _constants(module: nn.Module) -> Iterable[torch.Tensor]:
    """Scales, and zero points of integers."""
    for weight in module.parameters(recurse=False):
        if type(weight).__name__ in CLASSES:
            held: Any = weight
            yield from (t for t in (held.scale, getattr(held, "zero_point", None)) if t is not None)


def _quantisers() -> Iterable[tuple[Any, str]]:
    from transformers.integrations.torchao import TorchAoQuantize

    return ((TorchAoQuantize, "_quantize"),)


def _stand_in(model: nn.Module, quantizer: Any) -> None:
    """Quantise, by torchao's own code, what transformers would quantise while it loads."""
    from torchao.quantization import quantize_

    blank: Any = model
    blank.hf_quantizer = quantizer  # as on a loaded base, where PEFT looks for how to merge
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and quantizer.param_needs_quantization(
            model, f"{name}.weight"
        ):
            plain = torch.empty(module.out_features, module.in_features, dtype=module.weight.dtype)
            module.weight = nn.Parameter(plain, requires_grad=False)
            quantize_(module, quantizer.quantization_config.get_apply_tensor_subclass())


def _takes(kind: PeftType) -> bool:
    return kind.key not in NOT_ON_TORCHAO


def _unpacked(layer: Any) -> torch.Tensor:
    found: torch.Tensor = layer.weight.dequantize().float()
    return found


def _unmergeable(config: Any) -> str:
    if getattr(config, "use_dora", False):
        return "PEFT merges DoRA into torchao's weights as if it were LoRA, without its magnitudes"
    kind = str(config.peft_type.value).lower()
    return "" if kind in MERGED else f"PEFT can't merge {kind} into torchao's weights"


BACKEND = Backend(
    "torchao-8bit",
    LIBRARY,
    _config,
    classes=CLASSES,
    values=_values,
    format=_format,
    constants=_constants,
    quantisers=_quantisers,
    stand_in=_stand_in,
    takes=_takes,
    unpacked=_unpacked,
    unmergeable=_unmergeable,
)

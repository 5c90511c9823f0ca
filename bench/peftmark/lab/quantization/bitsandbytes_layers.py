"""What bitsandbytes' 4-bit and 8-bit layers share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn
from transformers import BitsAndBytesConfig

from peftmark.lab.errors import Unsupported
from peftmark.lab.memory.insides import fake_tensor

LIBRARY = "bitsandbytes"


def config(**settings: Any) -> Any:
    """transformers' quantization config.

    Raises:
        Unsupported: if bitsandbytes can't be loaded.
    """
    try:
        import bitsandbytes  # noqa: F401
    except Exception as error:  # its native library can fail in many ways
        raise Unsupported(f"bitsandbytes can't be loaded: {error}") from error
    make: Any = BitsAndBytesConfig  # its own annotations are partial
    return make(**settings)


def replace_layers(
    model: Any, quantizer: Any, weight_of: Callable[[Any], nn.Parameter], marked: str
) -> None:
    """Put stand-ins into the layers that transformers put in the place of plain ones.

    Args:
        weight_of: makes the quantised weight of a layer.
        marked: attribute of the layers that are ours.
    """
    for module in model.modules():
        if hasattr(module, "source_cls") and hasattr(module, marked):
            module.weight = weight_of(module)


def stand_in(data: Any, name: str, held: dict[str, Any]) -> nn.Parameter:
    """bitsandbytes' own parameter classes can't hold a tensor without values; their users look at
    the name of the class and at its attributes."""
    made: Any = nn.Parameter(data, requires_grad=False)
    made.__class__ = _STAND_INS[name]
    made.held = held
    vars(made).update(held)
    parameter: nn.Parameter = made
    return parameter


def _copied(self: Any, memo: Any) -> nn.Parameter:
    return stand_in(self.data.clone(), type(self).__name__, dict(self.held))


_STAND_INS = {
    name: type(name, (fake_tensor.FakeTensor,), {"__deepcopy__": _copied})
    for name in ("Params4bit", "Int8Params")
}

"""What a back-end of quantised weights is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from peftmark.catalog.peft_types import PeftType
from peftmark.catalog.quantizations import Family
from peftmark.record.job import Job


def _nothing(*_: Any) -> tuple[Any, ...]:
    return ()


def _ignore(model: nn.Module) -> None:
    return None


def _whole(weight: Any) -> Iterable[torch.Tensor]:
    return (weight.data,)


def _size(weight: Any) -> int:
    size: int = weight.numel()
    return size


def _type(weight: Any) -> str:
    return str(weight.dtype).removeprefix("torch.")


def _as_built(model: nn.Module, quantizer: Any) -> None:
    return None


def _as_it_is(model: nn.Module) -> AbstractContextManager[None]:
    return nullcontext()


def _as_in_the_table(kind: PeftType) -> bool:
    return kind.quantized


def _mergeable(config: Any) -> str:
    return ""


def _no_formulas() -> dict[Any, Any]:
    return {}


@dataclass(frozen=True)
class Backend:
    """How one library stores frozen weights. The defaults are those of weights as loaded.

    Attributes:
        family: its name in `peftmark.catalog.quantizations`.
        library: the package it needs; empty for none.
        config: transformers' quantization config for a job that keeps some modules whole (by full
            name), or None. Raises `Unsupported` with the remedy if the library can't be loaded.
        classes: names of the classes of its weights, by which it knows them.
        values: the tensors that hold a weight, without its constants.
        size: the numbers that a weight stands for.
        format: a weight's format in words.
        constants: what a module holds beside the weights: block constants, code books, scales.
        quantisers: (class, method) of what turns a weight into a quantised one, to be timed.
        loaded: what is left to do to a base after transformers has loaded it.
        keep_constants: lets layers find their constants again after something unpacked a weight.
        exact: while it is open, the layers compute in fp32.
        without_values: is open while tensors have no values.
        stand_in: puts tensors without values where loading a blank model on the meta device would
            put quantised weights; the second argument is transformers' quantizer.
        formulas: operations of the library's own -> how to count them, as torch's counter does.
        takes: whether a type of PEFT, put on its layers, trains and is saved as on plain ones.
        unpacked: a layer's weight as fp32 numbers, of shape (out, in); None where the layer's
            result is no product of its input with any weight.
        unmergeable: why an adapter with a configuration of PEFT's can't be merged into its
            weights; empty if it can.
        kept: whether transformers can write such a base into a folder, where later jobs find it.
    """

    family: Family | str
    library: str
    config: Callable[[Job, Sequence[str]], Any]
    classes: frozenset[str] = frozenset()
    values: Callable[[Any], Iterable[torch.Tensor]] = _whole
    size: Callable[[Any], int] = _size
    format: Callable[[Any], str] = _type
    constants: Callable[[nn.Module], Iterable[torch.Tensor]] = _nothing
    quantisers: Callable[[], Iterable[tuple[Any, str]]] = _nothing
    loaded: Callable[[nn.Module], None] = _ignore
    keep_constants: Callable[[nn.Module], None] = _ignore
    exact: Callable[[nn.Module], AbstractContextManager[None]] = _as_it_is
    without_values: Callable[[], AbstractContextManager[None]] = nullcontext
    stand_in: Callable[[nn.Module, Any], None] = _as_built
    formulas: Callable[[], dict[Any, Any]] = _no_formulas
    takes: Callable[[PeftType], bool] = _as_in_the_table
    unpacked: Callable[[Any], torch.Tensor] | None = None
    unmergeable: Callable[[Any], str] = _mergeable
    kept: bool = True

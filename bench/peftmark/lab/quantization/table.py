"""Which back-end makes a quantization, and which a weight is of."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any

import torch
from torch import nn

from peftmark.catalog.quantizations import quantization_of
from peftmark.lab.accelerator import synchronise
from peftmark.lab.errors import Unsupported
from peftmark.lab.plugin_code import named
from peftmark.lab.quantization import (
    as_loaded,
    bitsandbytes_4bit,
    bitsandbytes_8bit,
    quanto,
    torchao_8bit,
)
from peftmark.lab.quantization.backend import Backend

BACKENDS: dict[str, Backend] = {
    "none": as_loaded.BACKEND,
    "nf4": bitsandbytes_4bit.BACKEND,
    "fp4": bitsandbytes_4bit.BACKEND,
    "int8": bitsandbytes_8bit.BACKEND,
    "int8-torchao": torchao_8bit.BACKEND,
    "fp8-torchao": torchao_8bit.BACKEND,
    "int8-quanto": quanto.BACKEND,
    "fp8-quanto": quanto.BACKEND,
    "int4-quanto": quanto.BACKEND,
}
"""Quantization -> its back-end."""

_FAMILIES = {backend.family: backend for backend in BACKENDS.values()}
_BY_CLASS = {name: backend for backend in _FAMILIES.values() for name in backend.classes}


def backend_of(quantization: str) -> Backend:
    """The back-end of a quantization.

    Raises:
        Unsupported: if there is none, with those there are.
    """
    row = quantization_of(quantization)
    if row is not None and row.code:
        return _of_plugin(row.code)
    if quantization not in BACKENDS:
        raise Unsupported(
            f"no back-end for quantization {quantization!r}; known are {', '.join(BACKENDS)}"
        )
    return BACKENDS[quantization]


@cache
def _of_plugin(code: str) -> Backend:
    """The back-end of a plug-in, whose weights are known by their classes from now on.

    Raises:
        Unsupported: its code is no back-end.
    """
    found = named(code)
    if not isinstance(found, Backend):
        raise Unsupported(f"the plug-in's {code} is a {type(found).__name__}, not a Backend")
    _FAMILIES.setdefault(found.family, found)
    for name in found.classes:
        _BY_CLASS.setdefault(name, found)
    return found


def maker_of_weight(weight: nn.Parameter) -> Backend:
    """The back-end that made a weight; that of weights as loaded for any other parameter."""
    return _BY_CLASS.get(type(weight).__name__, as_loaded.BACKEND)


def is_quantised(weight: nn.Parameter) -> bool:
    """Whether a back-end made the weight."""
    return type(weight).__name__ in _BY_CLASS


def size_of(weight: nn.Parameter) -> int:
    """The numbers that a parameter stands for, packed ones counted unpacked."""
    return maker_of_weight(weight).size(weight)


def constants_of(module: nn.Module) -> Iterator[torch.Tensor]:
    """Block constants, code books, scales and offsets that a module holds."""
    for backend in _FAMILIES.values():
        yield from backend.constants(module)


@contextmanager
def quantization_clock(quantization: str, device: torch.device) -> Iterator[list[float]]:
    """Collect the seconds that a back-end spends on quantising weights inside.

    transformers reads and quantises tensor by tensor, so the two can't be told apart from outside.
    """
    spent: list[float] = []
    try:
        quantisers: Iterable[tuple[Any, str]] = backend_of(quantization).quantisers()
    except Exception:  # loading the model says so
        yield spent
        return

    def timed(quantise: Any) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            start = time.perf_counter()
            result = quantise(*arguments, **named)
            synchronise(device)
            spent.append(time.perf_counter() - start)
            return result

        return call

    with ExitStack() as after:
        for owner, name in quantisers:
            plain = getattr(owner, name)
            after.callback(setattr, owner, name, plain)
            setattr(owner, name, timed(plain))
        yield spent

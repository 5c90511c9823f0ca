"""Weights that bitsandbytes packed, as their files tell them: which, and of what shape."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from peftmark.core.shown import plain, quoted
from peftmark.own.weights import Tensor, refuse_packed
from peftmark.sources.stored_form import StoredForm, unreadable

BLOCK = 64
"""Numbers of a 4-bit block, as bitsandbytes makes them and cells of a suite have them."""
_MOST_STATE = 65_536
"""Bytes that the description of one packed weight may have."""
_DIFFERS = "and its configuration says otherwise"


def parameters_in(tensors: Sequence[Tensor], form: StoredForm | None, config: Path) -> int:
    """How many numbers some weights stand for, packed ones counted unpacked.

    Args:
        form: how the configuration says that they are quantised; None for whole ones.
        config: its file, for messages.

    Raises:
        AssetError: weights are packed otherwise than the configuration says.
    """
    shapes = {} if form is None else _shapes(tensors, form, config)
    constants = tuple(f"{name}." for name in shapes)
    beside = {
        f"{name.removesuffix('weight')}{one}" for name in shapes for one in ("SCB", "weight_format")
    }
    plain_ones = [
        one
        for one in tensors
        if not (one.name in shapes or one.name in beside or one.name.startswith(constants))
    ]
    refuse_packed(plain_ones)
    return sum(map(math.prod, shapes.values())) + sum(one.count for one in plain_ones)


def _shapes(
    tensors: Sequence[Tensor], form: StoredForm, config: Path
) -> dict[str, tuple[int, ...]]:
    """Packed weight -> the shape that it stands for."""
    named = {one.name: one for one in tensors}
    found: dict[str, tuple[int, ...]] = {}
    if form.quantization == "int8":
        for one in tensors:
            weight = named.get(f"{one.name.removesuffix('SCB')}weight")
            if one.name.endswith(".SCB") and weight is not None and weight.kind == "I8":
                found[weight.name] = weight.shape
    else:
        mark = ".quant_state.bitsandbytes__"
        for one in tensors:
            name, _, kind = one.name.partition(mark)
            if kind and name in named:
                found[name] = _shape(one, kind, form)
    if not found:
        seen = f"quantization_config: {form.quantization} of bitsandbytes"
        raise unreadable(config, seen, "and no weight beside it is packed so")
    return found


def _shape(state: Tensor, kind: str, form: StoredForm) -> tuple[int, ...]:
    """The shape that a packed weight's description gives, after what else it says is looked at."""

    def other(seen: str, why: str) -> Exception:
        return unreadable(state.file, f"{quoted(state.name)}: {plain(seen)[:60]}", why)

    told = _read(state)
    shape = told.get("shape")
    if not isinstance(shape, list) or not all(isinstance(n, int) and n > 0 for n in shape):
        raise other("no shape", "so that it can't be unpacked")
    if kind != form.quantization or told.get("quant_type") != kind:
        raise other(f"{told.get('quant_type')}", _DIFFERS)
    if told.get("blocksize") != BLOCK:
        why = f"and peftmark's {kind} is in blocks of {BLOCK}"
        raise other(f"blocks of {told.get('blocksize')}", why)
    if ("nested_blocksize" in told) != form.double:
        how = "quantised" if "nested_blocksize" in told else "not quantised"
        raise other(f"block constants are {how}", _DIFFERS)
    return tuple(shape)


def _read(state: Tensor) -> Mapping[str, Any]:
    if state.end - state.start > _MOST_STATE:
        return {}
    with state.file.open("rb") as opened:
        opened.seek(state.start)
        try:
            told = json.loads(opened.read(state.end - state.start))
        except (ValueError, RecursionError):
            return {}
    return told if isinstance(told, dict) else {}

"""Counts floating-point operations as they are dispatched, by torch's table and what it lacks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from peftmark.lab.memory.insides import TorchDispatchMode
from peftmark.lab.quantization.table import backend_of
from peftmark.record.job import Job


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations as torch's `FlopCounterMode` does, by the same table, but without its hooks
    into modules, which keep activations alive that checkpointing would have freed."""

    def __init__(self, job: Job) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        self._table = table_of(job.quantization)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # as in `LiveTensors`

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.namespace == "prim":
            return result
        count = self._table.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


def table_of(quantization: str) -> dict[Any, Any]:
    """Operation -> how to count it, on a base of this quantization."""
    make: Any = FlopCounterMode
    found: dict[Any, Any] = make(display=False, custom_mapping=_counted(quantization)).flop_registry
    return found


def _counted(quantization: str) -> dict[Any, Any]:
    """How to count what torch's counter doesn't know: fused attention on a CPU, and the operations
    of the base's back-end.

    Attention is two products forward and five backward, which makes the scores again, as torch
    counts it on a GPU.
    """

    def attend(query: Sequence[int], key: Sequence[int], *_: Any, **__: Any) -> int:
        return 2 * 2 * math.prod(query) * key[2]  # (rows, heads, tokens, width) each

    def attend_back(_: Any, query: Sequence[int], key: Sequence[int], *__: Any, **___: Any) -> int:
        return 5 * 2 * math.prod(query) * key[2]

    aten: Any = torch.ops.aten
    counted = {
        aten._scaled_dot_product_flash_attention_for_cpu: attend,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: attend_back,
    }
    return counted | backend_of(quantization).formulas()

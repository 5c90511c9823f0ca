"""Counts floating-point operations as they are dispatched, by torch's table and what it lacks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from peftmark.lab.memory.insides import TorchDispatchMode
from peftmark.record.job import Job


class Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts operations as torch's `FlopCounterMode` does, by the same table, but without its hooks
    into modules, which keep activations alive that checkpointing would have freed."""

    def __init__(self, job: Job) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total = 0
        make: Any = FlopCounterMode
        self._table = make(display=False, custom_mapping=_counted(job)).flop_registry

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


def _counted(job: Job) -> dict[Any, Any]:
    """How to count what torch's counter doesn't know: fused attention on a CPU, and bitsandbytes.

    Attention is two products forward and five backward, which makes the scores again, as torch
    counts it on a GPU. The backward pass of bitsandbytes' layers unpacks the weights and multiplies
    with torch's own operations.
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
    if job.quantization == "none":
        return counted
    import bitsandbytes  # noqa: F401 (registers the operations)

    def four(left: Sequence[int], _: Any, weight: Sequence[int], *__: Any, **___: Any) -> int:
        return 2 * math.prod(left) * weight[0]  # (m, k) times (n, k) transposed

    def eight(left: Sequence[int], weight: Sequence[int], *_: Any, **__: Any) -> int:
        return 2 * math.prod(left) * weight[0]

    def mixed(_: Any, left: Sequence[int], weight: Sequence[int], *__: Any, **___: Any) -> int:
        return eight(left, weight)

    known: Any = torch.ops.bitsandbytes
    return counted | {
        known.gemm_4bit: four,
        known.int8_scaled_mm: eight,
        known.int8_mixed_scaled_mm: mixed,
    }

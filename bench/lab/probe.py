"""A few steps on a fresh copy of the job's model, to count what timing must not see.

Counting tensors and operations slows a step down, so it is done apart from the timed ones, on a
model built anew from the same seeds. Nothing here changes a bit of the trained model.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from bench.lab.live import LiveBytes, LiveTensors
from bench.lab.methods import Prepared
from bench.lab.step import Step
from bench.lab.work import Work
from bench.record import Job
from bench.tasks import Task


@dataclass(frozen=True)
class Probed:
    """What the probe steps showed.

    Attributes:
        live: bytes at the peak, on the run's largest batch.
        flops: floating-point operations of each training step, by step.
    """

    live: LiveBytes
    flops: tuple[int, ...]


def probe(job: Job, task: Task, prepared: Prepared, work: Work, device: torch.device) -> Probed:
    """Take three steps, on a short, a middling and the largest batch of the run.

    The largest comes last, when the optimizer's states exist, so its peak is the run's.

    Args:
        prepared: a model of its own, in the state before the first step.
    """
    lengths = sorted(set(work.longest))
    chosen = dict.fromkeys((lengths[0], lengths[len(lengths) // 2], lengths[-1]))
    counted: dict[int, int] = {}
    step = Step(job, task, prepared, device)
    with LiveTensors(prepared.model) as live:
        for number, length in enumerate(_three(list(chosen)), start=1):
            batch = work.train(work.longest.index(length)).to(device)
            with FlopCounterMode(display=False, custom_mapping=_operations(job)) as flops:
                step(number, batch)
            counted[length] = flops.get_total_flops()
            del batch
            live.end_step()
    return Probed(live.peak(), tuple(interpolate(counted, length) for length in work.longest))


def _three(lengths: list[int]) -> list[int]:
    """Three lengths to probe; the largest stands in where there are fewer."""
    return lengths + [lengths[-1]] * (3 - len(lengths))


def interpolate(counted: dict[int, int], length: int) -> int:
    """Operations of a step at a batch length, from those counted at up to three lengths.

    Matrix products grow with the tokens, attention with their square, and penalties not at all: a
    polynomial of degree two, which three points fix exactly for a given batch size. Bucketed
    relative positions (DeBERTa) make it an approximation.
    """
    total = Fraction(0)
    for point, value in counted.items():
        term = Fraction(value)
        for other in counted:
            if other != point:
                term *= Fraction(length - other, point - other)
        total += term
    return round(total)


def _operations(job: Job) -> dict[Any, Any]:
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

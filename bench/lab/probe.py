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

from bench.lab.batches import Shape
from bench.lab.live import LiveBytes, LiveTensors
from bench.lab.methods import Prepared
from bench.lab.step import Step
from bench.lab.work import Work
from bench.record import Job
from bench.task import Task


@dataclass(frozen=True)
class Probed:
    """What the probe steps showed.

    Attributes:
        live: bytes at the peak, on the run's largest batch.
        shapes: of the two batches whose storages were followed.
        inputs: names of the model's inputs.
        flops: floating-point operations of each training step, by step.
    """

    live: LiveBytes
    shapes: tuple[Shape, ...]
    inputs: tuple[str, ...]
    flops: tuple[int, ...]


def probe(job: Job, task: Task, prepared: Prepared, work: Work, device: torch.device) -> Probed:
    """Follow storages in two steps, then count operations in up to three more.

    Storages: the shortest batch makes the optimizer's states, then the largest has the run's peak.
    Operations: the shortest, a middling and the largest batch. The two never share a step, since
    torch's counter hooks into every module and so keeps activations alive that gradient
    checkpointing would have freed.

    Args:
        prepared: a model of its own, in the state before the first step.
    """
    lengths = sorted(set(work.longest))
    step = Step(job, task, prepared, device)
    taken = 0

    shapes: list[Shape] = []
    inputs: tuple[str, ...] = ()

    def take(length: int) -> None:
        nonlocal taken, inputs
        taken += 1
        batch = work.train(work.longest.index(length))
        shapes.append(batch.shape)
        inputs = tuple(batch.inputs)
        step(taken, batch.to(device))

    with LiveTensors(prepared.model) as live:
        for length in (lengths[0], lengths[-1]):
            take(length)
            live.end_step()
    counted: dict[int, int] = {}
    for length in dict.fromkeys((lengths[0], lengths[len(lengths) // 2], lengths[-1])):
        with FlopCounterMode(display=False, custom_mapping=operations(job)) as flops:
            take(length)
        counted[length] = flops.get_total_flops()
    return Probed(
        live.peak(),
        tuple(shapes[:2]),
        inputs,
        tuple(interpolate(counted, length) for length in work.longest),
    )


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


def operations(job: Job) -> dict[Any, Any]:
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

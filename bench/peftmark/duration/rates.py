"""What operations cost on this machine: measured once by steps of small models, and kept.

An operation of a kind takes so long a call, so long a floating-point operation and so long a byte
that it reads or writes; the three are fitted to what was measured, none below zero (Lawson and
Hanson, Solving Least Squares Problems, 1974, chapter 23), by relative error. The measuring
processes run as many at once as jobs do, since those share caches and memory.
"""

from __future__ import annotations

import functools
import hashlib
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from peftmark.core.errors import StoreError, UserError
from peftmark.core.files import write_all
from peftmark.core.interpreter import passed_on
from peftmark.core.sealed import sealed, unsealed
from peftmark.machine.environment import cores, machine, software, source_hash
from peftmark.record.job import source_key

WORKER = "peftmark.lab.duration.reference_steps"
SMALLEST = 5e-6
"""Seconds: what takes less weighs no more in a fit than this, which clocks can tell."""

LARGE = 1 << 20
"""Bytes of a call from which on one can tell what a byte costs."""


@dataclass(frozen=True)
class Rates:
    """What operations cost.

    Attributes:
        costs: operation and number type, such as "mm float32" -> seconds a call, a floating-point
            operation, and a byte.
        other: the same of an operation that nobody measured: the medians of those that move bytes.
        fresh: seconds a byte of operations that make a large new tensor.
    """

    costs: Mapping[str, Sequence[float]]
    other: Sequence[float]
    fresh: float = 0.0

    @property
    def device(self) -> Literal["cpu", "cuda"]:
        """Where they are measured."""
        return "cpu"

    @property
    def call(self) -> float:
        """Seconds of an operation that does next to nothing."""
        return self.other[0]

    def seconds(self, work: Mapping[str, Sequence[float]], part: str, scale: float = 1.0) -> float:
        """Seconds of a part of a step.

        Args:
            work: as `peftmark.memory.forecast.Forecast` has it.
            part: forward, backward or update.
            scale: of operations and bytes, for another number of rows.
        """
        total = 0.0
        for name, amounts in work.items():
            of, _, operation = name.partition(" ")
            if of == part:
                call, flop, byte = self._of(operation)
                calls, flops, size = amounts
                total += call * calls + scale * (flop * flops + byte * size)
        return total

    def _of(self, operation: str) -> Sequence[float]:
        known = self.costs.get(operation)
        if known is not None:
            return known
        name, _, kind = operation.partition(" ")
        if kind == "-":
            return (self.other[0] / 2, 0.0, 0.0)
        if kind.endswith("+"):  # of a large new tensor, as other operations that make one
            call, flop, byte = self._of(operation.removesuffix("+"))
            return (call, flop, max(byte, self.fresh))
        return self.costs.get(f"{name} float32", self.other)


def fitted(samples: Mapping[str, Sequence[Sequence[float]]]) -> Rates:
    """Rates from measured calls.

    Args:
        samples: operation -> (calls, floating-point operations, bytes, seconds) of each size.
    """
    import numpy as np
    from scipy.optimize import nnls

    costs = {}
    for name, sizes in samples.items():
        table = np.array(sizes, dtype=float)
        scale = np.array([1.0, *np.maximum(table[:, 1:3].max(axis=0), 1.0)])
        values = np.column_stack([np.ones(len(table)), table[:, 1:3]]) / scale
        weight = np.sqrt(table[:, 0]) / np.maximum(table[:, 3], SMALLEST)
        found, _ = nnls(values * weight[:, None], table[:, 3] * weight)
        costs[name] = tuple(float(x) for x in found / scale)
    large = {name for name, sizes in samples.items() if max(one[2] for one in sizes) >= LARGE}
    moving = [c for n, c in costs.items() if n in large and c[2] > 0 and not n.endswith("+")]
    fresh = [cost[2] for name, cost in costs.items() if name.endswith("+")]
    call, byte = (
        statistics.median(cost[at] for cost in moving or [(2e-6, 0, 1e-10)]) for at in (0, 2)
    )
    for name in costs.keys() - large:  # of small tensors nobody learns what a byte costs
        costs[name] = (*costs[name][:2], min(costs[name][2], byte))
    return Rates(costs, (call, 0.0, byte), statistics.median(fresh or [byte]))


def precisions_here() -> list[str]:
    """Of matrix products, those that have a fast path here."""
    return ["fp32", "bf16"] if machine()["bf16_instructions"] else ["fp32"]


def calibrated(cache: Path, at_once: int | None = None) -> Rates:
    """Measure, and keep what was found; takes some twenty seconds.

    Args:
        at_once: processes that measure at once; None for as many as jobs run.

    Raises:
        UserError: the processes that measure ended.
    """
    count = at_once or cores()
    variables = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-P", "-m", WORKER, *precisions_here()]
    running = [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=passed_on(variables | {"HF_HUB_OFFLINE": "1"}),
        )
        for _ in range(count)
    ]
    try:
        told = [process.communicate()[0] for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    samples: dict[str, list[list[float]]] = {}
    for text in told:
        with suppress(ValueError):
            for name, sizes in json.loads(text).items():
                samples.setdefault(name, []).extend(sizes)
    if not samples:
        raise UserError(
            "the processes that measure this machine ended without a word",
            f"Look at what they say: {' '.join(command)}",
        )
    rates = fitted(samples)
    with suppress(StoreError):  # a cache that can't be written is gone without
        write_all({_place(cache): sealed(asdict(rates))})
    return rates


def known(cache: Path) -> Rates | None:
    """What was measured here before with these libraries; None if nothing was."""
    try:
        return Rates(**unsealed(_place(cache).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None  # not there, or damaged: it is measured anew


def _place(cache: Path) -> Path:
    return cache / "calibration" / f"{_made_by()}.json"


@functools.cache
def _made_by() -> str:
    found = {name: one for name, one in software().items() if name != source_key("peftmark")}
    facts = found | {"lab": source_hash("peftmark.lab"), "machine": machine(), "at_once": cores()}
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

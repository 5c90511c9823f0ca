"""Process that times a GPU: large products, a copy, and how long the host takes an operation.

What it prints is a line of JSON, which `peftmark.duration.cards` reads.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout

import torch

from peftmark.lab.duration.reference_steps import Reference, Shape, Timed
from peftmark.lab.measure.meters import gemm_peak

PRECISIONS = ("bf16", "fp16", "fp32")
COPIED = {"cpu": 64 << 20, "cuda": 1 << 30}
"""Bytes of the tensor that is copied."""
REPEATS = 5
SMALL = Shape("encoder", 384, 4, (12,), 512)
"""A model and a batch so small that a GPU waits for its host."""


def rates(device: torch.device) -> dict[str, float]:
    """Floating-point operations a second by precision, bytes a second, and of a step that waits for
    the host its seconds, operations, and operations that only look at a tensor in another way."""
    found = {name: gemm_peak(device, name) for name in PRECISIONS}
    source = torch.empty(COPIED[device.type], dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copied = _best(lambda: target.copy_(source), device)
    return found | {"bandwidth": 2 * len(source) / copied} | _step(device)


def _step(device: torch.device) -> dict[str, float]:
    torch.use_deterministic_algorithms(True, warn_only=True)  # as in jobs
    reference = Reference(SMALL, "lora", "bf16", str(device))
    (tokens,) = SMALL.tokens
    reference.step(tokens)
    counted = Timed()
    with counted:
        reference.step(tokens)
    calls = {True: 0, False: 0}
    for name, sizes in counted.samples.items():
        calls[name.endswith(" -")] += sum(map(len, sizes.values()))
    seconds = _best(lambda: reference.step(tokens), device)
    return {"step": seconds, "operations": calls[False], "views": calls[True]}


def _best(do: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of several times."""
    took = []
    for _ in range(REPEATS):
        _settle(device)
        start = time.perf_counter()
        do()
        _settle(device)
        took.append(time.perf_counter() - start)
    return min(took)


def _settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    """Time and print."""
    torch.set_num_threads(1)
    out = sys.stdout
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        found = rates(torch.device(sys.argv[1]))
    print(json.dumps(found), file=out, flush=True)


if __name__ == "__main__":
    main()

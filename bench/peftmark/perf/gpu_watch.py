"""What training steps start on a GPU and wait for there, as torch's own tools see it.

`peftmark.perf.launches` counts operations on a CPU; this is what a GPU is really given.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from peftmark.lab.data.batches import Batch
    from peftmark.perf.step import Train

NO_DEVICE = "no CUDA device"
NO_LAUNCHES = "torch.profiler saw no kernel start (CUPTI may be hidden here)"
WAITED = "called a synchronizing CUDA operation"
"""How torch warns of a call that makes the host wait (c10/cuda/CUDAFunctions.cpp)."""


def watch(
    train: Train, batches: list[Batch], device: torch.device
) -> tuple[dict[str, Any], list[torch.Tensor]]:
    """Train on batches under torch's profiler and its debug mode for waits.

    Returns:
        As `told` has it, and the losses.
    """
    if device.type != "cuda":
        return nothing(NO_DEVICE), train(batches)
    import torch
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize(device)
    with (
        warnings.catch_warnings(record=True, action="always") as caught,
        profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen,
    ):
        torch.cuda.set_sync_debug_mode("warn")
        try:
            losses = train(batches)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize(device)
    calls = {event.key: event.count for event in seen.key_averages()}
    return told(calls, caught, len(batches)), losses


def told(
    calls: Mapping[str, int], caught: Iterable[warnings.WarningMessage], steps: int
) -> dict[str, Any]:
    """Figures a step.

    Args:
        calls: names as the profiler has them -> how often.
        caught: warnings of the steps.

    Returns:
        `launches` of kernels, `copies` (with memory that is set), and `waits` as the debug mode
        tells them, each a step; `launches` and `copies` null with a `reason` if the profiler saw
        nothing; `where` the host waited -> how often a step.
    """
    launches = sum(n for name, n in calls.items() if "Launch" in name and name[:2] == "cu")
    copies = sum(n for name, n in calls.items() if name.startswith(("cudaMemcpy", "cudaMemset")))
    places = Counter(
        f"{Path(one.filename).name}:{one.lineno}" for one in caught if WAITED in str(one.message)
    )
    known = launches > 0
    return {
        "launches": launches / steps if known else None,
        "copies": copies / steps if known else None,
        "waits": places.total() / steps,
        "where": {place: count / steps for place, count in places.most_common()},
        "reason": "" if known else NO_LAUNCHES,
    }


def nothing(reason: str) -> dict[str, Any]:
    """Figures that weren't seen."""
    return {"launches": None, "copies": None, "waits": None, "where": {}, "reason": reason}

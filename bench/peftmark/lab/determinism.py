"""The same bits from the same job on a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def ask_for_same_bits(device: torch.device) -> None:
    """Have torch choose operations that repeat themselves, and warn of those that can't.

    What it says of them it says of a CPU and of CUDA alone; of other devices the repeated job says
    whether the bits are the same.
    """
    torch.use_deterministic_algorithms(device.type != "cpu", warn_only=True)
    # cuDNN's attention has no backward pass that repeats itself.
    torch.backends.cuda.enable_cudnn_sdp(False)


@contextmanager
def strictly() -> Iterator[None]:
    """Around a backward pass: where torch is to warn of what doesn't repeat itself, do without it.

    For attention on a GPU torch has both kinds of backward pass, and takes the one that repeats
    itself only if it is told not just to warn.
    """
    if not torch.are_deterministic_algorithms_enabled():
        yield
        return
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(True, warn_only=warns)

"""Separate random streams for each thing a seed controls.

One seed drives six streams: `head` (classifier weights), `adapter` (adapter weights), `preview`
(batches a method looks at before it is built), `order` (rows drawn), `windows` (order of
length-grouped batches) and `dropout`. Each is seeded right
before it is drawn from, so that a method which draws more numbers at one place does not shift what
another place sees: two methods with the same seed get the same classifier and the same batches.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch

STREAMS = ("head", "adapter", "preview", "order", "windows", "dropout")


def stream_seed(seed: int, stream: str, place: int = 0) -> int:
    """A 63-bit seed for one stream: the head of SHA-256("peftmark/<seed>/<stream>"), or for another
    process of a job than its first of that with "/<place>" behind it."""
    if stream not in STREAMS:
        raise ValueError(f"unknown stream {stream!r}")
    of_process = f"/{place}" if place else ""
    digest = hashlib.sha256(f"peftmark/{seed}/{stream}{of_process}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def seed_all(seed: int, stream: str, place: int = 0) -> None:
    """Seed every global generator (Python, NumPy, torch on all devices) for one stream.

    Args:
        place: of this process among those of the job, each of which draws for its own rows.
    """
    value = stream_seed(seed, stream, place)
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)


def generator(seed: int, stream: str) -> np.random.Generator:
    """A NumPy generator of its own for one stream."""
    return np.random.default_rng(stream_seed(seed, stream))

"""Peaks at any batch size, length or rank, from a few symbolic runs.

Where a size changes and the program doesn't, the same storages are born and freed in the same
order, and the bytes of each are a polynomial of the size: a matrix product's result grows with the
rows, attention's scores with the square of the tokens. So a few runs give every other peak exactly,
and a check that the runs did the same tells when they don't.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from math import lcm

import numpy as np

from peftmark.lab.memory.live_tensors import LiveBytes, Trace

COMPONENTS = [f.name for f in fields(LiveBytes)]


@dataclass(frozen=True)
class Family:
    """Runs of one program at several sizes.

    Attributes:
        sizes: of the runs, distinct; a polynomial of one degree less goes through them.
        stored: bytes of every storage at each size, shape (sizes, storages).
        keys, signs: storage and +1 or -1 of every event.
        component: number of each storage's component in `COMPONENTS`.
    """

    sizes: tuple[int, ...]
    stored: np.ndarray
    keys: np.ndarray
    signs: np.ndarray
    component: np.ndarray

    def stored_at(self, size: int) -> np.ndarray:
        """Bytes of every storage at a size."""
        return np.asarray(interpolated(self.sizes, self.stored, size))

    def total_at(self, size: int, block: int = 1) -> int:
        """The peak at a size.

        Args:
            block: bytes that an allocator rounds each storage up to a multiple of.
        """
        stored = -(-self.stored_at(size) // block) * block
        return int((self.signs * stored[self.keys]).cumsum().max())

    def peak_at(self, size: int, block: int = 1) -> LiveBytes:
        """The components of the peak at a size."""
        stored = -(-self.stored_at(size) // block) * block
        at = int((self.signs * stored[self.keys]).cumsum().argmax()) + 1
        alive = np.bincount(self.keys[:at], weights=self.signs[:at], minlength=len(stored)) > 0
        held = np.bincount(self.component[alive], weights=stored[alive], minlength=len(COMPONENTS))
        return LiveBytes(**dict(zip(COMPONENTS, map(int, held), strict=True)))

    def largest(self, room: int, block: int, step: int, highest: int, extra: int = 0) -> int:
        """The largest multiple of `step` whose peak leaves `extra` bytes of the room; 0 for none.

        Args:
            highest: where to stop.
        """
        low, high = 0, highest // step + 1
        while high - low > 1:
            middle = (low + high) // 2
            if self.total_at(middle * step, block) + extra <= room:
                low = middle
            else:
                high = middle
        return low * step


def family(traces: Mapping[int, Trace]) -> Family | None:
    """The family of traces by size; None if the runs did not do the same."""
    sizes = tuple(sorted(traces))
    first = traces[sizes[0]]
    component = first.component()
    for size in sizes[1:]:
        other = traces[size]
        if other.events != first.events or other.component() != component:
            return None
    events = np.array(first.events, dtype=np.int64).reshape(-1, 2)
    return Family(
        sizes,
        np.array([traces[size].sizes for size in sizes], dtype=np.int64),
        events[:, 0],
        events[:, 1],
        np.array([COMPONENTS.index(name) for name in component]),
    )


def interpolated(sizes: tuple[int, ...], values: np.ndarray, size: int) -> np.ndarray:
    """Values at a size, of the polynomials through those at `sizes` (Lagrange), as integers.

    Args:
        values: integers, shape (sizes, ...).
    """
    weights = []
    for one in sizes:
        weight = Fraction(1)
        for other in sizes:
            if other != one:
                weight *= Fraction(size - other, one - other)
        weights.append(weight)
    common = lcm(*(weight.denominator for weight in weights))
    # Whole numbers, so that nothing is rounded on the way.
    whole = np.array([int(weight * common) for weight in weights], dtype=object)
    summed = np.tensordot(whole, values.astype(object), axes=1)
    return np.asarray(summed // common).astype(np.int64)

"""One job trained by several processes, each on a device of its own and on its share of the rows.

Every process has the same weights and makes every batch whole, from the same seeds. Of each pass it
computes its share's part of the loss; the gradients are added up over all processes before they
are clipped, so that every process takes the same step (synchronous data parallelism, as in Li et
al. 2020, arXiv 2006.15704, without its overlap with the backward pass: an adapter's gradients are
few). With sum over processes p, and s_p a part's share of the step's rows (or tokens):

    loss = sum_p s_p loss_p        g = sum_p s_p g_p

which is what one process does that reads the same rows in as many passes.
"""

from __future__ import annotations

import datetime
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from peftmark.lab.members import Apart, Seat

Part = TypeVar("Part")

BUCKET_BYTES = 25 << 20
"""Bytes of gradients that are added up at once, in a buffer of that size."""
LONGEST = datetime.timedelta(days=30)
"""Time after which torch would end what waits for another process: the supervisor's own limit
comes before, and an evaluation of the first process may take hours."""
LOOPBACK = "lo0" if sys.platform == "darwin" else "lo"
WAYS = {"cpu": "gloo", "cuda": "nccl"}
"""Device of a job -> torch's way for its processes to talk, which its errors name; with ROCm `nccl`
is RCCL. Other devices have one process a job."""
_DIST_ERRORS: Any = dist.DistError


class Team:
    """The processes of a job as one of them sees them; by default it is alone.

    Args:
        place: of this process, from 0; the first one evaluates and writes.
        size: processes that a step's rows are shared by. Not joined, it takes its own share of the
            rows and adds nothing up.
        device: where the tensors of all that is said lie; None where it isn't joined.
    """

    def __init__(self, place: int = 0, size: int = 1, device: torch.device | None = None) -> None:
        self.place, self.size = place, size
        self._device = device

    @property
    def leads(self) -> bool:
        """Whether this is the first process."""
        return self.place == 0

    @property
    def device(self) -> torch.device | None:
        """Where all that is said lies; None where the processes haven't met."""
        return self._device

    def own(self, parts: Sequence[Part]) -> Sequence[Part]:
        """Those parts of a step that are this process'."""
        return parts[self.place :: self.size]

    def add_gradients(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Make every process' gradients the sum over all, in place."""
        if self._device is None:
            return
        for bucket in _buckets([p.grad for p in parameters if p.grad is not None]):
            flat: Any = torch.cat([gradient.flatten() for gradient in bucket])
            _said(dist.all_reduce, flat)
            pieces = flat.split([gradient.numel() for gradient in bucket])
            for gradient, piece in zip(bucket, pieces, strict=True):
                gradient.copy_(piece.view_as(gradient))

    def added(self, value: torch.Tensor) -> torch.Tensor:
        """The sum over all processes of a scalar."""
        if self._device is None:
            return value
        summed = value.clone()
        _said(dist.all_reduce, summed)
        return summed

    def share_weights(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        """Make every process' weights those of the first, in place."""
        if self._device is None:
            return
        for p in parameters:
            _said(dist.broadcast, p.detach(), 0)

    def told(self, values: Sequence[float | None]) -> list[float | None]:
        """What the first process says, to all: as many numbers as each gives, None among them."""
        if self._device is None:
            return list(values)
        said = self._numbers(values)
        _said(dist.broadcast, said, 0)
        return [None if math.isnan(value) else value for value in said.tolist()]

    def gathered(self, values: Sequence[float | None]) -> list[list[float | None]]:
        """What each process says, by its place; None for what it doesn't know."""
        if self._device is None:
            return [list(values)]
        own = self._numbers(values)
        every = [torch.empty_like(own) for _ in range(self.size)]
        _said(dist.all_gather, every, own)
        return [[None if math.isnan(v) else v for v in one.tolist()] for one in every]

    def part(self) -> None:
        """Leave the others, all at the same time; from then on each is alone."""
        if self._device is not None:
            dist.destroy_process_group()
            self._device = None

    def _numbers(self, values: Sequence[float | None]) -> torch.Tensor:
        filled = [math.nan if value is None else value for value in values]
        return torch.tensor(filled, dtype=torch.float64, device=self._device)


ALONE = Team()


def joined(seat: Seat, device: str) -> Team:
    """Meet the other processes of a job.

    Raises:
        Apart: they can't be met.
    """
    there: Any = dist
    # All are on this machine, and nobody else is to hear them.
    for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
        os.environ[name] = LOOPBACK
    _said(
        dist.init_process_group,
        WAYS[device],
        store=there.FileStore(seat.store, seat.size),
        rank=seat.place,
        world_size=seat.size,
        timeout=LONGEST,
    )
    return Team(seat.place, seat.size, torch.device(device))


@contextmanager
def heard(team: Team) -> Iterator[None]:
    """Inside, what a library says between the processes of a job may fail too.

    Raises:
        Apart: one of them is gone.
    """
    try:
        yield
    except RuntimeError as error:
        text = str(error).lower()
        lost = isinstance(error, _DIST_ERRORS) or any(way in text for way in WAYS.values())
        if team.device is None or not lost:
            raise
        raise Apart(f"the job's processes lost each other: {error}") from error


def _said(call: Callable[..., Any], *arguments: Any, **named: Any) -> None:
    """Say something to the other processes.

    Raises:
        Apart: one of them is gone.
    """
    try:
        call(*arguments, **named)
    except RuntimeError as error:
        raise Apart(f"the job's processes lost each other: {error}") from error


def _buckets(gradients: Sequence[torch.Tensor]) -> Iterator[list[torch.Tensor]]:
    """Gradients of one type, so many at once that they don't exceed a bucket, one at least."""
    for kind in dict.fromkeys(gradient.dtype for gradient in gradients):
        bucket: list[torch.Tensor] = []
        size = 0
        for gradient in (one for one in gradients if one.dtype == kind):
            if bucket and size + gradient.nbytes > BUCKET_BYTES:
                yield bucket
                bucket, size = [], 0
            bucket.append(gradient)
            size += gradient.nbytes
        if bucket:
            yield bucket

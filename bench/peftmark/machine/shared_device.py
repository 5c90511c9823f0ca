"""Jobs of a run that share a GPU: most of their work side by side, a timed stretch by itself.

One file a device holds two locks, each of one byte, which the kernel gives back however a process
ends. `ROOM` is held by whoever uses the device: by all of them together (shared), or by one alone
(exclusive). `TURN` is held by the one that wants, or has, the device for itself: whoever else comes
to a place where it may pause sees that, leaves, and comes back when the turn is over.

So no timed stretch waits for ever: nobody holds `TURN` but other stretches and, for a moment, those
that come back from a pause; and once it is held the device can only empty. These are record locks
(POSIX), which belong to a process: no child that it forks keeps one, and asking who holds one
(F_GETLK) takes none, so that looking can't get in anybody's way.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

TURN, ROOM = 0, 1
"""The byte of each lock."""
_FLOCK = struct.Struct("hhqqi4x")
"""Linux' `struct flock` on 64 bits: type, whence, start, length, process."""


def nothing_to_wait_for() -> None:
    """Waits for work that was given to the device, where none is."""


class SharedDevice:
    """A device as one job uses it, in a `with` block around all its work there.

    Args:
        file: of the device's locks, the same for all that share it; None where nobody does, and
            every call does nothing.
        timed: whether the job is to have a timed stretch.

    Attributes:
        settle: waits until the device has done what this process gave it.
    """

    def __init__(self, file: Path | None = None, timed: bool = True) -> None:
        self.timed = timed
        self.settle: Callable[[], None] = nothing_to_wait_for
        self._path = file
        self._file: int | None = None
        self._alone = False

    @staticmethod
    def told(places: Mapping[str, Any]) -> SharedDevice:
        """The device as a worker is told of it among its places."""
        shared = places.get("shared_device")
        return SharedDevice(Path(shared["file"]), shared["timed"]) if shared else SharedDevice()

    def as_told(self) -> dict[str, Any]:
        """The inverse of `told`."""
        if self._path is None:
            return {}
        return {"shared_device": {"file": str(self._path.resolve()), "timed": self.timed}}

    @property
    def shared(self) -> bool:
        """Whether other jobs may use it too."""
        return self._path is not None

    def __enter__(self) -> SharedDevice:
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._come_in()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            with suppress(Exception):  # a device that failed has nothing more to be waited for
                self.settle()
            os.close(self._file)  # gives both back
            self._file = None
            self.settle = nothing_to_wait_for

    def pause(self) -> None:
        """Leave the device to whoever wants it for itself, until it is done."""
        if self._file is None or self._alone or not self._wanted():
            return
        self.settle()
        self._give_back(ROOM)
        self._come_in()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Have the device for this process alone: others that use it have paused, or ended."""
        if self._file is None or self._alone:
            yield
            return
        self.settle()
        self._give_back(ROOM)  # before its turn: two that wait would wait for each other
        self._take(TURN, fcntl.LOCK_EX)
        self._take(ROOM, fcntl.LOCK_EX)
        self._alone = True
        try:
            yield
        finally:
            self._alone = False
            with suppress(Exception):
                self.settle()
            self._take(ROOM, fcntl.LOCK_SH)
            self._give_back(TURN)

    def _come_in(self) -> None:
        """Use the device beside others, once nobody wants it for itself."""
        self._take(TURN, fcntl.LOCK_SH)
        self._take(ROOM, fcntl.LOCK_SH)
        self._give_back(TURN)

    def _take(self, lock: int, how: int) -> None:
        assert self._file is not None
        fcntl.lockf(self._file, how, 1, lock)

    def _give_back(self, lock: int) -> None:
        assert self._file is not None
        fcntl.lockf(self._file, fcntl.LOCK_UN, 1, lock)

    def _wanted(self) -> bool:
        """Whether another process wants, or has, the device for itself."""
        assert self._file is not None
        asked = _FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, TURN, 1, 0)
        found: int = _FLOCK.unpack(fcntl.fcntl(self._file, fcntl.F_GETLK, asked))[0]
        return found != fcntl.F_UNLCK


def file_of(folder: Path, device: str) -> Path:
    """The file of a device's locks.

    Args:
        folder: of the run.
        device: its UUID.
    """
    plain = "".join(one if one.isalnum() or one in "-_" else "_" for one in device)
    return folder / f"{plain}.lock"

"""What workers send: JSON messages, framed as `multiprocessing` frames them.

Read without ever waiting: a worker that stops in the middle of a message must not stop its
supervisor, and one that sends rubbish costs no job but its own. Little is read at once and no
message may be long, so that one that never stops sending takes neither time nor memory of others.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterator
from typing import Any

from peftmark.core.shown import plain, quoted
from peftmark.record.outcome import Outcome
from peftmark.record.sent import MOST_COUNT, MOST_EXACT, outcome_of

_HEADER = struct.Struct("!i")
_PIECE = 1 << 16
MOST_BYTES = 64 << 20
"""Bytes of a message: an outcome with scores of more than a million rows has room."""
MOST_AT_ONCE = 1 << 20
"""Bytes that are read from one worker before others have their turn."""
TAKES = json.dumps({"takes": True}).encode()
"""What a process answers when it is told another job."""
ANSWER_SECONDS = 5.0
"""How long it has for that, before another process gets the job."""
MOST_PHASE = 60
"""Characters of the name of a phase."""


class Broken(Exception):
    """What came is no message."""


class Inbox:
    """The supervisor's end of a worker's pipe.

    Args:
        connection: a `multiprocessing` connection.
    """

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self._pending = bytearray()
        os.set_blocking(connection.fileno(), False)

    @property
    def closed(self) -> bool:
        """Whether nothing more can come."""
        return bool(self.connection.closed)

    def tell(self, order: bytes) -> None:
        """Give the process, which waits for it, another job.

        Raises:
            OSError: nobody is there, what it was told before is still unread, or the first that it
                said since it was ready isn't that it takes the job.
        """
        self.connection.send_bytes(order)
        # No byte more than the answer is read: nobody would be told of messages that wait in here.
        if self._pending or not self.connection.poll(ANSWER_SECONDS):
            raise OSError("no answer, or another")
        if self.connection.recv_bytes(len(TAKES)) != TAKES:
            raise OSError("another answer")

    def close(self) -> None:
        """Take nothing in any more."""
        self.connection.close()
        self._pending.clear()

    def take(self, most: int = MOST_AT_ONCE) -> Iterator[dict[str, Any] | Outcome]:
        """The messages that have come whole: progress as `progress` makes it, and the outcome. Half
        of one stays until its rest comes.

        Args:
            most: bytes that are read now.

        Raises:
            Broken: what came is no message; the inbox is closed.
        """
        over = self._read(most)
        try:
            while (message := self._next()) is not None:
                yield message
        except (ValueError, RecursionError) as error:
            self.close()
            told = "lists in lists without end" if isinstance(error, RecursionError) else error
            raise Broken(str(told)) from error
        if over:
            self.close()

    def _next(self) -> dict[str, Any] | Outcome | None:
        """The first message, if all of it is there."""
        if len(self._pending) < _HEADER.size:
            return None
        (size,) = _HEADER.unpack_from(self._pending)
        if not 0 <= size <= MOST_BYTES:
            raise ValueError(f"a length of {size:,} bytes")
        end = _HEADER.size + size
        if len(self._pending) < end:
            return None
        message = json.loads(self._pending[_HEADER.size : end].decode())
        del self._pending[:end]
        if not isinstance(message, dict):
            raise ValueError("no object")
        if "outcome" not in message:
            return progress(message)
        if not isinstance(message["outcome"], str):
            raise ValueError("the outcome is no text")
        return outcome_of(message["outcome"])

    def _read(self, most: int) -> bool:
        """Take in what waits, up to a limit; whether nothing more can come."""
        if self.closed:
            return False
        taken = 0
        try:
            while taken < most:
                piece = os.read(self.connection.fileno(), _PIECE)
                if not piece:
                    return True
                self._pending += piece
                taken += len(piece)
        except BlockingIOError:
            pass
        except OSError:
            return True
        return False


def progress(message: dict[str, Any]) -> dict[str, Any]:
    """What a message says about how far a job is: `phase`, `step`, `steps` and `metric`, each of
    its type; `lost`, which of a job's processes was killed; and `ready`, True where the process can
    take another job; no other key, so that what is kept of a worker can't grow.

    Raises:
        ValueError: one of them is of another type.
    """
    found: dict[str, Any] = {}
    for name in ("step", "steps"):
        if name in message:
            count = message[name]
            if type(count) is not int or not 0 <= count <= MOST_COUNT:
                raise ValueError(f"{name} can't be {quoted(count)}")
            found[name] = count
    if "metric" in message:
        score = message["metric"]
        if type(score) is not float and not (type(score) is int and abs(score) <= MOST_EXACT):
            raise ValueError(f"metric can't be {quoted(score)}")
        if math.isfinite(score):  # nothing can be drawn of another; the outcome will tell
            found["metric"] = float(score)
    if "phase" in message:
        phase = message["phase"]
        if not isinstance(phase, str) or len(phase) > MOST_PHASE:
            raise ValueError(f"phase can't be {quoted(phase)}")
        found["phase"] = plain(phase)
    if "lost" in message:
        lost = message["lost"]
        if not isinstance(lost, str) or len(lost) > MOST_PHASE:
            raise ValueError(f"lost can't be {quoted(lost)}")
        found["lost"] = plain(lost)
    if message.get("ready") is True:
        found["ready"] = True
    return found

"""What workers send: JSON messages, framed as `multiprocessing` frames them.

Read without ever waiting: a worker that stops in the middle of a message must not stop its
supervisor, and one that sends rubbish costs no job but its own.
"""

from __future__ import annotations

import json
import os
import struct
from typing import Any

_HEADER = struct.Struct("!i")
_PIECE = 1 << 16


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

    def close(self) -> None:
        """Take nothing in any more."""
        self.connection.close()

    def take(self) -> list[dict[str, Any]]:
        """The whole messages that have come; half of one stays until its rest comes.

        Raises:
            Broken: what came is no message; the inbox is closed.
        """
        self._read()
        found = []
        try:
            while len(self._pending) >= _HEADER.size:
                (size,) = _HEADER.unpack_from(self._pending)
                if size < 0:
                    raise ValueError("a length below zero")
                end = _HEADER.size + size
                if len(self._pending) < end:
                    break
                message = json.loads(bytes(self._pending[_HEADER.size : end]))
                if not isinstance(message, dict):
                    raise ValueError("no object")
                del self._pending[:end]
                found.append(message)
        except ValueError as error:
            self.close()
            raise Broken(str(error)) from error
        return found

    def _read(self) -> None:
        if self.closed:
            return
        try:
            while piece := os.read(self.connection.fileno(), _PIECE):
                self._pending += piece
            self.close()
        except BlockingIOError:
            pass
        except OSError:
            self.close()

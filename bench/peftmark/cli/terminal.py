"""What a command prints to, held so that nothing about it ends a command or changes its exit code.

A screen may be full (/dev/full), closed (`>&-`), left (`| head -1`), gone with its connection, or
unable to show a character. The jobs of a run must not care, and neither must the verdict of a gate.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from select import select
from typing import TextIO

from peftmark.core.shown import visible

_LEFT = (errno.EPIPE, errno.EIO, errno.EBADF)
"""Errors of a reader that is gone: whoever left wants no more."""


class _Patient(io.FileIO):
    """A file whose writes never fail: what can't be written is dropped; the first error is kept."""

    lost: OSError | None = None

    def write(self, data: object) -> int:
        try:
            while (written := super().write(data)) is None:  # type: ignore[arg-type]
                select([], [self], [])  # somebody has made it one that does not wait
            return written
        except OSError as error:
            self.lost = self.lost or error
            return memoryview(data).nbytes  # type: ignore[arg-type]


class _Shown(io.TextIOWrapper):
    """A stream that writes no character which would act on a terminal, whoever's string it is in.
    Who draws on the terminal writes to `as_it_is` and sees to that himself."""

    def write(self, text: str) -> int:
        super().write(visible(text))
        return len(text)


class _AsItIs(io.TextIOBase):
    """The same stream without that."""

    def __init__(self, stream: _Shown) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return super(_Shown, self._stream).write(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stream.encoding


def as_it_is(stream: TextIO) -> TextIO:
    """A stream that takes control characters too."""
    return _AsItIs(stream) if isinstance(stream, _Shown) else stream  # type: ignore[return-value]


class Terminal:
    """Standard output and error of this process, from here to its end.

    A program that has put something else in their place, as a notebook has, keeps it.
    """

    def __init__(self) -> None:
        for number in (0, 1, 2):
            try:
                os.fstat(number)
            except OSError:  # else the next file that is opened takes its number
                with suppress(OSError):
                    os.open(os.devnull, os.O_RDWR)
        self._files: list[_Patient] = []
        sys.stdout = self._held(sys.stdout, 1)
        sys.stderr = self._held(sys.stderr, 2)

    def _held(self, stream: TextIO | None, number: int) -> TextIO:
        if stream is None:  # it was closed when Python started
            return open(os.devnull, "w", encoding="utf-8")
        buffer = getattr(stream, "buffer", None)
        raw = getattr(buffer, "raw", buffer)  # the file itself with PYTHONUNBUFFERED
        if type(raw) is not io.FileIO or raw.fileno() != number:
            return stream
        with suppress(OSError, ValueError):
            stream.flush()
        file = _Patient(number, "w", closefd=False)
        self._files.append(file)
        return _Shown(
            io.BufferedWriter(file),
            encoding=stream.encoding,
            errors="backslashreplace",
            line_buffering=number == 2 or raw is buffer or file.isatty(),
        )

    def lost(self) -> str:
        """Why something that was to be printed is nowhere; empty if all was, or nobody reads it."""
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        errors = [file.lost for file in self._files if file.fileno() == 1 and file.lost]
        told = [error for error in errors if error.errno not in _LEFT]
        return (told[0].strerror or str(told[0])) if told else ""

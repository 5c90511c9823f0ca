"""SIGINT and SIGTERM while jobs run."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from peftmark.core.errors import Exit, Leave


class Stop:
    """SIGINT and SIGTERM as a question the executor asks; a second signal leaves at once."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def asked(self) -> bool:
        """Whether the user asked to stop."""
        return self.signal is not None

    @property
    def code(self) -> Exit:
        """The exit code for the signal that came."""
        return Exit.TERMINATED if self.signal == signal.SIGTERM else Exit.INTERRUPTED

    @contextmanager
    def watching(self) -> Iterator[Stop]:
        """Handle the two signals inside, and go on when the terminal goes (SIGHUP); the server that
        workers are forked from takes over what is ignored. Off the main thread nothing is handled:
        Python has signals in the main thread alone, whose program decides what they end."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return

        def handle(number: int, frame: FrameType | None) -> None:
            second = self.signal is not None
            self.signal = number
            if second:
                raise Leave(self.code)

        before = {n: signal.signal(n, handle) for n in (signal.SIGINT, signal.SIGTERM)}
        before[signal.SIGHUP] = signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            yield self
        finally:
            for number, old in before.items():
                signal.signal(number, old)


@contextmanager
def sigterm_leaves() -> Iterator[None]:
    """Have SIGTERM inside leave as Ctrl-C does: what was begun is cleaned up, and processes that
    fetch or convert end. Where somebody handles it already, they go on doing so."""
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        raise Leave(Exit.TERMINATED)

    signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

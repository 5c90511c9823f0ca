"""The other processes of a job over several devices, which its worker forks and watches over.

The worker is the first of them. It alone talks to the supervisor; the others talk to it, over a
pipe each, and leave when that closes: however the worker ends, none is left. One that fails has its
reason told as the job's; one that is killed takes the worker along by the same signal, so that the
job ends, and is tried again, as any job whose worker is killed.

Nothing here loads torch: with a GPU each loads it by itself, since CUDA must not be there before a
fork.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import os
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any, NoReturn, cast

from peftmark.record.outcome import Outcome
from peftmark.record.sent import outcome_of

TEAM = "team"
"""What a worker is told of the places of its job's other processes stands under this key."""
LOST = "lost"
"""Key of the message that names the process that was killed."""
GRACE_SECONDS = 3.0
"""For what failed in one process to be told by the first one itself: where all fail alike, or the
first one finds the others gone, it has the better words, or waits for them."""


class Apart(Exception):
    """The processes of a job lost each other; why, the one that ended first knows."""


@dataclass(frozen=True)
class Seat:
    """The place of a process among those of its job.

    Attributes:
        place: from 0, the first.
        size: processes.
        store: file that they find each other by.
    """

    place: int
    size: int
    store: str

    @property
    def title(self) -> str:
        """Its name in messages."""
        return f"process {self.place + 1} of {self.size}"


Run = Callable[[Any, Seat, str | None], None]
"""What another process does: with its link to the first, its seat, and its GPU."""


def started(places: Mapping[str, Any], connection: Any, run: Run) -> Members | None:
    """Fork the other processes of a job, each of which ends after `run`; None if it has none.

    Args:
        places: what the worker is told.
        connection: the worker's to its supervisor, which is nobody else's.
    """
    seats = places.get(TEAM, [])
    if not seats:
        return None
    handle, store = tempfile.mkstemp(prefix="peftmark-team-")
    os.close(handle)
    size = len(seats) + 1
    links: dict[Any, tuple[Seat, int]] = {}
    for place, told in enumerate(seats, 1):
        ours, theirs = multiprocessing.Pipe()
        seat = Seat(place, size, store)
        pid = os.fork()
        if pid == 0:
            for other in (ours, connection, *links):
                other.close()
            _be(theirs, seat, told, run)
        theirs.close()
        links[ours] = seat, pid
    return Members(Seat(0, size, store), links)


def _be(link: Any, seat: Seat, told: Mapping[str, Any], run: Run) -> None:
    """Be another process, to the end."""
    code = 1
    try:
        if told["cores"] and hasattr(os, "sched_setaffinity"):
            with suppress(OSError):
                os.sched_setaffinity(0, told["cores"])
        run(link, seat, told["device"])
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        leave(code)


def leave(code: int) -> NoReturn:
    """End this process as `multiprocessing` ends those it started, and wait for nothing else: what
    is left of a GPU's way to the others could wait for them."""
    ending: Any = multiprocessing.util
    with suppress(Exception):
        ending._exit_function()  # removes what libraries registered, such as semaphores
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)


def wait_for_end() -> None:
    """Wait until the first process ends this one."""
    threading.Event().wait()


class Members:
    """The other processes of a job, as the first one sees them.

    Args:
        seat: of the first.
        links: link to each -> its seat and its number.
    """

    def __init__(self, seat: Seat, links: Mapping[Any, tuple[Seat, int]]) -> None:
        self.seat = seat
        self._links = dict(links)
        self._over = threading.Event()
        self._turn = threading.Lock()
        self._thread: threading.Thread | None = None

    def watch(self, send: Callable[[dict[str, Any]], None]) -> None:
        """From now on end this process, with what is to be said, if another fails.

        Args:
            send: to the supervisor.
        """
        self._thread = threading.Thread(target=self._watch, args=(send,), daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Give whichever process failed the time to say so; then this one is ended."""
        self._rest(2 * GRACE_SECONDS)

    def end(self, all_well: bool) -> None:
        """End the others, and take no notice of how.

        Args:
            all_well: whether they end by themselves.
        """
        if all_well:
            self._rest(GRACE_SECONDS)
        with self._turn:  # not in the middle of another's last words
            self._over.set()
        self._kill()
        self._rest(GRACE_SECONDS)
        with suppress(OSError):
            os.unlink(self.seat.store)

    def _rest(self, seconds: float) -> None:
        if self._thread is not None:
            self._thread.join(seconds)

    def _kill(self) -> None:
        for _, pid in list(self._links.values()):
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def _watch(self, send: Callable[[dict[str, Any]], None]) -> None:
        while self._links:
            for link in cast(list[Any], wait(list(self._links))):
                seat, pid = self._links[link]
                try:
                    self._failed(send, seat, link.recv_bytes().decode())
                except (EOFError, OSError):
                    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
                    del self._links[link]  # its number may be another's from now on
                    if code:
                        self._ended(send, seat, code)

    def _failed(self, send: Callable[[dict[str, Any]], None], seat: Seat, text: str) -> None:
        """Say why a process failed, unless the first one has something to say itself."""
        if self._over.wait(GRACE_SECONDS):
            return
        outcome = outcome_of(text)
        reason = f"in {seat.title}: {outcome.status_reason}"
        self._leave(send, {"outcome": Outcome(outcome.status, reason).to_json()})

    def _ended(self, send: Callable[[dict[str, Any]], None], seat: Seat, code: int) -> None:
        """End as a process has ended that nobody asked to."""
        if code < 0:
            self._leave(send, {LOST: seat.title}, -code)
        reason = f"{seat.title} ended with exit code {code} and no outcome"
        self._leave(send, {"outcome": Outcome("crashed", reason).to_json()})

    def _leave(
        self, send: Callable[[dict[str, Any]], None], message: dict[str, Any], by: int = 0
    ) -> None:
        """Say something last, unless the job is over, and end all of its processes.

        Args:
            by: the signal to end by; 0 for none.
        """
        with self._turn:
            if self._over.is_set():
                return
            with suppress(OSError):
                send(message)
            self._kill()
            if by:
                os.kill(os.getpid(), by)
                threading.Event().wait(GRACE_SECONDS)  # a signal may take a moment
            os._exit(1 if by else 0)

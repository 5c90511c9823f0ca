"""How a worker process comes to be, and the server that most are forked from.

On the CPU a worker is forked from a server that has torch loaded, in 0.02 s where a fresh process
spends 6 to 8 s on imports (measured on two cores). With a GPU each worker is a fresh process: CUDA
must not be touched before a fork.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.util
import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import forkserver
from types import ModuleType
from typing import Any

from peftmark.core.interpreter import started_with

PRELOAD = ("peftmark.lab.preload",)
LONGEST_FOLDER = 60
WAKE_SECONDS = 1.0

_GONE = (EOFError, ConnectionRefusedError, ConnectionResetError, BrokenPipeError)
"""How a start fails if the server is gone."""

WORKER_ENVIRONMENT = {
    # One thread a worker: threads that contend for cores slow each other down, and their number
    # changes bits.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    # cuBLAS is deterministic only with a fixed workspace.
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    "FLASH_ATTENTION_DETERMINISTIC": "1",
    # The supervisor fetched every asset before the first job; a worker never uses the network.
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    # The server that workers are forked from would import from the working directory first, where a
    # user's file may be named like a module.
    "PYTHONSAFEPATH": "1",
}


class NotStarted(Exception):
    """A worker process could not be started; says why."""


class Launcher:
    """Starts processes as workers.

    Args:
        gpu: whether each is a fresh process; else they are forked from a server.
        preload: whether the server loads what the real worker needs.
    """

    def __init__(self, gpu: bool, preload: bool) -> None:
        self.context: Any = multiprocessing.get_context("spawn" if gpu else "forkserver")
        self._forks = not gpu
        self._over = threading.Event()
        if self._forks:
            _choose_socket_folder()
            if preload:
                self.context.set_forkserver_preload(list(PRELOAD))
            threading.Thread(target=self._keep_awake, daemon=True).start()

    def start(self, process: Any) -> None:
        """Start a process.

        A server that has died is started again, once: one that dies while it loads its libraries
        would do so for ever.

        Raises:
            NotStarted: it could not be.
        """
        try:
            try:
                self._start(process)
            except _GONE:
                _how_the_server_ended()  # it is ending: only then it is started anew
                self._start(process)
        except _GONE as error:
            how = _how_the_server_ended()
            told = f"no worker could be started: the process that they are forked from {how}"
            raise NotStarted(told) from error
        except (OSError, MemoryError) as error:
            why = str(error) or type(error).__name__
            raise NotStarted(f"no worker could be started: {why}") from error

    def _start(self, process: Any) -> None:
        with started_with(WORKER_ENVIRONMENT), _no_main_program():
            process.start()

    def end(self) -> None:
        """Watch over the server no more."""
        self._over.set()

    def _keep_awake(self) -> None:
        """Let the server go on if anybody stopped it: it alone can start workers and tell of their
        end, and a supervisor that asked it would wait for ever."""
        while not self._over.wait(WAKE_SECONDS):
            server = _server()
            if server is not None:
                with suppress(OSError):
                    os.kill(server, signal.SIGCONT)


def _server() -> int | None:
    """The number of the server's process; None if there is none."""
    found = getattr(getattr(forkserver, "_forkserver", None), "_forkserver_pid", None)
    return found if isinstance(found, int) else None


def _how_the_server_ended() -> str:
    """Wait until the server has ended, and say how in words; whoever started it reaps it."""
    server = _server()
    if server is None:
        return "is not there"
    try:
        end = os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)
    except ChildProcessError:
        return "is not there"
    if end is None or end.si_code == os.CLD_EXITED:
        return f"ended with exit code {end.si_status if end else 'unknown'}"
    return f"was killed by {signal_name(end.si_status)}"


def signal_name(number: int) -> str:
    """A signal in words; not every one has a name."""
    return next((s.name for s in signal.Signals if s == number), f"signal {number}")


def _choose_socket_folder() -> None:
    """Have `multiprocessing` keep its socket in a short path: some 100 bytes are allowed."""
    before = tempfile.gettempdir()
    try:
        if len(os.fsencode(before)) > LONGEST_FOLDER:
            tempfile.tempdir = "/tmp"  # noqa: S108 (a folder of its own is made inside)
        multiprocessing.util.get_temp_dir()
    finally:
        tempfile.tempdir = before


@contextmanager
def _no_main_program() -> Iterator[None]:
    """Hide the program that runs here: a child would import it, on a Ray node all of Ray."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main

"""A tracker beside a run: a process of its own, which may fail, hang or be killed at no cost to it.

The run says that a row was stored and goes on; at its end it waits as long as the other side gets
anywhere. What was not sent, `peftmark track` sends later.
"""

from __future__ import annotations

import json
import os
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from peftmark.core.interpreter import passed_on
from peftmark.core.shown import plural
from peftmark.storage.store import Store
from peftmark.track.entry import controlled
from peftmark.track.seam import Ending, Target
from peftmark.track.send import Sent

MODULE = "peftmark.track.worker"
PATIENCE = 60.0
"""Seconds without any progress after which a tracker counts as hanging, once the run has ended."""
MORE = {"TOKENIZERS_PARALLELISM": "false", "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}


class Beside:
    """A tracker beside a run.

    Args:
        target: which one, and where to.
        store: the results folder of the suite.
        patience: None for `PATIENCE`.
    """

    def __init__(self, target: Target, store: Store, profile: str, patience: float | None = None):
        self._target, self._store, self._profile = target, store, profile
        self._patience = PATIENCE if patience is None else patience
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._fault = ""

    def stored(self) -> None:
        """A row was stored, or a run begins; never waits, and never raises."""
        if self._process is None and not self._fault:
            self._start()
        # A pipe that is full has unread words in it already, and any of them means the same.
        self._say({})

    def finish(self, report: Sequence[Path], ending: Ending) -> list[str]:
        """Wait for what is not sent yet; what became of it, a sentence each.

        Args:
            report: files of the run's report.
        """
        self.stored()
        process = self._process
        if process is None:
            return [self._told(self._fault)]
        try:
            self._listens(process)
            self._say({"end": ending, "report": [str(path.resolve()) for path in report]})
            with suppress(OSError):
                assert process.stdin is not None
                process.stdin.close()
            answer = self._answer(process)
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
            words = self._last_words()
        if answer is None:
            return [self._told(f"nothing moved for {self._patience:g} s, so it was left behind")]
        if not answer:
            return [self._told(f"it ended with code {process.returncode}: {words}")]
        return sentences(self._target, Sent(**answer["result"]), str(answer["where"]), self._later)

    def _listens(self, process: subprocess.Popen[bytes]) -> None:
        """Wait until there is room for a word, as long as for any sign of life."""
        assert process.stdin is not None
        with selectors.DefaultSelector() as ready:
            ready.register(process.stdin, selectors.EVENT_WRITE)
            ready.select(self._patience)

    def _start(self) -> None:
        try:
            self._log = tempfile.TemporaryFile()  # noqa: SIM115 (lives as long as the process)
        except OSError:
            self._log = None
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", MODULE],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log or subprocess.DEVNULL,
                env=passed_on({k: v for k, v in MORE.items() if k not in os.environ}),
                # Ctrl-C is the run's: what is on its way is sent.
                start_new_session=True,
            )
        except OSError as error:
            self._last_words()
            self._fault = f"no process could be started: {error.strerror or error}"
            return
        assert self._process.stdin is not None
        os.set_blocking(self._process.stdin.fileno(), False)
        self._say(
            {
                "tracker": self._target.name,
                "place": self._target.place,
                "results": str(self._store.folder.parent.resolve()),
                "suite": self._store.folder.name,
                "profile": self._profile,
            }
        )

    def _say(self, facts: dict[str, Any]) -> None:
        """Say something, or nothing where the other side doesn't listen or is gone."""
        if self._process is not None and self._process.stdin is not None:
            with suppress(OSError):
                os.write(self._process.stdin.fileno(), f"{json.dumps(facts)}\n".encode())

    def _answer(self, process: subprocess.Popen[bytes]) -> dict[str, Any] | None:
        """What the other side says at its end; None if it hangs, {} if it ended without a word."""
        assert process.stdout is not None
        handle, rest = process.stdout.fileno(), b""
        with selectors.DefaultSelector() as ready:
            ready.register(handle, selectors.EVENT_READ)
            while ready.select(self._patience):
                chunk = os.read(handle, 65536)
                if not chunk:
                    return {}
                *whole, rest = (rest + chunk).split(b"\n")
                for line in whole:
                    said: dict[str, Any] = json.loads(line)
                    if "result" in said:
                        return said
        return None

    def _last_words(self) -> str:
        """What the other side printed last; nobody reads more of it."""
        if self._log is None:
            return "it said nothing"
        with self._log as log:
            log.seek(0)
            said = log.read().decode("utf-8", "replace").strip().splitlines()
        return controlled((said or ["it said nothing"])[-1])

    def _told(self, fault: str) -> str:
        return f"Not tracked by {self._target.name}: {fault}. {self._later}"

    @property
    def _later(self) -> str:
        suite, root = self._store.folder.name, self._store.folder.parent
        return later(suite, self._target, root)


def later(suite: str, target: Target, results: Path) -> str:
    """What sends the rest, as a sentence."""
    import shlex

    words = ["peftmark", "track", suite, "--to", target.typed]
    if results != Path("results"):
        words += ["--results", str(results)]
    return f"No row is touched; later: `{shlex.join(words)}`."


def sentences(target: Target, sent: Sent, where: str, later: str) -> list[str]:
    """What became of rows, for people."""
    there = f", {sent.there:,} there already" if sent.there else ""
    adapters = f", {plural(sent.adapters, 'adapter')}" if sent.adapters else ""
    told = [f"Tracked by {target.name} in {where}: {plural(sent.sent, 'job')}{there}{adapters}."]
    if sent.faults:
        name, why = next(iter(sent.faults.items()))
        more = f", and {len(sent.faults) - 1:,} more" if len(sent.faults) > 1 else ""
        told.append(f"Not tracked by {target.name}: {name} ({why}){more}. {later}")
    return told

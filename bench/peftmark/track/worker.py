"""The process that sends rows while a run goes on: `python -m peftmark.track.worker`.

It knows of the run by its standard input alone. The first line says which rows and where to; each
further line that there may be new ones. The last is JSON again and ends it; an end without it means
that the run was killed. What it sends it reads from the results folder.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from peftmark.catalog import plugins
from peftmark.storage.store import Store
from peftmark.track.seam import Target, open_tracker
from peftmark.track.send import Sender

MOST_SECONDS = 600
"""That sending one thing may take: a process whose run is gone ends however the tracker hangs."""
CHUNK = 65536


def main() -> None:
    """Send until there is nothing more to send."""
    answers = _own_output()
    _behind_all_others()

    def going() -> None:
        signal.alarm(MOST_SECONDS)
        _say(answers, {"going": True})

    words = _lines(0)
    asked = next(words, [{}])[0]
    going()
    plugins.load()
    tracker = open_tracker(Target(asked["tracker"], asked["place"]))
    store = Store(Path(asked["results"]), asked["suite"])
    sender = Sender(tracker, store, asked["profile"], going)
    end: dict[str, Any] = {}
    sender.send(sender.rows())
    for lines in words:
        end = next((line for line in lines if "end" in line), {})
        sender.send(sender.rows())
        if end:
            break
    reports = {asked["profile"]: [Path(path) for path in end.get("report", ())]}
    sender.finish({p: files for p, files in reports.items() if files}, end.get("end", "stopped"))
    os.set_blocking(answers, True)
    _say(answers, {"result": sender.result.facts, "where": tracker.where})


def _own_output() -> int:
    """Where answers go; whatever a library prints goes where errors do."""
    answers = os.dup(1)
    os.dup2(2, 1)
    os.set_blocking(answers, False)  # nobody reads before the run has ended
    return answers


def _behind_all_others() -> None:
    """Compute only where nobody else does: jobs are timed."""
    with suppress(AttributeError, OSError):
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
        return
    os.nice(19)


def _say(to: int, facts: dict[str, Any]) -> None:
    with suppress(OSError):  # whoever asked is gone, or doesn't read yet
        os.write(to, f"{json.dumps(facts)}\n".encode())


def _lines(handle: int) -> Iterator[list[dict[str, Any]]]:
    """What was said since the last look, all of it together; ends with the other side."""
    rest = b""
    while chunk := os.read(handle, CHUNK):
        *whole, rest = (rest + chunk).split(b"\n")
        if whole:
            yield [json.loads(line) for line in whole]


if __name__ == "__main__":
    main()

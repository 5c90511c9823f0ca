"""Stand-ins for workers on the nodes of a test's cluster; each notes in a folder that it ran.

The folder is named by CLUSTER_NOTES, which nodes and workers inherit.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from fake_worker import Line, _hang
from waiting import wait_for

NOTES = "CLUSTER_NOTES"


def note(line, what):
    path = Path(os.environ[NOTES]) / f"{line.job.seed}.{os.getpid()}.{what}"
    path.touch()


def works(connection, job_json, places_json, log, device):
    """Finish, and tell how long it took from inside."""
    began = time.monotonic()
    line = Line(connection, job_json, log)
    note(line, "begun")
    print("worked on a node")
    note(line, "ended")
    inside = "with" if "ray" in sys.modules else "without"
    line.finish(
        data_source=os.environ["PEFTMARK_JOBS_AT_ONCE"],
        model_source=f"{inside} Ray",
        train_seconds=time.monotonic() - began,
    )


def meets(connection, job_json, places_json, log, device):
    """Work once a second worker does, on whatever node."""
    notes = Path(os.environ[NOTES])
    (notes / f"x.{os.getpid()}.there").touch()
    wait_for(lambda: len(list(notes.glob("*.there"))) >= 2)
    works(connection, job_json, places_json, log, device)


def waits_for_a_death(connection, job_json, places_json, log, device):
    """Work until the test says that a node is gone; never finish on that node itself.

    A worker may live on for a moment after its node, and its result may still arrive.
    """
    line = Line(connection, job_json, log)
    notes = Path(os.environ[NOTES])
    again = any(notes.glob(f"{line.job.seed}.*.begun"))
    note(line, "begun")
    wait_for((notes / "gone").exists)
    if (notes / f"{line.job.seed}.doomed").exists() and not again:
        _hang(line)
    note(line, "ended")
    line.finish()


def is_killed_once(connection, job_json, places_json, log, device):
    """Die as by the kernel's hand in the first attempt, finish in the second."""
    line = Line(connection, job_json, log)
    note(line, "begun")
    if Path(log).name.endswith(".1.log"):
        os.kill(os.getpid(), signal.SIGKILL)
    line.finish()


def hangs(connection, job_json, places_json, log, device):
    """Note who hangs."""
    line = Line(connection, job_json, log)
    note(line, "begun")
    _hang(line)


def hangs_at_first(connection, job_json, places_json, log, device):
    """Hang, unless one hung before."""
    line = Line(connection, job_json, log)
    before = list(Path(os.environ[NOTES]).glob(f"{line.job.seed}.*.begun"))
    note(line, "begun")
    if before:
        line.finish()
    else:
        _hang(line)

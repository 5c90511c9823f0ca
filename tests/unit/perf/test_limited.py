"""A command with a time limit: what it printed stays, and nothing of it goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from peftmark.perf import limited
from waiting import wait_for

pytestmark = pytest.mark.heavy

HANGS = "import threading; threading.Event().wait()"


def code(text):
    """Words that run Python code once."""
    return ["timeit", "-n", "1", "-r", "1", text]


def gone(pid):
    """Whether a process has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_command_that_ends_well_leaves_what_it_printed(tmp_path):
    text = "import os; print('{\"a\": 1}'); print('chatter'); print(os.environ['NAMED'])"
    clock = iter([10.0, 12.5]).__next__
    ran = limited.python(code(text), tmp_path / "logs" / "a.log", 600.0, {"NAMED": "[2]"}, clock)
    assert (ran.code, ran.late, ran.why()) == (0, False, "")
    assert ran.lines()[:2] == [{"a": 1}, [2]]
    assert ran.seconds == 2.5


def test_a_command_that_fails_says_why(tmp_path):
    ran = limited.python(code("raise ValueError('no such card')"), tmp_path / "a.log", 600.0, {})
    assert ran.code == 1 and not ran.late
    assert ran.why().startswith("ended with code 1:") and "no such card" in ran.why()


def test_a_command_that_takes_too_long_is_ended(tmp_path):
    ran = limited.python(code(HANGS), tmp_path / "a.log", 0.0, {})
    assert ran.late and ran.code < 0
    assert ran.why().startswith("ended at its limit after")


def test_what_a_command_leaves_running_ends_with_it(tmp_path):
    text = (
        "import subprocess, sys; "
        f"print(subprocess.Popen([sys.executable, '-c', '{HANGS}']).pid, flush=True)"
    )
    ran = limited.python(code(text), tmp_path / "a.log", 600.0, {})
    [pid] = [line for line in ran.lines() if isinstance(line, int)]
    assert ran.code == 0 and wait_for(lambda: gone(pid))

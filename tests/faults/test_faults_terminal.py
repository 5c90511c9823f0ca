"""A terminal that is full, closed, left, gone or of ASCII costs no job and changes no exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

from gate_cli import smoke_rows
from peftmark.core.errors import Exit
from peftmark.storage.store import Store
from places import SUPPORT
from waiting import PATIENCE, wait_for

pytestmark = pytest.mark.heavy
RUN = f"""
import sys
sys.path.insert(0, {str(SUPPORT)!r})
import stand_ins
stand_ins.load_early()
from functools import partial
from peftmark.run import runner
runner.fetch = lambda plan: {{}}
runner.execute = partial(runner.execute, worker="fault_worker:steady")
from peftmark.cli.parser import main
main(["run", "smoke", "--jobs", "2", "--no-report"])
"""


@pytest.fixture
def held(tmp_path, monkeypatch):
    """A run of fake jobs that end once they are let go; returns what starts it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    logs = Store(tmp_path / "results", "smoke").logs
    logs.mkdir(parents=True)
    (logs / "hold").touch()
    started = []

    def start(**streams):
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | streams
        one = subprocess.Popen([sys.executable, "-c", RUN], text=True, **streams)
        started.append(one)
        wait_for(lambda: len(list(logs.glob("*.log"))) == 2)
        return one

    start.let_go = (logs / "hold").unlink
    yield start
    for one in started:
        one.kill()
        one.communicate()


def statuses(folder):
    """The statuses of all jobs of the run."""
    return [one.outcome.status for one in Store(folder / "results", "smoke").read().rows]


@pytest.mark.slow
def test_a_reader_that_leaves_costs_no_job(held, tmp_path):
    one = held()
    one.stdout.close()
    held.let_go()
    assert one.wait(PATIENCE) == Exit.OK
    assert one.stderr.read() == ""
    assert statuses(tmp_path) == ["ok"] * 9


@pytest.mark.slow
def test_a_terminal_that_goes_with_its_connection_costs_no_job(held, tmp_path):
    """Every process of its foreground gets SIGHUP, and whoever writes to it an error."""
    master, terminal = os.openpty()
    one = held(stdout=terminal, stderr=terminal)
    os.close(terminal)
    os.close(master)
    for process in [psutil.Process(one.pid), *psutil.Process(one.pid).children()]:
        process.send_signal(signal.SIGHUP)
    held.let_go()
    assert one.wait(PATIENCE) == Exit.OK
    assert statuses(tmp_path) == ["ok"] * 9


@pytest.mark.slow
def test_a_full_terminal_costs_no_job_and_is_told(held, tmp_path):
    with open("/dev/full", "w", encoding="utf-8") as full:
        one = held(stdout=full)
    held.let_go()
    _, told = one.communicate(timeout=PATIENCE)
    assert (one.returncode, statuses(tmp_path)) == (Exit.USAGE, ["ok"] * 9)
    assert told == ("peftmark: standard output could not be written: No space left on device\n")


GATE = ["gate", "smoke", "--elsewhere", "--against", "other"]


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A folder with rows of two states of the code, of which one is worse."""
    folder = tmp_path_factory.mktemp("rows")
    smoke_rows(folder / "results")
    smoke_rows(folder / "other", value=0.5)
    return folder


@pytest.fixture
def shell(rows):
    """Run a command of peftmark with a piece of shell behind it; its exit code and both outputs."""

    def start(words, behind="", **environment):
        command = f'"$0" -m peftmark {" ".join(words)} {behind}'
        done = subprocess.run(
            ["bash", "-c", command, sys.executable],
            cwd=rows,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return start


@pytest.mark.slow
@pytest.mark.parametrize(
    "behind", [">/dev/full", pytest.param("<&- >&- 2>&-", marks=pytest.mark.slow)]
)
def test_the_verdict_of_a_gate_is_its_exit_code_whatever_the_terminal(shell, behind):
    assert shell(GATE, behind)[::2] == (Exit.NOT_REPEATABLE, "")


def test_an_answer_that_found_no_room_is_no_success(shell):
    told = "peftmark: standard output could not be written: No space left on device\n"
    assert shell(["--version"], ">/dev/full") == (Exit.USAGE, "", told)
    assert shell(["--version"], ">&-") == (Exit.OK, "", "")


@pytest.mark.slow
def test_a_character_that_a_terminal_lacks_is_written_as_its_number(shell):
    code, said, told = shell(["table", "smoke"], PYTHONIOENCODING="ascii")
    assert (code, told) == (Exit.OK, "")
    assert "\\xb1" in said, "the sign of plus or minus"
    assert said.isascii()


@pytest.mark.slow
def test_switches_of_python_change_no_exit_code(shell):
    """With PYTHONINSPECT Python itself ends with 1 and a traceback, whatever a program says."""
    switches = {"PYTHONINSPECT": "1", "PYTHONWARNINGS": "error", "PYTHONWARNDEFAULTENCODING": "1"}
    code, said, told = shell(["report", "nosuch"], **switches)
    assert (code, said) == (Exit.USAGE, "")
    assert "Traceback" not in told


def test_no_argument_reaches_the_terminal_with_what_it_would_act_on(shell):
    code, _, told = shell(["plan", "smoke", "$'--\\e[2J\\u202e'"])
    assert code == Exit.USAGE
    assert told.endswith("unrecognized arguments: --\ufffd[2J\ufffd\n")

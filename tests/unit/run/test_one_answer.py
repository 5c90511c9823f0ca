"""What a process of its own answers, whatever else it prints and however it ends."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest

from peftmark.run import one_answer, own_metrics
from peftmark.run.one_answer import Answer, ask


@pytest.fixture
def ends(monkeypatch):
    """Makes the process end so; returns the calls."""

    def so(stdout, stderr="", code=0):
        calls = []

        def run(command, **options):
            calls.append((command, options))
            return SimpleNamespace(stdout=stdout, stderr=stderr, returncode=code)

        monkeypatch.setattr(one_answer.subprocess, "run", run)
        return calls

    return so


def test_the_last_line_is_the_answer_and_the_question_goes_in_as_json(ends, monkeypatch):
    monkeypatch.setenv("MINE", "kept")
    calls = ends('a library says hello\n{"said": [1, null]}\n', "a warning\n")
    assert ask("some.module", {"rows": 3}, {"THREADS": "1"}) == Answer(
        {"said": [1, None]}, 0, "a warning"
    )
    ((command, options),) = calls
    assert command == [sys.executable, "-P", "-m", "some.module"]
    assert json.loads(options["input"]) == {"rows": 3}
    assert (options["env"]["MINE"], options["env"]["THREADS"]) == ("kept", "1")


@pytest.mark.parametrize("stdout", ["", "\n", "half a li", '{"cut": '])
def test_what_is_no_answer_is_told_with_the_exit_code_and_the_last_words(ends, stdout):
    ends(stdout, "a trace\nKilled by itself\n\n", 9)
    assert ask("some.module", {}) == Answer(None, 9, "Killed by itself")


def test_a_metric_that_ends_its_process_is_told_by_its_key(ends):
    ends("", "a trace\nout of memory\n", 137)
    what, remedy = own_metrics._tried({"keys": ["mine.py:score"]})
    assert what == "metric mine.py:score ended its process with exit code 137: out of memory"
    assert remedy == "A metric returns a number, or raises."


def test_a_metric_that_is_well_has_nothing_said_of_it(ends):
    ends("printed by the metric\n[null, null]\n")
    assert own_metrics._tried({"keys": ["mine.py:score"]}) == (None, None)

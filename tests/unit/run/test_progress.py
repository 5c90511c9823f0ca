"""What is said of a run where no bars can be drawn."""

from __future__ import annotations

import io

from rich.console import Console

from factory import make_job
from peftmark.run.progress import Board


def board():
    out = io.StringIO()
    console = Console(file=out, force_terminal=False, width=200)
    return Board(console, [make_job(seed=seed) for seed in range(6)], 2), out


def test_a_log_that_hears_nothing_is_told_what_runs():
    made, out = board()
    made.tell_running()
    assert out.getvalue() == "... workers are starting\n"
    made.event(make_job(seed=0), {"phase": "data"})
    made.event(make_job(seed=1), {"step": 20, "steps": 120})
    made.tell_running()
    line = out.getvalue().splitlines()[-1]
    assert "seed 0 (data); " in line and "seed 1 (step 20 of 120)" in line


def test_of_many_jobs_four_are_named_and_the_others_counted():
    made, out = board()
    for seed in range(6):
        made.event(make_job(seed=seed), {"phase": "model"})
    made.tell_running()
    assert out.getvalue().count("(model)") == 4 and out.getvalue().endswith("; 2 more\n")


def test_the_watcher_ends_with_the_run():
    made, _ = board()
    with made:
        assert not made._over.is_set()
    assert made._over.is_set()
    made._still()  # returns at once


def test_nothing_is_said_of_the_time_left_before_a_job_has_ended():
    made, _ = board()
    assert made.left() == ""

"""Fault 28 of docs/faults.md: a matrix of ten thousand jobs; and what a supervisor takes.

Calls and bytes are counted in `make test`; what needs a clock is in `make test-all`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import large_suite
from calls import calls_of
from factory import LORA, REPORT_OPTIONS, make_matrix
from peftmark.report import write as report
from peftmark.report.report_input import ReportInput
from peftmark.suite.expand import decide, expand
from peftmark.suite.load import load_suite
from places import SUPPORT
from waiting import PATIENCE

JOBS = 10_000
TASKS = ("cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2", "stsb")
CALLS_TO_PLAN_A_JOB = 200
BYTES_OF_A_PAGE = 6_000_000
BYTES_OF_A_SUPERVISOR = 175_000_000
"""Of which 39 million are Python, its libraries and our modules before anything is planned, and ten
million the statistics of the page that is written while jobs run."""
SHARE_OF_A_CORE = 0.02

SEEDS = JOBS // large_suite.JOBS_A_SEED


def planned(folder, seeds=SEEDS):
    """The jobs of the large suite with so many seeds."""
    (folder / "large.yaml").write_text(large_suite.text(seeds))
    jobs = expand(load_suite("large", folder), "quick", "cpu").jobs
    return decide(jobs, {}, {}, again=False)


@pytest.mark.slow
def test_a_job_of_ten_thousand_costs_no_more_to_plan_than_one_of_a_thousand(tmp_path):
    planned(tmp_path, 1)  # what is made once
    few, many = (calls_of(lambda n=n: planned(tmp_path, n)) for n in (SEEDS // 10, SEEDS))
    assert len({one.job.job_id for one in planned(tmp_path)}) == JOBS + 1
    assert many < 10.5 * few
    assert many < CALLS_TO_PLAN_A_JOB * JOBS


def matrix(seeds):
    """Rows of 125 cells on 8 tasks; on two tasks and by rank no two are alike."""
    plain = make_matrix(cells=[LORA], tasks=TASKS, seeds=range(seeds))
    return [
        replace(
            row,
            job=replace(row.job, size=rank),
            outcome=replace(row.outcome, metric_value=row.outcome.metric_value - rank / 10_000),
        )
        for rank in range(1, 126)
        for row in plain
    ]


@pytest.mark.slow
def test_a_row_of_ten_thousand_costs_no_more_to_report_than_one_of_two_thousand(tmp_path):
    """On a page of six megabytes at most. Seconds are `make perf`'s."""

    def calls(seeds):
        rows, found = matrix(seeds), []
        asked = ReportInput(rows, [row.job for row in rows], REPORT_OPTIONS, "large")
        count = calls_of(lambda: found.extend(report.write(asked, tmp_path / f"report-{seeds}")))
        pages = [path for path in found if path.suffix in (".html", ".md")]
        assert max(path.stat().st_size for path in pages) < BYTES_OF_A_PAGE
        return len(rows), count

    (few, at_few), (many, at_many) = calls(2), calls(10)
    assert (few, many) == (JOBS // 5, JOBS)
    assert at_many < 5.25 * at_few


SUPERVISED = f"""
import sys
sys.path.insert(0, {str(SUPPORT)!r})
import json, time
from functools import partial
from peftmark.run import runner
runner.fetch = lambda plan: {{}}
plain = partial(runner.execute, worker=sys.argv[1])
spent = []

def execute(*arguments):
    began, worked = time.monotonic(), time.process_time()
    yield from plain(*arguments)
    spent.append((time.process_time() - worked) / (time.monotonic() - began))

runner.execute = execute
from peftmark.cli.parser import main
try:
    main(["run", "smoke", "--profile", "offline", "--no-report"])
except SystemExit as end:
    status = open("/proc/self/status").read()
    peak = int(next(x for x in status.splitlines() if x.startswith("VmHWM")).split()[1]) * 1024
    print(json.dumps({{"code": end.code, "share": max(spent), "bytes": peak}}))
"""


@pytest.fixture
def supervise(tmp_path):
    """A run with a fake worker, and what its supervisor took of the machine that it measures."""
    if not Path("/proc/self/status").exists():
        pytest.skip("no /proc on this system")
    return partial(supervised, tmp_path)


def supervised(tmp_path, worker):
    done = subprocess.run(
        [sys.executable, "-c", SUPERVISED, worker],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        cwd=tmp_path,
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["code"] == 0, done.stderr
    return found


@pytest.mark.slow
def test_a_supervisor_takes_little_memory(supervise):
    assert supervise("fake_worker:steps_on")["bytes"] < BYTES_OF_A_SUPERVISOR


@pytest.mark.slow
def test_a_supervisor_takes_little_of_a_core(supervise):
    assert supervise("fake_worker:steps_on_slowly")["share"] < SHARE_OF_A_CORE

"""A results folder of the smoke suite, made up, and the command line over it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from factory import make_environment, make_outcome, make_record
from peftmark.cli import parser
from peftmark.storage.store import Store
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite


def smoke_rows(root: Path, environment=None, value=0.7, recipe=None, **changes) -> Path:
    """A whole results folder of the smoke suite, made up."""
    plan = expand(load_suite("smoke"), "offline", "cpu").jobs
    if recipe:
        plan = [replace(job, recipe=replace(job.recipe, **recipe)) for job in plan]
    store = Store(root, "smoke")
    with store.lock():
        for job in plan:
            outcome = make_outcome(
                metric_value=value + 0.01 * job.seed,
                metrics={"accuracy": value + 0.01 * job.seed},
                batch_order_hash=f"{job.seed:064d}",
                initial_weights_hash=f"{job.seed:064x}",
                final_weights_hash=f"{hash((job.cell.method, job.seed)) % 10**9:064d}",
                learning_rate_mean=1e-3,
                base_format={"float32": 22_713_216},
                **changes,
            )
            made = environment or make_environment(sources={"peftmark": "old"})
            store.append(make_record(job=job, outcome=outcome, environment=made))
    return store.folder


@pytest.fixture
def peftmark(tmp_path, monkeypatch, capsys):
    """Run a command in an empty folder: exit code and what it printed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)

    def run(*words):
        with pytest.raises(SystemExit) as left:
            parser.main([*map(str, words)])
        said = capsys.readouterr()
        return left.value.code, said.out + said.err

    return run

"""Lines that need no fine-tuning through the command line, on the packaged model and real rows."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from peftmark.catalog.models import MODELS
from peftmark.catalog.tasks import TASKS
from peftmark.core.errors import AssetError
from peftmark.sources.assets import Places, default_cache, model_files
from peftmark.sources.task_data import load_task
from waiting import PATIENCE

pytestmark = [pytest.mark.real, pytest.mark.slow]

SUITE = """
suite: lines
version: 1
summary: What needs no fine-tuning.
reference: {method: bag-of-words}
radar: {quality: {worst: 0.0, best: 1.0}}
recipe: {batch_size: 8, steps: 8, train_rows: 300, eval_rows: 100, max_length: 32}
methods:
  - method: bag-of-words
  - method: embeddings
profiles:
  offline:
    summary: MiniLM-L6 on question types.
    needs: nothing
    scale: reduced
    sources: [package]
    model: minilm-l6
    seeds: [0, 1]
    tasks: {trec: {recipe: {selection_rows: 60}}}
"""


def peftmark(folder, *arguments):
    done = subprocess.run(
        [sys.executable, "-m", "peftmark", *arguments],
        cwd=folder,
        text=True,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_lines_are_planned_run_twice_alike_reported_and_put_before_a_gate(tmp_path):
    try:
        places = Places(None, ("package",), default_cache())
        model_files(MODELS["minilm-l6"], places)
        load_task(TASKS["trec"], places)
    except AssetError as error:
        pytest.skip(f"the packaged model and rows can't be had here: {error}")
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "lines.yaml").write_text(SUITE)
    plan = peftmark(tmp_path, "plan", "lines")
    assert plan.count("not predicted: an estimator is fitted, nothing trains by steps") == 2
    ran = peftmark(tmp_path, "run", "lines", "--jobs", "1")
    assert "the job that ran twice gave the same bits" in ran
    rows = pd.read_parquet(tmp_path / "results" / "lines" / "results.parquet")
    assert list(rows["status"]) == ["ok"] * 5
    assert (rows["metric_value"] > rows["baseline_value"] + 0.2).all()
    assert (rows["train_rows"] == 300).all() and (rows["selection_rows"] == 60).all()
    assert rows.groupby("method")["final_weights_hash"].nunique().eq(1).all()
    assert rows.groupby("method")["metric_value"].nunique().eq(1).all()
    assert rows["steps"].isna().all() and rows["live_bytes"].isna().all()
    reasons = [json.loads(text) for text in rows["null_reasons"]]
    assert all("by steps" in why["steps"] and "by steps" in why["live_bytes"] for why in reasons)
    report = (tmp_path / "reports" / "lines" / "report.md").read_text("utf-8")
    assert "frozen embeddings" in report
    shutil.copytree(tmp_path / "results" / "lines", tmp_path / "other")
    gate = peftmark(tmp_path, "gate", "lines", "--against", "other")
    assert "Passed: 2 of 2 cells identical" in gate

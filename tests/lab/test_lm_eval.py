"""lm-eval itself: what `peftmark evaluate` says of kept adapters is what lm-eval says of them.

pip install lm-eval==0.4.13; pytest tests/lab/test_lm_eval.py
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

import harness_worker
import outside_harness
import tiny_causal
from peftmark.cli import parser
from peftmark.lab import recipe
from peftmark.lab.export.opened import opened
from peftmark.lab.export.write import write
from peftmark.record.kept import Kept
from peftmark.sources.assets import Places
from peftmark.storage.store import Store
from small_suite import ONE_METHOD

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("lm_eval") is None, reason="lm-eval is not installed"),
    pytest.mark.usefixtures("unprobed"),
]

SUITE = ONE_METHOD.replace("[package]", "[mirror]").replace("[0, 1, 2]", "[0]")
CHOICE = """
task: halves
dataset_path: json
dataset_kwargs: {data_files: {test: ROWS}}
test_split: test
output_type: multiple_choice
doc_to_text: "Text : {{sentence}} Half ?"
doc_to_choice: ["low", "very high"]
doc_to_target: label
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
metadata: {version: 1.5}
"""
WRITTEN = """
task: answers
dataset_path: json
dataset_kwargs: {data_files: {test: ROWS}}
test_split: test
output_type: generate_until
doc_to_text: "{{sentence}} ?"
doc_to_target: "very high"
generation_kwargs: {until: ["?"], max_gen_toks: 4, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
metadata: {version: 2}
"""
TEXT = """
task: texts
dataset_path: json
dataset_kwargs: {data_files: {test: ROWS}}
test_split: test
output_type: loglikelihood_rolling
doc_to_text: ""
doc_to_target: "{{sentence}}"
metric_list: [{metric: word_perplexity}]
metadata: {version: 3}
"""
LIMIT = 12


@pytest.fixture
def there(tmp_path, monkeypatch):
    """A suite, a mirror with a tiny model, and tasks of lm-eval's on rows of a file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    tiny_causal.install(tmp_path / "mirror", monkeypatch)
    harness_worker.stand_in(tmp_path / "tables", monkeypatch)
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "demo.yaml").write_text(SUITE)
    (tmp_path / "tasks").mkdir()
    rows = str(tmp_path / "mirror" / "tiny-rank" / "dev.jsonl")
    for name, text in {"halves": CHOICE, "answers": WRITTEN, "texts": TEXT}.items():
        (tmp_path / "tasks" / f"{name}.yaml").write_text(text.replace("ROWS", rows))
    return tmp_path


def keep(there, *jobs):
    """Adapters of jobs, kept as a run keeps them."""
    places = Places(there / "mirror", ("mirror",), there / "cache")
    adapters = Store(there / "results", "demo").adapters
    found = []
    for job in jobs:
        left = there / "left" / job.job_id
        assert recipe.run(job, places, lambda message: None, left).status == "ok"
        note = Kept.from_json((left / "peftmark.json").read_text())
        found.append(opened(adapters.take(left, Kept(**{**vars(note), "attempt": 1}), ""), places))
    return found


def outside(there, tasks, models):
    """What lm-eval says of models without peftmark."""
    asked = {"include": str(there / "tasks"), "tasks": tasks, "limit": LIMIT, "models": models}
    ended = subprocess.run(
        [sys.executable, "-P", outside_harness.__file__],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    found, ours = json.loads(ended.stdout.splitlines()[-1])
    assert ours == []
    return found


def test_scores_are_those_of_lm_evals_own_run_on_each(there, capsys):
    jobs = [
        *(tiny_causal.job("lora", seed=seed, steps=24, learning_rate=3e-2) for seed in (0, 1)),
        tiny_causal.job("lora", quantization="nf4", steps=24, learning_rate=3e-2),
        tiny_causal.job("full", steps=24),
    ]
    kept = keep(there, *jobs)
    base = str(there / "mirror" / "models" / "tiny")
    models = [{"pretrained": base, "peft": str(one.folder)} for one in kept[:2]]
    for name, one in zip(("nf4", "whole"), kept[2:], strict=True):
        (there / name).mkdir()
        write(one, there / name, False, False)
    models.append({"pretrained": base, "code": str(there / "nf4" / "load.py")})
    models.append({"pretrained": str(there / "whole")})

    tasks = ["halves", "answers", "texts"]
    words = ["--tasks", ",".join(tasks), "--include", "tasks", "--limit", str(LIMIT)]
    with pytest.raises(SystemExit) as left:
        parser.main(["evaluate", "demo", *words, "--mirror", "mirror", "--json"])
    told = capsys.readouterr()
    assert left.value.code == 0, told.err
    found = json.loads(told.out)
    assert (found["bases"], found["models"], found["faults"]) == (2, 1, [])
    by_job = {one["job"]: one for one in found["evaluations"]}
    for one, theirs in zip(kept, outside(there, tasks, models), strict=True):
        ours = by_job[one.job.job_id]["scores"]
        assert {score["task"] for score in ours} == set(tasks)
        for score in ours:
            figures = theirs["results"][score["task"]]
            named = f"{score['metric']},{score['filter']}"
            with capsys.disabled():
                print(f"{one.job.method} {one.job.quantization} {named}: {score['value']!r}")
            assert score["value"] == pytest.approx(figures[named], rel=1e-6)
            stderr = figures[f"{score['metric']}_stderr,{score['filter']}"]
            assert score["stderr"] == (None if stderr == "N/A" else pytest.approx(stderr, rel=1e-6))
            assert score["n"] == theirs["n-samples"][score["task"]]["effective"] == LIMIT
            assert score["task_version"] == str(theirs["versions"][score["task"]])
    perplexities = {
        score["value"]
        for one in by_job.values()
        for score in one["scores"]
        if score["metric"] == "word_perplexity"
    }
    assert len(perplexities) == 4


def test_a_template_that_reaches_for_python_is_not_run(there, capsys):
    keep(there, tiny_causal.job("lora", steps=2))
    attack = "{{ sentence.__class__.__mro__ }}"
    file = there / "tasks" / "halves.yaml"
    file.write_text(file.read_text().replace("{{sentence}}", attack))
    with pytest.raises(SystemExit) as left:
        words = ("--tasks", "halves", "--include", "tasks", "--mirror", "mirror")
        parser.main(["evaluate", "demo", *words])
    assert left.value.code == 2
    assert "SecurityError" in capsys.readouterr().err

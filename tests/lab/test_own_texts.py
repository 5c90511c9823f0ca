"""No text of rows of one's own leaves the cache: whole runs, and every file they leave."""

from __future__ import annotations

import csv
import gzip
import io
import json

import pytest
from pyarrow import parquet

import own_tasks
import tiny
import tiny_causal
import tiny_worker
from peftmark.cli import parser
from peftmark.run import runner

SECRET = "zqxjkvbpyf"  # in every text, and a word that no tokenizer here knows
ANSWER = "low words are very very high"  # what every row answers, and a model learns to write
CLASSES = """
model: minilm-l6
tasks:
  tickets: {kind: classification, train: rows.csv, text: body, label: category, also: [auroc]}
methods: [lora, bag-of-words]
"""
ANSWERS = """
model: smollm2-135m-q4
tasks:
  tickets: {kind: instruction, train: rows.csv, prompt: body, completion: answer}
methods: [lora]
"""
MORE = """
seeds: [0]
recipe: {precision: fp32, batch_size: 8, steps: 60, eval_every: 60, max_length: 48}
"""


def rows(head, value):
    text = io.StringIO()
    said = [(f"{SECRET} {words}", value(half)) for words, half in own_tasks.said(96)]
    csv.writer(text).writerows([head, *said])
    return text.getvalue()


@pytest.fixture
def here(no_devices, tmp_path, monkeypatch, capfd):
    """A folder to run in; a function that runs a command there and gives its code and words."""
    monkeypatch.setattr(runner.execute, "__defaults__", ("tiny_worker:main",))
    monkeypatch.setenv("PEFTMARK_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suites").mkdir()

    def run(*words):
        with pytest.raises(SystemExit) as left:
            parser.main(list(words))
        said = capfd.readouterr()
        return left.value.code, said.out + said.err

    return run


def bench(here, *more):
    return here("run", "mine", "--mirror", "mirror", "--jobs", "1", *more)


def holding(folder, *words):
    """The files that hold one of the words, outside of the user's own ones and the cache."""
    found = []
    for path in sorted(folder.rglob("*")):
        inner = path.relative_to(folder)
        if not path.is_file() or inner.parts[0] in ("cache", "mirror", "rows.csv", "costs.py"):
            continue
        text = path.read_bytes()
        if path.suffix == ".parquet":
            text = str(parquet.read_table(path).to_pylist()).encode()
        elif path.suffix == ".gz":
            text = gzip.decompress(text)
        if any(word.encode() in text for word in words):
            found.append(str(inner))
    return found


@pytest.mark.slow
def test_nothing_that_a_run_of_classes_leaves_holds_a_text(here, tmp_path, monkeypatch):
    tiny.install(tmp_path / "mirror", monkeypatch)
    tiny_worker.name_as(tmp_path / "mirror", monkeypatch, "minilm-l6")
    (tmp_path / "rows.csv").write_text(rows(("body", "category"), lambda half: "ab"[half]))
    (tmp_path / "suites" / "mine.yaml").write_text(CLASSES + MORE)
    for words in (("inspect", "mine"), ("plan", "mine", "--mirror", "mirror")):
        code, said = here(*words)
        assert code == 0, said
        assert SECRET not in said
    code, said = bench(here)
    assert code == 0, said
    assert "3 jobs: 3 ok" in said
    assert SECRET not in said
    said = here("baseline", "accept", "--from", "results/mine", "--reason", "right")[1]
    assert SECRET not in said
    assert list((tmp_path / "reports").rglob("*.html")) and list(tmp_path.rglob("*.log"))
    assert holding(tmp_path, SECRET) == []
    cached = [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
    assert [p.parent.name for p in cached if SECRET.encode() in p.read_bytes()] == ["own"]


@pytest.mark.slow
def test_answers_written_to_ones_own_rows_are_kept_on_demand_alone(here, tmp_path, monkeypatch):
    tiny_causal.install(tmp_path / "mirror", monkeypatch)
    names = {"model": "smollm2-135m-q4", "editorials": "tiny-other"}
    tiny_worker.name_as(tmp_path / "mirror", monkeypatch, **names)
    (tmp_path / "rows.csv").write_text(rows(("body", "answer"), lambda half: ANSWER))
    (tmp_path / "suites" / "mine.yaml").write_text(ANSWERS + MORE)
    code, said = bench(here)
    assert code == 0, said
    assert "2 jobs: 2 ok" in said
    assert SECRET not in said and ANSWER not in said
    assert holding(tmp_path, "kept only with --show-texts")
    assert holding(tmp_path, SECRET, ANSWER) == []
    _, said = here("plan", "mine", "--mirror", "mirror", "--json")
    first = json.JSONDecoder().raw_decode(said[said.index("{") :])[0]["jobs"][0]["job_id"]
    code, said = bench(here, "--again", "--show-texts", "--job", first)
    assert code == 0, said
    assert SECRET not in said and ANSWER not in said
    kept = holding(tmp_path, ANSWER)
    assert any(name.startswith("results") for name in kept)
    assert any(name.startswith("reports") for name in kept)

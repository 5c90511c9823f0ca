"""Kept adapters found, exported and asked, with a stand-in for the process that loads them."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

from kept import LORA, keep, stand_in
from peftmark.catalog.task import Example
from peftmark.cli import export as export_command
from peftmark.cli import parser, predict
from peftmark.core.errors import UserError
from peftmark.own.declared import OwnTask
from peftmark.own.new_rows import columns_of, read_new
from peftmark.record.job import Job
from peftmark.record.kept import NOTES, Kept
from peftmark.run.kept_models import Asked, find
from peftmark.storage.store import Store
from peftmark.suite.load import load_suite
from small_suite import ONE_METHOD

TICKETS = OwnTask(kind="classification", train=("x.csv",), text=("body",), label=("category",))


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a suite."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "demo.yaml").write_text(ONE_METHOD)
    return tmp_path


@pytest.fixture
def store(here):
    return Store(here / "results", "demo")


# --- finding ------------------------------------------------------------------------------------


def test_a_cell_is_named_as_reports_name_it_in_any_case(store):
    folder = keep(store)
    found = find(store, Asked("lora R8", "trec"))
    assert (found.folder, found.kept.job) == (folder, LORA)
    assert found.record.job == LORA
    assert found.title == "LoRA r8 on trec, seed 0"


def test_of_several_seeds_the_best_by_selection_rows_is_meant_or_the_one_that_is_named(store):
    for seed, selection in ((0, 0.5), (1, 0.8), (2, 0.7)):
        keep(store, selection, seed=seed)
    assert find(store, Asked("LoRA r8", "trec")).kept.job.seed == 1
    assert find(store, Asked("LoRA r8", "trec", seed=2)).kept.job.seed == 2


@pytest.mark.parametrize(
    ("asked", "what"),
    [
        (Asked("LoRA r9", "trec"), "no adapter of 'LoRA r9' on 'trec' is kept"),
        (Asked("LoRA r8", "cola"), "no adapter of 'LoRA r8' on 'cola' is kept"),
        (Asked("LoRA r8", "trec", 9), "no adapter of 'LoRA r8' on 'trec' of seed 9 is kept"),
        (
            Asked("LoRA r8", "trec", None, "slow"),
            "no adapter of 'LoRA r8' on 'trec' in profile slow is kept",
        ),
    ],
)
def test_what_is_not_kept_is_refused_with_what_is(store, asked, what):
    keep(store)
    with pytest.raises(UserError) as caught:
        find(store, asked)
    assert caught.value.what == what
    assert caught.value.remedy.startswith("Kept are 'LoRA r8 on trec'; ")


def test_a_folder_without_adapters_says_how_they_are_kept(store):
    with pytest.raises(UserError, match="no trained adapter is kept there") as caught:
        find(store, Asked("LoRA r8", "trec"))
    assert "--again" in caught.value.remedy


def test_of_two_profiles_one_must_be_named(store):
    keep(store)
    keep(store, profile="other")
    with pytest.raises(UserError) as caught:
        find(store, Asked("LoRA r8", "trec"))
    assert caught.value.remedy == "Name one with --profile: other, quick."
    assert find(store, Asked("LoRA r8", "trec", None, "other")).kept.job.profile == "other"


# --- export -------------------------------------------------------------------------------------

TOLD = {
    "form": "adapter",
    "with_base": False,
    "difference": 1.5e-7,
    "largest": 2.25,
    "rows": 6,
    "code": "import torch\n",
}


def exporting(asked):
    (__import__("pathlib").Path(asked["target"]) / "load.py").write_text(TOLD["code"])
    return json.dumps(TOLD)


def command(*words):
    options = parser._parser().parse_args(["export", "demo", *words])
    return export_command.run(options)


WORDS = ("--cell", "LoRA r8", "--task", "trec", "--suites", "suites", "--to", "out")


def test_an_export_has_code_and_a_card_that_says_what_its_check_found(
    store, here, monkeypatch, capsys
):
    folder = keep(store)
    seen = stand_in(monkeypatch, exporting)
    assert command(*WORDS, "--merged") == 0
    assert sorted(path.name for path in (here / "out").iterdir()) == ["README.md", "load.py"]
    text = (here / "out" / "README.md").read_text()
    assert "```python\nimport torch\n```" in text
    assert "differ from the trained model's by 1.5e-07 at most (the largest logit is 2.25)" in text
    [asked] = seen
    assert asked["folder"] == str(folder.resolve())
    assert (asked["merged"], asked["with_base"], asked["sources"]) == (True, False, ["package"])
    assert "by 1.5e-07 at most (largest logit: 2.25)" in capsys.readouterr().out
    assert [path.name for path in here.iterdir() if path.name.startswith(".")] == []


def test_a_folder_that_holds_something_is_not_written_to(store, here, monkeypatch):
    keep(store)
    seen = stand_in(monkeypatch, exporting)
    (here / "out").mkdir()
    (here / "out" / "mine").touch()
    with pytest.raises(UserError, match="out is there already"):
        command(*WORDS)
    assert not seen
    (here / "out" / "mine").unlink()
    assert command(*WORDS) == 0  # an empty one is taken


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        ('{"fault": "it is another model", "remedy": ""}', "seed 0: it is another model"),
        ("", "seed 0: loading it ended with exit code 3: the last line"),
    ],
)
def test_what_the_process_refuses_is_one_message_and_nothing_is_written(
    store, here, monkeypatch, answer, what
):
    keep(store)
    stand_in(monkeypatch, answer)
    with pytest.raises(UserError) as caught:
        command(*WORDS)
    assert caught.value.what.endswith(what)
    assert sorted(path.name for path in here.iterdir()) == ["results", "suites"]


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--to", "out"), "an adapter is exported by --cell and --task"),
        (("--to", "out", "--format", "x"), "--format: found 'x'"),
        (
            (*WORDS, "--format", "peft-method-comparison"),
            "--format exports results, of which --cell, --task, --suites says nothing",
        ),
    ],
)
def test_an_adapter_and_results_are_exported_apart(here, words, what):
    with pytest.raises(UserError) as caught:
        command(*words)
    assert caught.value.what == what


# --- new rows -----------------------------------------------------------------------------------


def table(here, text, name="new.csv"):
    path = here / name
    path.write_text(text)
    return path


def test_rows_need_no_labels_and_what_is_empty_is_told_by_line(here):
    new = read_new(table(here, 'id,body\n1,"a\nb"\n2,\n3,c\n'), TICKETS)
    assert [row and row.text for row in new.rows] == ["a\nb", None, "c"]
    assert list(new.lines) == [2, 4, 5]
    assert new.told() == [f"{here / 'new.csv'}, line 4: a text is empty"]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("id,body\n", "there are no rows"),
        ("id,text\n1,a\n", "there is no column 'body'"),
        ("body,id\n,1\n,2\n", "lines 2, 3: a text is empty"),
    ],
)
def test_a_file_of_which_nothing_can_be_read_is_refused(here, text, what):
    with pytest.raises(UserError, match=what):
        read_new(table(here, text), TICKETS)


def test_other_kinds_are_read_as_their_tasks_are(here):
    def rows(content, name="new.csv", **declared):
        return list(read_new(table(here, content, name), OwnTask(train=("x",), **declared)).rows)

    pairs = rows("a,b\n1,2\n", kind="regression", text=("a", "b"), label=("score",))
    assert pairs == [Example("1", "2", 0)]
    choose = {"kind": "multiple-choice", "text": ("q",), "choices": ("x", "y"), "answer": "z"}
    assert rows("q,x,y\nw,1,2\n", **choose) == [Example("w", None, 0, choices=("1", "2"))]
    told = {"kind": "instruction", "instruction": "i", "input": "j", "output": "k"}
    assert rows("i,j\na,b\nc,\n", **told) == [Example("a\n\nb", None, 0), Example("c", None, 0)]
    assert rows("p\na\n", kind="instruction", prompt="p", completion="c") == [Example("a", None, 0)]
    talk = json.dumps({"m": [{"role": "user", "content": "hi"}]})
    asked = rows(f"{talk}\n", "new.jsonl", kind="instruction", messages="m")
    assert asked == [Example("", None, 0, turns=(("user", "hi"), ("assistant", "")))]


def test_a_conversation_that_is_none_is_told_by_line(here):
    lines = [{"m": [{"role": "user", "content": "hi"}]}, {"m": [{"role": "cat", "content": "x"}]}]
    path = table(here, "".join(f"{json.dumps(line)}\n" for line in lines), "new.jsonl")
    new = read_new(path, OwnTask(kind="instruction", train=("x",), messages="m"))
    assert [row is not None for row in new.rows] == [True, False]
    assert new.told()[0].endswith(
        "line 2: the role of a turn is not system, user or assistant (human, gpt)"
    )


@pytest.mark.parametrize("task", ["trec", "sts-b", "dolly", "gsm8k", "reviews", "qqp"])
def test_a_task_of_the_catalogue_has_columns(task):
    declared = columns_of(replace(LORA, task=task).task_facts)
    names = [n for n in (declared.instruction, declared.prompt) if n] or list(declared.text or ())
    assert names == list(replace(LORA, task=task).task_facts.fields)[: len(names)]


# --- predict ------------------------------------------------------------------------------------


def predicted(*words):
    cell = ("--cell", "LoRA r8", "--task", "trec", "--suites", "suites")
    return predict.run(parser._parser().parse_args(["predict", "demo", *cell, *words]))


def test_predictions_stand_by_line_and_rows_that_were_not_read_are_told(
    store, here, monkeypatch, capsys
):
    keep(store)
    answers = [{"prediction": "HUM", "probability": 0.75}, {"prediction": "a,b", "probability": 1}]
    seen = stand_in(monkeypatch, json.dumps({"said": answers}))
    [column] = columns_of(LORA.task_facts).text
    table(here, f'{column}\nwho\n""\nwhat\n')
    assert predicted("--input", "new.csv", "--output", "out.csv") == 0
    assert (here / "out.csv").read_text() == (
        'line,prediction,probability\n2,HUM,0.75\n3,,\n4,"a,b",1\n'
    )
    assert [row["text"] for row in seen[0]["rows"]] == ["who", "what"]
    out, err = capsys.readouterr()
    assert err == "Not read: new.csv, line 3: a text is empty.\n"
    assert out == "LoRA r8 on trec, seed 0: 2 rows. Wrote out.csv\n"
    assert predicted("--input", "new.csv") == 0
    assert capsys.readouterr().out.startswith("line,prediction,probability\n2,HUM")
    assert predicted("--input", "new.csv", "--json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["prediction"] for line in lines] == ["HUM", None, "a,b"]


def test_an_output_of_another_form_or_on_the_input_is_refused_before_anything_runs(
    store, here, monkeypatch
):
    keep(store)
    seen = stand_in(monkeypatch, "{}")
    table(here, "text\nwho\n")
    with pytest.raises(UserError, match=r"Known are \.csv, \.tsv, \.jsonl"):
        predicted("--input", "new.csv", "--output", "out.xlsx")
    with pytest.raises(UserError, match=r"--output new\.csv is the input"):
        predicted("--input", "new.csv", "--output", "new.csv")
    assert not seen
    assert not os.path.exists("out.xlsx")


def test_several_labels_have_a_column_of_probability_each():
    rows = [
        {"line": 2, "prediction": ["a", "b"], "probability": {"a": 0.75, "b": 0.5}},
        {"line": 3, "prediction": None},
    ]
    assert predict.written(rows, ".tsv", "|") == (
        "line\tprediction\tprobability of a\tprobability of b\n2\ta|b\t0.75\t0.5\n3\t\t\t\n"
    )
    assert json.loads(predict.written(rows, ".jsonl", "|").splitlines()[0]) == rows[0]


def test_the_notes_beside_an_adapter_survive_json(store):
    folder = keep(store)
    text = (folder / NOTES).read_text()
    assert Kept.from_json(text).job == LORA
    assert isinstance(Kept.from_json(text).job, Job)
    assert load_suite("demo", store.folder.parents[1] / "suites").name == "demo"

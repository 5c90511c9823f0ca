"""Kept adapters put to a harness, with a stand-in for the process that loads them."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from factory import make_job
from peftmark.cli import parser
from peftmark.core.errors import UserError
from peftmark.record.kept import Kept
from peftmark.record.recipe import Causal
from peftmark.run import evaluations
from peftmark.run.evaluations import Wanted, adapters_of, check_harness, read_names
from peftmark.storage.store import Store
from small_suite import ONE_METHOD

ROOT = Path(__file__).resolve().parents[3]
SPEAKS = make_job(task="trec", metric="accuracy", causal=Causal("", 6, ""))


@pytest.fixture
def store(tmp_path, monkeypatch):
    """The results of a suite in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "demo.yaml").write_text(ONE_METHOD)
    return Store(tmp_path / "results", "demo")


def keep(store, job=SPEAKS, **changes):
    """An adapter that is kept."""
    kept = Kept(replace(job, **changes), attempt=1)
    left = store.adapters.incoming / "left"
    left.mkdir(parents=True)
    return store.adapters.take(left, kept, "a card")


def score(**changes):
    """A figure as the process tells it."""
    return {
        "task": "colours", "metric": "acc", "filter": "none", "group": False, "value": 0.75,
        "stderr": 0.25, "n": 4, "fewshot": 0, "task_version": "1.0", "task_hash": "ab",
        "higher_is_better": True, "null_reasons": {}, **changes,
    }  # fmt: skip


def answer(number=0, **changes):
    """The process's line of an adapter."""
    return {"adapter": number, "scores": [score(**changes)], "device": "cpu", "precision": "fp32"}


@pytest.fixture
def process(monkeypatch):
    """Lines in place of the process that loads; returns what it was asked."""

    def stand_in(*lines):
        seen = []

        def said(sent, online):
            seen.append((json.loads(json.dumps(sent)), online))
            yield from lines

        monkeypatch.setattr(evaluations, "_lines", said)
        monkeypatch.setattr(evaluations, "check_harness", lambda: "0.4.13")
        return seen

    return stand_in


def command(*words):
    with pytest.raises(SystemExit) as left:
        parser.main(["evaluate", "demo", *words])
    return left.value.code


# --- which adapters -----------------------------------------------------------------------------


def test_classifiers_are_not_asked(store):
    speaks = keep(store)
    keep(store, make_job(task="cola"))
    assert list(adapters_of(store, Wanted())) == [speaks]


def test_adapters_are_named_by_cell_task_seed_and_profile(store):
    zero, one = keep(store), keep(store, seed=1)
    assert set(adapters_of(store, Wanted(cell="lora R8"))) == {zero, one}
    assert set(adapters_of(store, Wanted(task="trec", seed=1, profile="quick"))) == {one}
    for nothing in (Wanted(cell="LoRA r9"), Wanted(task="x"), Wanted(seed=2), Wanted(profile="x")):
        with pytest.raises(UserError) as caught:
            adapters_of(store, nothing)
        assert caught.value.remedy == (
            "Kept are 'LoRA r8 on trec, seed 0', 'LoRA r8 on trec, seed 1'."
        )


def test_without_adapters_of_language_models_it_is_said_what_there_is(store):
    with pytest.raises(UserError, match="no trained adapter of a language model is kept there"):
        adapters_of(store, Wanted())
    keep(store, make_job(task="cola"))
    with pytest.raises(UserError, match="what is kept there are classifiers"):
        adapters_of(store, Wanted())


# --- the harness --------------------------------------------------------------------------------


def test_a_harness_that_is_not_installed_is_said_with_its_pin(monkeypatch):
    monkeypatch.setattr(evaluations, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="lm-eval is not installed") as caught:
        check_harness()
    assert caught.value.remedy == 'Install it there: pip install "lm-eval==0.4.13"'


@pytest.mark.parametrize(("there", "fits"), [("0.4.9.1", False), ("0.4.13", True), ("0.5", True)])
def test_a_harness_that_is_too_old_is_refused(monkeypatch, there, fits):
    monkeypatch.setattr(evaluations, "find_spec", lambda name: object())
    monkeypatch.setattr(evaluations, "version", lambda name: there)
    if fits:
        assert check_harness() == there
        return
    with pytest.raises(UserError, match=f"version {there} is installed"):
        check_harness()


def test_the_pin_is_the_one_of_the_package():
    for name in ("pyproject.toml", "constraints.txt"):
        found = re.findall(r"lm-eval==([0-9.]+)", (ROOT / name).read_text(encoding="utf-8"))
        assert found == [evaluations.TRIED], name


@pytest.mark.parametrize(
    ("text", "names"), [("a", ("a",)), (" a , b,a,", ("a", "b")), ("mmlu_*", ("mmlu_*",))]
)
def test_names_of_tasks_stand_between_commas(text, names):
    assert read_names(text) == names


@pytest.mark.parametrize("text", ["", " , ", "a,\x1b[2J", "-x"])
def test_what_is_no_name_is_refused(text):
    with pytest.raises(UserError, match="--tasks"):
        read_names(text)


def test_without_leave_nothing_is_fetched_and_metrics_never_are(monkeypatch):
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    alone, online = evaluations.environment(False), evaluations.environment(True)
    assert alone["HF_HUB_OFFLINE"] == alone["HF_DATASETS_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in online and "HF_DATASETS_OFFLINE" not in online
    assert alone["HF_EVALUATE_OFFLINE"] == online["HF_EVALUATE_OFFLINE"] == "1"


# --- the command --------------------------------------------------------------------------------


def test_scores_are_kept_as_they_come_and_printed_later(store, process, capsys):
    zero, one = keep(store), keep(store, seed=1)
    order = sorted((zero, one))
    told = process(answer(0), answer(1, value=0.5, stderr=None), {"done": 1, "bases": 1, "own": 0})
    assert command("--with", "lm-eval", "--tasks", "colours") == 0
    printed = capsys.readouterr().out.splitlines()
    assert printed[:2] == [
        "LoRA r8 on trec, seed 0: colours acc 0.7500 ± 0.2500",
        "LoRA r8 on trec, seed 1: colours acc 0.5000",
    ]
    assert printed[2].startswith("2 adapters, 1 base loaded. Kept in ")
    [(sent, online)] = told
    assert online is False
    assert [adapter["folder"] for adapter in sent["adapters"]] == list(map(str, order))
    assert (sent["tasks"], sent["batch_size"], sent["fewshot"], sent["limit"], sent["include"]) == (
        ["colours"], 1, None, None, None,
    )  # fmt: skip
    assert command() == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split() == [
        "adapter", "asked", "metric", "value", "stderr", "rows", "few-shot", "harness",
    ]  # fmt: skip
    assert len(rows) == 2
    assert rows[0].split("  ")[0] == "LoRA r8 on trec, seed 0"
    assert command("--json") == 0
    kept = json.loads(capsys.readouterr().out)["evaluations"]
    assert [(e["seed"], e["scores"][0]["value"]) for e in kept] == [(0, 0.75), (1, 0.5)]


def test_settings_reach_the_harness_and_stand_beside_its_scores(store, process, capsys, tmp_path):
    keep(store)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x.yaml").write_text("task: colours\n")
    told = process(answer(), {"done": 1, "bases": 1, "own": 0})
    words = ("--fewshot", "0", "--limit", "7", "--batch-size", "4", "--include", "mine", "--online")
    assert command("--tasks", "colours", *words, "--json") == 0
    [(sent, online)] = told
    assert (sent["fewshot"], sent["limit"], sent["batch_size"], online) == (0, 7, 4, True)
    assert (sent["include"], sent["trust_code"]) == (str(tmp_path / "mine"), False)
    [one] = json.loads(capsys.readouterr().out)["evaluations"]
    assert one["settings"] == {"fewshot": 0, "limit": 7, "batch_size": 4}
    assert (one["harness"], one["harness_version"]) == ("lm-eval", "0.4.13")
    assert one["job"] == SPEAKS.job_id


def test_an_adapter_that_can_not_be_asked_is_named_and_the_others_are_kept(store, process, capsys):
    keep(store), keep(store, seed=1)
    fault = {"adapter": 1, "fault": "no room", "remedy": "Free some."}
    process(answer(0), fault, {"done": 1, "bases": 1, "own": 0})
    assert command("--tasks", "colours") == 6
    told = capsys.readouterr()
    assert told.err == "Not asked: LoRA r8 on trec, seed 1: no room Free some.\n"
    assert "1 adapter, 1 base loaded." in told.out


def test_what_is_wrong_with_all_leaves_with_2_and_writes_nothing(store, process, capsys):
    keep(store)
    process({"fault": "lm-eval has no task 'x'", "remedy": "Name another."})
    assert command("--tasks", "x") == 2
    assert "lm-eval has no task 'x'\nName another." in capsys.readouterr().err
    assert not (store.folder / "evaluations").exists()


def test_code_among_the_tasks_is_refused_before_anything_is_loaded(store, process, capsys):
    keep(store)
    told = process()
    (store.folder / "x.yaml").write_text("task: t\nprocess_docs: !function a.b\n")
    assert command("--tasks", "t", "--include", str(store.folder)) == 2
    assert "--trust-code" in capsys.readouterr().err
    assert told == []


def test_options_of_a_question_need_one(store, capsys):
    assert command("--with", "lm-eval", "--batch-size", "2") == 2
    assert "--with, --batch-size: no task is asked for" in capsys.readouterr().err


def test_without_scores_it_is_said_how_there_are_some(store, capsys):
    assert command() == 0
    assert "no scores of a harness are kept" in capsys.readouterr().out

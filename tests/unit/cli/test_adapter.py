"""What `peftmark adapter` says of a kept adapter, with a stand-in for the process that loads it."""

from __future__ import annotations

import json

import pytest

from kept import keep, stand_in
from peftmark.cli import parser
from peftmark.storage.store import Store
from small_suite import ONE_METHOD

FIGURES = ("entropy", "first", "itself", "distance", "virtual")


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


CHANGE = {
    "modules": {
        "bert.encoder.layer.0.attention.self.query": 0.0125,
        "bert.encoder.layer.1.attention.self.query": 0.0,
        "bert.encoder.layer.1.output.dense": 0.02,
    },
    "rest": 0.0,
    "reason": "",
}
SEVERAL = {
    "base_bytes": 100 * 2**20,
    "one_bytes": 101 * 2**20,
    "all_bytes": 110 * 2**20,
    "load_seconds": 0.02,
    "switch_seconds": 0.0005,
    "apart": 0.25,
    "equal_after": True,
    "largest": 2.0,
    "fused": {
        "cat": {"difference": 1e-6, "factor": 1.0, "reason": ""},
        "linear": {"difference": None, "factor": None, "reason": "ValueError: unequal ranks"},
    },
    "why_not_fused": "",
    "reason": "",
}


ATTENTION = {
    "rows": 4,
    "tokens": 30,
    "first": "[CLS]",
    "virtual_tokens": 0,
    "before": {name: [[1.0, 2.0], [3.0, None]] for name in FIGURES},
    "after": {name: [[1.5, 2.5], [2.0, None]] for name in FIGURES},
    "moved": [[0.1, 0.2], [0.0, 0.0]],
    "eager_difference": 1.5e-7,
}
TWO = {
    "weights": [0.7, 0.3],
    "bytes_of_one": 2048,
    "ways": {
        "linear": {"reason": "ValueError: unequal ranks", "why_no_error": ""},
        "cat": {
            "error": 2.5e-8, "why_no_error": "", "bytes": 4096, "seconds": 0.004, "reason": ""
        },
        "svd": {
            "error": None, "why_no_error": "no", "bytes": 4096, "seconds": 0.004, "reason": ""
        },
    },
    "scored": [
        {
            "task": "trec", "split": "evaluation", "rows": 500, "metric": "accuracy",
            "head": "second",
            "scores": {"first": 0.25, "second": 0.75, "cat": 0.5, "svd": None},
        }
    ],
}  # fmt: skip


def adapter(capsys, *more):
    """What `peftmark adapter` prints of the kept one, and its exit code."""
    asked = ["adapter", "demo", "--cell", "LoRA r8", "--task", "trec", "--results", "results"]
    with pytest.raises(SystemExit) as ended:
        parser.main([*asked, *more])
    said = capsys.readouterr()
    return said.out, said.err, ended.value.code


def test_an_adapter_is_measured_and_drawn(store, here, monkeypatch, capsys):
    folder = keep(store)
    seen = stand_in(monkeypatch, json.dumps({"change": CHANGE, "several": SEVERAL}))
    out, _, code = adapter(capsys, "--drawing", "change.svg")
    assert (code, seen[0]["do"], seen[0]["folder"]) == (0, "measure", str(folder))
    assert out.splitlines()[2:5] == [
        "  layer  query  feed-forward out",
        "  0      1.250                  ",
        "  1      0.000             2.000",
    ]
    assert "110.0 MiB of tensors (100.0 of the base, 1.00 of one adapter), 0.110 of ten" in out
    assert "switching to a loaded one: 0.50 ms" in out
    assert "moves a logit by 0.25 (largest: 2); after switching back the logits are the same" in out
    assert "  cat: 1.000 times its own update, a logit differs by 1e-06" in out
    assert "  linear: ValueError: unequal ranks" in out
    drawn = (here / "change.svg").read_text()
    assert "the largest change is 2.00 %, of bert.encoder.layer.1.output.dense" in drawn


def test_what_cannot_be_measured_says_why_and_is_not_drawn(store, here, monkeypatch, capsys):
    keep(store)
    told = {"change": {"reason": "nothing to merge"}, "several": {"reason": "a base of its own"}}
    stand_in(monkeypatch, json.dumps(told))
    out, _, code = adapter(capsys)
    assert code == 0
    assert "Change of the weights: not known. nothing to merge" in out
    assert "Several on one base: not possible. a base of its own" in out
    _, err, code = adapter(capsys, "--drawing", "change.svg")
    assert (code, (here / "change.svg").exists()) == (2, False)
    assert "nothing to merge" in err and "Leave --drawing out." in err
    _, err, code = adapter(capsys, "--drawing", "change.png")
    assert code == 2 and "Known is .svg." in err


# --- attention ------------------------------------------------------------------------------------


def test_attention_is_told_by_layer_and_drawn_beside_the_weights(store, here, monkeypatch, capsys):
    keep(store)
    told = {"change": CHANGE, "several": SEVERAL, "attention": ATTENTION}
    seen = stand_in(monkeypatch, json.dumps(told))
    out, _, code = adapter(capsys, "--attention", "4", "--drawing", "change.svg")
    assert (code, seen[0]["attention"], seen[0]["other"]) == (0, 4, None)
    assert "over 30 tokens of 4 evaluation rows (padding left out; eager attention, fp32)" in out
    lines = out.splitlines()
    at = next(i for i, line in enumerate(lines) if "entropy, nats" in line)
    assert " ".join(lines[at].split()) == "layer entropy, nats on [CLS] on itself distance moved, %"
    assert lines[at + 1].split() == ["0", *("1.500", "→", "2.000") * 4, "15.00"]
    assert lines[at + 2].split() == ["1", *("3.000", "→", "2.000") * 4, "0.00"]
    assert "Eager attention moves a logit of the trained model by 1.5e-07 at most" in out
    drawn = (here / "change.svg").read_text()
    for text in ("entropy, nats", "on [CLS]", "before training", "feed-fwd", "2.00 %"):
        assert text in drawn
    assert "prefers-color-scheme:dark" in drawn


def test_attention_is_drawn_without_weights_where_they_are_not_known(
    store, here, monkeypatch, capsys
):
    keep(store)
    prompted = {**ATTENTION, "virtual_tokens": 20, "first": ""}
    told = {"change": {"reason": "no"}, "several": {"reason": "no"}, "attention": prompted}
    stand_in(monkeypatch, json.dumps(told))
    out, _, code = adapter(capsys, "--attention", "4", "--drawing", "change.svg")
    assert code == 0 and "(padding left out; 20 virtual tokens apart; " in out
    drawn = (here / "change.svg").read_text()
    assert "on virtual" in drawn and "on first token" in drawn
    assert "change of the weights" not in drawn


def test_what_refuses_attention_is_one_message(store, monkeypatch, capsys):
    keep(store)
    stand_in(monkeypatch, json.dumps({"fault": "an attention of its own", "remedy": ""}))
    out, err, code = adapter(capsys, "--attention", "4")
    assert (code, out) == (2, "") and "seed 0: an attention of its own" in err


# --- two ------------------------------------------------------------------------------------------


def test_two_adapters_fused_are_told_by_way_and_head(store, here, monkeypatch, capsys):
    keep(store)
    other = keep(store, seed=1)
    told = {"change": {"reason": "no"}, "several": {"reason": "no"}, "two": TWO}
    seen = stand_in(monkeypatch, json.dumps(told))
    out, _, code = adapter(capsys, "--seed", "0", "--fuse-with", "1", "--weight", "0.3")
    assert (code, seen[0]["other"], seen[0]["weight"]) == (0, str(other), 0.3)
    lines = [line.split() for line in out.splitlines()]
    assert "Fused by PEFT with LoRA r8 on trec, seed 1 (the second), at weights 0.7 and 0.3:" in out
    assert ["first", "alone", "2.0", "0.2500"] in lines
    assert ["second", "alone", "0.7500"] in lines
    assert ["linear", "ValueError:", "unequal", "ranks"] in lines
    assert ["cat", "2.5e-06", "4.0", "4.0", "0.5000"] in lines
    assert ["svd", "not", "known", "4.0", "4.0", "none"] in lines
    assert "that of the sum; not known: no" in out
    assert "(1) accuracy on trec, 500 evaluation rows, head of the second" in out
    out, _, _ = adapter(capsys, "--seed", "0", "--fuse-with", "1", "--json")
    assert json.loads(out)["fused_with"] == str(other.relative_to(here))
    assert seen[1]["weight"] == 0.5


@pytest.mark.parametrize(
    ("asked", "seed", "task"),
    [("1", 1, "trec"), ("trec:1", 1, "trec"), ("cola", 2, "cola"), ("cola:3", 3, "cola")],
)
def test_the_second_is_named_by_seed_or_task_or_both(store, monkeypatch, capsys, asked, seed, task):
    keep(store)
    folders = {
        (job["task"], job["seed"]): str(keep(store, selection, **job))
        for selection, job in (
            (0.4, {"task": "trec", "seed": 1}),
            (0.9, {"task": "cola", "seed": 2}),
            (0.1, {"task": "cola", "seed": 3}),
        )
    }
    seen = stand_in(monkeypatch, json.dumps({"fault": "enough", "remedy": ""}))
    adapter(capsys, "--fuse-with", asked)
    assert seen[0]["other"] == folders[task, seed]


@pytest.mark.parametrize(
    ("more", "what"),
    [
        (("--fuse-with", "0"), "--fuse-with 0: that is LoRA r8 on trec, seed 0 itself"),
        (("--fuse-with", "trec"), "--fuse-with trec: that is LoRA r8 on trec, seed 0 itself"),
        (("--fuse-with", "7"), "no adapter of 'LoRA r8' on 'trec' of seed 7 in profile quick is"),
        (("--fuse-with", "mrpc"), "no adapter of 'LoRA r8' on 'mrpc' in profile quick is kept"),
        (("--fuse-with", "cola:x"), "--fuse-with: found 'cola:x'"),
        (("--fuse-with", ":1"), "--fuse-with: found ':1'"),
        (("--fuse-with", "cola"), "--fuse-with cola: LoRA r8 on cola, seed 0 sits on"),
        (("--weight", "0.3"), "--weight says nothing without --fuse-with"),
        (("--fuse-with", "1", "--weight", "1.5"), "found '1.5'; a number from 0 to 1"),
        (("--fuse-with", "1", "--weight", "nan"), "found 'nan'; a number from 0 to 1"),
        (("--attention", "0"), "found '0'; a whole number from 1"),
    ],
)
def test_what_cannot_be_asked_is_one_message(store, monkeypatch, capsys, more, what):
    keep(store)
    keep(store, task="cola", model_identity="another")
    seen = stand_in(monkeypatch, "{}")
    out, err, code = adapter(capsys, *more)
    assert (code, out, seen) == (2, "", [])
    assert what in err

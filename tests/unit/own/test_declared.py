"""What a suite may declare of a task, and what each kind needs."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from peftmark.own.declared import EVAL_SHARE, NEEDS, OwnTask
from peftmark.suite.faults import fault_lines

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CLASSED = {"kind": "classification", "train": "a.csv", "text": "body", "label": "category"}
OF_KIND = {
    "classification": {"text": "t", "label": "l"},
    "multi-label": {"text": "t", "label": "l"},
    "regression": {"text": "t", "label": "l"},
    "multiple-choice": {"text": "t", "choices": "c", "answer": "a"},
    "instruction": {"prompt": "p", "completion": "c"},
    "language": {"text": "t"},
}


def faults(**keys):
    with pytest.raises(ValidationError) as told:
        OwnTask.model_validate(keys)
    return "\n".join(fault_lines(told.value))


def test_names_become_tuples_and_defaults_stand():
    task = OwnTask.model_validate(CLASSED)
    assert (task.train, task.text, task.label) == (("a.csv",), ("body",), ("category",))
    assert (task.drop, task.eval_share, task.separator_of_labels) == ((), EVAL_SHARE, "|")
    assert OwnTask(kind="text", train="a.txt", text="t").kind == "language"
    labels = OwnTask.model_validate(CLASSED | {"labels": [3, True, "no ", 1.0]}).labels
    assert labels == ("3", "true", "no", "1")


@pytest.mark.parametrize("kind", NEEDS)
def test_each_kind_takes_what_it_needs_and_nothing_less(kind):
    whole = {"kind": kind, "train": "a.csv", **OF_KIND[kind]}
    assert OwnTask.model_validate(whole).kind == kind
    for key in OF_KIND[kind]:
        told = faults(**{name: value for name, value in whole.items() if name != key})
        assert f"a task of kind {kind} needs" in told
        assert " and ".join(NEEDS[kind][0][0]) in told


@pytest.mark.parametrize("kind", NEEDS)
def test_each_kind_refuses_what_is_for_others(kind):
    for key in ("label", "messages", "answer", "output"):
        if key not in OF_KIND[kind]:
            told = faults(kind=kind, train="a.csv", **OF_KIND[kind], **{key: "z"})
            assert f"a task of kind {kind} needs" in told


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({"train": None}, "neither is given"),
        ({"hub": f"o/n@{COMMIT}"}, "both is given"),
        ({"train": None, "hub": "o/n"}, "peftmark pin writes the commit's 40 digits"),
        ({"train": None, "hub": "o/n@main"}, "peftmark pin writes the commit's 40 digits"),
        ({"train": None, "hub": f"../x/n@{COMMIT}"}, "owner/name@"),
        ({"train": None, "hub": f"o/n@{COMMIT}", "eval": "b"}, "eval_split that names"),
        ({"config": "x"}, "only a data set on the hub"),
        ({"eval": "b.csv", "eval_share": 0.3}, "none are cut"),
        ({"eval_share": 1.0}, "less than 1"),
        ({"text": ["a", "b", "c"]}, "at most 2"),
        ({"text": ["body", "category"]}, "'category': a column is named twice"),
        ({"label": ["a", "b"]}, "for kind multi-label"),
        ({"labels": ["a"]}, "at least 2"),
        ({"labels": ["a", "a"]}, "'a' stands twice"),
        ({"labels": ["a", None]}, "each label is a word"),
        ({"words": ["yes", "no"]}, "labels says which class"),
        ({"words": ["yes", "no"], "labels": ["a", "b", "c"]}, "2 for 3 classes"),
        ({"words": ["yes", "yes"], "labels": ["a", "b"]}, "a word of its own"),
        ({"template": "Say"}, "{text} is missing"),
        ({"template": "{text} "}, "ends without a space"),
        ({"template": "{text} {pair}"}, "rows of two texts"),
        ({"text": ["a", "b"], "template": "{text}"}, "{pair} is missing"),
        ({"separator": ";;"}, "one ASCII character"),
        ({"separator": "§"}, "one ASCII character"),
        ({"encoding": "nonsense"}, "no encoding known"),
        ({"encoding": "zip"}, "no encoding known"),
        ({"drop": ["rare"]}, "'empty' or 'unlabelled'"),
        ({"colour": "red"}, "colour: unknown key"),
        ({"separator_of_labels": ","}, "for kind multi-label, not classification"),
        ({"kind": "tagging"}, "kind: found 'tagging'"),
    ],
)
def test_what_does_not_fit_is_told(more, told):
    assert told in faults(**{k: v for k, v in (CLASSED | more).items() if v is not None})


def test_all_faults_of_meaning_are_told_at_once():
    told = faults(kind="language", train="a", text=["a", "b"], labels=["x", "y"], config="c")
    for part in ("one column of text", "labels is for kind", "config: only"):
        assert part in told

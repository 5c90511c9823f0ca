"""Scores of a harness on disk: read back as they were written, and never guessed."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from peftmark.core.errors import StoreError
from peftmark.storage.evaluations import Evaluation, Evaluations, Score, read

SCORE = Score(
    task="colours",
    metric="acc",
    filter="none",
    group=False,
    value=0.75,
    stderr=None,
    n=4,
    fewshot=0,
    task_version="1.0",
    task_hash="ab" * 32,
    higher_is_better=True,
    null_reasons={"stderr": "lm-eval gives none for this metric"},
)
ONE = Evaluation(
    harness="lm-eval",
    harness_version="0.4.13",
    when="2026-11-29T09:00:00+00:00",
    peftmark="0.1.0",
    job="0123456789abcdef",
    attempt=1,
    profile="quick",
    model="tiny",
    cell="LoRA r8",
    trained_on="tickets",
    seed=0,
    device="cpu",
    precision="fp32",
    settings={"fewshot": None, "limit": None, "batch_size": 1},
    libraries={"torch": "2"},
    scores=(SCORE,),
)


@pytest.fixture
def there(tmp_path):
    return Evaluations(tmp_path / "evaluations")


def test_an_evaluation_is_read_as_it_was_written(there):
    path = there.add(ONE)
    assert path.name == "lora-r8-seed0-01234567.1-20261129T0900000000.json"
    assert read(path) == ONE
    assert there.entries() == [ONE]


def test_without_evaluations_there_are_none(there):
    assert there.entries() == there.newest() == []


def test_a_later_score_of_the_same_question_replaces_an_earlier_one_where_they_are_shown(there):
    later = replace(ONE, when="2026-11-29T10:00:00+00:00", scores=(replace(SCORE, value=0.5),))
    # Other few-shot rows are another question; other batches are not.
    shots = replace(later, settings={"fewshot": 5, "limit": None, "batch_size": 1})
    batches = replace(later, settings={"fewshot": None, "limit": None, "batch_size": 8})
    for one in (ONE, batches, replace(shots, when="2026-11-29T11:00:00+00:00")):
        there.add(one)
    assert len(there.entries()) == 3
    assert [(e.settings["fewshot"], s.value) for e, s in there.newest()] == [(None, 0.5), (5, 0.5)]


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda data: data.pop("harness"), "is damaged: it has other names than"),
        (lambda data: data["scores"][0].pop("n"), "is damaged: "),
        (lambda data: data.update(more=1), "is damaged: it has other names than"),
        (lambda data: data.update(format=2), "was written by a newer peftmark"),
    ],
)
def test_what_is_no_evaluation_is_named(there, change, what):
    path = there.add(ONE)
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))
    with pytest.raises(StoreError, match=what) as caught:
        there.entries()
    assert str(path) in caught.value.what


def test_half_a_file_is_damaged(there):
    path = there.add(ONE)
    path.write_text(path.read_text()[:40])
    with pytest.raises(StoreError, match="is damaged"):
        there.entries()

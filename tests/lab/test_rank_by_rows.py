"""LoRA whose rank follows the number of training rows."""

from __future__ import annotations

from dataclasses import replace

import pytest

import citizen
import tiny
from citizen import build, train
from peftmark.catalog.methods import known_method
from peftmark.catalog.tasks import TASKS
from peftmark.lab.methods.lora import rank_by_rows


@pytest.fixture
def rows(tmp_path, monkeypatch):
    """Have the tiny task count so many training rows."""

    def say(count):
        tiny.install(tmp_path / f"mirror-{count}", monkeypatch)
        task = replace(TASKS["tiny-class"], train_rows=count)
        monkeypatch.setitem(TASKS, "tiny-class", task)

    return say


@pytest.mark.parametrize(
    ("count", "rank"),
    [
        (8_000, 6),  # the guide's own example
        (499, 4),
        (500, 4),  # log2(500) / 2 = 4.48
        (1_024, 5),
        (67_349, 8),  # SST-2
        (392_702, 9),  # MNLI
        (1_000_000, 9),
        (1_000_001, 64),
    ],
)
def test_it_is_half_the_binary_logarithm_between_its_ends(count, rank):
    assert rank_by_rows(count, 4, 64) == rank


def test_the_lowest_and_highest_rank_hold():
    assert rank_by_rows(8_000, 8, 64) == 8
    assert rank_by_rows(392_702, 2, 7) == 7


@pytest.mark.parametrize(
    ("recipe", "rank"),
    [({}, 6), ({"train_rows": 1_024}, 5), ({"selection_rows": 7_600}, 4), ({"train_rows": 499}, 4)],
)
def test_rows_are_those_that_are_trained_on(rows, bert, recipe, rank):
    rows(8_000)
    _, prepared, _ = build(bert, citizen.job("lora-by-rows", **recipe))
    assert set(prepared.ranks().values()) == {rank}
    assert prepared.matched_rank is None


def test_it_is_lora_of_that_rank_and_no_other(rows, bert, tmp_path):
    rows(8_000)
    citizen.check(bert, tmp_path, citizen.job("lora-by-rows"))

    def curve(job):
        _, prepared, _ = build(bert, job)
        return train(prepared)[0]

    ours = curve(citizen.job("lora-by-rows"))
    assert ours == curve(citizen.job("lora", rank=6)) != curve(citizen.job("lora", rank=5))


def test_ranks_the_wrong_way_round_are_told(refused):
    message = refused({"min_rank": 8, "max_rank": 4})
    assert "options.min_rank: found 8 with max_rank 4; at most that" in message
    assert known_method("lora-by-rows").size is None


@pytest.fixture
def refused(tmp_path):
    """What a suite with these options is told."""
    from small_suite import BASE, refusal

    def told(options):
        entry = {
            "method": "lora-by-rows",
            "options": options,
            "recipe": {"targets": "attention", "alpha": 16},
        }
        return refusal(tmp_path, {**BASE, "methods": [BASE["methods"][2], entry]})

    return told

"""Rows of a data set on the hub at a pinned commit, through the real library and a small hub."""

from __future__ import annotations

import io

import datasets
import pytest

import hub_stub
from hub_stub import REVISION, Repository, serve
from own_files import CLASSES, tickets

ROWS = tickets(60)


def parquet(rows):
    """Rows as the library writes them, classes by number; the first has none."""
    features = datasets.Features(
        {"body": datasets.Value("string"), "category": datasets.ClassLabel(names=list(CLASSES))}
    )
    numbers = [CLASSES.index(label) for _, label in rows]
    made = datasets.Dataset.from_dict(
        {"body": [text for text, _ in rows], "category": [-1, *numbers[1:]]}, features=features
    )
    file = io.BytesIO()
    made.to_parquet(file)
    return file.getvalue()


def dataset():
    files = {
        "data/train-00000-of-00001.parquet": parquet(ROWS[:40]),
        "data/test-00000-of-00001.parquet": parquet(ROWS[40:]),
    }
    return Repository("dataset", "tiny/tickets", files)


def call(url, home, revision=REVISION, **more):
    declared = {
        "kind": "classification",
        "hub": f"tiny/tickets@{revision}",
        "text": "body",
        "label": "category",
        "drop": ["unlabelled"],
    }
    return hub_stub.call(url, home, "own", declared=declared | more)


@pytest.fixture
def gone():
    """The address of a hub that was there."""
    with serve() as hub:
        url = hub.url
    return url


@pytest.mark.slow
@pytest.mark.heavy
def test_rows_of_the_hub_are_read_once_and_kept(tmp_path, gone):
    with serve(dataset()) as hub:
        got = call(hub.url, tmp_path, eval_split="test")
        assert got["labels"] == list(CLASSES)
        assert got["counts"] == [39, 19]
        assert "1 training row without a label left out" in got["notes"]
        assert f"tiny/tickets@{REVISION}" in got["source"]
        cut = call(hub.url, tmp_path)
        assert sum(cut["counts"]) == 39
    # From here the hub is gone: the pinned copy serves, until it is damaged.
    assert call(gone, tmp_path, eval_split="test") == got
    next((tmp_path / "cache").rglob("test.parquet")).write_bytes(b"damaged")
    assert "can't be reached" in call(gone, tmp_path, eval_split="test")["error"]
    with serve(dataset()) as hub:
        assert call(hub.url, tmp_path, eval_split="test") == got


@pytest.mark.slow
@pytest.mark.heavy
def test_what_the_hub_does_not_have_is_told(tmp_path):
    with serve(dataset()) as hub:
        told = call(hub.url, tmp_path, revision="f" * 40)
        assert f"no revision {'f' * 40}" in told["error"]
        assert told["remedy"]
        assert "tiny/tickets" in call(hub.url, tmp_path, eval_split="dev")["error"]

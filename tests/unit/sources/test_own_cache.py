"""Rows of the user's own as workers read them."""

from __future__ import annotations

import stat
from dataclasses import replace

import pytest

from peftmark.catalog.task import Example, Task
from peftmark.core.errors import AssetError
from peftmark.sources.assets import Places
from peftmark.sources.own_cache import keep_own, own_file
from peftmark.sources.rows import TaskData, fingerprint
from peftmark.sources.task_data import load_task

ROWS = (
    Example("a\nb", None, 1),
    Example("", "x \u2028 \u00e9", 0.25),
    Example("tags", None, 0, tags=(0, 2)),
    Example("which?", None, 1, choices=("this", "that")),
    Example("", None, 0, turns=(("user", "hi"), ("assistant", "ho"))),
)


def kept(cache):
    train, held = ROWS[:3], ROWS[3:]
    data = TaskData(train, held, "own rows: x.csv", fingerprint(train, held))
    path = keep_own(data, cache)
    task = Task(
        "x", "x", "classification", ("a", "b"), "accuracy", (), 3, 2, "", "",
        fingerprint=data.fingerprint, own=True,
    )  # fmt: skip
    return data, path, task


@pytest.mark.parametrize("rows", [ROWS[:1] + ROWS[2:]])
def test_rows_come_back_as_they_were(tmp_path, rows):
    data = TaskData(rows[:2], rows[2:], "own rows: x.csv", fingerprint(rows[:2], rows[2:]))
    keep_own(data, tmp_path)
    task = replace(kept(tmp_path / "other")[2], fingerprint=data.fingerprint)
    assert load_task(task, Places(None, ("package",), tmp_path)) == data


@pytest.mark.parametrize("there", [False, True])
def test_nobody_else_may_read_them(tmp_path, there):
    if there:
        (tmp_path / "cache" / "own").mkdir(parents=True, mode=0o755)
    _, path, _ = kept(tmp_path / "cache")
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_rows_that_are_there_are_not_written_again(tmp_path):
    _, path, _ = kept(tmp_path)
    before = path.stat().st_mtime_ns
    kept(tmp_path)
    assert path.stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text.replace(b'"tags",', b'"tugs",'),
        lambda text: text[: len(text) // 2],
        lambda text: b"",
        lambda text: b"[]\n",
        lambda text: text.replace(b'"train": 3', b'"train": 2'),
    ],
)
def test_rows_that_are_not_what_was_kept_are_refused(tmp_path, damage):
    _, path, task = kept(tmp_path)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(AssetError, match="is damaged"):
        load_task(task, Places(None, ("package",), tmp_path))


def test_rows_that_are_not_there_say_where_they_belong(tmp_path):
    _, path, task = kept(tmp_path)
    path.unlink()
    with pytest.raises(AssetError, match="PEFTMARK_CACHE") as error:
        load_task(task, Places(None, ("package",), tmp_path))
    assert str(own_file(tmp_path, str(task.fingerprint))) in str(error.value)


def test_the_same_rows_of_another_file_are_said_to_be_of_that_one(tmp_path):
    data, _, task = kept(tmp_path)
    keep_own(replace(data, source="own rows: renamed.csv"), tmp_path)
    assert load_task(task, Places(None, ("package",), tmp_path)).source == "own rows: renamed.csv"

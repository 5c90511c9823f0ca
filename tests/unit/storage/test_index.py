"""What a run that goes on notes of its parts, so that after a kill nobody reads each again."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace

import pytest

from factory import LORA, make_matrix
from peftmark.core.errors import StoreError
from peftmark.storage import part_cache
from peftmark.storage import store as store_module
from peftmark.storage.store import Store

ROWS = make_matrix([LORA], ["sst2", "stsb"], range(6))


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Of a run that was killed after 12 parts, of which two files of the index note 5 each."""
    monkeypatch.setattr(store_module, "INDEXED", 5)
    made = Store(tmp_path, "demo")
    with made.lock():
        for record in ROWS:
            made.append(record)
    assert [path.name for path in sorted(made.index.iterdir())] == [
        "000001.parquet",
        "000002.parquet",
    ]
    return made


@pytest.fixture
def fresh(monkeypatch):
    """The parts that a process that begins now opens one by one, when it is asked."""
    opened = []
    read = store_module._read_part

    def begin():
        opened.clear()
        monkeypatch.setattr(part_cache, "_read", {})
        return opened

    def counted(path, raw):
        opened.append(path.name)
        return read(path, raw)

    monkeypatch.setattr(store_module, "_read_part", counted)
    return begin


def one_by_one(store):
    """The records of the same parts in a folder without an index."""
    copy = Store(store.folder / "copy", "demo")
    shutil.copytree(store.parts, copy.parts)
    return copy.read().records


def names(records):
    return sorted(f"{record.job.job_id}.1.parquet" for record in records)


def test_after_a_kill_only_the_parts_since_the_last_note_are_opened(store, fresh):
    opened = fresh()
    contents = store.read()
    assert sorted(opened) == names(ROWS[10:])
    assert contents.attempts == 12
    assert contents.records == one_by_one(store)


def test_a_run_that_goes_on_notes_more_beside_what_is_there(store, fresh):
    later = make_matrix([LORA], ["rte"], range(5))
    again = Store(store.folder.parent, "demo")
    with again.lock():
        for record in later:
            again.append(record)
    assert sorted(path.stem for path in again.index.iterdir()) == ["000001", "000002", "000003"]
    opened = fresh()
    assert len(again.read().records) == 17
    assert sorted(opened) == names(ROWS[10:])


def test_another_attempt_of_a_noted_job_counts(store, fresh):
    later = replace(ROWS[0], attempt=2, finished_at="2030-01-01T00:00:00+00:00")
    Store(store.folder.parent, "demo").append(later)
    fresh()
    contents = store.read()
    assert contents.records[later.job.job_id].attempt == 2 and contents.attempts == 13


@pytest.mark.parametrize("how", ["changed", "gone", "set aside"])
def test_with_a_part_that_is_another_the_file_that_notes_it_is_not_used(store, fresh, how):
    path = store.parts / names(ROWS[:1])[0]
    if how == "changed":
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)
    elif how == "gone":
        path.unlink()
    else:
        store.quarantine([path])
    opened = fresh()
    contents = store.read()
    assert sorted(opened) == names([*ROWS[how != "changed" : 5], *ROWS[10:]])
    assert ROWS[0].job.job_id not in contents.records
    assert set(contents.damaged) == ({path.absolute()} if how == "changed" else set())


@pytest.mark.parametrize("at", [4, 1000, -200, -10])
def test_a_damaged_index_is_as_if_it_were_not_there(store, fresh, at):
    path = store.index / "000002.parquet"
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)
    opened = fresh()
    contents = store.read()
    assert sorted(opened) == names(ROWS[5:])
    assert contents.records == one_by_one(store)


def test_the_end_of_a_run_leaves_one_file_for_all(store, fresh):
    store.rebuild()
    assert not store.index.exists()
    opened = fresh()
    assert len(store.read().records) == 12 and opened == []


def test_a_run_that_is_stopped_with_many_parts_notes_the_last_and_writes_no_row_again(
    store, fresh, monkeypatch
):
    monkeypatch.setattr(store_module, "TOLD", 12)
    opened = fresh()
    store.leave()
    assert opened == [] and not store.derived.exists()
    assert [path.stem for path in sorted(store.index.iterdir())] == ["000001", "000002", "000003"]
    contents = Store(store.folder.parent, "demo").read()
    assert opened == [] and contents.records == one_by_one(store)
    fresh()
    store.leave()
    assert len(list(store.index.iterdir())) == 3, "there is nothing new to note"
    store.rebuild()
    assert not store.index.exists() and store.derived.is_file()


def test_the_end_of_a_run_opens_no_part_that_the_run_wrote(store, fresh):
    opened = fresh()
    store.rebuild()
    assert opened == [] and len(store.read().records) == 12


def test_a_part_that_is_damaged_while_its_run_goes_on_is_seen_at_the_end(tmp_path):
    made = Store(tmp_path, "demo")
    with made.lock():
        paths = [made.append(record) for record in ROWS[:3]]
        paths[1].write_bytes(paths[1].read_bytes()[:-5])
        paths[2].unlink()
        made.rebuild()
    contents = Store(tmp_path, "demo").read()
    assert set(contents.damaged) == {paths[1].absolute()}
    assert list(contents.records) == [ROWS[0].job.job_id]


def test_a_run_that_is_stopped_with_few_parts_leaves_one_file_for_all(store):
    store.leave()
    assert not store.index.exists() and store.derived.is_file()


def test_an_index_that_cannot_be_written_costs_no_row(tmp_path, monkeypatch):
    monkeypatch.setattr(store_module, "INDEXED", 5)
    made = Store(tmp_path, "demo")
    with made.lock():
        (made.folder / "index").write_text("in the way")
        for record in ROWS:
            made.append(record)
        assert len(made.read().records) == 12
        monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(StoreError, match="disk is full"):
            made.append(ROWS[0])


def test_what_a_kill_half_wrote_in_the_index_is_swept(store):
    half = store.index / ".000003.parquet.tmp"
    half.write_bytes(b"half")
    with store.lock():
        assert not half.exists()


def test_reading_many_parts_one_by_one_says_how_far_it_is(store, fresh, monkeypatch):
    told = []
    monkeypatch.setattr(Store, "tell", lambda done, total: told.append((done, total)))
    fresh()
    store.read()
    assert told == [], "two parts are no wait"
    monkeypatch.setattr(store_module, "TOLD", 2)
    fresh()
    store.read()
    assert told == [(0, 2), (1, 2), (2, 2)]

"""The gate's history on disk: one sealed file a run, the same run once, damage said."""

import os
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from gate_history import QLORA, make_point
from peftmark.catalog.methods import Cell
from peftmark.core.errors import StoreError
from peftmark.storage import gate_history
from peftmark.storage.gate_history import append, read


def files(root):
    return sorted((root / "history" / "ci").iterdir())


def test_points_come_back_as_they_went_sorted_by_time(tmp_path):
    late = [make_point(1), make_point(1, cell=QLORA, verdict="worse", code=3)]
    early = [
        make_point(
            0,
            cell=Cell("head", None, "none", "bf16"),
            commit=None,
            dirty=None,
            values=(),
            memory_bytes=None,
            step_seconds=None,
            loss=None,
            verdict="missing",
        )
    ]
    append(tmp_path, late)
    append(tmp_path, early)
    points, damaged = read(tmp_path, "ci")
    assert damaged == {}
    assert points[0] == early[0]
    assert {p.cell: p for p in points[1:]} == {p.cell: p for p in late}


def test_a_file_is_named_by_its_run_without_colons(tmp_path):
    path = append(tmp_path, [make_point(3)])
    assert path == tmp_path / "history" / "ci" / f"2026-11-04T060000+0000-{3:016x}.parquet"
    assert files(tmp_path) == [path]


def test_the_same_run_twice_is_one_file_with_the_same_bytes(tmp_path):
    points = [make_point(0), make_point(0, cell=QLORA)]
    path = append(tmp_path, points)
    before = path.read_bytes()
    assert append(tmp_path, points[::-1]) == path
    assert files(tmp_path) == [path] and path.read_bytes() == before
    assert len(read(tmp_path, "ci")[0]) == 2


def test_nothing_is_written_without_points_and_nothing_is_no_history(tmp_path):
    assert append(tmp_path, []) is None
    assert list(tmp_path.iterdir()) == []
    assert read(tmp_path, "ci") == ([], {})


@pytest.mark.parametrize(
    "points",
    [
        [make_point(0), make_point(1)],
        [make_point(0, run="../../etc/passwd")],
        [make_point(0, at="../2026")],
    ],
)
def test_what_names_no_file_is_refused(tmp_path, points):
    with pytest.raises(ValueError, match="run"):
        append(tmp_path, points)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("at_byte", [0.1, 0.5, 0.9])
def test_a_flipped_bit_is_found_and_said_and_the_file_left_in_place(tmp_path, at_byte):
    good, bad = append(tmp_path, [make_point(0)]), append(tmp_path, [make_point(1)])
    raw = bytearray(bad.read_bytes())
    raw[int(len(raw) * at_byte)] ^= 4
    bad.write_bytes(raw)
    points, damaged = read(tmp_path, "ci")
    assert points == [make_point(0)]
    assert list(damaged) == [bad] and damaged[bad]
    assert files(tmp_path) == sorted([good, bad])


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not a table"])
def test_files_cut_short_are_damaged(tmp_path, content):
    path = append(tmp_path, [make_point(0)])
    path.write_bytes(content)
    assert list(read(tmp_path, "ci")[1]) == [path]


def test_a_file_under_another_name_or_of_another_suite_is_damaged(tmp_path):
    path = append(tmp_path, [make_point(0)])
    copy = path.with_name(path.name.replace("-11-01", "-11-02"))
    copy.write_bytes(path.read_bytes())
    assert "name" in read(tmp_path, "ci")[1][copy]
    other = tmp_path / "history" / "other" / path.name
    other.parent.mkdir()
    other.write_bytes(path.read_bytes())
    assert list(read(tmp_path, "other")[1]) == [other]


def test_a_newer_schema_is_refused_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(gate_history, "HISTORY_VERSION", 2)
    append(tmp_path, [make_point(0)])
    monkeypatch.undo()
    with pytest.raises(StoreError, match="newer peftmark") as caught:
        read(tmp_path, "ci")
    assert "Update peftmark" in caught.value.remedy


def test_a_table_that_is_no_history_is_damaged(tmp_path):
    path = append(tmp_path, [make_point(0)])
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    assert "history" in read(tmp_path, "ci")[1][path]


def test_columns_have_types_even_where_all_values_are_unknown(tmp_path):
    empty = {"commit": None, "dirty": None, "memory_bytes": None, "loss": None, "values": ()}
    path = append(tmp_path, [make_point(0, **empty, cell=Cell("head", None, "none"))])
    kinds = {field.name: str(field.type) for field in pq.read_schema(path)}
    assert kinds["commit"] == "string" and kinds["memory_bytes"] == "int64"
    assert kinds["values"] == "list<element: double>" and kinds["rank"] == "int64"


def test_what_a_killed_writer_left_is_no_damage(tmp_path):
    path = append(tmp_path, [make_point(0)])
    path.with_name(f".{path.name}.123.tmp").write_bytes(b"half")
    assert read(tmp_path, "ci") == ([make_point(0)], {})


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = append(tmp_path, [make_point(0)])
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        append(tmp_path, [replace(make_point(0), verdict="worse")])
    monkeypatch.undo()
    assert files(tmp_path) == [path] and path.read_bytes() == before


def test_a_file_where_the_folder_belongs_is_said(tmp_path):
    (tmp_path / "history").write_text("x")
    with pytest.raises(StoreError, match="history"):
        append(tmp_path, [make_point(0)])
    with pytest.raises(StoreError, match="history"):
        read(tmp_path, "ci")

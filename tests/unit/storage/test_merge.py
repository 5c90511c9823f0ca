"""Results of several machines as one folder: nothing lost, nothing twice, no source touched."""

from __future__ import annotations

import hashlib
import json
import tarfile
from dataclasses import replace

import pyarrow.parquet as pq
import pytest

from factory import make_environment, make_failure, make_job, make_outcome, make_record
from peftmark.cli import parser
from peftmark.core.errors import StoreError, UserError
from peftmark.record.machine_kind import machine_of
from peftmark.storage import parquet, part_cache
from peftmark.storage import store as store_module
from peftmark.storage.merge import merge
from peftmark.storage.store import Store
from places import ROOT

HERE = make_environment()
THERE = make_environment(machine={"cpu": "Other CPU"})
JOB = make_job()
ROWS = ROOT / "tests" / "golden" / "rows"


def row(seed=0, machine=HERE, attempt=1, ok=True, finished="2030-01-01T00:00:20Z", **changes):
    return make_record(
        job=make_job(seed=seed),
        environment=machine,
        attempt=attempt,
        outcome=make_outcome(**changes) if ok else make_failure(),
        finished_at=finished,
    )


def put(root, *records):
    """A results folder with these attempts."""
    for record in records:
        store = Store(root, record.job.suite)
        store.parts.mkdir(parents=True, exist_ok=True)
        store.append(record)
    return root


def contents(folder):
    """Path below a folder -> bytes, of everything in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def two(tmp_path):
    """Two machines: seeds 0 and 1 here, seeds 1 and 2 there."""
    return (
        put(tmp_path / "a", row(0), row(1, attempt=1, ok=False), row(1, attempt=2)),
        put(tmp_path / "b", row(1, THERE, metric_value=0.5), row(2, THERE)),
    )


def test_the_same_job_on_two_machines_stays_two_rows(tmp_path, two):
    found = merge(two, tmp_path / "d")
    assert (found.copied, found.twice, found.damaged, found.older) == (5, 0, {}, {})
    read = Store(tmp_path / "d", "demo").read()
    assert (len(read.records), len(read.rows), read.attempts) == (3, 4, 5)
    machines = sorted((r.job.seed, machine_of(r.environment)) for r in read.rows)
    here, there = machine_of(HERE), machine_of(THERE)
    assert machines == sorted([(0, here), (1, here), (1, there), (2, there)])
    assert {r.outcome.metric_value for r in read.rows if r.job.seed == 1} == {0.86, 0.5}


def test_sources_stay_as_they_are_and_rows_are_their_very_bytes(tmp_path, two):
    before = [contents(source) for source in two]
    merge(two, tmp_path / "d")
    assert [contents(source) for source in two] == before
    parts = contents(tmp_path / "d" / "demo" / "parts")
    assert set(parts.values()) == {b for side in before for b in side.values()}
    for name, raw in parts.items():
        assert name.split(".")[2] == hashlib.sha256(raw).hexdigest()[:12]


def test_the_order_of_sources_and_merging_again_change_nothing(tmp_path, two):
    a, b = two
    merge([a, b], tmp_path / "ab")
    merge([b, a], tmp_path / "ba")
    again = merge([tmp_path / "ab", b, a], tmp_path / "again")
    assert (again.copied, again.twice) == (5, 5)
    parts = [contents(tmp_path / d / "demo" / "parts") for d in ("ab", "ba", "again")]
    assert parts[0] == parts[1] == parts[2]


def test_attempts_with_one_number_on_one_kind_of_machine_are_both_kept_and_the_last_ok_counts(
    tmp_path,
):
    sources = [
        put(tmp_path / "a", row(finished="2030-01-03", metric_value=0.3)),
        put(tmp_path / "b", row(finished="2030-01-02", metric_value=0.2)),
        put(tmp_path / "c", row(finished="2030-01-04", ok=False)),
    ]
    merge(sources, tmp_path / "d")
    store = Store(tmp_path / "d", "demo")
    [only] = store.read().rows
    assert only.outcome.metric_value == 0.3
    [attempts] = store.attempts().values()
    assert [a.finished_at for a in attempts] == ["2030-01-02", "2030-01-03", "2030-01-04"]


def test_a_run_goes_on_in_a_merged_folder_and_its_attempt_is_the_last(tmp_path, two):
    merge(two, tmp_path / "d")
    store = Store(tmp_path / "d", "demo")
    assert store.last_attempts()[make_job(seed=1).job_id] == 2
    store.append(row(1, attempt=3, finished="2001-01-01", metric_value=0.7))  # a clock set back
    assert store.read().records[make_job(seed=1).job_id].outcome.metric_value == 0.7


def test_the_derived_file_has_all_rows_and_spares_reading_the_parts(tmp_path, two, monkeypatch):
    merge(two, tmp_path / "d")
    store = Store(tmp_path / "d", "demo")
    monkeypatch.setattr(part_cache, "_read", {})
    plain = store.read()
    assert pq.read_table(store.derived).num_rows == 4
    monkeypatch.setattr(part_cache, "_read", {})
    monkeypatch.setattr(store_module, "_read_part", None)
    assert {r.job.seed: r for r in store.read().rows} == {r.job.seed: r for r in plain.rows}


def test_a_derived_file_that_knew_one_row_a_job_is_not_trusted(tmp_path, monkeypatch):
    root = put(tmp_path / "a", row(0), row(0, THERE, attempt=2), row(1))
    store = Store(root, "demo")
    store.rebuild()
    content = store.derived.read_bytes().replace(part_cache.NAMES, b"peftmark_row_other")
    start = parquet._digest_at(content)
    unsealed = content[:start] + parquet.UNSEALED + content[start + 64 :]
    store.derived.write_bytes(parquet.sealed(unsealed))
    assert part_cache.Noted(store.derived).note() is None
    monkeypatch.setattr(part_cache, "_read", {})
    assert len(store.read().rows) == 3


def test_a_folder_that_ran_on_two_machines_without_a_merge_is_read_the_same_way(tmp_path):
    root = put(tmp_path / "a", row(0), row(0, THERE, attempt=2, metric_value=0.5))
    read = Store(root, "demo").read()
    assert [r.outcome.metric_value for r in read.rows] == [0.86, 0.5]
    assert read.records[JOB.job_id].attempt == 2


# --- what can't be read --------------------------------------------------------------------------


def damage(root):
    path = next((root / "demo" / "parts").iterdir())
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)
    return path


def test_damaged_parts_are_named_and_the_rest_is_merged(tmp_path, two):
    path = damage(two[1])
    before = path.read_bytes()
    found = merge(two, tmp_path / "d")
    assert list(found.damaged) == [path] and "SHA-256" in found.damaged[path]
    assert found.copied == 4
    assert path.read_bytes() == before


def test_three_folders_one_older_and_one_damaged(tmp_path, two):
    """Of schema 4, 7 and today: older rows stay as they were written and are read as ever."""
    with tarfile.open(ROWS / "schema-7.tar.xz") as packed:
        packed.extractall(tmp_path / "old", filter="data")
    old = tmp_path / "old" / "results"
    damage(two[0])
    found = merge([*two, old], tmp_path / "d")
    assert len(found.damaged) == 1
    assert set(found.suites) == {"demo", "glue", "smoke"}
    smoke = Store(tmp_path / "d", "smoke").read()
    assert (smoke.attempts, smoke.damaged, smoke.older) == (9, {}, {})
    assert {r.schema for r in smoke.rows} == {7}
    stored = {p.read_bytes() for p in (old / "smoke" / "parts").iterdir()}
    assert stored == set(contents(tmp_path / "d" / "smoke" / "parts").values())


def test_a_part_whose_bytes_are_not_those_of_its_name_is_damaged(tmp_path, two, monkeypatch):
    merge(two, tmp_path / "d")
    store = Store(tmp_path / "d", "demo")
    paths = sorted(store.parts.iterdir())
    other = make_record(job=make_job(seed=0), outcome=make_outcome(metric_value=0.99))
    target = next(p for p in paths if p.name.startswith(other.job.job_id))
    plain = store.append(other)
    plain.replace(target)
    monkeypatch.setattr(part_cache, "_read", {})
    assert store.read().damaged == {target: "the file's SHA-256 is not the one in its name"}


def test_folders_without_a_readable_row_make_no_folder(tmp_path):
    root = put(tmp_path / "a", row(0))
    damage(root)
    with pytest.raises(UserError, match="1 part can't be read, being damaged"):
        merge([root], tmp_path / "d")
    assert not (tmp_path / "d").exists() and not list(tmp_path.glob(".d*"))


# --- what is refused -----------------------------------------------------------------------------


def test_a_target_that_is_there_or_lies_in_a_source_is_refused(tmp_path, two):
    (tmp_path / "d").mkdir()
    for to in (tmp_path / "d", two[0] / "d", two[0]):
        with pytest.raises(UserError, match="--to"):
            merge(two, to)
    assert list((tmp_path / "d").iterdir()) == []


def test_a_source_without_results_is_refused_before_anything_is_written(tmp_path, two):
    for source, what in ((tmp_path / "none", "is not a folder"), (tmp_path, "holds no results")):
        with pytest.raises(UserError, match=what):
            merge([two[0], source], tmp_path / "d")
    assert not (tmp_path / "d").exists()


def test_one_suites_folder_is_a_source_too(tmp_path, two):
    found = merge([two[0] / "demo", two[1]], tmp_path / "d")
    assert found.copied == 5 and set(found.suites) == {"demo"}


def test_a_row_whose_suite_would_leave_the_folder_is_refused(tmp_path):
    bad = make_record(job=make_job(suite="../../out"))
    store = Store(tmp_path / "a", "demo")
    store.parts.mkdir(parents=True)
    store.append(bad)
    with pytest.raises(UserError, match="which no suite is called"):
        merge([tmp_path / "a"], tmp_path / "d")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


def test_a_newer_schema_is_refused_and_leaves_nothing(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(parquet, "SCHEMA_VERSION", 99)
        root = put(tmp_path / "a", row(0))
    with pytest.raises(StoreError, match="newer peftmark"):
        merge([root], tmp_path / "d")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a"]


def test_a_disk_that_is_full_leaves_nothing(tmp_path, two, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device", "somewhere")

    monkeypatch.setattr("peftmark.core.files.os.rename", full)
    with pytest.raises(StoreError, match="No space left"):
        merge(two, tmp_path / "d")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


# --- the command ---------------------------------------------------------------------------------


def command(capsys, *words):
    with pytest.raises(SystemExit) as left:
        parser.main([*map(str, words)])
    return left.value.code, capsys.readouterr().out


def test_the_command_tells_machines_and_what_was_left_out(tmp_path, two, capsys):
    path = damage(two[1])
    code, text = command(capsys, "merge", *two, "--to", tmp_path / "d")
    assert code == 6
    assert "4 attempts in" in text
    assert "3 rows of 2 kinds of machine\n    2 of Example CPU @ 2 GHz\n    1 of Other CPU" in text
    assert "1 part is damaged and left out:" in text and str(path) in text
    assert f"peftmark report demo --results {tmp_path / 'd'}" in text


def test_the_command_as_json(tmp_path, two, capsys):
    code, text = command(capsys, "merge", *two, "--to", tmp_path / "d", "--json")
    facts = json.loads(text)
    assert code == 0 and (facts["attempts"], facts["damaged"]) == (5, {})
    machines = facts["suites"]["demo"]["machines"]
    assert machines[machine_of(THERE)] == {"name": "Other CPU", "rows": 2}


def test_what_is_equal_in_every_fact_but_the_host_is_one_row(tmp_path):
    alike = replace(row(0), environment=make_environment(machine={**HERE.machine, "cores": 64}))
    later = replace(alike, finished_at="2030-01-02")
    merge([put(tmp_path / "a", row(0)), put(tmp_path / "b", later)], tmp_path / "d")
    [only] = Store(tmp_path / "d", "demo").read().rows
    assert only.finished_at == "2030-01-02"

"""The results folder: what is written, what survives, and what damage does."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, fields, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from factory import make_environment, make_failure, make_job, make_matrix, make_outcome, make_record
from peftmark.core.errors import StoreError
from peftmark.record.columns import COLUMNS
from peftmark.record.job import SCHEMA_VERSION
from peftmark.record.outcome import CurvePoint, Outcome
from peftmark.record.recipe import Causal
from peftmark.storage import parquet, part_cache
from peftmark.storage import store as store_module
from peftmark.storage.attempts import PART_NAME
from peftmark.storage.store import Store
from peftmark.suite.expand import decide
from places import SUPPORT
from waiting import FOREVER, wait_for

REQUIRED = (
    "suite", "suite_version", "profile", "job_id", "method", "size", "quantization", "task", "seed",
    "status", "status_reason", "metric_name", "metric_value", "best_metric_value",
    "baseline_value", "steps", "steps_to_target", "train_seconds", "samples_per_second",
    "tokens_per_second", "peak_memory_bytes", "peak_memory_source", "trainable_parameters",
    "total_parameters", "adapter_bytes", "curve", "config", "environment",
)  # fmt: skip


@pytest.fixture
def store(tmp_path):
    """A store whose folders exist."""
    result = Store(tmp_path / "results", "demo")
    with result.lock():
        pass
    return result


def only(store):
    [record] = store.read().records.values()
    return record


def plain(record):
    """A record without the reasons of its nulls, which storing completes."""
    return replace(record, outcome=replace(record.outcome, null_reasons={}))


def leftovers(store):
    """Files of the results folder that are neither parts nor the lock nor derived from parts."""
    known = {"run.lock", "results.parquet"}
    files = (p for p in store.folder.rglob("*") if p.is_file())
    known |= {path.name for path in store.index.glob("[0-9]*.parquet")}
    return [p for p in files if p.name not in known and not PART_NAME.fullmatch(p.name)]


# --- what is written ----------------------------------------------------------------------------

FULL = make_record(
    job=make_job(method="adalora", quantization="nf4", causal=Causal("1:0f", 8, "editorials:none")),
    outcome=make_outcome(
        warnings=("one", "zwei – “drei”\n"),
        status_reason="</script>\n| x",
        energy_flags=("short window", "contended: 2 workers"),
        rank_history={"layer.0.query": [12, 8], "layer.1.query": [None, 0]},
        importance_history={"layer.0.query": [None, 0.25]},
        layer_scores={"layer.0": 0.5},
        solved_size=8,
        budget_parameters=74_000,
        final_weights_hash="f" * 64,
        exploding_step=7,
        penalty=0.25,
        timed_alone=False,
        compile_seconds=30.5,
        summed_peak_bytes=1700 * 2**20,
        jobs_on_gpu=4,
        torch_allocated_bytes=1,
        torch_reserved_bytes=2,
        energy_gpu_joules=3.5,
        energy_cpu_joules=4.5,
        completions=("an answer", "", "„noch eine“\n"),
        unrelated_perplexity_before=20.5,
        unrelated_perplexity_after=21.0,
        generated_tokens_per_second=41.5,
    ),
    nvml_process_bytes=123,
    nvml_device_bytes=456,
    nvml_reason="",
    attempt=3,
    predicted_seconds=18.0,
    most_seeds=12,
    question="best",
    profile_seeds=3,
    look=2,
)
NULLS = make_record(
    job=make_job(target=None, size=None, method="head"),
    outcome=make_failure(),
    environment=make_environment(versions={}, commit=None, dirty=None, machine={"driver": None}),
)


@pytest.mark.parametrize("record", [FULL, NULLS, make_record(outcome=Outcome("ok"))])
def test_a_record_comes_back_as_it_was(store, record):
    path = store.append(record)
    assert path.name == f"{record.job.job_id}.{record.attempt}.parquet"
    assert plain(only(store)) == plain(record)
    assert leftovers(store) == []


@pytest.mark.parametrize("record", [FULL, NULLS, make_record(outcome=Outcome("ok"))])
def test_every_null_of_a_row_has_its_reason_and_keeps_it(record):
    row = parquet.to_row(record)
    reasons = json.loads(row["null_reasons"])
    nulls = {name for name, value in row.items() if value is None}
    assert nulls <= {name for name, reason in reasons.items() if reason}
    back = store_module.from_row(row)
    assert parquet.to_row(back) == row
    for name in nulls - {"size", "size_kind", "target_value"}:  # these are no fields of a record
        assert back.null_reason(name) == reasons[name]


def test_a_reason_says_what_is_known():
    reasons = json.loads(parquet.to_row(NULLS)["null_reasons"])
    assert reasons["size"] == reasons["size_kind"] == "the method has no size"
    assert reasons["steps_to_target"] == "the suite sets no target for this task"
    assert reasons["loss"] == "the job ended as out_of_memory: asked for 2 GiB"
    assert reasons["nvml_device_bytes"] == "the job ran on the CPU"
    why = {"merge_max_error": "the head alone was trained"}
    record = make_record(outcome=Outcome("ok", null_reasons=why))
    reasons = json.loads(parquet.to_row(record)["null_reasons"])
    assert reasons["merge_max_error"] == why["merge_max_error"]
    assert reasons["mfu"] == "not recorded"


def test_the_full_record_of_these_tests_leaves_no_field_out():
    left = [key for key, value in asdict(FULL.outcome).items() if value is None]
    assert left == [], f"give {left} a value in make_outcome of tests/support/factory.py"
    assert [k for k, v in asdict(FULL).items() if v is None] == []


def test_numbers_that_are_not_finite_come_back(store):
    outcome = make_outcome(metric_value=math.nan, train_seconds=math.inf, metrics={"f1": math.nan})
    store.append(make_record(outcome=outcome))
    back = only(store).outcome
    assert math.isnan(back.metric_value)
    assert math.isnan(back.metrics["f1"])
    assert back.train_seconds == math.inf


@pytest.mark.parametrize("record", [FULL, NULLS])
def test_the_written_schema_is_the_explicit_one_also_where_all_is_null(store, record):
    schema = pq.read_schema(store.append(record))
    assert schema.names == list(COLUMNS)
    assert not [field.name for field in schema if pa.types.is_null(field.type)]
    assert schema.field("size").type == pa.int64()
    assert schema.field("metric_value").type == pa.float64()
    assert schema.field("target_reached").type == pa.bool_()
    curve = schema.field("curve").type
    assert [f.name for f in curve.value_type] == [f.name for f in fields(CurvePoint)]
    assert schema.metadata[b"peftmark_schema"] == str(SCHEMA_VERSION).encode()


def test_the_columns_that_others_rely_on_are_there():
    assert set(REQUIRED) <= set(COLUMNS)


def test_results_parquet_equals_the_parts(store):
    records = make_matrix()
    for record in random.Random(0).sample(records, len(records)):
        store.append(record)
    store.append(replace(records[0], attempt=2, outcome=make_failure()))
    store.rebuild()
    rows = pq.read_table(store.derived).to_pylist()
    assert [plain(store_module.from_row(row)) for row in rows] == sorted(
        map(plain, records),
        key=lambda r: (r.job.task, r.job.method, r.job.quantization, r.job.seed),
    )
    before = store.derived.read_bytes()
    store.rebuild()
    assert store.derived.read_bytes() == before
    assert leftovers(store) == []


# --- which attempt counts -----------------------------------------------------------------------


def test_the_last_ok_attempt_counts_else_the_last_one(store):
    def attempt(number, ok):
        outcome = make_outcome(steps=number) if ok else make_failure(reason=str(number))
        store.append(make_record(attempt=number, outcome=outcome))
        return only(store).attempt

    assert [attempt(1, False), attempt(2, False), attempt(3, True)] == [1, 2, 3]
    assert [attempt(4, False), attempt(9, True), attempt(10, False), attempt(11, True)] == [
        3,
        9,
        9,
        11,
    ]
    assert store.read().attempts == 7
    assert store.last_attempts()[make_job().job_id] == 11
    assert make_job(seed=5).job_id not in store.last_attempts()


# --- damage -------------------------------------------------------------------------------------


def zero_length(raw):
    return b""


def truncated(raw):
    return raw[: len(raw) // 2]


def zeroed_tail(raw):
    return raw[:-100] + bytes(100)


def flipped(raw):
    at = raw.index(b"00:00:20Z")  # a value that only the checksum of its page protects
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


def not_parquet(raw):
    return b"hello, world\n" * 100


def foreign(raw):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": [1, 2]}), sink)
    return sink.getvalue().to_pybytes()


def foreign_row(raw):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"config": ["[]"], "job_id": ["x"]}), sink)
    return sink.getvalue().to_pybytes()


DAMAGES = [zero_length, truncated, zeroed_tail, flipped, not_parquet, foreign, foreign_row]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_part_is_set_aside_its_job_runs_again_and_the_rest_stays(store, damage):
    bad, good = make_record(), make_record(job=make_job(seed=1))
    path = store.append(bad)
    store.append(good)
    damaged = damage(path.read_bytes())
    path.write_bytes(damaged)

    contents = store.read()
    assert [plain(record) for record in contents.records.values()] == [plain(good)]
    assert list(contents.damaged) == [path]
    assert contents.damaged[path]
    versions = good.environment.versions
    planned = decide([bad.job, good.job], contents.records, versions, again=False)
    assert [(p.action, p.reason) for p in planned] == [("run", "new"), ("done", "ok in attempt 1")]

    store.quarantine(contents.damaged)
    assert (store.folder / "quarantine" / path.name).read_bytes() == damaged
    assert store.read().damaged == {}
    assert store.last_attempts()[bad.job.job_id] == 1, "what was set aside is never written over"
    store.append(replace(bad, attempt=2))
    assert store.read().records[bad.job.job_id].attempt == 2


def test_no_flipped_bit_and_no_cut_makes_the_reader_fail(store):
    path = store.append(make_record())
    raw = path.read_bytes()
    chance = random.Random(7)
    for _ in range(150):
        at = chance.randrange(len(raw))
        path.write_bytes(raw[:at] + bytes([raw[at] ^ (1 << chance.randrange(8))]) + raw[at + 1 :])
        contents = store.read()
        assert len(contents.damaged) + len(contents.records) == 1
    for _ in range(50):
        path.write_bytes(raw[: chance.randrange(len(raw))])
        assert list(store.read().damaged) == [path]


def test_a_part_under_another_name_is_damaged(store):
    path = store.append(make_record())
    other = path.with_name(f"{make_job(seed=1).job_id}.1.parquet")
    shutil.copy(path, other)
    os.replace(path, path.with_name("copy of a part.parquet"))
    contents = store.read()
    assert contents.records == {}
    assert all("does not match" in why for why in contents.damaged.values())
    assert len(contents.damaged) == 2


def test_what_is_not_a_part_is_left_alone(store):
    (store.parts / "notes.txt").write_text("mine")
    (store.parts / "folder.parquet").mkdir()
    (store.parts / ".half.parquet.tmp").write_text("half")
    contents = store.read()
    assert (contents.records, contents.damaged) == ({}, {})


def test_a_reader_that_runs_out_of_anything_is_not_damage(store, monkeypatch):
    store.append(make_record())

    def fails(self):
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(Path, "read_bytes", fails)
    with pytest.raises(StoreError, match="Too many open files"):
        store.read()


def test_a_newer_schema_is_refused_in_words(store, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(parquet, "SCHEMA_VERSION", SCHEMA_VERSION + 1)
        store.append(make_record())
    with pytest.raises(StoreError, match="written by a newer peftmark") as caught:
        store.read()
    assert f"schema {SCHEMA_VERSION + 1}, known {SCHEMA_VERSION}" in caught.value.what
    assert "Update peftmark" in caught.value.remedy


def test_an_older_schema_is_counted_left_where_it_is_and_not_read(store, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(parquet, "SCHEMA_VERSION", 3)
        old = store.append(make_record())
    store.append(make_record(job=make_job(seed=1)))
    contents = store.read()
    assert (contents.attempts, contents.damaged) == (1, {})
    assert contents.older == {old.absolute(): "schema 3"}
    assert [record.job.seed for record in contents.records.values()] == [1]
    assert old.is_file()
    assert store.last_attempts()[make_job().job_id] == 1, "what is there is never written over"


# --- the lock -----------------------------------------------------------------------------------

HOLDER = f"""
import sys, time
from pathlib import Path
from peftmark.storage.store import Store
with Store(Path(sys.argv[1]), "demo").lock():
    print("held", flush=True)
    time.sleep({FOREVER})
"""


def test_a_second_lock_is_refused_and_names_the_holder(store):
    with store.lock():
        with pytest.raises(StoreError, match=f"process {os.getpid()} on ") as caught:
            store.lock().__enter__()
        assert "in use by another run" in caught.value.what
    with store.lock():
        pass


@pytest.mark.heavy
def test_the_lock_of_another_process_goes_with_it_even_by_kill_9(store):
    root = store.folder.parent
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(StoreError, match=f"process {holder.pid} on "):
            store.lock().__enter__()
        holder.kill()
    with store.lock():
        pass


@pytest.mark.heavy
def test_a_worker_started_under_the_lock_does_not_keep_it(store):
    with store.lock():
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    with store.lock():
        pass
    child.communicate(b"\n")


def test_leftovers_of_a_killed_run_are_swept_by_the_next_lock(store):
    (store.parts / ".x.1.parquet.tmp").write_text("half")
    (store.folder / ".results.parquet.tmp").write_text("half")
    with store.lock():
        assert leftovers(store) == []


APPENDER = f"""
import itertools, sys
sys.path.insert(0, {str(SUPPORT)!r})
from dataclasses import replace
from pathlib import Path
from factory import make_record
from peftmark.storage.store import Store
store, record = Store(Path(sys.argv[1]), "demo"), make_record()
with store.lock():
    print("held", flush=True)
    for attempt in itertools.count(store.last_attempts().get(record.job.job_id, 0) + 1):
        store.append(replace(record, attempt=attempt))
        if attempt % 5 == 0:
            store.rebuild()
"""


@pytest.mark.slow
@pytest.mark.heavy
def test_parts_are_whole_or_absent_however_the_writer_is_killed(store):
    chance = random.Random(1)
    interrupted_writes = 0
    for _ in range(6):
        before = len(list(store.parts.glob("*.parquet")))
        with subprocess.Popen(
            [sys.executable, "-c", APPENDER, str(store.folder.parent)],
            stdout=subprocess.PIPE,
            text=True,
        ) as writer:
            assert writer.stdout.readline() == "held\n"
            wait_for(lambda: len(list(store.parts.glob("*.parquet"))) >= before + 2)  # noqa: B023
            time.sleep(chance.uniform(0, 0.05))  # the moment of the kill is the test
            writer.kill()
        assert writer.returncode == -signal.SIGKILL
        interrupted_writes += len(leftovers(store))
        contents = store.read()
        assert contents.damaged == {}
        assert contents.attempts >= before + 2
        with store.lock():
            assert leftovers(store) == []
            if store.derived.exists():
                assert pq.read_table(store.derived).num_rows == 1


# --- disk full and other troubles of the disk ---------------------------------------------------


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 256 KiB, where this process may mount one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mount = shutil.which("mount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() or not mount or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a small file system is not allowed here")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.heavy
def test_a_full_disk_is_told_and_earlier_results_stay(small_disk, monkeypatch):
    store = Store(small_disk, "demo")
    with pytest.raises(StoreError, match="the disk is full"):
        store.lock().__enter__()
    monkeypatch.setattr(store_module, "FREE_BYTES_NEEDED", 0)
    with store.lock():
        written = []
        with pytest.raises(StoreError, match=r"disk is full; .* intact") as caught:
            for attempt in range(1, 1000):
                written.append(store.append(make_record(attempt=attempt)))
        assert "Free some space" in caught.value.remedy
        assert len(written) > 1
        assert leftovers(store) == []
        contents = store.read()
        assert (contents.attempts, contents.damaged) == (len(written), {})
        with pytest.raises(StoreError, match="disk is full"):
            store.rebuild()
        assert leftovers(store) == []


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("code", "words"), [(errno.ENOSPC, "disk is full"), (errno.EIO, "Input/output error")]
)
def test_a_failing_write_leaves_nothing_half_written(store, monkeypatch, call, code, words):
    store.append(make_record())
    store.rebuild()
    derived = store.derived.read_bytes()

    def fails(*arguments):
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fails)
        with pytest.raises(StoreError, match=words):
            store.append(make_record(attempt=2))
        with pytest.raises(StoreError, match=words):
            store.rebuild()
    assert leftovers(store) == []
    assert only(store).attempt == 1
    assert store.derived.read_bytes() == derived


def test_a_results_folder_that_cannot_be_one_is_told(tmp_path):
    (tmp_path / "file").write_text("mine")
    for root in (tmp_path / "file", Path("/proc/no-such-place")):
        with pytest.raises(StoreError, match="choose another --results folder"):
            Store(root, "demo").lock().__enter__()
    with pytest.raises(StoreError, match="is not a folder"):
        Store(tmp_path / "file", "demo").read()
    assert Store(Path("/proc/no-such-place"), "demo").read().records == {}
    assert (tmp_path / "file").read_text() == "mine"


def test_a_file_system_without_locks_is_told(store, monkeypatch):
    def fails(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(store_module.fcntl, "flock", fails)
    with pytest.raises(StoreError, match="No locks available"):
        store.lock().__enter__()


# --- many parts ---------------------------------------------------------------------------------


@pytest.fixture
def opened(monkeypatch):
    """The parts that were opened to be read."""
    seen = []

    def counted(path, raw):
        seen.append(path.name)
        return plain(path, raw)

    plain = store_module._read_part
    monkeypatch.setattr(store_module, "_read_part", counted)
    monkeypatch.setattr(part_cache, "_read", {})
    return seen


def another_process(monkeypatch, opened):
    monkeypatch.setattr(part_cache, "_read", {})
    opened.clear()


def test_a_part_is_opened_once_while_it_stays_as_it_is(store, opened):
    one = store.append(make_record())
    first = store.read()
    two = store.append(make_record(job=make_job(seed=1)))
    second = store.read()
    assert opened == [one.name, two.name]
    assert second.records[make_job().job_id] is first.records[make_job().job_id]
    one.write_bytes(b"damaged")
    assert list(store.read().damaged) == [one.absolute()]
    assert opened == [one.name, two.name, one.name]


def test_derived_rows_stand_for_parts_that_stay_as_they_are(store, opened, monkeypatch):
    failed = make_record(outcome=make_failure())
    records = [make_record(job=make_job(seed=seed)) for seed in range(5)]
    for record in (failed, replace(records[0], attempt=2), *records[1:]):
        store.append(record)
    with monkeypatch.context() as patch:
        patch.setattr(parquet, "SCHEMA_VERSION", 3)
        old = store.append(make_record(job=make_job(seed=9)))
    store = Store(store.folder.parent, "demo")  # another run: of its own rows none is older
    store.rebuild()
    plain = store.read()
    another_process(monkeypatch, opened)
    assert store.read() == plain
    assert opened == []
    assert (plain.attempts, len(plain.records)) == (6, 5)
    assert plain.older == {old.absolute(): "schema 3"}

    new = store.append(make_record(job=make_job(seed=7)))
    another_process(monkeypatch, opened)
    assert len(store.read().records) == 6
    assert opened == [new.name]


@pytest.mark.parametrize("change", ["touched", "gone", "derived damaged", "derived gone"])
def test_with_any_doubt_all_parts_are_opened(store, opened, monkeypatch, change):
    paths = [store.append(make_record(job=make_job(seed=seed))) for seed in range(4)]
    store.rebuild()
    another_process(monkeypatch, opened)
    raw = store.derived.read_bytes()
    left = paths
    if change == "touched":
        os.utime(paths[0], ns=(1, 1))
    elif change == "gone":
        paths[0].unlink()
        left = paths[1:]
    elif change == "derived gone":
        store.derived.unlink()
    else:
        middle = len(raw) // 2
        store.derived.write_bytes(raw[:middle] + bytes([raw[middle] ^ 1]) + raw[middle + 1 :])
    assert len(store.read().records) == len(left)
    assert sorted(opened) == sorted(path.name for path in left)


def test_a_failed_attempt_counts_again_when_the_good_one_is_gone(store, opened, monkeypatch):
    store.append(make_record(outcome=make_failure()))
    good = store.append(make_record(attempt=2))
    store.append(make_record(job=make_job(seed=1)))
    store.rebuild()
    good.unlink()
    another_process(monkeypatch, opened)
    record = store.read().records[make_job().job_id]
    assert (record.attempt, record.ok) == (1, False)

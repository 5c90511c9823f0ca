"""Real rows of older schemas: today's code reads, reports, compares, claims and gates them."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import peftmark
from peftmark.record import columns
from peftmark.record.job import SCHEMA_VERSION
from peftmark.storage import parquet, part_cache
from peftmark.storage import store as store_module
from peftmark.storage.migrations import MIGRATIONS
from peftmark.storage.store import Store
from peftmark.suite.expand import decide, expand
from peftmark.suite.load import load_suite
from places import ROOT

ROWS = Path(__file__).parent / "rows"
SLOW = pytest.mark.slow
FOLDERS = [(4, "glue", 12), (7, "glue", 8), (7, "smoke", 9)]
"""Schema, suite, number of rows."""
WORKED = ("ok", "interrupted")
UNRECORDED_BY_4 = {
    "learning_rate_mean",
    "base_format",
    "live_activation_bytes",
    "live_temporary_bytes",
    "predicted_live_bytes",
    "prediction_error",
    "completions",
    "unrelated_perplexity_before",
    "unrelated_perplexity_after",
    "generated_tokens_per_second",
}


@pytest.fixture
def unpacked(tmp_path, monkeypatch):
    """Unpacks the rows of a schema into an empty folder's results, and goes there."""

    def unpack(schema: int) -> Path:
        with tarfile.open(ROWS / f"schema-{schema}.tar.xz") as packed:
            packed.extractall(tmp_path, filter="data")
        monkeypatch.chdir(tmp_path)
        (tmp_path / "suites").mkdir(exist_ok=True)
        # The file that the rows were made by: the shipped one has a new version since.
        shutil.copy(ROWS / "smoke-2.yaml", tmp_path / "suites" / "smoke.yaml")
        monkeypatch.setattr(part_cache, "_read", {})
        return tmp_path / "results"

    return unpack


@pytest.mark.parametrize(("schema", "suite", "count"), FOLDERS)
def test_every_row_is_read_under_its_own_id(unpacked, schema, suite, count):
    contents = Store(unpacked(schema), suite).read()
    assert (contents.attempts, contents.damaged, contents.older) == (count, {}, {})
    for job_id, record in contents.records.items():
        assert (record.schema, record.job.job_id, record.job.stored_id) == (schema, job_id, "")
        assert record.job.scale == "reduced"
        assert record.outcome.status in WORKED
        reasons = json.loads(columns.to_row(record)["null_reasons"])
        nulls = {name for name, value in columns.to_row(record).items() if value is None}
        assert nulls <= {name for name, why in reasons.items() if why}


def test_what_a_schema_did_not_record_says_so_and_everything_else_is_kept(unpacked):
    store = Store(unpacked(4), "glue")
    for path in store.parts.iterdir():
        [before] = pq.ParquetFile(path).read().to_pylist()
        after = columns.to_row(store.read().records[before["job_id"]])
        reasons = json.loads(after["null_reasons"])
        told = {name for name, why in reasons.items() if "schema 4" in why}
        assert told == UNRECORDED_BY_4
        assert f"{before['live_activation_bytes']} bytes" in reasons["live_activation_bytes"]
        moved = {"rank", "null_reasons", "live_activation_bytes", "environment"}
        assert {n: before[n] for n in before.keys() - moved} == {
            n: after[n] for n in before.keys() - moved
        }
        assert before["rank"] == after["size"]


@pytest.mark.parametrize(("schema", "suite", "count"), FOLDERS)
def test_a_finished_row_is_done_and_not_run_again(unpacked, schema, suite, count):
    records = Store(unpacked(schema), suite).read().records
    done = 0
    for record in records.values():
        jobs = [j for j in expand(load_suite(suite), "offline", "cpu").jobs if j == record.job]
        [planned] = decide(jobs, records, record.environment.software, again=False)
        assert planned.job.job_id == record.job.job_id
        assert planned.action == ("done" if record.ok else "run")
        done += planned.action == "done"
    assert done == count - (2 if (schema, suite) == (7, "glue") else 0)


@pytest.mark.parametrize(("schema", "suite", "count"), FOLDERS)
def test_rebuilt_rows_say_the_same_and_spare_reading_the_parts(
    unpacked, monkeypatch, schema, suite, count
):
    store = Store(unpacked(schema), suite)
    plain = store.read()
    store.rebuild()
    table = pq.read_table(store.derived)
    assert set(table["schema"].to_pylist()) == {schema}
    monkeypatch.setattr(part_cache, "_read", {})
    monkeypatch.setattr(store_module, "_read_part", None)
    assert store.read() == plain


def test_a_derived_file_of_an_older_schema_is_not_trusted(unpacked, monkeypatch):
    store = Store(unpacked(7), "smoke")
    plain = store.read()
    with monkeypatch.context() as patch:
        patch.setattr(parquet, "SCHEMA_VERSION", 7)
        store.rebuild()
    monkeypatch.setattr(part_cache, "_read", {})
    assert part_cache.Noted(store.derived).note() is None
    assert store.read() == plain


@pytest.mark.parametrize(
    ("schema", "suite", "count"),
    [pytest.param(*one, marks=SLOW if one[1] == "glue" else ()) for one in FOLDERS],
)
def test_every_command_works_on_them(unpacked, peftmark, schema, suite, count):
    results = unpacked(schema)
    for words in (["report", suite], ["recommend", suite]):
        code, said = peftmark(*words)
        assert code == 0, said
        assert "can't be read" not in said
    code, said = peftmark("plan", suite, "--profile", "offline", "--no-memory", "--json")
    assert code == 0, said
    planned = {job["job_id"] for job in json.loads(said)["jobs"]}
    assert {path.name[:16] for path in (results / suite / "parts").iterdir()} <= planned
    shutil.copytree(results / suite, results / "again")
    code, said = peftmark("compare", results / suite, results / "again")
    assert code == 0, said
    code, said = peftmark("gate", suite, "--against", ROOT / "results/baselines", "--elsewhere")
    baseline = (ROOT / "results/baselines" / suite).is_dir()
    assert "LoRA r8" in said if baseline else "there is no baseline" in said, said
    if load_suite(suite).claims:
        code, said = peftmark("claims", suite)
        assert code == 0, said
        assert f"Suite {suite}, profile offline" in said


def test_a_baseline_of_the_rows_holds_against_them(unpacked, peftmark):
    results = unpacked(7)
    words = ("--from", results / "smoke", "--reason", "the corpus", "--baselines", "mine")
    code, said = peftmark("baseline", "accept", *words)
    assert code == 0, said
    assert '"rank": 8' in Path("mine/smoke/cpu.jsonl").read_text(encoding="utf-8")
    code, said = peftmark("gate", "smoke", "--against", "mine", "--elsewhere")
    assert code == 0, said


# --- a field that comes later ---------------------------------------------------------------------


def add_column(monkeypatch, name="sparkle", kind="float64"):
    """A column more, as a later peftmark of the same schema would have it."""
    more = {**columns.COLUMNS, name: kind}
    for module in (columns, parquet, part_cache):
        monkeypatch.setattr(module, "COLUMNS", more)


@pytest.mark.parametrize(("schema", "suite", "count"), FOLDERS)
def test_another_column_loses_no_row(unpacked, monkeypatch, schema, suite, count):
    store = Store(unpacked(schema), suite)
    plain = store.read()
    store.rebuild()
    assert part_cache.Noted(store.derived).note() is not None
    add_column(monkeypatch)
    monkeypatch.setattr(part_cache, "_read", {})
    assert part_cache.Noted(store.derived).note() is None, "its parts may have what it lacks"
    assert store.read() == plain


def test_a_row_without_a_column_is_null_there_and_says_who_wrote_it(unpacked, monkeypatch):
    store = Store(unpacked(7), "smoke")
    record = next(iter(store.read().records.values()))
    lacking = {"mfu", "warnings", "curve", "base_format"}
    row = {name: value for name, value in columns.to_row(record).items() if name not in lacking}
    back = columns.from_row(row | {"never heard of": 1})
    assert (back.outcome.mfu, back.outcome.warnings) == (None, ())
    assert (back.outcome.curve, back.outcome.base_format) == ((), {})
    assert back.null_reason("mfu") == "not recorded by peftmark 0.1.0"
    again = json.loads(columns.to_row(back)["null_reasons"])
    assert {again[name] for name in lacking} == {"not recorded by peftmark 0.1.0"}
    with pytest.raises(KeyError):
        columns.from_row({name: value for name, value in row.items() if name != "config"})


def test_the_corpus_has_a_schema_for_every_migration_that_was_ever_released():
    assert sorted(MIGRATIONS) == list(range(4, SCHEMA_VERSION))
    assert {int(path.name[7]) for path in ROWS.glob("schema-*.tar.xz")} <= set(MIGRATIONS)


@pytest.mark.parametrize(("schema", "suite", "count"), FOLDERS)
def test_older_rows_are_a_frame_in_which_what_they_lack_is_null(unpacked, schema, suite, count):
    unpacked(schema)
    runs = peftmark.load_results(suite, failed=True, repeats=True)
    assert len(runs) == count and set(runs.schema) == {schema}
    assert not runs.duplicated(["cell", "task", "seed", "purpose"]).any()
    assert runs.learning_rate.notna().all()
    assert runs.attrs["reference"] == "LoRA r8" and runs.attrs["older"] == {}
    if schema == 4:
        assert runs.live_activation_bytes.isna().all()

"""Rows of older schemas, and folders of rows that nobody can read any more."""

from __future__ import annotations

import json
from dataclasses import field, make_dataclass, replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from factory import make_environment, make_job, make_outcome, make_record
from gate_cli import smoke_rows
from peftmark.record.columns import from_row, to_row
from peftmark.record.identity import LATER, identity_of
from peftmark.record.recipe import Recipe
from peftmark.storage import migrations, parquet
from peftmark.storage.migrations import MIGRATIONS, NoMigration, migrated
from peftmark.storage.store import Store
from peftmark.storage.unread import no_results, unread
from peftmark.suite.expand import decide


def as_of_7(record):
    """A record's row as schema 7 had it."""
    row = to_row(record)
    for name in ("schema", "scale", "size_kind"):
        del row[name]
    row["rank"] = row.pop("size")
    reasons = json.loads(row["null_reasons"])
    if "size" in reasons:
        reasons["rank"] = reasons.pop("size")
    reasons.pop("size_kind", None)
    return row | {"null_reasons": json.dumps(reasons)}


@pytest.mark.parametrize(
    ("suite", "profile", "scale"),
    [
        ("glue", "full", "full"),
        ("mine", "full", "full"),
        ("glue-lora-paper", "base", "full"),
        ("glue-lora-paper", "large", "full"),
        ("glue-adalora-paper", "base", "full"),
        ("instruct", "full-cosine", "full"),
        ("mine", "base", "reduced"),
        ("glue", "offline", "reduced"),
    ],
)
def test_the_scale_of_an_old_row_is_read_off_its_profile(suite, profile, scale):
    record = make_record(job=make_job(suite=suite, profile=profile))
    assert from_row(migrated(as_of_7(record), 7)).job.scale == scale


@pytest.mark.parametrize(
    ("method", "size", "kind"),
    [
        ("lora", 8, "rank"),
        ("adapter", 64, "width"),
        ("prompt-tuning", 20, "tokens"),
        ("head", None, None),
    ],
)
def test_a_size_of_an_old_row_gets_its_kind(method, size, kind):
    record = make_record(job=make_job(method=method, size=size))
    row = migrated(as_of_7(record), 7)
    assert (row["size"], row["size_kind"], "rank" in row) == (size, kind, False)
    reasons = json.loads(row["null_reasons"])
    why = {"size": "the method has no size", "size_kind": "the method has no size"}
    assert {n: w for n, w in reasons.items() if n in ("rank", *why)} == ({} if size else why)
    today = to_row(record) | {"schema": 7}
    assert to_row(from_row(row)) == today


def test_a_row_is_not_changed_by_its_migration():
    row = as_of_7(make_record())
    before = dict(row)
    migrated(row, 7)
    assert row == before


@pytest.mark.parametrize("schema", [0, 1, 2, 3])
def test_what_is_too_old_is_named(schema):
    with pytest.raises(NoMigration, match=f"^schema {schema}$"):
        migrated(as_of_7(make_record()), schema)


def test_a_migration_that_fails_names_its_fault():
    row = as_of_7(make_record())
    del row["suite"]
    with pytest.raises(NoMigration, match=r"^schema 7, KeyError: 'suite'$"):
        migrated(row, 7)


def test_an_old_row_with_another_configuration_than_its_id_is_damaged():
    row = as_of_7(make_record())
    with pytest.raises(ValueError, match="does not match its config"):
        migrated({**row, "config": row["config"].replace('"seed":0', '"seed":1')}, 7)
    with pytest.raises(ValueError, match="does not match its config"):
        from_row({**to_row(make_record()), "config": row["config"].replace('"seed":0', '"seed":1')})


# --- configurations -------------------------------------------------------------------------------


def old_config(record):
    """A row of schema 7 whose configuration has a key that this peftmark doesn't write."""
    config = json.loads(record.job.to_json())
    config["recipe"]["colour"] = "blue"
    text = json.dumps(config, sort_keys=True, separators=(",", ":"))
    return as_of_7(record) | {"config": text, "job_id": identity_of(text)}


@pytest.fixture
def without_colour(monkeypatch):
    """A migration that takes the key away."""

    def step(row):
        config = json.loads(row["config"])
        config["recipe"].pop("colour", None)
        return MIGRATIONS_7(row) | {"config": json.dumps(config)}

    MIGRATIONS_7 = MIGRATIONS[7]
    monkeypatch.setitem(migrations.MIGRATIONS, 7, step)


@pytest.mark.usefixtures("without_colour")
def test_a_job_whose_id_can_not_be_the_same_keeps_the_one_it_was_stored_under():
    row = old_config(make_record())
    record = from_row(migrated(row, 7))
    assert record.job.job_id == record.job.stored_id == row["job_id"] != make_job().job_id
    assert record.job == make_job()
    assert from_row(to_row(record)) == record
    assert from_row(to_row(record)).job.job_id == row["job_id"]
    [planned] = decide([make_job()], {row["job_id"]: record}, {}, again=False)
    assert planned.action == "run"
    assert planned.reason == (
        f"new: {row['job_id']} is of an older configuration (as schema 7 wrote it)"
    )


def test_a_plan_tells_what_of_the_configuration_changed():
    old = make_record(job=make_job(recipe=replace(make_job().recipe, steps=60, dropout=0.5)))
    records = {old.job.job_id: old}

    def reason(job):
        [planned] = decide([job], records, old.environment.software, again=False)
        return planned.reason

    assert reason(make_job()) == (
        f"new: {old.job.job_id} is of an older configuration "
        f"(recipe.dropout 0.5 -> 0.0, recipe.steps 60 -> {make_job().recipe.steps})"
    )
    assert "target 0.8 -> 0.5" in reason(replace(old.job, target=0.5))
    assert "more" in reason(make_job(target=0.5, suite_version=2))
    assert reason(make_job(seed=5)) == reason(make_job(size=4)) == "new"
    assert reason(replace(old.job, scale="full")).startswith("ok in attempt 1")


# --- folders --------------------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path):
    """A store whose folders exist."""
    made = Store(tmp_path / "results", "smoke")
    with made.lock():
        pass
    return made


def append_old(store, monkeypatch, seeds, schema=3):
    """Rows that are said to be of an older schema."""
    with monkeypatch.context() as patch:
        patch.setattr(parquet, "SCHEMA_VERSION", schema)
        for seed in seeds:
            store.append(make_record(job=make_job(seed=seed)))


def test_a_part_whose_migration_makes_no_row_is_older_and_stays(store, monkeypatch):
    append_old(store, monkeypatch, [0], schema=7)  # it has no `rank`
    contents = store.read()
    assert list(contents.older.values()) == ["schema 7, KeyError: 'rank'"]
    assert (contents.damaged, contents.attempts) == ({}, 0)


def test_what_can_not_be_read_is_named_and_counted(store, monkeypatch):
    assert unread(store.read()) == []
    append_old(store, monkeypatch, range(3))
    append_old(store, monkeypatch, [3], schema=2)
    (store.parts / f"{'0' * 16}.1.parquet").write_bytes(b"damaged")
    contents = store.read()
    *older, damaged = unread(contents)
    assert older == [
        "1 row of an older peftmark (schema 2) can't be read",
        "3 rows of an older peftmark (schema 3) can't be read",
    ]
    name = f"{'0' * 16}.1.parquet"
    assert damaged.startswith(f"1 part can't be read, being damaged ({name}: Parquet ")
    (store.parts / f"{'1' * 16}.1.parquet").write_bytes(b"damaged")
    assert unread(store.read())[-1].startswith(f"2 parts can't be read, being damaged ({name}: ")
    assert unread(store.read())[-1].endswith(", and 1 more)")
    error = no_results(store.folder, contents, "Run them first: peftmark run smoke.")
    assert "holds no results that this peftmark can read: 1 row" in error.what
    assert "peftmark that wrote them" in error.remedy and "set aside" in error.remedy
    assert error.remedy.endswith("To measure again: peftmark run smoke.")


def test_with_nothing_there_the_message_is_the_plain_one(store):
    error = no_results(store.folder, store.read(), "Run them first: peftmark run smoke.")
    assert str(error) == f"{store.folder} holds no results\nRun them first: peftmark run smoke."


@pytest.mark.parametrize(
    "words",
    [
        ("report", "glue"),
        ("claims", "glue"),
        ("recommend", "glue"),
        ("recommend",),
        ("gate", "glue", "--against", "baselines"),
        ("compare", "results/glue", "results/glue"),
    ],
)
@pytest.mark.parametrize("kind", ["older", "damaged"])
@pytest.mark.sweep(4)
def test_no_command_calls_a_folder_empty_that_has_rows(peftmark, monkeypatch, words, kind):
    store = Store(Path("results"), "glue")
    with store.lock():
        pass
    if kind == "older":
        append_old(store, monkeypatch, range(4))
    else:
        (store.parts / f"{'0' * 16}.1.parquet").write_bytes(b"damaged")
    code, said = peftmark(*words)
    assert code != 0 or words[0] in ("recommend", "claims"), "which the published rows answer too"
    assert "Run them first" not in said and "Run some first" not in said
    found = "4 rows of an older peftmark (schema 3) can't be read"
    assert (found if kind == "older" else "1 part can't be read, being damaged") in said


@pytest.mark.slow
def test_commands_with_some_rows_tell_of_the_others(peftmark, monkeypatch):
    smoke_rows(Path("results"))
    append_old(Store(Path("results"), "smoke"), monkeypatch, [100, 101])
    told = "2 rows of an older peftmark (schema 3) can't be read"
    for words in (["recommend", "smoke"], ["plan", "smoke", "--no-memory"]):
        code, said = peftmark(*words)
        assert (code, told in said) == (0, True), said
    assert peftmark("report", "smoke")[0] == 0
    page = Path("reports/smoke/index.html").read_text("utf-8")
    assert told.partition(" can")[0] in page


def test_every_part_of_today_tells_its_schema(store):
    record = make_record(outcome=make_outcome(), environment=make_environment())
    assert pq.read_table(store.append(record))["schema"].to_pylist() == [record.schema]


def test_a_later_key_of_the_recipe_leaves_ids_as_they_are():
    more = [("colour", str, field(default="red", metadata=LATER))]
    Later = make_dataclass("Later", more, bases=(Recipe,), frozen=True)
    job = make_job()
    same = replace(job, recipe=Later(**vars(job.recipe)))
    assert same.job_id == job.job_id
    assert replace(job, recipe=Later(**vars(job.recipe), colour="blue")).job_id != job.job_id

"""Stored rows as data frames: which rows, which columns, of which type, and what is told."""

from __future__ import annotations

import shutil
import warnings
from dataclasses import replace

import pandas
import pyarrow.parquet as pq
import pytest

import peftmark
from factory import (
    HEAD,
    LORA,
    make_failure,
    make_job,
    make_matrix,
    make_record,
    make_repeat,
    make_trials,
)
from peftmark.api.frames import BULKY, SETTINGS, SPREAD, unit_of
from peftmark.core.errors import StoreError, UserError
from peftmark.record.columns import COLUMNS
from places import DOCS

EXAMPLE = DOCS / "example"


@pytest.fixture(scope="module")
def runs():
    return peftmark.load_results(EXAMPLE)


def test_one_row_a_run_and_the_repeat_only_where_it_is_asked_for(runs):
    assert len(runs) == 72 == 6 * 4 * 3
    assert not runs.duplicated(["cell", "task", "seed"]).any()
    assert set(runs.purpose) == {"report"}
    twice = peftmark.load_results(EXAMPLE, repeats=True)
    assert twice.purpose.value_counts().to_dict() == {"report": 72, "repeat": 1, "tuning": 0}
    assert runs.attrs["left_out"] == {}


def test_rows_are_in_the_reports_order_of_cells_and_tasks_then_by_seed(runs):
    places = list(zip(runs.cell.cat.codes, runs.task.cat.codes, runs.seed, strict=True))
    assert places == sorted(places)
    assert runs.cell.cat.categories[0] == runs.attrs["reference"] == "LoRA r8"


def test_every_stored_column_is_there_but_the_bulky_ones(runs):
    spread = {*BULKY, *SPREAD, "curve"}
    assert set(COLUMNS) - spread <= set(runs.columns)
    assert not spread & set(runs.columns)
    assert set(SETTINGS) <= set(runs.columns)
    with_all = peftmark.load_results(EXAMPLE, bulky=True)
    assert set(with_all.columns) - set(runs.columns) == set(BULKY)
    assert with_all.config[0]["recipe"]["learning_rate"] == with_all.learning_rate[0]
    assert len(with_all.predictions[0]) == with_all.eval_rows[0]


def test_no_column_holds_json(runs):
    for name in runs.columns:
        for value in runs[name].dropna():
            assert not (isinstance(value, str) and value.startswith(("{", "["))), name


def test_types_are_those_of_the_columns(runs):
    assert runs.seed.dtype == runs["adalora.tinit"].dtype == pandas.Int64Dtype()
    assert runs["size"].dtype == runs.steps_to_target.dtype == pandas.Int64Dtype()
    assert runs["size"].isna().sum() == 24, "full fine-tuning and head only have no size"
    assert runs.target_reached.dtype == runs.double_quantization.dtype == pandas.BooleanDtype()
    assert runs.learning_rate.dtype == runs.metric_value.dtype == "float64"
    for name in ("cell", "task", "method", "quantization", "model", "purpose", "status"):
        assert isinstance(runs[name].dtype, pandas.CategoricalDtype), name


def test_settings_have_a_column_each_and_none_takes_a_measured_ones_place(runs):
    trec = runs[(runs.cell == "AdaLoRA r8") & (runs.task == "trec")].iloc[0]
    assert (trec["recipe.steps"], trec["steps"], trec["batch_size"]) == (80, 80, 32)
    assert trec["learning_rate"] == 0.004 and trec["adalora.init_rank"] == 12
    assert runs[runs.cell == "LoRA r8"]["adalora.init_rank"].isna().all()
    assert {"recipe.optimizer", "recipe.train_rows", "recipe.eval_rows"} <= set(runs.columns)
    assert trec["metrics.accuracy"] == trec["metric_value"]
    assert runs[runs.task == "sts-b"]["metrics.accuracy"].isna().all()


def test_options_of_a_method_are_columns_of_their_own_type(stored):
    job = make_job(method="lora-plus")
    recipe = replace(job.recipe, options={"rate_ratio": 16.0}, targets=("query", "value"))
    other = make_job(method="eva")
    options = replace(other.recipe, options={"batches": 50, "rho": 1})
    stored(
        [
            make_record(job=replace(job, recipe=recipe)),
            make_record(job=replace(other, recipe=options)),
        ]
    )
    runs = peftmark.load_results("demo").set_index("cell")
    assert runs.loc["LoRA+ r8", "options.rate_ratio"] == 16.0
    assert runs.loc["LoRA+ r8", "targets"] == "query, value"
    assert runs["options.batches"].dtype == pandas.Int64Dtype()
    assert runs.loc["EVA r8", "options.batches"] == 50
    assert pandas.isna(runs.loc["LoRA+ r8", "options.batches"])


def test_every_column_has_a_unit_or_says_that_it_has_none(runs):
    units = runs.attrs["units"]
    assert list(units) == list(runs.columns)
    told = {
        "peak_memory_bytes": "bytes",
        "train_seconds": "seconds",
        "metric_value": "by metric",
        "recipe.steps": "steps",
        "max_length": "tokens",
        "adalora.tinit": "steps",
        "phase_seconds.train": "seconds",
        "metrics.accuracy": "",
        "learning_rate": "",
        "cell": "",
    }
    assert {name: units[name] for name in told} == told
    assert unit_of("metrics.log_likelihood") == "nats"
    assert unit_of("metrics.mine:cost") == "of its own"
    assert unit_of("metrics.unheard_of") == "by metric"


def test_attributes_survive_a_parquet_file(runs, tmp_path):
    plain = runs.drop(columns=[n for n in runs if runs[n].dtype == object])
    plain.to_parquet(tmp_path / "mine.parquet")
    assert pandas.read_parquet(tmp_path / "mine.parquet").attrs == runs.attrs


def test_a_curve_has_a_row_a_run_and_evaluation(runs):
    points = peftmark.curves(EXAMPLE)
    assert len(points) == 288
    assert points.groupby("job_id").ngroups == 72
    last = points.groupby("job_id").metric.last()
    assert (last[runs.job_id].to_numpy() == runs.metric_value.to_numpy()).all()
    assert points.step.dtype == pandas.Int64Dtype()
    assert points.attrs["units"]["step"] == "steps"
    assert points.attrs["units"]["seconds"] == "seconds"
    assert points.attrs["units"]["metric"] == "by metric"


# --- failed jobs, trials, repeats ---------------------------------------------------------------


def failing():
    rows = make_matrix([LORA, HEAD], ["sst2"], seeds=(0, 1, 2))
    failed = replace(rows[1], outcome=make_failure("out_of_memory"))
    invalid = replace(rows[4], outcome=replace(rows[4].outcome, status="invalid"))
    return [rows[0], failed, rows[2], rows[3], invalid, rows[5]]


def test_failed_jobs_are_left_out_with_a_warning_and_kept_where_they_are_asked_for(stored):
    stored(failing())
    told = "2 rows of failed jobs left out, which failed=True keeps"
    with pytest.warns(UserWarning, match=told) as caught:
        runs = peftmark.load_results("demo")
    assert caught[0].filename == __file__
    assert len(runs) == 4 and set(runs.status) == {"ok"}
    assert runs.attrs["left_out"] == {"failed": 2}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        every = peftmark.load_results("demo", failed=True)
    assert every.status.value_counts().loc[["ok", "out_of_memory", "invalid"]].tolist() == [4, 1, 1]
    gone = every[every.status == "out_of_memory"].iloc[0]
    assert pandas.isna(gone.metric_value) and pandas.isna(gone.peak_memory_bytes)
    assert gone.null_reasons["metric_value"] == "the job ended as out_of_memory: asked for 2 GiB"
    assert every.attrs["left_out"] == {}


def test_a_cell_whose_every_job_failed_is_still_a_category(stored):
    rows = make_matrix([LORA, HEAD], ["sst2"], seeds=(0,))
    stored([rows[0], replace(rows[1], outcome=make_failure())])
    with pytest.warns(UserWarning, match="1 row of failed jobs"):
        runs = peftmark.load_results("demo")
    assert list(runs.cell.cat.categories) == ["LoRA r8", "head only"]
    assert list(runs.cell) == ["LoRA r8"]


def test_trials_are_there_where_they_are_asked_for_and_so_is_one_that_diverged(stored):
    trials = make_trials([LORA], ["sst2"])
    trials[-1] = replace(trials[-1], outcome=make_failure("diverged"))
    stored([*make_matrix([LORA], ["sst2"], (0,)), *trials])
    assert len(peftmark.load_results("demo")) == 1
    runs = peftmark.load_results("demo", trials=True)
    tried = runs[runs.purpose == "tuning"]
    assert tried.learning_rate.tolist() == [5e-4, 1e-3, 2e-3, 5e-3]
    assert tried.status.tolist() == ["ok", "ok", "ok", "diverged"]
    assert pandas.isna(tried.metric_value.iloc[-1])


def test_repeats_are_there_where_they_are_asked_for(stored):
    [row] = make_matrix([LORA], ["sst2"], (0,))
    stored([row, make_repeat(row)])
    assert len(peftmark.load_results("demo")) == 1
    assert peftmark.load_results("demo", repeats=True).purpose.tolist() == ["report", "repeat"]


# --- which rows ---------------------------------------------------------------------------------


def test_a_suite_a_folder_and_a_file_give_the_same_rows(stored, tmp_path):
    store = stored(make_matrix([LORA, HEAD], ["sst2"], (0, 1)))
    with store.lock():
        store.rebuild()
    by_name = peftmark.load_results("demo")
    for source in (store.folder, str(store.folder), store.derived, "./results/demo"):
        other = peftmark.load_results(source)
        pandas.testing.assert_frame_equal(by_name, other)
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(store.derived, alone / "rows.parquet")
    pandas.testing.assert_frame_equal(by_name, peftmark.load_results(alone))
    assert by_name.attrs["reference"] is None, "there is no file of the suite to name one"
    assert by_name.attrs["source"] == "results/demo"


def test_rows_of_one_profile_are_given_and_the_others_told(stored):
    older = make_matrix([LORA], ["sst2"], (0,), profile="full")
    newer = [
        replace(r, finished_at="2030-01-02T00:00:00Z")
        for r in make_matrix([LORA], ["sst2"], (0, 1))
    ]
    stored([*older, *newer])
    with pytest.warns(UserWarning, match="1 row of other profiles left out, which profile="):
        runs = peftmark.load_results("demo")
    assert set(runs.profile) == {"quick"} and runs.attrs["left_out"] == {"other profiles": 1}
    with pytest.warns(UserWarning, match="2 rows of other profiles"):
        assert len(peftmark.load_results("demo", profile="full")) == 1
    with pytest.raises(UserError, match="no rows of profile 'big'") as caught:
        peftmark.load_results("demo", profile="big")
    assert "It has rows of: full, quick." in str(caught.value)


def test_of_two_configurations_of_one_run_the_newer_counts_and_the_other_is_told(stored):
    [row] = make_matrix([LORA], ["sst2"], (0,))
    job = replace(row.job, recipe=replace(row.job.recipe, learning_rate=1e-3))
    newer = replace(row, job=job, finished_at="2030-01-02T00:00:00Z")
    stored([row, newer])
    with pytest.warns(UserWarning, match="1 row left out of jobs that the suite doesn't plan"):
        runs = peftmark.load_results("demo")
    assert runs.learning_rate.tolist() == [1e-3]
    assert runs.attrs["left_out"] == {"not planned": 1}


def test_what_cannot_be_read_is_named_and_warned_of(stored):
    store = stored(make_matrix([LORA], ["sst2"], (0, 1)))
    damaged = sorted(store.parts.iterdir())[0]
    damaged.write_bytes(damaged.read_bytes()[:-9])
    with pytest.warns(UserWarning, match="1 part can't be read, being damaged"):
        runs = peftmark.load_results("demo")
    assert len(runs) == 1
    assert list(runs.attrs["damaged"]) == [str(damaged.resolve())]
    assert damaged.exists(), "reading moves nothing"


def test_a_row_of_a_file_that_cannot_be_read_is_named_by_its_place(stored, tmp_path):
    store = stored(make_matrix([LORA], ["sst2"], (0, 1)))
    with store.lock():
        store.rebuild()
    table = pq.read_table(store.derived)
    config = table.column_names.index("config")
    cut = ['{"nothing": 1}', *table["config"].to_pylist()[1:]]
    table = table.set_column(config, table.schema.field(config), [cut])
    pq.write_table(
        table.replace_schema_metadata({b"peftmark_schema": b"8"}), tmp_path / "x.parquet"
    )
    with pytest.warns(UserWarning, match="1 part can't be read"):
        runs = peftmark.load_results(tmp_path / "x.parquet")
    assert len(runs) == 1
    assert list(runs.attrs["damaged"]) == [str(tmp_path / "x.parquet, row 1")]


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("glew", ["there is no suite 'glew'", "Known suites: adalora-settings"]),
        ("smoke", ["holds no results", "Run them first: peftmark run smoke"]),
        ("no/such/folder", ["there is no 'no/such/folder'", "the name of a suite"]),
        ("empty", ["is no results folder of a suite", "a folder parts in it"]),
        ("results", ["is no results folder of a suite", "of several: give one of 'demo'"]),
        ("text.txt", ["text.txt is damaged, or no file of rows", "rows.parquet"]),
        ("other.parquet", ["has no rows of peftmark", "rows.parquet or results.parquet"]),
    ],
)
def test_a_source_that_has_no_rows_is_one_message(stored, tmp_path, source, words):
    stored(make_matrix([LORA], ["sst2"], (0,)))
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("mine")
    pandas.DataFrame({"a": [1]}).to_parquet(tmp_path / "other.parquet")
    with pytest.raises(UserError) as caught:
        peftmark.load_results(source)
    for word in words:
        assert word in str(caught.value)


def test_a_file_of_a_newer_peftmark_is_refused(stored, tmp_path):
    store = stored(make_matrix([LORA], ["sst2"], (0,)))
    with store.lock():
        store.rebuild()
    table = pq.read_table(store.derived).replace_schema_metadata({b"peftmark_schema": b"99"})
    pq.write_table(table, tmp_path / "new.parquet")
    with pytest.raises(StoreError, match="newer peftmark"):
        peftmark.load_results(tmp_path / "new.parquet")

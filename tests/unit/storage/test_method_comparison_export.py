"""Rows as PEFT's own result files: what its app's loader asks for, and the same figures back."""

from __future__ import annotations

import json
from dataclasses import replace

import pandas as pd
import pytest

from factory import (
    FULL,
    HEAD,
    LORA,
    QLORA,
    make_environment,
    make_failure,
    make_job,
    make_matrix,
    make_outcome,
    make_recipe,
    make_record,
)
from peftmark.cli import parser
from peftmark.storage.method_comparison_export import NOT_MEASURED, exported, unfit
from peftmark.storage.peft_method_comparison import read_method_comparison
from peftmark.storage.store import Store

LAST = "train_info.metrics.-1"
LOADED = {
    "run_info.experiment_name": "string",
    "run_info.train_config.model_id": "string",
    "run_info.train_config": "string",
    "run_info.peft_config": "string",
    "train_info.accelerator_memory_reserved_avg": int,
    "train_info.accelerator_memory_max": int,
    "train_info.accelerator_memory_reserved_99th": int,
    "run_info.total_time": float,
    "train_info.train_time": float,
    "train_info.file_size": int,
    "train_info.num_trainable_params": int,
    f"{LAST}.test accuracy": float,
    f"{LAST}.train loss": float,
    f"{LAST}.train samples": int,
    f"{LAST}.train total tokens": int,
    "meta_info.package_info.peft-version": "string",
    "run_info.peft_branch": "string",
    "meta_info.package_info.transformers-version": "string",
    "meta_info.package_info.datasets-version": "string",
    "meta_info.package_info.torch-version": "string",
    "meta_info.package_info.bitsandbytes-version": "string",
    "meta_info.package_info": "string",
    "meta_info.system_info": "string",
    "run_info.created_at": "string",
}
"""What `processing.py` of PEFT's app reads of every file -> the type it makes of it. A key that is
not there, or a null where it wants a whole number, keeps the app from starting."""


def find(tree, place):
    for key in place.split("."):
        tree = tree[int(key)] if isinstance(tree, list) else tree[key]
    return tree


def as_the_app_loads(trees):
    """The app's table; raises what it would raise."""
    frame = pd.DataFrame([{place: find(tree, place) for place in LOADED} for tree in trees])
    frame = frame.astype(LOADED)
    frame["run_info.created_at"] = pd.to_datetime(frame["run_info.created_at"])
    for name in ("run_info.total_time", "train_info.train_time"):
        frame[name] = frame[name].round().astype(int)
    return frame


def trees(records):
    return [json.loads(text) for text in exported(records).values()]


def rows():
    """Four cells, one of them the whole model, on a CPU."""
    return make_matrix(cells=[LORA, QLORA, HEAD, FULL], tasks=["sst2"], seeds=[0, 1])


ON_GPU = make_record(
    job=make_job(device="cuda", recipe=make_recipe(weights="bf16")),
    environment=make_environment(
        versions={"peft": "0.21.2", "torch": "2.9.0", "transformers": "5.1.0", "peftmark": "0.1.0"},
        machine={"cpu": "C", "gpus": ["H100"], "system": "Linux 6"},
    ),
    outcome=make_outcome(
        torch_reserved_bytes=7 * 2**30,
        unrelated_perplexity_before=20.0,
        unrelated_perplexity_after=40.0,
    ),
)


def test_the_app_loads_every_file_with_its_types():
    frame = as_the_app_loads(trees([*rows(), ON_GPU]))
    assert len(frame) == 9
    assert frame[f"{LAST}.train samples"].tolist() == [120 * 16] * 9
    assert frame["train_info.num_trainable_params"].min() > 0
    assert str(frame["run_info.created_at"].iloc[0]) == "2030-01-01 00:00:00+00:00"


def test_the_loader_of_this_test_asks_for_what_the_app_does():
    [tree] = trees([ON_GPU])
    for place in ("train_info.num_trainable_params", f"{LAST}.train loss"):
        outer, _, key = place.rpartition(".")
        broken = json.loads(json.dumps(tree))
        del find(broken, outer)[key]
        with pytest.raises(KeyError):
            as_the_app_loads([broken])
    tree["train_info"]["accelerator_memory_max"] = None
    with pytest.raises(TypeError):
        as_the_app_loads([tree])


def test_the_app_tells_methods_by_type_and_leaves_out_what_failed():
    kinds = [tree["run_info"]["peft_config"] for tree in trees(rows())]
    assert [k and k["peft_type"] for k in kinds[::2]] == ["LORA", "LORA", "PEFTMARK:HEAD", None]
    assert {tree["train_info"]["status"] for tree in trees(rows())} == {"success"}


def test_our_importer_gives_the_same_figures_back(tmp_path):
    for path, text in exported([ON_GPU]).items():
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text(text, "utf-8")
    [[row], skipped] = read_method_comparison(tmp_path)
    outcome = ON_GPU.outcome
    assert skipped == []
    assert (row.task, row.metric, row.value) == ("sst2", "accuracy", outcome.metric_value)
    assert (row.method, row.size, row.size_option) == ("lora", 8, "r")
    assert (row.dtype, row.quantization) == ("bfloat16", "none")
    assert (row.seed, row.steps, row.status) == (0, 120, "success")
    assert row.trainable_parameters == outcome.trainable_parameters
    assert row.file_bytes == outcome.adapter_bytes
    assert row.memory_max_bytes == 7 * 2**30
    assert row.step_seconds == pytest.approx(12.0) == row.train_seconds
    assert row.total_seconds == ON_GPU.wall_seconds
    assert row.forgetting == pytest.approx(0.6931471805599453)  # log(40 / 20)
    assert (row.peft_version, row.torch_version) == ("0.21.2", "2.9.0")
    assert (row.device, row.date) == ("H100", "2030-01-01T00:00:00+00:00")
    assert row.experiment == "lora/minilm-l6-LoRA-r8-seed0"


def test_what_was_not_measured_is_no_figure_anywhere(tmp_path):
    """On a CPU there is no allocator to ask: the app gets a number that none can be."""
    [tree] = trees([make_record()])
    train = tree["train_info"]
    assert train["accelerator_memory_max"] == NOT_MEASURED == -1
    named = tree["meta_info"]["peftmark"]["not_measured"]
    assert "train_info.accelerator_memory_max" in named
    assert "train_info.train_time" not in named
    path = tmp_path / "sst2" / "results"
    path.mkdir(parents=True)
    (path / "a.json").write_text(json.dumps(tree), "utf-8")
    [[row], _] = read_method_comparison(tmp_path)
    assert row.memory_max_bytes is row.memory_mean_bytes is row.tokens_per_second is None
    assert row.null_reasons["memory_max_bytes"] == (
        "accelerator_memory_max is -1, which can't be in the file"
    )
    assert row.forgetting is None


def test_times_that_neighbours_on_the_gpu_were_in_are_not_exported():
    curve = [replace(point, seconds=float("nan")) for point in ON_GPU.outcome.curve]
    outcome = replace(ON_GPU.outcome, jobs_on_gpu=4, curve=tuple(curve))
    [tree] = trees([replace(ON_GPU, outcome=outcome)])
    assert tree["run_info"]["total_time"] == tree["train_info"]["train_time"] == NOT_MEASURED
    named = set(tree["meta_info"]["peftmark"]["not_measured"])
    assert {"run_info.total_time", "train_info.train_time"} <= named
    assert {one.get("train time") for one in tree["train_info"]["metrics"]} == {None}
    [alone] = trees([ON_GPU])
    assert alone["run_info"]["total_time"] == ON_GPU.wall_seconds


def test_nf4_is_not_read_back_as_another_format(tmp_path):
    for path, text in exported([r for r in rows() if r.job.cell == QLORA]).items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text, "utf-8")
    found, _ = read_method_comparison(tmp_path)
    assert {row.quantization for row in found} == {"nf4"}


def test_numbers_that_are_none_are_null_in_the_file():
    outcome = make_outcome(loss=float("nan"), trainable_parameters=None)
    [text] = exported([make_record(outcome=outcome)]).values()
    assert "NaN" not in text
    frame = as_the_app_loads([json.loads(text)])
    assert frame[f"{LAST}.train loss"].isna().all()
    assert frame["train_info.num_trainable_params"].tolist() == [-1]


def test_names_stay_in_the_folder_and_apart():
    jobs = [make_job(variant=variant, task="../x") for variant in ("a b", "a/b")]
    paths = list(exported([make_record(job=job) for job in jobs]))
    assert len(set(paths)) == 2
    for path in paths:
        folder, results, name = path.split("/")
        assert (folder, results) == ("x", "results") and name.startswith("lora--")


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (make_record(), ""),
        (make_record(outcome=make_failure()), "did not finish"),
        (make_record(job=make_job(metric="spearmanr")), "metric spearmanr, where"),
        (make_record(outcome=make_outcome(metric_value=None)), "no score"),
    ],
)
def test_only_a_share_of_right_answers_is_an_accuracy(record, why):
    assert unfit(record).startswith(why) and bool(unfit(record)) == bool(why)


# --- the command ---------------------------------------------------------------------------------


@pytest.fixture
def results(tmp_path):
    """One machine's six rows, another machine's one, and what can't be exported."""
    there = make_environment(machine={"cpu": "Other CPU"})
    extra = [
        replace(make_record(job=make_job(seed=7)), environment=there),
        make_record(job=make_job(seed=8), outcome=make_failure()),
        make_record(job=make_job(seed=9, purpose="repeat")),
    ]
    store = Store(tmp_path / "results", "demo")
    store.parts.mkdir(parents=True)
    for record in [*make_matrix(cells=[LORA], seeds=[0, 1, 2]), *extra]:
        store.append(record)
    return tmp_path / "results"


def command(capsys, *words):
    with pytest.raises(SystemExit) as left:
        parser.main(["export", "demo", "--format", "peft-method-comparison", *map(str, words)])
    return left.value.code, capsys.readouterr()


def test_the_command_writes_a_folder_a_task_and_tells_what_it_left_out(tmp_path, results, capsys):
    to = tmp_path / "out"
    code, said = command(capsys, "--to", to, "--results", results)
    assert code == 0
    assert len(list((to / "sst2" / "results").glob("*.json"))) == 3
    assert "Left out: 3: metric spearmanr, where the benchmark has an accuracy." in said.out
    assert "Left out: 1: did not finish." in said.out
    assert "Left out: 1: of another machine" in said.out
    assert "-1 stands where" in (to / "README.md").read_text("utf-8")
    assert len(read_method_comparison(to)[0]) == 3


def test_what_was_exported_of_another_task_is_not_shown_as_the_benchmarks_own(
    tmp_path, results, capsys
):
    command(capsys, "--to", tmp_path / "out", "--results", results)
    with pytest.raises(SystemExit) as left:
        parser.main(["import", "peft-method-comparison", str(tmp_path / "out")])
    assert left.value.code == 2
    assert "3 files (another task, exported by peftmark 3)" in capsys.readouterr().err


def test_the_command_writes_over_nothing(tmp_path, results, capsys):
    (tmp_path / "out").mkdir()
    code, said = command(capsys, "--to", tmp_path / "out", "--results", results)
    assert code == 2 and "is there already" in said.err
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (("--profile", "none"), "no row of profile 'none'"),
        (("--results", "nowhere"), "holds no results"),
    ],
)
def test_nothing_to_export_is_one_message(tmp_path, results, capsys, words, what):
    code, said = command(capsys, "--to", tmp_path / "out", "--results", results, *words)
    assert code == 2 and what in said.err and not (tmp_path / "out").exists()

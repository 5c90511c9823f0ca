"""From the layers of a suite to recipes and jobs: rows, variants, trials and the repeated job."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peftmark.catalog.methods import METHODS as KNOWN
from peftmark.catalog.methods import Cell, known_method
from peftmark.catalog.quantizations import QUANTIZATIONS
from peftmark.catalog.tasks import TASKS
from peftmark.core.errors import SuiteError
from peftmark.record.job import Job
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite
from peftmark.suite.sharding import METHODS, sharding_faults
from small_suite import (
    ADALORA,
    BASE,
    FULL,
    HEAD,
    LORA,
    QUICK,
    changed,
    recipes,
    refusal,
    reported,
    write,
)

# --- layers -------------------------------------------------------------------------------------


def test_epochs_become_steps_rounded_up(tmp_path):
    content = changed((("recipe", "steps"), None), (("recipe", "epochs"), 1.5))
    rows = TASKS["trec"].train_rows
    content["recipe"]["selection_rows"] = 0
    assert recipes(tmp_path, content)["lora"].steps == math.ceil(1.5 * math.ceil(rows / 16))
    content["recipe"]["selection_rows"] = 1000
    steps = math.ceil(1.5 * math.ceil((rows - 1000) / 16))
    assert recipes(tmp_path, content)["lora"].steps == steps
    content["recipe"]["train_rows"] = 160
    assert recipes(tmp_path, content)["lora"].steps == 15


def test_shares_become_steps(tmp_path):
    content = changed((("recipe", "steps"), 200), (("recipe", "eval_every"), "5%"))
    found = recipes(tmp_path, content)["adalora"]
    assert (found.eval_every, found.adalora.tinit, found.adalora.tfinal) == (10, 20, 60)
    content["recipe"].update(steps=10, eval_every="1%")
    content["methods"][ADALORA]["recipe"]["adalora"]["delta_t"] = 1
    assert recipes(tmp_path, content)["lora"].eval_every == 1


def test_later_layers_win_suite_profile_task_method_method_on_task(tmp_path):
    layers = [
        ("recipe",),
        (*QUICK, "recipe"),
        (*QUICK, "tasks", "trec", "recipe"),
        ("methods", LORA, "recipe"),
        ("methods", LORA, "task_recipe", "trec"),
    ]
    content = copy.deepcopy(BASE)
    for level, path in enumerate(layers, start=1):
        at: Any = content
        for part in path:
            at = at[part] if isinstance(at, list) else at.setdefault(part, {})
        at["max_length"] = level * 8
        assert recipes(tmp_path, content)["lora"].max_length == level * 8
    assert recipes(tmp_path, content)["head"].max_length == 3 * 8


def test_a_layer_with_epochs_replaces_steps_of_a_layer_below_and_back(tmp_path):
    content = changed(((*QUICK, "recipe"), {"epochs": 1}))
    per_epoch = math.ceil((TASKS["trec"].train_rows - 486) / 16)
    assert recipes(tmp_path, content)["head"].steps == per_epoch
    content["methods"][HEAD]["recipe"] = {"steps": 60}
    found = recipes(tmp_path, content)
    assert (found["head"].steps, found["full"].steps) == (60, per_epoch)


def test_adalora_layers_merge_key_by_key_and_a_ratio_replaces_a_rank(tmp_path):
    task = {"trec": {"adalora": {"delta_t": 7, "init_ratio": 2.0}}}
    content = changed((("methods", ADALORA, "task_recipe"), task))
    schedule = recipes(tmp_path, content)["adalora"].adalora
    assert (schedule.delta_t, schedule.init_rank, schedule.tinit) == (7, 16, 10)


def test_what_means_nothing_for_a_method_is_null_in_its_recipe(tmp_path):
    found = recipes(tmp_path, BASE)
    assert (found["full"].targets, found["full"].alpha, found["full"].dropout) == (None,) * 3
    assert found["lora"].adalora is None
    assert found["lora"].double_quantization is None


def test_row_limits_beyond_the_task_mean_all_rows(tmp_path):
    content = changed((("recipe", "eval_rows"), 10**6), (("recipe", "train_rows"), 64))
    found = recipes(tmp_path, content)["lora"]
    assert (found.eval_rows, found.train_rows) == (None, 64)


def test_warmup_is_a_share_or_steps(tmp_path):
    assert recipes(tmp_path, BASE)["lora"].warmup_steps == 6
    for value, steps in (("15%", 15), (40, 40), (0, 0), (100, 100)):
        found = recipes(tmp_path, changed((("recipe", "warmup"), value)))
        assert {recipe.warmup_steps for recipe in found.values()} == {steps}


@pytest.mark.parametrize(
    ("settings", "selection", "train"),
    [
        ({}, 486, None),
        ({"train_rows": 2000}, 200, 2000),
        ({"train_rows": 4380}, 438, 4380),
        ({"train_rows": 4866}, 486, None),
        ({"selection_rows": 0}, 0, None),
        ({"selection_rows": 0, "train_rows": 4866}, 0, None),
        ({"selection_rows": 100, "train_rows": 4766}, 100, None),
        ({"selection_rows": 100, "train_rows": 4765}, 100, 4765),
        ({"selection_rows": 2433}, 2433, None),
    ],
)
def test_selection_rows_are_cut_before_the_training_rows(tmp_path, settings, selection, train):
    content = copy.deepcopy(BASE)
    content["recipe"].update(settings)
    found = recipes(tmp_path, content)["lora"]
    assert (found.selection_rows, found.train_rows) == (selection, train)


def test_selection_rows_of_a_large_task_are_at_most_1000(tmp_path):
    content = changed(((*QUICK, "tasks"), {"mnli": {}, "trec": {}}))
    assert recipes(tmp_path, content, "mnli")["lora"].selection_rows == 1000


def test_selection_rows_that_leave_less_than_a_batch_are_a_fault(tmp_path):
    content = changed((("recipe", "selection_rows"), 2433), (("recipe", "batch_size"), 2434))
    message = refusal(tmp_path, content)
    assert "found 2434 with 2433 training rows (of 4866, 2433 are selection rows)" in message


def test_the_dropout_of_the_head_is_the_models_own_unless_set(tmp_path):
    assert recipes(tmp_path, BASE)["head"].head_dropout is None
    found = recipes(tmp_path, changed((("recipe", "head_dropout"), 0.0)))
    assert found["head"].head_dropout == 0.0


# --- axes that every cell is crossed with -------------------------------------------------------


def test_varied_values_cross_every_cell_and_name_its_variant(tmp_path):
    content = changed(
        (
            (*QUICK, "vary"),
            {"gradient_checkpointing": [True, False], "precision": ["bf16", "fp32"]},
        ),
        (("reference", "variant"), "bf16, no checkpointing"),
    )
    write(tmp_path, content)
    suite = load_suite("demo", tmp_path)
    jobs = reported(suite, "quick")
    assert suite.report.reference == Cell("lora", 8, "none", "bf16, no checkpointing")
    assert len(jobs) == 4 * 4
    for method in ("full", "head", "lora", "adalora"):
        of_method = [job for job in jobs if job.method == method]
        assert [
            (job.variant, job.recipe.precision, job.recipe.gradient_checkpointing)
            for job in of_method
        ] == [
            ("bf16, checkpointing", "bf16", True),
            ("bf16, no checkpointing", "bf16", False),
            ("fp32, checkpointing", "fp32", True),
            ("fp32, no checkpointing", "fp32", False),
        ]


def test_one_axis_names_a_variant_alone_and_wins_over_every_recipe(tmp_path):
    content = changed(
        ((*QUICK, "vary"), {"precision": ["fp32", "bf16"]}),
        ((*QUICK, "tasks", "trec", "recipe"), {"precision": "bf16"}),
        (("reference", "variant"), "fp32"),
    )
    write(tmp_path, content)
    jobs = reported(load_suite("demo", tmp_path), "quick")
    assert {(job.variant, job.recipe.precision) for job in jobs} == {
        ("fp32", "fp32"),
        ("bf16", "bf16"),
    }


def test_without_an_axis_the_variant_is_empty(tmp_path):
    write(tmp_path, BASE)
    assert {job.variant for job in reported(load_suite("demo", tmp_path), "quick")} == {""}


def test_a_base_in_fewer_bits_is_an_axis_of_what_is_frozen(tmp_path):
    """Full fine-tuning freezes nothing: it is one cell, and its weights are fp32."""
    content = changed(
        ((*QUICK, "vary"), {"weights": ["fp32", "bf16"]}),
        (("recipe", "precision"), "bf16"),
        (("reference", "variant"), "fp32 weights"),
    )
    write(tmp_path, content)
    jobs = reported(load_suite("demo", tmp_path), "quick")
    assert [(job.method, job.variant, job.recipe.weights) for job in jobs] == [
        ("full", "", "fp32"),
        *(
            (method, f"{kind} weights", kind)
            for method in ("head", "lora", "adalora")
            for kind in ("fp32", "bf16")
        ),
    ]


def test_settings_that_came_later_leave_ids_as_they_were_at_their_defaults(tmp_path):
    write(tmp_path, BASE)
    before = {job.job_id for job in reported(load_suite("demo", tmp_path), "quick")}
    settings = {"weights": "fp32", "gradient_accumulation": 1, "label_smoothing": 0.0}
    settings |= {"halve_on_growth": False, "compile": False, "devices": 1}
    settings |= {"shard": False, "packing": False}
    unset = {"early_stopping": 2, "pad_to": 8, "attention": "eager", "kernels": "liger"}
    write(tmp_path, changed(*((("recipe", name), value) for name, value in settings.items())))
    jobs = reported(load_suite("demo", tmp_path), "quick")
    assert {job.job_id for job in jobs} == before
    assert not any(f'"{name}":' in job.to_json() for job in jobs for name in (*settings, *unset))
    del settings["packing"]  # not for rows that are read by class
    for name, value in {**settings, **unset}.items():
        other = {"weights": "bf16", "gradient_accumulation": 2, "label_smoothing": 0.1}
        other |= {"halve_on_growth": True, "compile": True, "devices": 2}
        content = changed((("recipe", name), other.get(name, value)))
        content["recipe"]["precision"] = "bf16" if name == "weights" else "fp32"
        if name == "shard":  # of a model's devices, and not with every method
            content["recipe"] |= {"shard": True, "devices": 2}
            content["methods"] = [one for one in content["methods"] if one["method"] in METHODS]
        write(tmp_path, content)
        for job in reported(load_suite("demo", tmp_path), "quick"):
            again = Job.from_json(job.to_json())
            assert again == job and again.job_id == job.job_id
            assert job.job_id not in before or (job.method, name) == ("full", "weights")


def test_a_method_that_averages_over_a_pass_has_one_device(tmp_path):
    content = changed((("recipe", "devices"), 2))
    write(tmp_path, content)
    load_suite("demo", tmp_path)
    lily = {"learning_rate": 1e-3, "targets": "all-linear", "alpha": 16}
    content["methods"].append({"method": "lily", "rank": [8], "recipe": lily})
    write(tmp_path, content)
    with pytest.raises(SuiteError, match="devices: found 2 with lily, which averages over the tok"):
        load_suite("demo", tmp_path)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"gradient_accumulation": 3}, ["found 3", "16 rows (batch_size)", "must divide"]),
        ({"gradient_accumulation": 32}, ["found 32", "must divide"]),
        ({"weights": "bf16"}, ["found bf16 with precision fp32", "precision: bf16"]),
        ({"weights": "fp16", "precision": "bf16"}, ["found fp16 with precision bf16"]),
        ({"early_stopping": 2, "selection_rows": 0}, ["early_stopping", "selection_rows is 0"]),
        ({"early_stopping": 0}, ["recipe.early_stopping", "found 0"]),
        ({"label_smoothing": 1.0}, ["recipe.label_smoothing", "found 1.0"]),
        ({"pad_to": 12}, ["recipe.pad_to: found 12", "8, 16, 32 or 64"]),
        ({"compile": "regional"}, ["recipe.compile: found 'regional'"]),
        ({"devices": 0}, ["recipe.devices: found 0"]),
        ({"devices": 65}, ["recipe.devices: found 65"]),
        ({"devices": 3}, ["devices: found 3", "16 rows of a pass", "must divide them"]),
        ({"devices": 4, "gradient_accumulation": 8}, ["devices: found 4", "2 rows of a pass"]),
        ({"devices": 2, "compile": True}, ["devices: found 2 with compile", "compile: false"]),
        ({"shard": True}, ["shard: found true with devices: 1", "2 devices at least"]),
        ({"shard": "yes"}, ["recipe.shard: found 'yes'"]),
        (
            {"shard": True, "devices": 2, "kernels": "liger"},
            ["shard: found true with kernels; the two were not tried together"],
        ),
        (
            {"shard": True, "devices": 2},
            ["shard: found true with full", "allowed: lora, rslora, lora-plus, adalora"],
        ),
        ({"packing": True}, ["packing: found true", "kind classification", "packing: false"]),
        ({"packing": "rows"}, ["recipe.packing: found 'rows'"]),
        ({"packing": True, "pad_to": 8}, ["pad_to: found 8; packed rows have no padding"]),
        ({"packing": True, "compile": True}, ["packing: found true with compile: true"]),
        ({"kernels": "unsloth"}, ["recipe.kernels: found 'unsloth'", "liger"]),
        ({"kernels": "liger", "compile": True}, ["kernels: found liger with compile: true"]),
        ({"attention": "xformers"}, ["found 'xformers'", "'sdpa', 'eager' or 'flash'"]),
        ({"attention": "flash", "precision": "fp32"}, ["attention: found flash with precision"]),
        ({"attention": "flash", "compile": True}, ["attention: found flash with compile: true"]),
        ({"attention": "flash", "packing": True}, ["attention: found flash with packing: true"]),
        ({"optimizer": "sgd"}, ["'adamw', 'adamw_8bit', 'paged_adamw' or 'paged_adamw_8bit'"]),
    ],
)
def test_what_a_step_can_not_be_is_told(tmp_path, settings, said):
    content = changed(*((("recipe", name), value) for name, value in settings.items()))
    message = refusal(tmp_path, content)
    for words in said:
        assert words in message


@pytest.mark.parametrize("method", [m for m in KNOWN if m not in METHODS])
def test_a_sharded_base_is_for_methods_that_only_add_to_it(method):
    values = {"shard": True, "devices": 2}
    found = list(sharding_faults(Cell(method, None, "none", ""), values))
    if known_method(method).trains:
        assert [key for key, _ in found] == ["shard"] and method in found[0][1]
    else:
        assert found == []


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_a_sharded_base_has_weights_that_can_be_cut(quantization):
    for method in METHODS:
        found = list(
            sharding_faults(Cell(method, 8, quantization, ""), {"shard": True, "devices": 2})
        )
        assert bool(found) == (quantization not in ("none", "nf4", "fp4"))


@pytest.mark.parametrize("method", ["peft:adalora", "peft:adamss"])
def test_a_schedule_that_early_stopping_would_cut_short_is_refused(tmp_path, method):
    content = changed((("recipe", "early_stopping"), 2))
    content["methods"].append({"method": method, "recipe": {"targets": "attention"}})
    assert f"{method} follows a schedule of its own" in refusal(tmp_path, content)


def test_scores_are_not_smoothed(tmp_path):
    content = changed(
        (("recipe", "label_smoothing"), 0.1), ((*QUICK, "tasks"), {"trec": {}, "sts-b": {}})
    )
    message = refusal(tmp_path, content)
    assert "found 0.1 for sts-b, a task of kind regression" in message and "for trec" not in message


# --- tuning -------------------------------------------------------------------------------------

GRIDS = [(("methods", i, "learning_rates"), [1e-3, 2e-3 + i]) for i in range(4)]
TUNED = changed(*GRIDS, ((*QUICK, "tuning"), {"seeds": [7, 8]}))


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("methods", HEAD, "learning_rates"), None, ["methods[1] (head).learning_rates: missing"]),
        (
            ("methods", LORA, "learning_rates"),
            [1e-3, 2e-3, 3e-3],
            ["methods[2] (lora).learning_rates: found 3 rates where the first grid has 2"],
        ),
        ((*QUICK, "tuning", "seeds"), [7, 0], ["tuning.seeds: found [0]", "reported"]),
        ((*QUICK, "tuning", "seeds"), [7, 7], ["tuning.seeds: found [7, 7]", "once"]),
        ((*QUICK, "tuning", "seeds"), [], ["tuning.seeds: found []", "at least 1"]),
        (("recipe", "selection_rows"), 0, ["selection_rows: found 0", "tuning"]),
        (("methods", LORA, "recipe", "selection_rows"), 0, ["lora rank 8 on trec: selection_rows"]),
    ],
)
def test_tuning_that_is_not_equal_is_refused(tmp_path, path, value, words):
    content = copy.deepcopy(TUNED)
    at: Any = content
    for part in path[:-1]:
        at = at[part]
    at[path[-1]] = value
    if value is None:
        del at[path[-1]]
    message = refusal(tmp_path, content)
    for word in words:
        assert word in message


def test_what_is_tuned_and_set_nowhere_else_is_the_middle_of_its_grid(tmp_path):
    content = copy.deepcopy(TUNED)
    del content["recipe"]["learning_rate"]
    for entry in content["methods"]:
        entry["learning_rates"] = [1e-3, 2e-3, 4e-3, 8e-3]
    write(tmp_path, content)
    waits = expand(load_suite("demo", tmp_path), "quick", "cpu").waits
    assert {job.recipe.learning_rate for job in waits} == {2e-3}
    del content["profiles"]["quick"]["tuning"]
    assert "learning_rate set nowhere" in refusal(tmp_path, content)


def test_grids_are_unused_without_tuning(tmp_path):
    write(tmp_path, changed(*GRIDS[1:3]))
    expanded = expand(load_suite("demo", tmp_path), "quick", "cpu")
    assert {job.recipe.learning_rate for job in expanded.jobs} == {0.001}
    assert (expanded.waiting, expanded.choices) == (0, {})


def test_every_cell_and_task_gets_a_trial_of_every_rate_and_seed(tmp_path):
    write(tmp_path, TUNED)
    expanded = expand(load_suite("demo", tmp_path), "quick", "cpu")
    assert expanded.waiting == 4 + 1
    assert [
        (job.purpose, job.seed, job.method, job.recipe.learning_rate) for job in expanded.jobs
    ] == [
        ("tuning", seed, method, rate)
        for seed in (7, 8)
        for i, method in enumerate(("full", "head", "lora", "adalora"))
        for rate in (1e-3, 2e-3 + i)
    ]


# --- the repeated job ---------------------------------------------------------------------------


def repeat_of(folder: Path, content: Any) -> Job:
    write(folder, content)
    jobs = expand(load_suite("demo", folder), "quick", "cpu").jobs
    [repeat] = [job for job in jobs if job.purpose == "repeat"]
    assert replace(repeat, purpose="report") in jobs
    return repeat


def test_the_cell_with_most_hooks_is_repeated_on_the_cheapest_task(tmp_path):
    tasks = {
        "trec": {"recipe": {"steps": 90}},
        "movie": {"recipe": {"steps": 60, "batch_size": 8}},
        "rte": {"recipe": {"steps": 50, "batch_size": 32}},
    }
    content = changed(((*QUICK, "tasks"), tasks), ((*QUICK, "seeds"), [5, 3]))
    content["methods"] = [content["methods"][i] for i in (LORA, ADALORA, FULL)]
    content["methods"][1]["quantization"] = ["none", "nf4"]
    repeat = repeat_of(tmp_path, content)
    assert (repeat.cell, repeat.task, repeat.seed) == (Cell("adalora", 8, "nf4"), "movie", 5)
    content["methods"] = [content["methods"][i] for i in (0, 2)]
    assert repeat_of(tmp_path, content).cell == Cell("lora", 8, "none")


def test_of_reference_lines_alone_the_last_cell_is_repeated(tmp_path):
    content = changed((("reference",), {"method": "full"}))
    content["methods"] = content["methods"][:2]
    assert repeat_of(tmp_path, content).method == "head"

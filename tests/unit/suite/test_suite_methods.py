"""What a suite says about a method: its size, its budget, its own options, its word."""

from __future__ import annotations

import math
from typing import Any

import pytest

from peftmark.catalog.methods import METHODS, Cell, all_methods, cell_title, method_of
from peftmark.catalog.peft_types import PEFT_TYPES
from peftmark.suite.load import load_suite
from small_suite import BASE, refusal, reported, write

ADALORA = {"tinit": "10%", "tfinal": "30%", "delta_t": 5, "orthogonal_weight": 0.1}
LORA = {"targets": "attention", "alpha": 16}


def suite(*entries: dict[str, Any]) -> dict[str, Any]:
    """BASE with these entries after its LoRA r8, the reference."""
    return {**BASE, "methods": [BASE["methods"][2], *entries]}


def job_of(tmp_path, entry: dict[str, Any]):
    write(tmp_path, suite(entry))
    return reported(load_suite("demo", tmp_path), "quick")[-1]


@pytest.mark.parametrize(
    ("entry", "cell", "title"),
    [
        ({"method": "adapter", "width": [64]}, ("adapter", 64), "bottleneck adapter w64"),
        ({"method": "p-tuning-v2", "tokens": [20]}, ("p-tuning-v2", 20), "P-tuning v2 20 tokens"),
        ({"method": "bitfit"}, ("bitfit", None), "BitFit"),
        (
            {"method": "dora", "rank": [4], "recipe": LORA, "variant": "all layers"},
            ("dora", 4, "none", "all layers"),
            "DoRA r4, all layers",
        ),
        (
            {"method": "lora", "budget": ["0.1%"], "recipe": LORA, "quantization": ["nf4"]},
            ("lora", None, "nf4", "budget 0.1%"),
            "QLoRA, budget 0.1%",
        ),
        (
            {"method": "peft:vera", "rank": [256], "recipe": {"targets": "attention"}},
            ("peft:vera", 256),
            "VeRA r256",
        ),
    ],
)
def test_sizes_and_words_make_cells(tmp_path, entry, cell, title):
    job = job_of(tmp_path, entry)
    wanted = Cell(*cell) if len(cell) > 2 else Cell(*cell, "none")
    assert job.cell == wanted
    assert cell_title(*job.cell) == title


def test_options_are_resolved_and_part_of_the_job(tmp_path):
    plain = job_of(tmp_path, {"method": "adapter", "width": [8]})
    assert plain.recipe.options == {"last_layers": 0, "activation": "gelu"}
    entry = {"method": "adapter", "width": [8], "options": {"last_layers": 4}}
    last = job_of(tmp_path, entry)
    assert last.recipe.options == {"last_layers": 4, "activation": "gelu"}
    assert last.job_id != plain.job_id
    assert type(last).from_json(last.to_json()) == last


def test_a_budget_is_part_of_the_job_and_takes_the_place_of_the_rank(tmp_path):
    entry = {"method": "lora", "rank": [2], "budget": ["0.1%", 300_000], "recipe": LORA}
    write(tmp_path, suite(entry))
    jobs = reported(load_suite("demo", tmp_path), "quick")[1:]
    assert [(j.size, j.recipe.budget, j.variant) for j in jobs] == [
        (2, None, ""),
        (None, "0.1%", "budget 0.1%"),
        (None, 300_000, "budget 300,000"),
    ]


def test_a_schedule_under_a_budget_keeps_the_ratio_alone(tmp_path):
    recipe = {**LORA, "adalora": {**ADALORA, "init_ratio": 1.5}}
    entry = {"method": "adalora", "budget": ["0.1%"], "recipe": recipe}
    schedule = job_of(tmp_path, entry).recipe.adalora
    assert (schedule.init_rank, schedule.init_ratio) == (None, 1.5)
    entry["recipe"] = {**LORA, "adalora": {**ADALORA, "init_rank": 12}}
    assert "init_ratio: set nowhere; with a budget" in refusal(tmp_path, suite(entry))


def test_a_hybrids_schedule_starts_at_its_middle_rank(tmp_path):
    recipe = {"alpha": 16, "adalora": ADALORA}
    entry = {"method": "hybrid", "options": {"low": 4, "middle": 10, "high": 64}, "recipe": recipe}
    job = job_of(tmp_path, entry)
    assert (job.size, job.recipe.adalora.init_rank) == (None, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low_dropout": -0.5}, "options.low_dropout: found -0.5; allowed: -1, or 0 to 0.9"),
        ({"low_layers": 10, "high_layers": 10}, "together at most 11 of twelve"),
        ({"middle": 8, "middle_target": 9}, "options.middle_target: found 9 with middle 8"),
        ({"middle": 7}, "options.middle: found 7; it is halved"),
        ({"high_targets": "all"}, "options.high_targets: found 'all'; allowed: query-value"),
    ],
)
def test_bands_that_cannot_be_are_refused_when_the_suite_is_read(tmp_path, options, message):
    recipe = {"alpha": 16, "adalora": ADALORA}
    entry = {"method": "hybrid", "options": options, "recipe": recipe}
    assert message in refusal(tmp_path, suite(entry))
    fine = {"middle": 7, "middle_target": 7, "low_layers": 8, "high_layers": 3, "low_dropout": 0}
    assert job_of(tmp_path, {**entry, "options": fine}).recipe.options["middle_target"] == 7


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_rank": 3}, "options.min_rank: found 3; ranks are rounded to even ones"),
        ({"min_rank": 16, "max_rank": 8}, "options.min_rank: found 16 with max_rank 8"),
    ],
)
def test_ranks_that_cannot_be_are_refused_when_the_suite_is_read(tmp_path, options, message):
    entry = {"method": "sensitive-ranks", "options": options, "recipe": LORA}
    assert message in refusal(tmp_path, suite(entry))


def test_the_schedule_of_a_second_stage_counts_its_own_steps(tmp_path):
    recipe = {**LORA, "adalora": {**ADALORA, "init_ratio": 1.5}}
    entry = {
        "method": "two-stage",
        "rank": [8],
        "options": {"first_stage": 0.6},
        "recipe": recipe,
    }
    schedule = job_of(tmp_path, entry).recipe.adalora
    assert (schedule.init_rank, schedule.tinit, schedule.tfinal) == (12, 4, 12)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"method": "adapter", "rank": [8]}, ["(adapter).rank", "no rank", "its size is `width`"]),
        ({"method": "adapter"}, ["(adapter).size: missing", "one width", "or a budget"]),
        ({"method": "bitfit", "tokens": [3]}, ["(bitfit).tokens: found [3]", "remove it"]),
        ({"method": "bitfit", "budget": ["1%"]}, ["(bitfit).budget", "no size to solve for"]),
        ({"method": "lora", "budget": ["0%"], "recipe": LORA}, ["budget", "such as 0.1%"]),
        ({"method": "lora", "budget": [0], "recipe": LORA}, ["budget", "such as 0.1%"]),
        ({"method": "lora", "budget": [True], "recipe": LORA}, ["budget", "such as 0.1%"]),
        (
            {"method": "adapter", "width": [8], "options": {"wide": 1}},
            ["options.wide: unknown option of adapter", "last_layers, activation"],
        ),
        (
            {"method": "adapter", "width": [8], "options": {"activation": "tanh"}},
            ["options.activation: found 'tanh'", "relu, gelu"],
        ),
        (
            {"method": "adapter", "width": [8], "options": {"last_layers": 1.5}},
            ["options.last_layers: found 1.5", "a whole number from 0"],
        ),
        (
            {"method": "lora-plus", "rank": [8], "options": {"rate_ratio": True}, "recipe": LORA},
            ["options.rate_ratio: found True", "a number from 1 to 1000"],
        ),
        (
            {"method": "peft:vera", "options": {"d_initial": math.nan}},
            ["options", "NaN are not allowed"],
        ),
        ({"method": "peft:verra"}, ["did you mean peft:vera?", "peft:<type>", "lora"]),
        ({"method": "bitfit", "recipe": {"alpha": 8}}, ["recipe.alpha: means nothing for bitfit"]),
        (
            {"method": "dora", "rank": [8], "recipe": {**LORA, "adalora": ADALORA}},
            ["recipe.adalora: means nothing for dora"],
        ),
        (
            {"method": "dora", "rank": [8], "recipe": {"targets": "attention"}},
            ["alpha set nowhere"],
        ),
        ({"method": "pissa", "rank": [8], "quantization": ["nf4"]}, ["pissa allows: none"]),
        ({"method": "bitfit", "variant": "a\nb"}, ["variant"]),
        ({"method": "bitfit", "variant": "x" * 41}, ["variant", "40"]),
        (
            {"method": "lora", "rank": [8], "recipe": LORA},
            ["lora rank 8 none stands in the list twice", "by `variant`"],
        ),
    ],
)
def test_what_a_method_can_not_be_is_told(tmp_path, entry, words):
    message = refusal(tmp_path, suite(entry))
    for word in words:
        assert word in message


def test_every_method_has_what_the_tables_print():
    for method in all_methods().values():
        assert method.title and method.summary and method.source, method.key
        assert method_of(method.key) == method
        assert not method.summary.endswith("."), method.key
    assert len(all_methods()) == len(METHODS) + len(PEFT_TYPES)
    assert method_of("peft:nonsense") is None
    assert method_of("nonsense") is None


@pytest.mark.parametrize(
    ("method", "own", "size", "settings"),
    [
        ("dora", "rank", 4, LORA),
        ("adapter", "width", 64, {}),
        ("prompt-tuning", "tokens", 20, {}),
        ("peft:vera", "rank", 256, {"targets": "attention"}),
    ],
)
def test_a_size_has_one_name_for_all_methods_and_the_jobs_are_the_same(
    tmp_path, method, own, size, settings
):
    def id_by(key):
        job = job_of(tmp_path, {"method": method, key: [size], "recipe": settings})
        assert (job.size, job.size_kind) == (size, own)
        return job.job_id

    assert id_by("size") == id_by(own)

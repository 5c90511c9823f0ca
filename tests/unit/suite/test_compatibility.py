"""Profiles that mix models, tasks and methods: what goes together, and what a refusal says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from asked_suite import ENCODER, LORA, SMOL, asked
from peftmark.catalog.methods import METHODS, all_methods
from peftmark.catalog.peft_types import PEFT_TYPES
from peftmark.catalog.prompts import PROMPTS
from peftmark.catalog.tasks import TASKS
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite
from small_suite import QUICK, changed, refusal, reported, write


def told(folder: Path, content: dict[str, Any]) -> list[str]:
    """The faults of a suite, one a line."""
    return [line[2:] for line in refusal(folder, content).splitlines() if line.startswith("  ")]


# --- what goes together ---------------------------------------------------------------------------


@pytest.mark.parametrize("task", [t.key for t in TASKS.values() if t.kind != "regression"])
def test_a_causal_language_model_reads_every_task_but_regression(task: str, tmp_path: Path) -> None:
    unrelated = "reviews" if task == "editorials" else "editorials"
    write(tmp_path, asked([{"method": "base"}, LORA], tasks={task: {}}, unrelated=unrelated))
    jobs = reported(load_suite("demo", tmp_path), "quick")
    assert {job.method for job in jobs} == {"base", "lora"}
    for job in jobs:
        assert job.causal
        assert job.causal.unrelated == f"{unrelated}:{TASKS[unrelated].fingerprint}"
        assert bool(job.causal.prompt) == (TASKS[task].kind != "language")
        assert (job.causal.new_tokens is not None) == (TASKS[task].kind == "instruction")


def test_an_encoder_and_a_causal_language_model_stand_side_by_side(tmp_path: Path) -> None:
    head = {"method": "head", "model": "minilm-l6"}
    write(tmp_path, asked([{"method": "base"}, LORA, ENCODER, head], tasks={"trec": {}}))
    suite = load_suite("demo", tmp_path)
    jobs = reported(suite, "quick")
    models = {(job.method, job.size): (job.model, job.causal is not None) for job in jobs}
    assert models == {
        ("base", None): (SMOL, True),
        ("lora", 8): (SMOL, True),
        ("lora", 4): ("minilm-l6", False),
        ("head", None): ("minilm-l6", False),
    }
    variants = {job.model: job.variant for job in jobs}
    assert variants == {SMOL: "", "minilm-l6": "all-MiniLM-L6-v2 (encoder)"}
    assert len({job.cell for job in jobs}) == len(jobs)
    repeats = [job for job in expand(suite, "quick", "cpu").jobs if job.purpose == "repeat"]
    assert len(repeats) == 1


def test_the_same_cell_of_two_models_is_two_cells(tmp_path: Path) -> None:
    twice = [LORA, {**LORA, "model": "minilm-l6"}]
    write(tmp_path, asked(twice, tasks={"trec": {}}))
    jobs = reported(load_suite("demo", tmp_path), "quick")
    assert len({job.job_id for job in jobs}) == 2
    assert {job.cell.size for job in jobs} == {8}


@pytest.mark.parametrize(
    "entry",
    [
        {"method": "peft:miss", "rank": [4], "recipe": {"targets": "attention"}},
        {"method": "peft:ln_tuning"},
        {"method": "peft:vera", "rank": [4], "recipe": {"targets": "attention"}},
    ],
)
def test_a_tuner_of_peft_that_is_not_at_the_input(entry: dict[str, Any], tmp_path: Path) -> None:
    write(tmp_path, asked([LORA, entry]))
    jobs = reported(load_suite("demo", tmp_path), "quick")
    assert [job.method for job in jobs] == ["lora", entry["method"]]


# --- what doesn't -------------------------------------------------------------------------------

WITH_METHODS = "profiles.quick, methods"
NO_LINE = (
    "causal language model, and lines that need no fine-tuning are there for encoders alone; "
    "take base"
)


@pytest.mark.parametrize(
    ("suite", "fault"),
    [
        (
            asked(tasks={"sts-b": {}, "trec": {}}),
            f"profiles.quick.tasks.sts-b: not for the causal language model {SMOL}; its tasks: ",
        ),
        (
            changed(((*QUICK, "tasks"), {"chatterbot": {}})),
            "profiles.quick.tasks.chatterbot: not for the encoder minilm-l6; its tasks: cola, ",
        ),
        (
            changed(((*QUICK, "tasks"), {"trec": {}, "reviews": {}})),
            "profiles.quick.tasks.reviews: not for the encoder minilm-l6; its tasks: cola, ",
        ),
        (
            asked([LORA, ENCODER], tasks={"chatterbot": {}}),
            "profiles.quick.tasks.chatterbot: not for the encoder minilm-l6; its tasks: cola, ",
        ),
        (
            asked([LORA, {"method": "head"}]),
            f"{WITH_METHODS}[1] (head): {SMOL} is a causal language model, which has no head of "
            "its own; take base",
        ),
        (
            asked([LORA, {"method": "base", "model": "minilm-l6"}]),
            f"{WITH_METHODS}[1] (base): minilm-l6 is an encoder, whose untrained head says "
            "nothing; take head",
        ),
        (
            asked([LORA, {"method": "bag-of-words"}]),
            f"{WITH_METHODS}[1] (bag-of-words): {SMOL} is a {NO_LINE}",
        ),
        (
            asked([LORA, {"method": "embeddings"}]),
            f"{WITH_METHODS}[1] (embeddings): {SMOL} is a {NO_LINE}",
        ),
        (
            asked([LORA, {"method": "peft:poly", "rank": [8], "recipe": {"targets": "attention"}}]),
            f"{WITH_METHODS}[1] (peft:poly): {SMOL} is a causal language model, and it wants a "
            "number for each task, which rows of a language model don't have",
        ),
        (
            asked(unrelated=None),
            "profiles.quick.unrelated: missing; what a causal language model forgets is measured "
            "on a language task that isn't trained on: reviews, editorials",
        ),
        (
            asked(unrelated="trec"),
            "profiles.quick.unrelated: found 'trec'; allowed: reviews, editorials",
        ),
        (
            asked(unrelated="chatterbot"),
            "profiles.quick.unrelated: found 'chatterbot'; allowed: reviews, editorials",
        ),
        (
            asked(tasks={"editorials": {}}),
            "profiles.quick.unrelated: found 'editorials', which is a task of the profile",
        ),
        (
            changed(((*QUICK, "unrelated"), "editorials")),
            "profiles.quick.unrelated: no cell has a causal language model, remove it",
        ),
        (
            asked(tasks={"trec": {"new_tokens": 8}}),
            "profiles.quick.tasks.trec.new_tokens: no answers are written, remove it",
        ),
        (
            asked(tasks={"reviews": {"new_tokens": 8}}),
            "profiles.quick.tasks.reviews.new_tokens: no answers are written, remove it",
        ),
        (
            changed(((*QUICK, "tasks"), {"trec": {"new_tokens": 8}})),
            "profiles.quick.tasks.trec.new_tokens: no answers are written, remove it",
        ),
        (
            asked(tasks={"chatterbot": {"new_tokens": 0}}),
            "profiles.quick.tasks.chatterbot.new_tokens: found 0; input should be greater than or "
            "equal to 1",
        ),
        (
            asked(unrelated="editorial"),
            "profiles.quick.unrelated: found 'editorial'; unknown task (did you mean editorials?)",
        ),
        (
            asked([LORA, {**ENCODER, "model": "minilm"}]),
            "profiles.quick.methods[1].model: found 'minilm'; unknown model (did you mean "
            "minilm-l6?)",
        ),
        (
            asked([{**LORA, "model": "smol"}], model="minilm-l6"),
            "profiles.quick.methods[0].model: found 'smol'; unknown model",
        ),
        (
            asked([LORA, {"method": "base", "model": "smollm2"}], model="minilm-l6"),
            "profiles.quick.methods[1].model: found 'smollm2'; unknown model",
        ),
    ],
)
def test_what_does_not_go_together_is_one_clear_line(
    suite: dict[str, Any], fault: str, tmp_path: Path
) -> None:
    [line] = told(tmp_path, suite)
    assert line.startswith(fault)


@pytest.mark.parametrize("key", METHODS)
def test_a_method_is_let_through_unless_the_catalogue_says_why_not(
    key: str, tmp_path: Path
) -> None:
    method = METHODS[key]
    entry: dict[str, Any] = {"method": key, "quantization": [method.quantizations[0]]}
    if method.size:
        entry[method.size] = [8]
    given = {"targets": "all-linear", "alpha": 16}
    layer: dict[str, Any] = {k: v for k, v in given.items() if k in method.settings}
    if method.schedule:
        layer["adalora"] = {
            "init_rank": 12,
            "tinit": "10%",
            "tfinal": "30%",
            "delta_t": 5,
            "orthogonal_weight": 0.1,
        }
        if key == "hybrid":
            del layer["adalora"]["init_rank"]
    suite = asked([{**LORA, "variant": "other"}, LORA, {**entry, "variant": "x", "recipe": layer}])
    if method.not_causal:
        [line] = told(tmp_path, suite)
        why = f"{SMOL} is a causal language model, {method.not_causal}"
        assert line == f"{WITH_METHODS}[2] ({key}): {why}"
    else:
        write(tmp_path, suite)
        load_suite("demo", tmp_path)


@pytest.mark.parametrize("key", PEFT_TYPES)
def test_a_tuner_of_peft_is_let_through_unless_the_catalogue_says_why_not(
    key: str, tmp_path: Path
) -> None:
    method = all_methods()[f"peft:{key}"]
    layer = {"targets": "all-linear"} if PEFT_TYPES[key].where == "recipe" else {}
    suite = asked([LORA, {"method": method.key, "recipe": layer}])
    if method.not_causal:
        [line] = told(tmp_path, suite)
        why = f"{SMOL} is a causal language model, {method.not_causal}"
        assert line == f"{WITH_METHODS}[1] ({method.key}): {why}"
    else:
        write(tmp_path, suite)
        load_suite("demo", tmp_path)


def test_what_no_encoder_can_have_no_language_model_has_without_a_reason() -> None:
    """The worker tells them apart by one reason or the other."""
    assert [k.key for k in PEFT_TYPES.values() if k.refused and not k.not_causal] == []


def test_several_faults_are_told_at_once(tmp_path: Path) -> None:
    suite = asked(
        [LORA, {"method": "head"}, ENCODER],
        tasks={"sts-b": {}, "chatterbot": {}, "trec": {"new_tokens": 4}},
        unrelated="cola",
    )
    lines = told(tmp_path, suite)
    assert len(lines) == 5
    for start in (
        "tasks.sts-b:",
        "tasks.chatterbot:",
        ", methods[1] (head):",
        "unrelated:",
        "tasks.trec.new_tokens:",
    ):
        assert any(
            line.removeprefix("profiles.quick").lstrip(".").startswith(start) for line in lines
        )


def test_faults_of_the_suites_own_methods_name_every_profile(tmp_path: Path) -> None:
    suite = changed(
        (
            ("profiles", "asked"),
            {
                "summary": "made up",
                "needs": "nothing",
                "scale": "reduced",
                "sources": ["package"],
                "model": SMOL,
                "unrelated": "editorials",
                "seeds": [0],
                "tasks": {"trec": {}},
            },
        ),
    )
    [line] = told(tmp_path, suite)
    assert line.startswith("profiles.asked, methods[1] (head): ")


def test_a_task_for_which_no_prompt_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(PROMPTS, "trec")
    [line] = told(tmp_path, asked())
    assert line == f"profiles.quick.tasks.trec: has no prompt for the causal language model {SMOL}"

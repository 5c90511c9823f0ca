"""Suites as short as they may be, and what they become."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from peftmark.catalog.methods import METHODS
from peftmark.catalog.models import MODELS
from peftmark.catalog.task import Task
from peftmark.core.errors import SuiteError
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite
from peftmark.suite.recipes import resolve_recipe
from peftmark.suite.short_form import RATES, RECIPE, SEEDS, fill
from small_suite import write

SHORT = """
model: minilm-l6
tasks:
  tickets: {kind: classification, train: tickets.csv, text: body, label: category}
methods: [lora, head]
"""
TICKETS = Task(
    key="tickets",
    title="tickets",
    kind="classification",
    labels=("bug", "praise", "refund"),
    metric="accuracy",
    also=("macro_f1",),
    train_rows=320,
    eval_rows=80,
    summary="",
    licence="",
    fingerprint="ab" * 32,
    own=True,
)


@pytest.fixture
def load(tmp_path):
    def loaded(text=SHORT, name="tickets"):
        (tmp_path / f"{name}.yaml").write_text(text)
        return load_suite(name, tmp_path)

    return loaded


def test_four_lines_are_a_suite(load):
    suite = load().with_tasks({"tickets": TICKETS})
    jobs = expand(suite, "default", "cpu").jobs
    assert [(j.method, j.size, j.seed, j.purpose) for j in jobs] == [
        *((m, s, seed, "report") for seed in SEEDS for m, s in (("lora", 8), ("head", None))),
        ("lora", 8, 0, "repeat"),
    ]
    lora, head = (job.recipe for job in jobs[:2])
    # 320 rows less a tenth for selection are 288: 18 batches of 16, five times.
    assert (lora.batch_size, lora.steps, lora.selection_rows) == (16, 5 * 18, 32)
    assert (lora.learning_rate, lora.targets, lora.alpha) == (2e-3, "all-linear", 16)
    assert (head.learning_rate, head.targets) == (5e-3, None)
    assert suite.report.reference.method == "lora"
    assert suite.profiles["default"].scale == "full"


def test_a_job_carries_its_task(load):
    jobs = expand(load().with_tasks({"tickets": TICKETS}), "default", "cpu").jobs
    asked = json.loads(jobs[0].to_json())
    assert asked["own"]["labels"] == ["bug", "praise", "refund"]
    assert (asked["metric"], asked["data_fingerprint"]) == ("accuracy", "ab" * 32)
    again = type(jobs[0]).from_json(jobs[0].to_json())
    assert again == jobs[0] and again.job_id == jobs[0].job_id
    facts = again.task_facts
    assert (facts.own, facts.kind, facts.train_rows) == (True, "classification", 320)
    assert again.task_title == "tickets (own rows, 320 + 80)"


def test_everything_filled_in_is_told(load):
    told = "\n".join(load().filled)
    for word in ("version", "summary", "radar", "reference", "seeds", *RECIPE, "learning_rate"):
        assert word in told


def test_what_is_written_stays(load):
    suite = load(
        SHORT
        + "seeds: [5]\nversion: 3\nsummary: mine\nreference: {method: head}\n"
        + "recipe: {steps: 12, batch_size: 4, learning_rate: 7e-4}\n"
    ).with_tasks({"tickets": TICKETS})
    jobs = expand(suite, "default", "cpu").jobs
    assert {job.seed for job in jobs} == {5}
    assert {(j.recipe.steps, j.recipe.batch_size, j.recipe.learning_rate) for j in jobs} == {
        (12, 4, 7e-4)
    }
    assert (suite.version, suite.summary, suite.report.reference.method) == (3, "mine", "head")
    assert not any("learning_rate" in line or "epochs" in line for line in suite.filled)


def test_a_suite_with_profiles_is_taken_as_it_is():
    raw = {"profiles": {}, "model": "minilm-l6", "tasks": {}}
    assert fill(raw, "x") == (raw, ())


def test_tasks_of_the_catalogue_may_stand_in_a_list(load):
    suite = load("model: minilm-l6\ntasks: [trec]\nmethods: [bitfit]\n", "short")
    assert {job.task for job in expand(suite, "default", "cpu").jobs} == {"trec"}


def test_tasks_of_both_kinds_stand_side_by_side(load):
    text = SHORT.replace("methods:", "  trec: {}\nmethods:")
    suite = load(text).with_tasks({"tickets": TICKETS})
    assert {job.task for job in expand(suite, "default", "cpu").jobs} == {"tickets", "trec"}


def test_a_target_is_of_the_profile(load):
    suite = load(SHORT.replace("category}", "category, target: 0.9}"))
    jobs = expand(suite.with_tasks({"tickets": TICKETS}), "default", "cpu").jobs
    assert {job.target for job in jobs} == {0.9}


@pytest.mark.parametrize("method", RATES)
def test_every_default_is_a_whole_recipe(load, method):
    suite = load(SHORT.replace("[lora, head]", f"[{method}]"))
    (entry,) = suite.file.methods
    cell, _ = next(entry.cells())
    assert METHODS[method].trains
    recipe = resolve_recipe(suite.file, suite.profiles["default"], entry, cell, TICKETS)
    assert recipe.learning_rate == RATES[method].small


def test_a_method_without_a_default_says_what_is_missing(load):
    suite = load(SHORT.replace("[lora, head]", "[diff-pruning, lora]"))
    with pytest.raises(SuiteError, match="learning_rate set nowhere for diff-pruning on tickets"):
        suite.with_tasks({"tickets": TICKETS})


def test_a_language_model_has_its_own_rates_and_text(load):
    text = SHORT.replace("minilm-l6", "smollm2-135m-q4").replace("head", "base")
    suite = load(text).with_tasks({"tickets": TICKETS})
    jobs = expand(suite, "default", "cpu").jobs
    assert {job.recipe.learning_rate for job in jobs if job.method == "lora"} == {1e-3}
    assert jobs[0].causal.unrelated.startswith("editorials:")
    assert jobs[0].causal.prompt


@pytest.mark.parametrize(
    ("parameters", "recipe", "weights"),
    [
        (299_999_999, {}, None),
        (300_000_000, {}, "bf16"),
        (300_000_000, {"precision": "fp32"}, None),
        (300_000_000, {"weights": "fp32"}, None),
    ],
)
def test_a_large_model_of_ones_own_is_stored_in_bf16(parameters, recipe, weights):
    model = replace(MODELS["minilm-l6"], key="mine", own=True, parameters=parameters)
    raw = {"model": "mine", "tasks": ["trec"], "methods": ["lora"], "recipe": recipe}
    found, told = fill(raw, "x", {"mine": model})
    (entry,) = found["methods"]
    assert entry["recipe"].get("weights") == weights
    assert any("weights bf16" in line for line in told) == (weights is not None)


def test_each_entry_is_stored_as_its_own_model_and_arithmetic_ask():
    large = replace(MODELS["minilm-l6"], key="mine", own=True, parameters=10**9)
    methods = [
        "lora",
        "full",
        {"method": "head", "recipe": {"precision": "fp32"}},
        {"method": "bitfit", "model": "minilm-l6"},
        {"method": "dora", "task_recipe": {"trec": {"precision": "fp32"}}},
    ]
    raw = {"model": "mine", "tasks": ["trec"], "methods": methods}
    found, _ = fill(raw, "x", {**MODELS, "mine": large})
    kinds = [entry["recipe"].get("weights") for entry in found["methods"]]
    assert kinds == ["bf16", None, None, None, None]


def test_arithmetic_follows_the_type_that_a_base_is_asked_in():
    raw = {"model": "minilm-l6", "tasks": ["trec"], "methods": ["lora"]}
    found, _ = fill(raw | {"recipe": {"weights": "fp16"}}, "x")
    assert found["recipe"]["precision"] == "fp16"


def test_what_only_the_rows_can_tell_is_told_once_they_are_read(load):
    suite = load(SHORT + "recipe: {batch_size: 512}\n")
    with pytest.raises(SuiteError, match="found 512 with 288 training rows"):
        suite.with_tasks({"tickets": TICKETS})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("tickets:", "trec:"), ["the catalogue has a task of this name"]),
        (("tickets:", "Tickets:"), ["lower-case letters"]),
        (("kind: classification", "kind: guessing"), ["kind", "multi-label"]),
        (("train: tickets.csv, ", ""), ["train"]),
        ((", label: category", ""), ["label"]),
        (("model: minilm-l6", "model: smollm2"), ["unknown model"]),
        (("methods: [lora, head]", "methods: [lorra]"), ["did you mean lora"]),
    ],
)
def test_faults_of_a_short_suite(load, change, words):
    with pytest.raises(SuiteError) as error:
        load(SHORT.replace(*change))
    for word in words:
        assert word in str(error.value)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("methods: [lora, head]", "methods: []"), "methods: found []; at least 1 is needed"),
        (("methods: [lora, head]", "methods: lora"), "methods: found 'lora'; a list is needed"),
        (("[lora, head]", "[{method: [lora]}]"), "methods[0].method: found ['lora']"),
        (
            ("[lora, head]", "[{method: lora, recipe: }]"),
            "methods[0].recipe: found None; a mapping",
        ),
        (("methods:", "recipe: []\nmethods:"), "recipe: found []; a mapping is needed"),
        (("methods:", "recipe:\nmethods:"), "recipe: found None; a mapping is needed"),
        (("methods:", "seeds: 3\nmethods:"), "seeds: found 3; a list is needed"),
        (("methods:", "summary: [x]\nmethods:"), "summary: found ['x']"),
        (("tickets: {", "1: {"), "tasks.1: found 1; a name is a word"),
        (("tickets: {", "null: {"), "tasks.None: found None; a name is a word"),
        (("tickets: {", '"a\\e[1m": {'), "tasks.a\ufffd[1m: found"),
        (("tickets.csv,", "tickets.csv, config: x,"), "tasks.tickets: config: only a data set on"),
        ((SHORT, "model: minilm-l6\ntasks:\nmethods: [lora]"), "tasks: found None; a mapping"),
    ],
)
def test_a_fault_of_any_type_is_one_line_without_a_traceback(load, change, told):
    with pytest.raises(SuiteError) as error:
        load(SHORT.replace(*change))
    said = str(error.value)
    assert "one fault:" in said
    assert told in said
    for word in ("profiles.", "instance of", "dictionary", "tuple", "validation"):
        assert word not in said


def test_a_line_without_training_is_repeated_only_where_nothing_trains(load):
    text = SHORT.replace("[lora, head]", "[head, bag-of-words]")
    jobs = expand(load(text).with_tasks({"tickets": TICKETS}), "default", "cpu").jobs
    assert [job.method for job in jobs if job.purpose == "repeat"] == ["head"]


def test_an_unknown_task_says_how_to_declare_one(load):
    with pytest.raises(SuiteError) as error:
        load("model: minilm-l6\ntasks: [tickets]\nmethods: [lora]\n")
    assert "tasks: {tickets: {kind: classification, train: FILE.csv" in str(error.value)


@pytest.mark.parametrize(
    ("methods", "variant"),
    [
        ("[{method: lora, budget: ['1%']}]", "budget 1%"),
        ("[{method: lora, model: bert-base-uncased}]", "BERT-base (encoder)"),
        ("[head, {method: lora, variant: mine, recipe: {alpha: 4}}]", "mine"),
    ],
)
def test_the_reference_is_a_cell_whatever_its_entry_says(load, methods, variant):
    suite = load(SHORT.replace("[lora, head]", methods)).with_tasks({"tickets": TICKETS})
    reference = suite.report.reference
    assert (reference.method, reference.variant) == ("lora", variant)
    assert reference in {job.cell for job in expand(suite, "default", "cpu").jobs}


def test_a_task_of_the_catalogue_has_a_target_too(load):
    suite = load(SHORT.replace("methods:", "  trec: {target: 0.9}\nmethods:"))
    assert suite.profiles["default"].tasks["trec"].target == 0.9
    assert list(suite.file.tasks) == ["tickets"]


def test_what_enters_the_identity_of_language_models_is_told_too(load):
    told = load(SHORT.replace("minilm-l6", "smollm2-135m-q4").replace("head", "base")).filled
    assert any(line.startswith("unrelated: editorials") for line in told)
    assert any("scale full" in line for line in told)


@pytest.mark.parametrize("key", ["template: '{text} Kind:'", "words: [x, y], labels: [a, b]"])
def test_what_only_language_models_are_shown_is_refused_for_encoders_alone(load, key):
    text = SHORT.replace("category}", f"category, {key}}}")
    said = f"tasks.tickets.{key.partition(':')[0]}: read by causal language models"
    with pytest.raises(SuiteError, match=said):
        load(text)
    text = text.replace("minilm-l6", "smollm2-135m-q4")
    load(text.replace("head", "base"))
    load(text.replace("head]", "{method: head, model: minilm-l6}]"))
    load(text.replace("smollm2-135m-q4", "./mine"))  # which may be one: told once it was read


def test_what_trials_try_is_filled_in_and_a_grid_of_ones_own_stays(tmp_path):
    content = {
        "model": "minilm-l6",
        "tasks": ["trec"],
        "tuning": {"seeds": [100], "trainings": 4},
        "decide": {"question": "best", "max_seeds": 5},
        "methods": [
            "lora",
            "adalora",
            {"method": "head", "learning_rates": [1e-3, 2e-3]},
            "bag-of-words",
        ],
    }
    write(tmp_path, content)
    suite = load_suite("demo", tmp_path)
    profile = suite.profiles["default"]
    assert (profile.tuning.trainings, profile.decide.max_seeds) == (4, 5)
    grids = {entry.method: entry.grid for entry in suite.file.methods}
    assert grids["lora"] == {"learning_rate": [5e-4, 1e-3, 2e-3, 4e-3]}
    assert grids["adalora"] == {
        "learning_rate": [1e-3, 2e-3, 4e-3, 8e-3],
        "adalora.orthogonal_weight": [0, 0.1],
    }
    assert grids["head"] == {"learning_rate": [1e-3, 2e-3]}
    assert grids["bag-of-words"] == {}

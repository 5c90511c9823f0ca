"""Every row of the catalogue and every word of a suite has the code that it stands for."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
import transformers

from peftmark.catalog.architectures import OF_MODELS
from peftmark.catalog.methods import METHODS
from peftmark.catalog.metrics import METRICS
from peftmark.catalog.models import MODELS
from peftmark.catalog.tasks import TASKS
from peftmark.lab import methods, metrics, models, step
from peftmark.lab.memory.meta_model import config_of
from peftmark.suite.schema import TARGET_SETS, RecipeLayer

# --- metrics ------------------------------------------------------------------------------------

ROWS = np.array([0.0, 1.0, 1.0, 0.0])


def computed(kind: str) -> tuple[set[str], set[str]]:
    """Metrics that the lab computes for a kind of task, and those of them that have values by row
    (whatever stands first is compared row by row)."""
    if kind == "language":
        return set(metrics.of_text(-ROWS, ROWS + 1)), {"log_likelihood"}
    if kind == "instruction":
        by_answer = metrics.answers(["a b"], ["a b"])
        return set(metrics.of_answers(by_answer, -ROWS, ROWS + 1)), set(by_answer)
    scored = {
        key
        for key in (*metrics.PREDICTED, *metrics.PROBABLE)
        if key in METRICS and kind in METRICS[key].kinds and scores(key, kind)
    }
    return scored, scored


def scores(key: str, kind: str) -> bool:
    """Whether predictions that are right score best, and others worse, whichever way that is."""
    metric = METRICS[key]
    wanted, other = ROWS, np.array([1.0, 1.0, 0.0, 0.0])
    if kind == "multi-label":
        wanted, other = (np.stack([rows, 1 - rows], axis=1) for rows in (wanted, other))
    best = metrics.score((key,), wanted, wanted, certain(wanted))[key]
    worse = metrics.score((key,), other, wanted, certain(other))[key]
    classes = 0 if kind == "regression" else 2
    constant = metrics.baseline(key, wanted, wanted, classes)
    inside = metric.low <= min(best, worse) and max(best, worse) <= metric.high
    is_best = best == pytest.approx(metric.best, abs=1e-12)
    return is_best and metric.sign * (best - worse) > 0 and inside and np.isfinite(constant)


def certain(predictions: np.ndarray) -> np.ndarray:
    """Probabilities of a model that is sure of two classes, or of labels."""
    if predictions.ndim == 2:
        return predictions
    return np.stack([1 - predictions, predictions], axis=1)


def metric_faults(rows) -> list[str]:
    """Metrics that a suite may ask for and that would end a job at its first evaluation."""
    found = []
    for metric in rows.values():
        for kind in metric.kinds:
            every, by_row = computed(kind)
            if metric.key not in every:
                found.append(
                    f"{metric.key} on {kind}: compute it in peftmark/lab/metrics.py (PREDICTED, "
                    "PROBABLE, of_text or of_answers), or take the kind out of its row in "
                    "catalog/metrics.py"
                )
            elif not metric.beside and metric.key not in by_row:
                found.append(f"{metric.key} on {kind} has no value a row: set beside=True")
    return found


def test_every_metric_is_computed_for_the_kinds_of_task_it_is_for():
    found = metric_faults(METRICS)
    assert not found, "\n".join(found)


def test_everything_that_is_computed_has_a_row():
    every = {
        *metrics.PREDICTED,
        *metrics.PROBABLE,
        *(k for kind in ("language", "instruction") for k in computed(kind)[0]),
    }
    assert every == set(METRICS), (
        f"{sorted(every ^ set(METRICS))}: METRICS of peftmark/catalog/metrics.py needs a row for "
        "what peftmark/lab/metrics.py computes, and that what stands there"
    )


def test_a_metric_that_is_not_computed_is_noticed():
    novel = replace(METRICS["f1"], key="novel")
    first = replace(METRICS["completion_perplexity"], beside=False)
    other = replace(METRICS["exact_match"], kinds=("instruction", "language"))
    assert metric_faults({"novel": novel})[0].startswith("novel on classification: compute it")
    assert metric_faults({"first": first}) == [
        "completion_perplexity on instruction has no value a row: set beside=True"
    ]
    assert metric_faults({"other": other})[0].startswith("exact_match on language: compute it")


@pytest.mark.parametrize("key", [k for k, t in TASKS.items() if t.kind == "classification"])
def test_the_metrics_of_a_task_can_be_computed_for_its_classes(key):
    task = TASKS[key]
    rows = np.arange(3 * len(task.labels)) % len(task.labels)
    keys = (task.metric, *task.also)
    assert metrics.score(keys, rows.astype(float), rows) == dict.fromkeys(keys, 1.0)
    assert np.isfinite(metrics.baseline(task.metric, rows, rows, len(task.labels)))


# --- words of a recipe --------------------------------------------------------------------------


def allowed(field: str) -> tuple[str, ...]:
    """The words that a suite may give for a setting of a recipe."""
    literal = next(kind for kind in get_args(RecipeLayer.model_fields[field].annotation) if kind)
    return get_args(literal)


@pytest.mark.parametrize(
    ("field", "known", "where"),
    [
        ("schedule", tuple(step.SCHEDULES), "SCHEDULES of peftmark/lab/step.py"),
        ("optimizer", step.OPTIMIZERS, "BITSANDBYTES of peftmark/lab/step.py"),
    ],
)
def test_what_a_recipe_may_say_is_what_a_step_can_do(field, known, where):
    assert set(allowed(field)) == set(known), (
        f"{field}: {where} and the Literal of RecipeLayer in peftmark/suite/schema.py differ"
    )


@pytest.mark.parametrize("name", step.SCHEDULES)
def test_a_schedule_begins_at_the_peak_and_never_rises(name):
    rates = [step._rate(number, 20, 5, name) for number in range(20)]
    assert rates[4] == rates[5] == 1
    assert rates[:5] == sorted(rates[:5])
    assert rates[5:] == sorted(rates[5:], reverse=True)
    assert min(rates) > 0


def test_a_schedule_that_nobody_wrote_is_an_error_and_not_another_one():
    with pytest.raises(KeyError, match="novel"):
        step._rate(10, 20, 5, "novel")


@pytest.mark.parametrize("name", [key for key in step.OPTIMIZERS if key in step.BITSANDBYTES])
def test_a_paged_optimizer_is_in_the_library(name):
    import bitsandbytes

    assert hasattr(bitsandbytes.optim, step.BITSANDBYTES[name]), name


def test_every_word_for_targets_is_known():
    assert {*models.TARGETS, "all-linear"} == set(TARGET_SETS), (
        "TARGETS of peftmark/lab/models.py and TARGET_SETS of peftmark/suite/schema.py differ"
    )


# --- methods and models -------------------------------------------------------------------------


def homeless(named) -> list[str]:
    """Methods that train and that no function stands for."""
    return [key for key, method in named.items() if method.trains and key not in methods._HOMES]


def test_every_method_has_its_function():
    left = homeless(METHODS)
    assert not left, f"{left}: add them to _HOMES in peftmark/lab/methods/__init__.py"
    assert set(methods._HOMES) <= set(METHODS)
    for key in methods._HOMES:
        assert callable(methods._method(key))
    assert homeless({**METHODS, "novel": replace(METHODS["lora"], key="novel")}) == ["novel"]


@pytest.mark.parametrize("model", [m for m in MODELS.values() if not m.causal], ids=lambda m: m.key)
def test_an_encoder_of_the_catalogue_has_the_parameters_it_says(model):
    with torch.device("meta"):
        built = transformers.AutoModel.from_config(config_of(OF_MODELS[model.key], 2))
    counted = sum(p.numel() for p in built.parameters())
    assert counted == model.parameters, (
        f"peftmark/catalog/models.py, {model.key}: parameters={model.parameters:,}, and its "
        f"configuration in peftmark/catalog/architectures.py gives {counted:,}"
    )

"""Rates around the one of a method's recipe, tried where its entry has no grid."""

from __future__ import annotations

import pytest

from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite
from small_suite import FULL, LORA, QUICK, changed, refusal, write

AROUND = {"seeds": [7], "around": [0.1, 1, 2]}


def tuned(*more):
    return changed(((*QUICK, "tuning"), AROUND), *more)


def rates(tmp_path, content):
    write(tmp_path, content)
    jobs = expand(load_suite("demo", tmp_path), "quick", "cpu").jobs
    found = {}
    for job in jobs:
        if job.purpose == "tuning":
            found.setdefault(job.method, set()).add(job.recipe.learning_rate)
    return found


def test_every_method_tries_rates_around_its_own_and_no_float_tail(tmp_path):
    content = tuned(
        (("methods", FULL, "recipe", "learning_rate"), 5e-3),
        (("methods", LORA, "recipe", "learning_rate"), 2e-3),
    )
    found = rates(tmp_path, content)
    assert found["full"] == {5e-4, 5e-3, 1e-2}
    assert found["lora"] == {2e-4, 2e-3, 4e-3}
    assert {len(one) for one in found.values()} == {3}


def test_the_rate_may_be_the_profiles_or_the_suites_and_the_nearest_counts(tmp_path):
    suites = (("recipe", "learning_rate"), 1e-3)
    assert rates(tmp_path, tuned(suites))["full"] == {1e-4, 1e-3, 2e-3}
    profiles = ((*QUICK, "recipe", "learning_rate"), 4e-3)
    assert rates(tmp_path, tuned(suites, profiles))["full"] == {4e-4, 4e-3, 8e-3}


def test_an_entry_with_a_grid_keeps_it(tmp_path):
    grid = (("methods", LORA, "learning_rates"), [1e-3, 3e-3, 9e-3])
    assert rates(tmp_path, tuned(grid))["lora"] == {1e-3, 3e-3, 9e-3}


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (
            ("methods", LORA, "task_recipe"),
            {"trec": {"learning_rate": 1e-3}},
            ["methods[", "(lora).learning_rates: missing", "one learning rate for all tasks"],
        ),
        (
            (*QUICK, "tasks", "trec", "recipe"),
            {"learning_rate": 1e-3},
            ["(lora).learning_rates: missing", "one learning rate for all tasks"],
        ),
        (
            (*QUICK, "tuning", "around"),
            [2, 1],
            ["tuning.around: found [2.0, 1.0]; each factor once, in ascending order"],
        ),
        ((*QUICK, "tuning", "around"), [1, 1], ["tuning.around: found [1.0, 1.0]"]),
        ((*QUICK, "tuning", "around"), [1], ["tuning.around"]),
        ((*QUICK, "tuning", "around"), [0, 1], ["tuning.around", "greater than 0"]),
    ],
)
def test_what_has_no_rate_to_go_around_or_no_factors_is_refused(tmp_path, path, value, words):
    message = refusal(tmp_path, tuned((path, value)))
    for word in words:
        assert word in message

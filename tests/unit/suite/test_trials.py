"""Which learning rate the trials of a cell choose, and how much the choice matters."""

from __future__ import annotations

from dataclasses import replace

import pytest

from factory import HEAD, LORA, make_failure, make_job, make_outcome, make_recipe, make_record
from peftmark.catalog.metrics import METRICS
from peftmark.suite.trials import choices, trials

RATES = (1e-3, 2e-3, 4e-3)


def trial(rate, seed=100, **changes):
    return make_job(purpose="tuning", seed=seed, recipe=make_recipe(learning_rate=rate), **changes)


def row(job, score):
    """A row with this score; a text is the status of a trial without one."""
    failed = isinstance(score, str)
    outcome = make_failure(score) if failed else make_outcome(metric_value=score)
    return {job.job_id: make_record(job=job, outcome=outcome)}


def choice(scores, seeds):
    """The choice for (rate, seed) -> score."""
    jobs = [trial(rate, seed) for seed in seeds for rate in RATES]
    records = {}
    for job in jobs:
        score = scores.get((job.recipe.learning_rate, job.seed))
        if score is not None:
            records |= row(job, score)
    [found] = choices(jobs, records).values()
    return found


def rates(found):
    return tuple(one.setting[0] for one in found.tried)


def scores_of(found):
    return tuple(one.score for one in found.tried)


def of(*scores):
    """The choice for one score a rate."""
    return choice(dict(zip(((rate, 100) for rate in RATES), scores, strict=True)), seeds=(100,))


def test_the_rate_with_the_best_mean_over_seeds_is_chosen():
    scores = {(1e-3, 7): 0.9, (1e-3, 8): 0.1, (2e-3, 7): 0.6, (2e-3, 8): 0.8}
    found = choice(scores | {(4e-3, 7): 0.2, (4e-3, 8): 0.3}, seeds=(7, 8))
    assert (found.knobs, rates(found)) == (("learning_rate",), RATES)
    assert scores_of(found) == pytest.approx((0.5, 0.7, 0.25))
    assert (found.cell, found.task, found.chosen, found.missing) == (LORA, "sst2", (2e-3,), 0)


def test_a_tie_goes_to_the_smaller_rate():
    assert of(0.1, 0.8, 0.8).chosen == (2e-3,)


def test_a_lower_score_wins_where_lower_is_better(monkeypatch):
    monkeypatch.setitem(METRICS, "accuracy", replace(METRICS["accuracy"], direction="lower"))
    assert of(0.3, 0.5, 0.4).chosen == (1e-3,)
    assert of(0.4, 0.3, 0.3).chosen == (2e-3,)
    assert of(0.3, 0.5, 0.305).within(0.01) == pytest.approx(2 / 3)


@pytest.mark.parametrize("metric", ["rmse", "log_loss", "mine.costs:cost:lower"])
def test_the_rate_with_the_lowest_error_is_chosen(metric):
    jobs = [trial(rate, metric=metric) for rate in RATES]
    records = {}
    for job, value in zip(jobs, (16.0, 12.0, 30.0), strict=True):
        records |= row(job, value)
    [found] = choices(jobs, records).values()
    assert found.chosen == (RATES[1],)
    assert found.within(4.0) == pytest.approx(2 / 3)


@pytest.mark.parametrize("status", ["diverged", "crashed", "timed_out"])
def test_a_rate_with_a_failed_trial_has_no_score_and_is_not_missing(status):
    scores = {(1e-3, 7): 0.9, (1e-3, 8): status, (2e-3, 7): 0.5, (2e-3, 8): 0.5}
    found = choice(scores | {(4e-3, 7): status, (4e-3, 8): status}, seeds=(7, 8))
    assert scores_of(found) == (None, 0.5, None)
    assert (found.chosen, found.missing) == ((2e-3,), 0)
    assert found.within(1.0) == pytest.approx(1 / 3)


def test_without_any_score_nothing_is_chosen():
    found = of("crashed", "crashed", "crashed")
    assert (found.chosen, found.missing, found.within(1.0)) == (None, 0, None)


def test_trials_without_a_row_or_stopped_by_the_user_are_missing():
    found = of(0.5, "interrupted", None)
    assert scores_of(found) == (0.5, None, None)
    assert found.missing == 2


@pytest.mark.parametrize(
    ("scores", "tolerance", "share"),
    [
        ((0.80, 0.79, 0.78), 0.01, 2 / 3),  # 0.80 - 0.79 is above 0.01 in binary
        ((0.80, 0.79, 0.78), 0.0, 1 / 3),
        ((0.80, 0.789, 0.78), 0.01, 1 / 3),
        ((0.5, 0.5, 0.5), 0.01, 1.0),
        ((0.0, 0.0, "crashed"), 0.01, 2 / 3),
        ((-0.02, 0.0, -0.03), 0.02, 2 / 3),
    ],
)
def test_the_share_of_the_grid_near_the_best(scores, tolerance, share):
    assert of(*scores).within(tolerance) == pytest.approx(share)


def test_cells_and_tasks_are_apart_and_other_purposes_are_passed_over():
    head = {"method": "head", "size": None}
    jobs = [trial(1e-3, **head), trial(1e-3), trial(1e-3, task="stsb"), trial(2e-3, **head)]
    reported = [make_job(), make_job(purpose="repeat")]
    records = row(jobs[0], 0.1) | row(jobs[3], 0.2)
    for job in reported:
        records |= row(job, 0.9)
    found = choices([*reported, *jobs], records)
    assert list(found) == [(HEAD, "sst2"), (LORA, "sst2"), (LORA, "stsb")]
    assert scores_of(found[HEAD, "sst2"]) == (0.1, 0.2)
    assert found[LORA, "sst2"].missing == 1
    assert trials([*reported, *jobs]) == jobs
    assert choices(reported, records) == {}

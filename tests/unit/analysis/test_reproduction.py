"""Published rows held against the rows of their jobs made again."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from factory import (
    ADALORA,
    HEAD,
    LORA,
    make_environment,
    make_failure,
    make_job,
    make_matrix,
    make_outcome,
    make_recipe,
    make_record,
)
from peftmark.analysis.reproduction import FEWEST_SEEDS, held, other_seeds, sample
from peftmark.record.columns import NOT_RECORDED
from peftmark.record.outcome import CurvePoint, numbers

POINT = CurvePoint(120, 0.5, 0.86, 2.0, gradient_norm=1.0)
OUTCOME = make_outcome(
    curve=(POINT,),
    predictions=numbers([0, 1, 1]),
    final_weights_hash="f" * 64,
    metrics={"accuracy": 0.86},
)
HERE = make_environment()
ELSEWHERE = replace(HERE, machine={**HERE.machine, "cpu": "Another CPU"})
NEWER = replace(HERE, versions={**HERE.versions, "torch": "3.0"})


def row(seed=0, environment=HERE, **changes):
    job = make_job(seed=seed)
    return make_record(job=job, outcome=replace(OUTCOME, **changes), environment=environment)


def scored(value, **more):
    """A run with another score, as its own bits tell."""
    return row(metric_value=value, metrics={"accuracy": value}, **more)


OTHERS = [scored(value, seed=seed) for seed, value in ((1, 0.85), (2, 0.86), (3, 0.87))]
# mean 0.86, s = 0.01, t(0.975, 2) = 4.302653, so half of it is 0.0430265 * sqrt(4 / 3) = 0.0496828
HALF = 0.0496828


# --- the same bits --------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", [HERE, ELSEWHERE, NEWER])
def test_the_same_bits_are_identical_wherever_they_were_made(environment):
    slower = replace(OUTCOME, train_seconds=99.0, curve=(replace(POINT, seconds=7.0),))
    found = held(row(), replace(row(environment=environment), outcome=slower), [])
    assert (found.verdict, found.detail) == ("identical", "")
    assert bool(found.elsewhere) == (environment is not HERE)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"predictions": numbers([0, 1, 0])}, "predictions"),
        ({"final_weights_hash": "0" * 64}, "final_weights_hash: fff"),
        ({"initial_weights_hash": "0" * 64}, "initial_weights_hash"),
        ({"batch_order_hash": "0" * 64}, "batch_order_hash"),
        ({"curve": (replace(POINT, loss=0.5000001),)}, "loss at step 120: 0.5 and 0.5000001"),
        ({"curve": (replace(POINT, gradient_norm=2.0),)}, "gradient_norm at step 120"),
        ({"metrics": {"accuracy": 0.8600001}}, "metrics: {'accuracy': 0.86}"),
        ({"metrics": {}}, "metrics"),
    ],
)
def test_any_other_bit_in_the_same_place_differs_however_near_the_score_is(changes, told):
    found = held(row(), row(**changes), OTHERS)
    assert found.verdict == "differs"
    assert told in found.detail
    assert found.interval is None


def test_what_an_older_row_did_not_record_is_not_compared_and_told():
    older = row(
        first_step={},
        metrics={"accuracy": 0.86},
        curve=(replace(POINT, gradient_norm=None),),
        null_reasons={"first_step": f"{NOT_RECORDED} 0.1.0"},
    )
    newer = row(first_step={"loss": 0.7}, metrics={"accuracy": 0.86, "f1": 0.8})
    found = held(older, newer, [])
    assert (found.verdict, found.left_out) == ("identical", ("first_step",))
    # What it recorded is compared all the same.
    assert held(older, replace(newer, outcome=replace(newer.outcome, final_rank=1)), []).detail


def test_an_empty_field_that_was_recorded_is_compared():
    assert held(row(first_step={"loss": 0.7}), row(first_step={}), []).verdict == "differs"
    assert held(row(final_rank=None), row(final_rank=8), []).verdict == "differs"


# --- the interval ---------------------------------------------------------------------------------


@pytest.mark.parametrize("environment", [ELSEWHERE, NEWER])
@pytest.mark.parametrize(
    ("value", "verdict", "told"),
    [
        (0.86 + HALF - 1e-6, "within", ""),
        (0.86 - HALF + 1e-6, "within", ""),
        (0.86 + HALF + 1e-6, "differs", "the score lies above the interval"),
        (0.86 - HALF - 1e-6, "differs", "the score lies below the interval"),
    ],
)
def test_elsewhere_the_score_must_lie_where_one_more_seed_would(environment, value, verdict, told):
    found = held(row(), scored(value, environment=environment), OTHERS)
    assert (found.verdict, found.detail) == (verdict, told)
    assert found.interval.n == 3
    assert found.interval.half_width == pytest.approx(HALF, abs=1e-7)
    assert "Another CPU" in found.elsewhere[0] or "torch 2.9.0 -> 3.0" in found.elsewhere[0]


def test_with_few_published_seeds_nothing_is_said():
    found = held(row(), scored(0.1, environment=ELSEWHERE), OTHERS[: FEWEST_SEEDS - 1])
    assert found.verdict == "undecided"
    assert "2 published runs of other seeds; an interval needs 3" in found.detail


def test_seeds_of_one_score_tell_nothing_of_another():
    alike = [scored(0.86, seed=seed) for seed in (1, 2, 3)]
    assert held(row(), scored(0.87, environment=ELSEWHERE), alike).verdict == "undecided"
    same = row(environment=ELSEWHERE, final_weights_hash="0" * 64)
    assert held(row(), same, alike).verdict == "within"


@pytest.mark.parametrize("value", [None, math.nan])
def test_without_a_score_it_differs(value):
    assert held(row(), scored(value, environment=ELSEWHERE), OTHERS).verdict == "differs"
    assert held(row(), scored(value), OTHERS).verdict == "differs"


def test_a_job_that_fails_or_never_ran_is_not_run():
    failed = make_record(job=make_job(), outcome=make_failure())
    assert held(row(), failed, OTHERS).verdict == "not run"
    assert "out_of_memory" in held(row(), failed, OTHERS).detail
    assert held(row(), None, OTHERS).verdict == "not run"


def test_other_seeds_are_of_the_same_job_in_all_else_and_finished():
    mine = make_job(seed=0)
    same = [make_job(seed=seed) for seed in (2, 1)]
    unlike = [
        make_job(seed=3, suite_version=2),
        make_job(seed=3, recipe=make_recipe(learning_rate=1e-3)),
        make_job(seed=3, task="stsb"),
        make_job(seed=3, purpose="tuning"),
        make_job(seed=3, threads=2),
        make_job(seed=3, method="dora"),
    ]
    rows = [make_record(job=job) for job in (mine, *same, *unlike)]
    rows.append(make_record(job=make_job(seed=4), outcome=make_failure()))
    found = other_seeds(rows[0], rows)
    assert [other.job for other in found] == same[::-1]


# --- the sample -----------------------------------------------------------------------------------

ROWS = make_matrix([LORA, ADALORA, HEAD], ["sst2", "stsb"], range(3))


def test_a_sample_has_unlike_cells_and_tasks_before_it_has_like_ones():
    two = sample(ROWS, 2)
    assert len({row.job.cell for row in two}) == len({row.job.task for row in two}) == 2
    three = sample(ROWS, 3)
    assert three[:2] == two and len({row.job.cell for row in three}) == 3
    six = sample(ROWS, 6)
    assert len({(row.job.cell, row.job.task) for row in six}) == 6
    assert len(sample(ROWS, 99)) == len(ROWS)


def test_a_sample_begins_with_the_cheapest_and_is_always_the_same():
    assert sample(ROWS, 1)[0].wall_seconds == min(row.wall_seconds for row in ROWS)
    assert sample(ROWS[::-1], 4) == sample(ROWS, 4)
    same_time = [replace(row, wall_seconds=20.0) for row in ROWS]
    assert sample(same_time[::-1], 4) == sample(same_time, 4)


def test_a_sample_has_reported_rows_and_trials_where_there_are_no_others():
    def purposed(purpose, seconds):
        return make_record(job=make_job(purpose=purpose), wall_seconds=seconds)

    trial, repeat, reported = (
        purposed("tuning", 1.0),
        purposed("repeat", 2.0),
        purposed("report", 30.0),
    )
    assert sample([trial, repeat, reported], 3) == [reported]
    assert sample([trial, repeat], 3) == [trial]
    assert sample([repeat], 3) == []

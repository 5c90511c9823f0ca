"""The gate on errors and costs, of which less is better, and on metrics of one's own."""

from __future__ import annotations

from dataclasses import replace

import pytest

from errors_rows import COST, GAIN
from gated import by_new_code, make_side
from gated import declared as judge
from peftmark.core.errors import Exit
from peftmark.gate.policy import Policy

POLICY = Policy()


def sides(metric, before, after, baseline=40.0, seeds=5, **policy):
    """The verdict on one task whose runs moved from one level to another, with a little noise."""

    def side(level, make):
        return make_side(
            tasks=("prices",),
            seeds=seeds,
            change=lambda x: make(
                x,
                metric=metric,
                value=level * (1 + 0.001 * x.seed),
                baseline_value=baseline,
                steps_to_target=60,
            ),
        )

    return judge(side(after, by_new_code), side(before, replace), Policy(**policy))


@pytest.mark.parametrize("metric", ["rmse", "mae", COST])
def test_an_error_that_rises_is_a_regression_and_one_that_falls_an_improvement(metric):
    worse, better = sides(metric, 16.0, 24.0), sides(metric, 24.0, 16.0)
    assert worse.code == Exit.REGRESSION
    assert {c.verdict for c in worse.cells} == {"worse"}
    assert better.code == Exit.OK
    assert {f.kind for f in better.findings} == {"improved"}
    assert worse.cells[0].change.difference < 0 < better.cells[0].change.difference
    (task,) = worse.cells[0].tasks
    assert task.verdict == "worse" and task.change.difference == pytest.approx(-8.0, rel=0.01)


@pytest.mark.parametrize("metric", ["accuracy", GAIN])
def test_a_score_that_falls_is_a_regression(metric):
    assert sides(metric, 0.9, 0.8, 0.5).code == Exit.REGRESSION
    assert sides(metric, 0.8, 0.9, 0.5).code == Exit.OK


def test_a_finding_names_the_metric_and_its_direction():
    found = {f.check: f.sentence for f in sides("rmse", 16.0, 24.0).findings}
    assert found["quality.task"].startswith("RMSE (lower is better) on prices from 16.032 to 24.0")
    assert "(+8.0" in found["quality.task"]
    assert found["quality.overall"].startswith("score as a share of the way")
    cost = {f.check: f.sentence for f in sides(COST, 16.0, 24.0).findings}
    assert cost["quality.overall"].startswith("cost (lower is better) from 16.032 to 24.0")


def test_a_margin_is_a_share_of_the_way_whatever_the_unit():
    for unit in (1e-3, 1.0, 1e6):
        # A hundredth of the way from 40 to 0 is 0.4.
        near = sides("rmse", 16.0 * unit, 16.3 * unit, 40.0 * unit, margin=0.01)
        far = sides("rmse", 16.0 * unit, 16.5 * unit, 40.0 * unit, margin=0.01)
        assert (near.code, far.code) == (Exit.OK, Exit.REGRESSION), unit
        checks = {f.check for f in far.findings if f.kind == "regression"}
        assert checks == {"quality.overall", "quality.task"}


def test_without_points_every_drop_that_is_shown_counts_and_limits_decide_nothing():
    assert sides(COST, 1e6, 1e6 + 3).code == Exit.REGRESSION
    few = sides(COST, 16.0, 24.0, seeds=2, few_seeds_limit=0.5)
    assert few.code == Exit.UNDECIDED
    assert sides("accuracy", 0.8, 0.2, 0.5, seeds=2, few_seeds_limit=0.5).code == Exit.REGRESSION
    strict = sides(COST, 24.0, 23.9, quality="non-inferior")
    assert strict.code == Exit.UNDECIDED
    assert "no margin in points means anything" in " ".join(f.sentence for f in strict.findings)


def test_a_metric_of_ones_own_stays_out_of_the_mean_and_is_tested_on_its_task():
    def side(level, make):
        metrics = {"prices": ("rmse", 16.0, 40.0), "bills": (COST, level, 900.0)}

        def change(x):
            metric, value, baseline = metrics[x.task]
            scored = value * (1 + 0.001 * x.seed)
            return make(x, metric=metric, value=scored, baseline_value=baseline)

        return make_side(tasks=("prices", "bills"), change=change)

    gate = judge(side(500.0, by_new_code), side(400.0, replace), POLICY)
    assert gate.code == Exit.REGRESSION
    assert {f.check for f in gate.findings if f.kind == "regression"} == {"quality.task"}
    assert gate.cells[0].change.difference == 0


def alone(metrics, seeds, **policy):
    """A gate over two tasks: name -> metric, score before and after, constant guess."""

    def side(at, make):
        def change(x):
            metric, before, after, baseline = metrics[x.task]
            scored = (before, after)[at] * (1 + 0.001 * x.seed)
            return make(x, metric=metric, value=scored, baseline_value=baseline)

        return make_side(tasks=tuple(metrics), seeds=seeds, change=change)

    return judge(side(1, by_new_code), side(0, replace), Policy(**policy))


@pytest.mark.parametrize("seeds", [1, 2, 3, 4, 5])
@pytest.mark.parametrize(
    "metrics",
    [
        {"bills": (COST, 16.0, 1600.0, None), "sales": (GAIN, 0.9, 0.1, None)},
        {"prices": ("rmse", 16.0, 16.0, 40.0), "bills": (COST, 400.0, 40_000.0, 900.0)},
    ],
    ids=["no common scale", "left out of the mean"],
)
def test_a_task_in_no_mean_never_passes_with_a_drop(metrics, seeds):
    gate = alone(metrics, seeds)
    assert gate.code in (Exit.UNDECIDED, Exit.REGRESSION)
    assert (gate.code == Exit.REGRESSION) == (seeds >= 3)
    found = [f for f in gate.findings if f.check == "quality.task"]
    assert found and all(f.kind in ("undecided", "regression") for f in found)
    same = {task: (m, before, before, base) for task, (m, before, _, base) in metrics.items()}
    assert (alone(same, seeds).code == Exit.OK) == (seeds >= 3)
    assert alone(metrics, seeds, quality="advisory").code == Exit.OK


def test_a_task_in_no_mean_is_undecided_where_drops_have_to_be_ruled_out():
    same = {"bills": (COST, 16.0, 16.0, None), "sales": (GAIN, 0.9, 0.9, None)}
    gate = alone(same, 5, quality="non-inferior")
    assert gate.code == Exit.UNDECIDED
    assert {f.check for f in gate.findings if f.kind == "undecided"} == {"quality.non-inferior"}

"""Claims on scores of which less is better."""

from __future__ import annotations

import pytest

from claimed import A, B, build, claim, difference, order, rows
from peftmark.claims.verdicts import verdicts

LOW, HIGH = [0.80, 0.82, 0.83], [0.95, 0.96, 0.99]


def one(metric, a, b, *tests, tasks=("sst-2",)):
    job = {"metric": metric}
    found = [r for t in tasks for r in (*rows(A, a, t, job=job), *rows(B, b, t, job=job))]
    return verdicts(build(found), [claim(*tests)])[0]


@pytest.mark.parametrize(
    ("metric", "a", "b", "kind"),
    [
        ("rmse", LOW, HIGH, "reproduced"),
        ("rmse", HIGH, LOW, "contradicted"),
        ("log_loss", LOW, HIGH, "reproduced"),
        ("mine.costs:cost:lower", HIGH, LOW, "contradicted"),
        ("accuracy", HIGH, LOW, "reproduced"),
        ("accuracy", LOW, HIGH, "contradicted"),
    ],
)
def test_an_order_is_best_first_whichever_side_is_better(metric, a, b, kind):
    verdict = one(metric, a, b, order(A, B))
    assert verdict.kind == kind
    (pair,) = verdict.parts[0].pairs
    assert (pair.low > 0) == (kind == "reproduced")


def test_a_claimed_difference_of_scores_is_not_held_against_errors():
    verdict = one("rmse", LOW, HIGH, difference(at_least=0.0))
    assert verdict.kind == "not comparable"
    assert "higher is better, unlike RMSE" in verdict.parts[0].reason


def test_errors_in_units_of_their_own_have_no_mean_over_tasks():
    verdict = one("rmse", LOW, HIGH, order(A, B), tasks=("sst-2", "trec"))
    assert verdict.kind == "not comparable"
    assert verdict.parts[0].reason == (
        "a mean of RMSE over tasks means nothing: each has its own unit"
    )
    assert one("accuracy", HIGH, LOW, order(A, B), tasks=("sst-2", "trec")).kind == "reproduced"

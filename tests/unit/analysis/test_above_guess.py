"""One run against every constant guess, by its rows; right values are counted by hand."""

import random

import pytest

from factory import make_job, make_outcome, make_record
from peftmark.analysis.above_guess import FEWEST, above_guess
from peftmark.analysis.stats import chance_of_hits
from peftmark.record.outcome import numbers

ALPHA = 0.025


def run(value, guess, rows, metric="accuracy", found=(), wanted=()):
    outcome = make_outcome(
        metric_value=value,
        baseline_value=guess,
        eval_rows=rows,
        predictions=numbers(found),
        references=numbers(wanted),
    )
    return make_record(job=make_job(metric=metric), outcome=outcome)


def test_the_chance_of_hits_by_hand():
    assert chance_of_hits(4, 4, 0.5) == 1 / 16
    assert chance_of_hits(3, 4, 0.5) == pytest.approx(5 / 16)
    assert chance_of_hits(0, 4, 0.5) == 1.0
    with pytest.raises(ValueError, match="5 hits of 4 rows"):
        chance_of_hits(5, 4, 0.5)


@pytest.mark.parametrize(
    ("value", "guess", "rows", "shown"),
    [
        (1.0, 1 / 3, 4, True),  # 3^-4 = 0.012
        (1.0, 1 / 3, 3, False),  # 0.037
        (0.6, 0.5, 100, False),  # 60 of 100: 0.0284
        (0.61, 0.5, 100, True),  # 0.0176
        (0.5, 0.5, 10_000, False),
        (0.4, 0.5, 10_000, False),
        (1.0, None, 100, False),
        (1.0, 0.5, None, False),
        (0.605, 0.5, 100, False),  # 60 whole rows, rounded down
    ],
)
def test_a_share_of_rows_has_an_exact_bound(value, guess, rows, shown):
    assert above_guess(run(value, guess, rows), ALPHA) is shown


def test_the_bound_is_that_of_clopper_and_pearson():
    """Their one-sided lower bound of 61 of 100 at 97.5 % is 0.5074."""
    assert chance_of_hits(61, 100, 0.5073) < 0.025 < chance_of_hits(61, 100, 0.5076)


def test_a_run_that_predicts_one_class_is_never_above():
    """The training rows' commonest class is another one here, so a guess of 0.3 is beaten by one
    that knows better."""
    wanted = [0] * 140 + [1] * 60
    assert not above_guess(run(0.7, 0.3, 200, found=[0] * 200, wanted=wanted), ALPHA)
    assert above_guess(run(0.8, 0.3, 200, found=[0] * 200, wanted=wanted), ALPHA)
    mcc = run(0.0, -0.1, 200, "matthews_correlation", [0] * 200, wanted)
    assert not above_guess(mcc, ALPHA)


def test_references_that_are_no_labels_of_these_rows_are_not_counted():
    assert above_guess(run(0.5, 0.1, 100, "exact_match", wanted=[1] * 100), ALPHA)
    assert not above_guess(run(1.0, 0.1, 100, wanted=[0, 1, 2] * 10), ALPHA)
    pairs = [0, 1, 1, 0] * 50  # of two labels a row, half of the rows have 0 1
    assert above_guess(run(0.7, 0.4, 100, "subset_accuracy", pairs, pairs), ALPHA)
    assert not above_guess(run(0.55, 0.4, 100, "subset_accuracy", pairs, pairs), ALPHA)


LABELS = [0, 1, 1, 2] * 15
SCORES = [row % 10 for row in range(60)]


@pytest.mark.parametrize(
    ("metric", "value", "guess", "wanted"),
    [
        ("matthews_correlation", 1.0, 0.0, LABELS),
        ("macro_f1", 1.0, 0.22, LABELS),
        ("weighted_f1", 1.0, 0.33, LABELS),
        ("balanced_accuracy", 1.0, 1 / 3, LABELS),
        ("f1", 1.0, 0.67, [0, 1] * 30),
        ("pearson", 1.0, 0.0, SCORES),
        ("spearmanr", 1.0, 0.0, SCORES),
        ("rmse", 0.0, 2.87, SCORES),
        ("mae", 0.0, 2.5, SCORES),
    ],
)
def test_other_metrics_are_computed_again_on_rows_drawn(metric, value, guess, wanted):
    """A perfect run is above; one that has nothing to do with the rows isn't, though it claims it,
    and neither is a perfect one of few rows."""
    assert above_guess(run(value, guess, 60, metric, wanted, wanted), ALPHA)
    shuffled = random.Random(1).sample(wanted, 60)
    assert not above_guess(run(value, guess, 60, metric, shuffled, wanted), ALPHA)
    few = wanted[: FEWEST - 1]
    assert not above_guess(run(value, guess, FEWEST - 1, metric, few, few), ALPHA)


def test_classes_drawn_at_random_are_not_above_though_their_macro_f1_is():
    """A constant has 2 · 0.5 / 1.5 / 3 = 0.222 here, classes drawn as they are common a third."""
    drawn = random.Random(1).sample(LABELS * 10, 600)
    assert not above_guess(run(0.33, 0.222, 600, "macro_f1", drawn, LABELS * 10), ALPHA)


@pytest.mark.parametrize("metric", ["auroc", "log_loss", "log_likelihood", "rouge_l", "own.one:f"])
def test_what_rows_do_not_tell_is_not_shown(metric):
    value, guess = (0.0, 5.0) if metric == "log_loss" else (1.0, 0.0)
    assert not above_guess(run(value, guess, 60, metric, SCORES, SCORES), ALPHA)


def test_a_metric_without_stored_predictions_is_not_shown():
    assert not above_guess(run(1.0, 0.0, 60, "matthews_correlation"), ALPHA)

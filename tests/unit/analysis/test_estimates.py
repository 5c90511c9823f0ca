import math
import random

import pytest

from peftmark.analysis.stats import (
    Estimate,
    geometric_mean,
    prediction_interval,
    sign,
    t_interval,
)


def test_t_interval_of_three_values_by_hand():
    # mean 2, s = 1, t(0.975, 2) = 4.302653 (tables), 4.302653 / sqrt(3) = 2.484138
    estimate = t_interval([1.0, 2.0, 3.0])
    assert estimate.mean == 2.0
    assert estimate.half_width == pytest.approx(2.484138, abs=1e-6)
    assert estimate.n == 3
    assert (estimate.low, estimate.high) == pytest.approx((-0.484138, 4.484138), abs=1e-6)


def test_t_interval_of_two_values_by_hand():
    # t(0.975, 1) = 12.7062, s = 0.1 * sqrt(2), so the half-width is 12.7062 * 0.1
    assert t_interval([0.4, 0.6]).half_width == pytest.approx(1.27062, abs=1e-5)


def test_a_further_value_lies_in_a_wider_interval_by_hand():
    # mean 2, s = 1, t(0.975, 2) = 4.302653, 4.302653 * sqrt(1 + 1/3) = 4.968275
    further = prediction_interval([1.0, 2.0, 3.0])
    assert (further.mean, further.n) == (2.0, 3)
    assert further.half_width == pytest.approx(4.968275, abs=1e-6)
    assert prediction_interval([0.7]) == Estimate(0.7, None, 1)


def test_nineteen_of_twenty_further_values_lie_in_their_interval():
    draw = random.Random(5)
    inside = 0
    for _ in range(4000):
        *known, further = (draw.gauss(0.8, 0.02) for _ in range(5))
        interval = prediction_interval(known)
        inside += interval.low <= further <= interval.high
    assert 0.94 < inside / 4000 < 0.96


def test_level_changes_the_quantile():
    # t(0.95, 2) = 2.919986
    half = t_interval([1.0, 2.0, 3.0], level=0.9).half_width
    assert half == pytest.approx(2.919986 / math.sqrt(3), abs=1e-6)


def test_one_value_has_no_interval():
    assert t_interval([0.7]) == Estimate(0.7, None, 1)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_t_interval_refuses_what_has_no_mean(values):
    with pytest.raises(ValueError):
        t_interval(values)


@pytest.mark.parametrize(
    ("estimate", "expected"),
    [
        (Estimate(0.02, 0.01, 3), "higher"),
        (Estimate(-0.02, 0.01, 3), "lower"),
        (Estimate(0.01, 0.01, 3), "undecided"),
        (Estimate(-0.01, 0.02, 3), "undecided"),
        (Estimate(0.5, None, 1), "no interval"),
        (Estimate(0.01, 0.0, 2), "no interval"),
        (Estimate(0.0, 0.0, 2), "undecided"),
    ],
)
def test_sign(estimate, expected):
    assert sign(estimate) == expected


def test_geometric_mean_by_hand():
    assert geometric_mean([1.0, 4.0, 16.0]) == pytest.approx(4.0)
    assert geometric_mean([0.5, 2.0]) == pytest.approx(1.0)


@pytest.mark.parametrize("values", [[], [1.0, 0.0], [-1.0], [math.nan]])
def test_geometric_mean_refuses_what_has_no_logarithm(values):
    with pytest.raises(ValueError):
        geometric_mean(values)

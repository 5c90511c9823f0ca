"""How figures are written: with the digits that they support."""

from __future__ import annotations

import pytest

from peftmark.analysis.stats import Estimate
from peftmark.gate.result import Change
from peftmark.gate.show import moved, scores
from peftmark.render import words


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.000421, "0.000421"),
        (-0.000421, "−0.000421"),
        (0.0412, "0.0412"),
        (0.4123, "0.412"),
        (1.2341, "1.234"),
        (41.234, "41.23"),
        (412.34, "412.3"),
        (41234.5, "41,234"),
        (0.0, "0.000"),
    ],
)
def test_values_in_a_unit_of_their_own_have_the_digits_of_their_size(value, shown):
    assert words.score("rmse", value) == shown
    assert words.score("costs:euros:lower", value) == shown


@pytest.mark.parametrize("metric", ["accuracy", "pearson", "", "unheard-of"])
def test_shares_and_correlations_have_three_decimals_whatever_their_size(metric):
    assert words.score(metric, 0.000421) == "0.000"
    assert words.plus_minus(estimate(0.8431, 0.0002), metric) == "0.843 ± 0.000"


def estimate(mean, half):
    return Estimate(mean, half, 3)


def test_a_mean_has_the_digits_that_its_interval_supports():
    assert words.plus_minus(estimate(0.000421, 0.00003), "rmse") == "0.000421 ± 0.000030"
    assert words.plus_minus(estimate(412.34, 0.521), "rmse") == "412.34 ± 0.52"
    assert words.plus_minus(estimate(1.2341, 0.0123), "rmse", signed=True) == "+1.234 ± 0.012"


def test_a_gate_shows_them_likewise():
    change = Change(0.000421, 0.000523, -0.0001, -0.00011, -0.00009, seeds=3, metric="rmse")
    assert scores(change) == "0.000421 → 0.000523"
    assert moved(change) == "−0.000100 ± 0.000010 (3 seeds)"

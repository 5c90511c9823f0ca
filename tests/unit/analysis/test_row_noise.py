import math
import sys

import numpy as np
import pytest
from scipy import stats

from peftmark.analysis.stats import (
    Comparison,
    Estimate,
    bootstrap_rows,
    compare,
    row_noise,
    two_level,
)


def test_row_noise_by_hand():
    # Averages over two seeds: 0.5, 0, −0.5, 0. Their standard deviation is sqrt(0.5 / 3).
    per_row = np.array([[1.0, 0.0, -1.0, 1.0], [0.0, 0.0, 0.0, -1.0]])
    assert row_noise(per_row) == pytest.approx(math.sqrt(0.5 / 3) / 2)


def test_row_noise_is_the_standard_error_over_rows():
    per_row = np.random.default_rng(1).integers(-1, 2, size=(3, 50)).astype(float)
    assert row_noise(per_row) == pytest.approx(stats.sem(per_row.mean(axis=0)))


def test_row_noise_is_what_other_rows_would_give():
    # 2,000 sets of 40 rows with true per-row differences of spread 0.3, equal for every seed.
    rng = np.random.default_rng(2)
    means, noises = [], []
    for _ in range(2000):
        per_row = np.tile(0.3 * rng.standard_normal(40), (3, 1))
        means.append(per_row.mean())
        noises.append(row_noise(per_row))
    assert np.mean(noises) == pytest.approx(np.std(means), rel=0.06)


def test_row_noise_needs_rows():
    assert row_noise(np.ones((3, 1))) is None
    assert row_noise(np.ones((3, 5))) == 0
    for bad in (np.ones(4), np.ones((0, 4)), np.array([[math.nan, 1.0]])):
        with pytest.raises(ValueError):
            row_noise(bad)


def test_bootstrap_of_two_rows_by_hand():
    # The mean of rows 0 and 1, drawn twice, is 0, 1/2, 1/2 or 1: variance 1/8.
    found = bootstrap_rows(lambda w: w @ np.array([0.0, 1.0]) / 2, 2, 20_000, generator(1))
    assert found == pytest.approx(math.sqrt(1 / 8), rel=0.02)


def generator(seed):
    return np.random.default_rng(seed)


def test_bootstrap_of_a_mean_is_row_noise():
    values = generator(3).standard_normal(60)
    found = bootstrap_rows(lambda w: w @ values / 60, 60, 5000, generator(4))
    # The bootstrap divides by rows, not rows − 1.
    assert found == pytest.approx(row_noise(values[None, :]) * math.sqrt(59 / 60), rel=0.04)


@pytest.mark.slow
@pytest.mark.heavy
def test_bootstrap_of_a_correlation_is_scipy_s():
    rng = generator(5)
    x = rng.standard_normal(80)
    y = x + rng.standard_normal(80)

    def pearson(weights):
        mean_x, mean_y = weights @ x / 80, weights @ y / 80
        covariance = weights @ (x * y) / 80 - mean_x * mean_y
        return covariance / np.sqrt(
            (weights @ x**2 / 80 - mean_x**2) * (weights @ y**2 / 80 - mean_y**2)
        )

    assert pearson(np.ones((1, 80)))[0] == pytest.approx(stats.pearsonr(x, y)[0])
    expected = stats.bootstrap(
        (x, y),
        lambda a, b: stats.pearsonr(a, b)[0],
        paired=True,
        vectorized=False,
        n_resamples=2000,
        method="basic",
        rng=generator(6),
    )
    found = bootstrap_rows(pearson, 80, 5000, generator(7))
    assert found == pytest.approx(expected.standard_error, rel=0.08)


def test_bootstrap_draws_in_blocks_and_again_the_same(monkeypatch):
    shapes = []

    def statistic(weights):
        shapes.append(weights.shape)
        assert (weights.sum(axis=1) == 10).all()
        return weights[:, 0].astype(float)

    monkeypatch.setattr(sys.modules["peftmark.analysis.stats.row_noise"], "BLOCK", 70)
    first = bootstrap_rows(statistic, 10, 20, generator(1))
    assert shapes == [(7, 10), (7, 10), (6, 10)]
    assert first == bootstrap_rows(statistic, 10, 20, generator(1)) > 0


def test_bootstrap_has_no_answer_where_a_resample_has_none():
    def undefined(weights):
        return np.where(weights[:, 0] > 0, 1.0, math.nan)

    assert bootstrap_rows(undefined, 5, 100, generator(1)) is None
    assert bootstrap_rows(lambda w: w[:, 0] * 1.0, 1, 100, generator(1)) is None
    with pytest.raises(ValueError):
        bootstrap_rows(lambda w: w[:, 0] * 1.0, 5, 1, generator(1))
    with pytest.raises(ValueError):
        bootstrap_rows(lambda w: w, 5, 10, generator(1))


def test_two_levels_by_hand():
    # 1² + 1² = 2, df = 4 * 2² / 1² = 16, t(0.975, 16) = 2.119905.
    c = Comparison(Estimate(3.0, 2.776, 5), 0.04, 1.0, 4, 5)
    assert two_level(c, 1.0) == Estimate(3.0, pytest.approx(2.119905 * math.sqrt(2)), 5)


def test_without_row_noise_the_interval_stays():
    c = compare([[0.1, 0.3, 0.2], [0.5, 0.0, 0.1]])
    assert two_level(c, 0.0).half_width == pytest.approx(c.estimate.half_width)
    assert two_level(c, 0.5).half_width > c.estimate.half_width


@pytest.mark.parametrize(
    ("tasks", "row_se"), [([[0.1, 0.2]], None), ([[0.1]], 0.1), ([[0.0, 0.0]], 0.1)]
)
def test_two_levels_need_both(tasks, row_se):
    estimate = two_level(compare(tasks), row_se)
    assert estimate.half_width is None
    assert estimate.mean == compare(tasks).estimate.mean


@pytest.mark.parametrize("row_se", [math.nan, -0.1])
def test_two_levels_refuse_what_is_no_standard_error(row_se):
    with pytest.raises(ValueError):
        two_level(compare([[0.1, 0.2]]), row_se)


def test_two_levels_cover_other_seeds_and_other_rows():
    # The true mean is 0; a draw of rows shifts all seeds alike, and rows tell by how much.
    rng = generator(8)
    covered, naive = 0, 0
    for _ in range(2000):
        rows = rng.standard_normal(40)
        seeds = rows.mean() + 0.1 * rng.standard_normal(4)
        c = compare([seeds.tolist()])
        estimate = two_level(c, row_noise(rows[None, :]))
        covered += estimate.low <= 0 <= estimate.high
        naive += c.estimate.low <= 0 <= c.estimate.high
    assert 0.93 <= covered / 2000 <= 0.97
    assert naive / 2000 < 0.9

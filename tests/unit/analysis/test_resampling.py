import itertools
import math

import numpy as np
import pytest
from scipy import stats

from peftmark.analysis.stats import effect_size, sign_flip, sign_flip_floor, wilcoxon


def normal(seed, n, shift=0.4):
    return (shift + np.random.default_rng(seed).standard_normal(n)).tolist()


@pytest.mark.parametrize("n", [2, 3, 5, 9])
@pytest.mark.parametrize("seed", range(4))
def test_sign_flip_is_the_exact_permutation_test(n, seed):
    values = normal(seed, n)
    expected = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip(values) == pytest.approx(expected.pvalue)


def test_sign_flip_by_hand():
    # |sum| of (±1 ±2 ±4) is at least |1 + 2 − 4| = 1 for all 8 patterns, 7 for 2 of them.
    assert sign_flip([1.0, 2.0, -4.0]) == 1.0
    assert sign_flip([1.0, 2.0, 4.0]) == 0.25 == sign_flip_floor(3)
    # Sums of (±1 ±1 ±1): |sum| 3 for 2 of 8; a zero changes nothing.
    assert sign_flip([1.0, 1.0, 1.0, 0.0]) == 0.25


def test_sums_that_differ_in_rounding_tie():
    # In tenths (1, 2, −3, 4): |sum| is at least 4 for 8 of 16 patterns, three of them in floats
    # as 0.3999…
    assert sign_flip([0.1, 0.2, -0.3, 0.4]) == sign_flip([1.0, 2.0, -3.0, 4.0])
    steps = [0.3 - 0.2, 0.2 - 0.1, 0.1 - 0.2, 0.7 - 0.6]
    assert sign_flip(steps) == sign_flip([1.0, 1.0, -1.0, 1.0]) == 10 / 16


def test_sign_flip_of_degenerate_differences():
    assert sign_flip([]) is None
    assert sign_flip([0.0, 0.0]) == 1.0
    assert sign_flip([0.7]) == 1.0 == sign_flip_floor(1)
    with pytest.raises(ValueError):
        sign_flip([0.1, math.nan])
    with pytest.raises(ValueError):
        sign_flip_floor(0)


@pytest.mark.parametrize("n", range(1, 17))
def test_differences_of_one_sign_reach_the_floor(n):
    assert sign_flip([1.0 + 0.1 * i for i in range(n)]) == pytest.approx(sign_flip_floor(n))


def test_more_differences_draw_signs_from_an_explicit_generator():
    values = normal(3, 17, shift=0.5)
    assert sign_flip(values) is None
    drawn = sign_flip(values, np.random.default_rng(1))
    assert drawn == sign_flip(values, np.random.default_rng(1))
    sums = [abs(math.fsum(s)) for s in itertools.product(*((v, -v) for v in values))]
    exact = np.mean(np.array(sums) >= abs(math.fsum(values)) - 1e-9)
    assert 0.01 < exact < 0.5  # else the next line would not tell much
    assert drawn == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 20_000))


def test_drawn_signs_never_give_p_zero():
    assert sign_flip([1.0] * 60, np.random.default_rng(1)) == 1 / 20_001


@pytest.mark.parametrize("n", [1, 3, 5, 10, 30])
@pytest.mark.parametrize("seed", range(3))
def test_wilcoxon_is_scipy_s_without_ties(n, seed):
    values = normal(seed, n)
    expected = stats.wilcoxon(values, method="exact")
    assert wilcoxon(values) == pytest.approx(expected.pvalue)


@pytest.mark.parametrize(
    "values",
    [
        [1.0, 1.0, 1.0, -1.0],
        [0.1, 0.1, -0.2, 0.3, 0.3, 0.3],
        [0.0, 2.0, -1.0, 1.0, 0.0, 3.0, 3.0],
        [0.3 - 0.2, 0.2 - 0.1, 0.1 - 0.2, 0.7 - 0.5],
    ],
)
def test_wilcoxon_counts_all_signs_of_tied_ranks(values):
    kept = np.array([v for v in values if abs(v) > 1e-9])
    ranks = stats.rankdata(np.round(np.abs(kept), 9))
    seen = abs((np.sign(kept) * ranks).sum())
    patterns = np.array(list(itertools.product((1, -1), repeat=len(kept))))
    assert wilcoxon(values) == pytest.approx(np.mean(np.abs(patterns @ ranks) >= seen))


def test_wilcoxon_by_hand():
    # Five positive differences: 2 / 2^5.
    assert wilcoxon([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(0.0625)
    # Ranks 1.5, 1.5, 3 with the 3 negative: sums of positives are 0, 1.5 (2), 3 (2), 4.5 (2), 6,
    # seen 3, which is their middle: p = 1.
    assert wilcoxon([1.0, 1.0, -2.0]) == 1.0


def test_sizes_that_differ_in_rounding_tie():
    # Ranks 2, 2, 2, 4 with one 2 negative: 4 of 16 sums of negatives are at most 2.
    assert wilcoxon([0.3 - 0.2, 0.7 - 0.6, 0.1 - 0.2, 0.3]) == 0.5 == wilcoxon([1, 1, -1, 3])


def test_wilcoxon_of_degenerate_differences():
    assert wilcoxon([]) is None
    assert wilcoxon([0.0, 0.0, 0.0]) == 1.0
    assert wilcoxon([0.0, 0.5]) == 1.0
    with pytest.raises(ValueError):
        wilcoxon([math.inf, 1.0])


def test_effect_size_by_hand():
    # d_z = 2 / 1; with 2 degrees of freedom gamma(1) / (1 * gamma(1/2)) = 1 / sqrt(pi).
    assert effect_size([1.0, 2.0, 3.0]) == pytest.approx(2 / math.sqrt(math.pi))


def test_effect_size_has_hedges_correction():
    values = normal(5, 20)
    factor = 1 - 3 / (4 * 19 - 1)  # his approximation
    plain = np.mean(values) / np.std(values, ddof=1)
    assert effect_size(values) == pytest.approx(factor * plain, rel=1e-3)
    assert effect_size(values) != pytest.approx(plain, rel=1e-2)


def test_effect_size_is_right_on_average():
    draws = np.random.default_rng(7).standard_normal((20_000, 5)) + 1.0
    sizes = [effect_size(row) for row in draws.tolist()]
    assert np.mean(sizes) == pytest.approx(1.0, abs=4 * np.std(sizes) / math.sqrt(20_000))


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [0.5] * 4, [0.3 - 0.2, 0.2 - 0.1, 0.1]])
def test_effect_size_needs_a_spread(values):
    assert effect_size(values) is None

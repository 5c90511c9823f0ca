import math

import numpy as np
import pytest
from scipy import integrate, stats

from peftmark.analysis.stats import (
    Comparison,
    Estimate,
    bound,
    compare,
    equivalent,
    minimum_detectable_effect,
    seeds_to_decide,
    sign,
    t_interval,
)


def differences(seed, *sizes, spread=1.0):
    rng = np.random.default_rng(seed)
    return [(0.3 + spread * rng.standard_normal(n)).tolist() for n in sizes]


@pytest.mark.parametrize("n", [2, 3, 7])
def test_one_task_is_the_paired_t_test(n):
    (a,), (b,) = differences(1, n), differences(2, n)
    expected = stats.ttest_rel(a, b)
    interval = expected.confidence_interval()
    c = compare([[x - y for x, y in zip(a, b, strict=True)]])
    assert (c.p, c.df, c.n) == (pytest.approx(expected.pvalue), n - 1, n)
    assert (c.estimate.low, c.estimate.high) == pytest.approx((interval.low, interval.high))


@pytest.mark.parametrize("n", [2, 3, 5, 10])
@pytest.mark.parametrize("tasks", [2, 4])
def test_several_tasks_are_the_t_test_of_their_means_within_each_seed(n, tasks):
    values = differences(3, *[n] * tasks)
    values[0] = [5 * x for x in values[0]]
    expected = stats.ttest_1samp(np.mean(values, axis=0), 0.0)
    interval = expected.confidence_interval(0.9)
    c = compare(values, level=0.9)
    assert (c.p, c.df, c.n) == (pytest.approx(expected.pvalue), n - 1, n)
    assert (c.estimate.low, c.estimate.high) == pytest.approx((interval.low, interval.high))
    assert c.se == pytest.approx(stats.sem(np.mean(values, axis=0)))


def test_three_tasks_by_hand():
    # Means of the seeds: 0, 1, 2. Mean 1, s = 1, SE = 1 / sqrt(3), t = sqrt(3); with 2 degrees of
    # freedom p = 1 - t / sqrt(2 + t**2) = 1 - sqrt(3 / 5), and t(0.975, 2) = 4.302653.
    c = compare([[1, 2, 3], [-2, 0, 2], [1, 1, 1]])
    assert c.estimate == Estimate(1.0, pytest.approx(4.302653 / math.sqrt(3), abs=1e-6), 3)
    assert (c.se, c.p) == pytest.approx((1 / math.sqrt(3), 1 - math.sqrt(3 / 5)))
    assert (c.df, c.n) == (2, 3)


def test_tasks_that_vary_together_have_a_wider_interval_than_tasks_that_vary_apart():
    # The same differences on each task, in another order on the second.
    together = compare([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    apart = compare([[1.0, 2.0, 3.0], [3.0, 1.0, 2.0]])
    assert together.estimate.mean == apart.estimate.mean == 2.0
    # Means of the seeds: 1, 2, 3 with s = 1, and 2, 1.5, 2.5 with s = 0.5.
    assert together.se == pytest.approx(1 / math.sqrt(3))
    assert apart.se == pytest.approx(0.5 / math.sqrt(3))


def test_a_sign_turned_turns_the_mean_alone():
    (a,) = differences(4, 5)
    c, turned = compare([a]), compare([[-x for x in a]])
    assert turned.estimate.mean == -c.estimate.mean
    assert (turned.p, turned.se) == (c.p, c.se)


def test_all_zero_differences_are_no_difference_without_a_spread():
    c = compare([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    assert c == Comparison(Estimate(0.0, 0.0, 3), 1.0, None, None, 3)
    assert sign(c.estimate) == "undecided"


@pytest.mark.parametrize(
    "tasks",
    [
        [[0.5, 0.5, 0.5]],
        [[0.5, 0.5], [0.0, 0.0]],
        [[0.3 - 0.2, 0.2 - 0.1, 0.4 - 0.3]],  # equal but for rounding
        [[1e9 * 0.1, 1e9 * (0.3 - 0.2)]],
        [[0.5]],
        [[0.0]],
        [[0.1], [0.3]],
        [[0.1, 0.2], [0.2, 0.1]],  # seeds that differ on each task and not in their means
        [[0.4, -0.1], [-0.4, 0.1]],  # means of zero, but not without a difference
        [[1e8, 1e9 * (0.1 + 0.2)], [-1e8, -1e9 * 0.3]],  # means of zero but for rounding
    ],
)
def test_without_a_usable_spread_there_is_no_interval(tasks):
    c = compare(tasks)
    assert (c.estimate.half_width, c.p, c.se, c.df) == (None, None, None, None)
    assert c.estimate.mean == pytest.approx(np.mean(tasks))
    assert sign(c.estimate) == "no interval"


@pytest.mark.parametrize("tasks", [[], [[]], [[1.0, 2.0], []], [[math.nan, 1.0]], [[math.inf]]])
def test_compare_refuses_what_has_no_mean(tasks):
    with pytest.raises(ValueError):
        compare(tasks)


@pytest.mark.parametrize("tasks", [[[1.0, 2.0, 3.0], [1.0, 2.0]], [[0.0], [0.0, 0.0], [0.0]]])
def test_compare_refuses_tasks_with_other_seeds_than_one_another(tasks):
    with pytest.raises(ValueError, match="other seeds"):
        compare(tasks)


def test_bound_is_the_interval_at_another_level():
    (a,) = differences(5, 6)
    c = compare([a])
    for level in (0.5, 0.9, 0.99):
        expected = t_interval(a, level)
        assert bound(c, level) == pytest.approx((expected.low, expected.high))
    assert bound(c) == pytest.approx((c.estimate.low, c.estimate.high))
    assert bound(compare([[1.0]])) is None


def test_equivalence_by_hand():
    # Mean 2, se = sqrt(2/3) / 2 = 0.408248, 3 degrees of freedom. The upper of the two one-sided
    # tests decides: t = (3 − 2) / se = 2.449 beyond t(0.95, 3) = 2.353; margin 2.9 gives 2.205.
    c = compare([[1.0, 2.0, 3.0, 2.0]])
    assert equivalent(c, 3.0) and not equivalent(c, 2.9)
    assert equivalent(c, 2.965) and not equivalent(c, 2.955)  # 2 + 2.353 * 0.408 = 2.9607
    assert not equivalent(c, 3.0, alpha=0.04)
    assert equivalent(compare([[-1.0, -2.0, -3.0, -2.0]]), 3.0)


@pytest.mark.parametrize("margin", [0.1, 0.5, 0.8, 1.2, 2.0])
def test_equivalence_is_two_one_sided_tests(margin):
    for seed in range(20):
        (a,) = differences(seed, 5, spread=0.6)
        above = stats.ttest_1samp(a, -margin, alternative="greater").pvalue
        below = stats.ttest_1samp(a, margin, alternative="less").pvalue
        assert equivalent(compare([a]), margin) == (max(above, below) < 0.05)


def test_equivalence_fails_closed():
    assert not equivalent(compare([[0.0, 0.0, 0.0]]), 1.0)
    assert not equivalent(compare([[0.0]]), 1.0)
    for margin in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError):
            equivalent(compare([[0.1, 0.2]]), margin)


def unit(n):
    """A comparison whose differences have standard deviation 1."""
    return Comparison(Estimate(0.0, 1.0, n), 1.0, 1 / math.sqrt(n), n - 1, n)


@pytest.mark.parametrize(
    ("n", "expected"),
    [(3, 2.30), (4, 1.65), (5, 1.36), (6, 1.19), (8, 0.98), (10, 0.85), (20, 0.58)],
)
def test_minimum_detectable_effect_of_known_sizes(n, expected):
    # Known for a one-sided test at 0.05, which is the two-sided one at 0.10 but for the far tail.
    assert minimum_detectable_effect(unit(n), alpha=0.10) == pytest.approx(expected, abs=0.005)


def power(spread, seeds, effect):
    """Chance that a t test finds an effect, integrated over the estimated standard error."""
    shift, df = effect / (spread / math.sqrt(seeds)), seeds - 1
    critical = stats.t.ppf(0.975, df)

    def both_sides(ratio):  # of the estimated to the true standard error
        return stats.norm.sf(critical * ratio - shift) + stats.norm.cdf(-critical * ratio - shift)

    chi = stats.chi(df, scale=1 / math.sqrt(df))
    return integrate.quad(lambda r: both_sides(r) * chi.pdf(r), 0, 6, limit=200, points=[1])[0]


@pytest.mark.parametrize("n", [3, 10])
@pytest.mark.parametrize("wanted", [0.5, 0.8, 0.95])
def test_minimum_detectable_effect_has_the_power_that_was_asked_for(n, wanted):
    effect = minimum_detectable_effect(unit(n), power=wanted)
    assert power(1.0, n, effect) == pytest.approx(wanted, abs=1e-4)


def test_minimum_detectable_effect_scales_with_the_spread():
    (a,) = differences(6, 5)
    small, large = compare([a]), compare([[10 * x for x in a]])
    one, ten = minimum_detectable_effect(small), minimum_detectable_effect(large)
    assert one > 0 and ten == pytest.approx(10 * one)
    assert minimum_detectable_effect(compare([[0.1]])) is None


@pytest.mark.parametrize(("effect", "expected"), [(0.5, 34), (0.8, 15), (1.0, 10)])
def test_seeds_to_decide_of_known_effects(effect, expected):
    # Textbook sizes of a paired t test, two-sided 0.05, power 0.8 (33.4, 14.3 and 9.9 rounded up).
    assert seeds_to_decide(unit(5), effect) == expected
    assert seeds_to_decide(unit(5), -effect) == expected


def test_seeds_to_decide_takes_the_effect_and_the_spread_of_the_seeds_seen():
    c = compare([[0.4, 1.4, 0.9, 0.9], [0.0, 1.6, 1.2, 0.8]])
    means = [0.2, 1.5, 1.05, 0.85]
    assert c.estimate.mean == pytest.approx(0.9)
    needed = seeds_to_decide(c)
    spread = np.std(means, ddof=1)
    assert power(spread, needed, 0.9) >= 0.8 > power(spread, needed - 1, 0.9)


def test_more_seeds_are_needed_for_less():
    c = unit(5)
    sizes = [seeds_to_decide(c, effect) for effect in (4.0, 2.0, 1.0, 0.3, 0.1)]
    assert sizes == sorted(sizes) and sizes[0] < sizes[-1]
    assert seeds_to_decide(c, 1.0, power=0.95) > seeds_to_decide(c, 1.0)
    assert seeds_to_decide(c, 1.0, alpha=0.01) > seeds_to_decide(c, 1.0)


def test_seeds_to_decide_has_no_answer_without_effect_or_spread_or_within_reach():
    assert seeds_to_decide(unit(5)) is None  # its mean is 0
    assert seeds_to_decide(unit(5), 0.01) is None
    assert seeds_to_decide(unit(5), 0.5, most=33) is None
    assert seeds_to_decide(unit(5), 0.5, most=34) == 34
    assert seeds_to_decide(unit(5), 100.0) == 2
    assert seeds_to_decide(compare([[0.5, 0.5]])) is None
    assert seeds_to_decide(compare([[0.5]])) is None

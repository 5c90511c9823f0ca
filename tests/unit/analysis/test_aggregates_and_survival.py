import math
import warnings

import numpy as np
import pytest
from scipy import stats

from peftmark.analysis.stats import (
    KmPoint,
    holm,
    interquartile_mean,
    kaplan_meier,
    median,
    probability_of_improvement,
    rank_ranges,
)


def test_holm_by_hand():
    # Sorted: 0.005 * 4 = 0.02, 0.01 * 3 = 0.03, 0.03 * 2 = 0.06, 0.04 * 1 is below the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx((0.03, 0.06, 0.06, 0.02))


def test_holm_stops_at_one_and_leaves_one_test_alone():
    assert holm([0.7, 0.6]) == (1.0, 1.0)
    assert holm([0.04]) == (0.04,)
    assert holm([]) == ()
    assert holm([0.02, 0.02]) == (0.04, 0.04)


def test_a_test_that_could_not_be_made_does_not_count():
    assert holm([None, 0.02, None, 0.5]) == (None, 0.04, None, 0.5)
    assert holm([None]) == (None,)


@pytest.mark.parametrize("ps", [[math.nan], [0.5, -0.1], [1.1]])
def test_holm_refuses_what_is_no_probability(ps):
    with pytest.raises(ValueError):
        holm(ps)


def test_holm_rejects_what_the_step_down_rule_rejects():
    rng = np.random.default_rng(1)
    for _ in range(200):
        ps = (rng.random(6) ** 3).tolist()
        rejected = set()
        for k, place in enumerate(np.argsort(ps)):
            if ps[place] > 0.05 / (6 - k):
                break
            rejected.add(place)
        assert {i for i, p in enumerate(holm(ps)) if p <= 0.05} == rejected


def test_rank_ranges_by_hand():
    # 0 beats 2 and 3; 1 beats 3; nothing else is shown.
    better = {(0, 2): True, (0, 3): True, (1, 3): True, (0, 1): False, (2, 0): False}
    assert rank_ranges(better, 4) == ((1, 2), (1, 3), (2, 4), (3, 4))


def test_rank_ranges_of_a_full_order_and_of_none():
    full = {(i, j): i < j for i in range(3) for j in range(3) if i != j}
    assert rank_ranges(full, 3) == ((1, 1), (2, 2), (3, 3))
    assert rank_ranges({}, 3) == ((1, 3),) * 3
    assert rank_ranges({}, 0) == ()


@pytest.mark.parametrize(
    "better", [{(0, 3): True}, {(0, 1): True, (1, 0): True}, {(1, 1): True}, {(-1, 0): True}]
)
def test_rank_ranges_refuse_what_is_no_order(better):
    with pytest.raises(ValueError):
        rank_ranges(better, 3)


def test_probability_of_improvement_is_the_u_statistic_over_its_pairs():
    rng = np.random.default_rng(2)
    a = [rng.integers(0, 6, size=n).tolist() for n in (5, 4)]
    b = [rng.integers(0, 6, size=n).tolist() for n in (3, 4)]
    shares = [
        stats.mannwhitneyu(x, y).statistic / (len(x) * len(y)) for x, y in zip(a, b, strict=True)
    ]
    assert probability_of_improvement(a, b) == pytest.approx(np.mean(shares))


def test_probability_of_improvement_by_hand():
    # Pairs of {1, 2} and {1, 3}: a tie, a loss, a win and a loss: (0.5 + 0 + 1 + 0) / 4.
    assert probability_of_improvement([[1, 2]], [[1, 3]]) == 0.375
    assert probability_of_improvement([[1, 2], [5]], [[1, 3], [4]]) == (0.375 + 1) / 2
    assert probability_of_improvement([[2.0, 2.0]], [[2.0]]) == 0.5


@pytest.mark.parametrize(
    ("a", "b"), [([], []), ([[1.0]], []), ([[1.0]], [[]]), ([[math.nan]], [[1.0]])]
)
def test_probability_of_improvement_refuses_what_it_cannot_pair(a, b):
    with pytest.raises(ValueError):
        probability_of_improvement(a, b)


@pytest.mark.parametrize("n", [4, 8, 40])
def test_interquartile_mean_is_scipy_s_where_quarters_are_whole(n):
    values = np.random.default_rng(n).standard_normal(n)
    assert interquartile_mean(values.tolist()) == pytest.approx(stats.trim_mean(values, 0.25))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([7.0], 7.0),
        ([1.0, 3.0], 2.0),
        ([9.0, 0.0, 1.0], (0.25 * 0 + 1 + 0.25 * 9) / 1.5),
        ([100.0, 4.0, 1.0, 3.0, -50.0], (0.75 * 1 + 3 + 0.75 * 4) / 2.5),
        ([1.0, 2.0, 3.0, 4.0, 5.0, 16.0], (0.5 * 2 + 3 + 4 + 0.5 * 5) / 3),
    ],
)
def test_interquartile_mean_cuts_parts_of_values(values, expected):
    assert interquartile_mean(values) == pytest.approx(expected)


@pytest.mark.parametrize("values", [[], [1.0, math.nan]])
def test_interquartile_mean_refuses_what_has_no_mean(values):
    with pytest.raises(ValueError):
        interquartile_mean(values)


def test_kaplan_meier_by_hand():
    # 5 runs: at 10 one of five is there; one is cut off at 20; at 30 one of three; at 40 one of
    # two and the other is cut off. Shares: 4/5, 4/5, 4/5 * 2/3 = 8/15, 8/15 * 1/2 = 4/15.
    points = kaplan_meier([10, 20, 30, 40, 40], [True, False, True, True, False])
    assert [(p.time, p.at_risk, p.reached) for p in points] == [
        (10, 5, 1),
        (20, 4, 0),
        (30, 3, 1),
        (40, 2, 1),
    ]
    assert [p.share for p in points] == pytest.approx([4 / 5, 4 / 5, 8 / 15, 4 / 15])
    # After 10: Greenwood's sum 1/(5*4) = 0.05, shift 1.959964 * sqrt(0.05) / −ln 0.8 = 1.964033,
    # 0.8 ** exp(±1.964033).
    assert (points[0].low, points[0].high) == pytest.approx((0.203809, 0.969180), abs=1e-6)
    assert median(points) == 40


@pytest.mark.parametrize("seed", range(5))
def test_kaplan_meier_is_scipy_s(seed):
    rng = np.random.default_rng(seed)
    times = rng.integers(1, 9, size=12).tolist()
    reached = (rng.random(12) < 0.6).tolist()
    there = [t for t, r in zip(times, reached, strict=True) if r]
    cut = [t for t, r in zip(times, reached, strict=True) if not r]
    curve = stats.ecdf(stats.CensoredData(uncensored=there, right=cut)).sf
    points = kaplan_meier(times, reached)
    with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
        interval = curve.confidence_interval(method="log-log")
    assert [p.share for p in points] == pytest.approx(curve.evaluate([p.time for p in points]))
    checked = 0
    for point in points:
        if point.low is None:
            assert point.share in (0, 1)
            continue
        checked += 1
        expected = [float(end.evaluate(point.time)) for end in (interval.low, interval.high)]
        assert (point.low, point.high) == pytest.approx(tuple(expected))
    assert checked >= 3


def test_runs_that_never_reach_the_target():
    assert kaplan_meier([5, 5], [False, False]) == (KmPoint(5, 2, 0, 1.0, None, None),)
    assert median(kaplan_meier([5, 5], [False, False])) is None
    assert median(kaplan_meier([3, 5, 5], [True, False, False])) is None
    assert kaplan_meier([], []) == () and median(()) is None


def test_runs_that_all_reach_it_end_at_zero_without_an_interval():
    points = kaplan_meier([1, 2, 2, 3], [True] * 4)
    assert [p.share for p in points] == [0.75, 0.25, 0.0]
    assert (points[-1].low, points[-1].high) == (None, None)
    assert median(points) == 2
    assert median(kaplan_meier([1, 2], [True, True])) == 1


@pytest.mark.parametrize(
    ("times", "reached"), [([1.0], []), ([math.nan], [True]), ([math.inf], [False]), ([-1], [True])]
)
def test_kaplan_meier_refuses_what_is_no_time(times, reached):
    with pytest.raises(ValueError):
        kaplan_meier(times, reached)

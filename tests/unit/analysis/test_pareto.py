"""Fronts of points that are only known within limits."""

import math

import pytest

from peftmark.analysis.pareto import Point, costs_no_more, gain, reigns, scores_more, standings

# Noise that the seeds of a task share, so that it cancels in pairs, and a little of each point.
SHARED = (0.00, 0.02, -0.01, 0.015, -0.02)
OWN = ((0.001, -0.001, 0.0, 0.002, -0.002), (-0.002, 0.001, 0.001, 0.0, -0.001))


def point(score, cost, *, noise=0, spread=1.0, exact=True, costs=None, seeds=5, task="a"):
    values = {s: score + SHARED[s] + spread * OWN[noise][s] for s in range(seeds)}
    costs = costs or [cost] * seeds
    return Point({task: values}, {task: dict(enumerate(costs))}, exact)


def words(*points):
    return [p.standing for p in standings(points)]


def test_a_point_is_off_only_if_another_is_shown_better_for_no_more():
    cheap_good, dear_bad = point(0.8, 10), point(0.7, 20, noise=1)
    places = standings([cheap_good, dear_bad])
    assert [p.standing for p in places] == ["on", "off"]
    assert [p.by for p in places] == [None, 0]


def test_who_judges_pairs_decides_what_is_off_and_who_reigns():
    points = [point(0.8, 10), point(0.7, 20, noise=1)]
    assert [p.standing for p in standings(points, lambda a, b: False)] == ["on", "possibly on"]
    assert reigns(points, lambda a, b: False) == ()
    assert [p.by for p in standings(points, lambda a, b: (a, b) == (0, 1))] == [None, 0]


def test_a_point_whose_difference_spans_zero_is_possibly_on():
    better, near = point(0.800, 10), point(0.7995, 20, noise=1, spread=5)
    assert not scores_more(better, near)
    assert words(better, near) == ["on", "possibly on"]


def test_each_that_costs_more_and_scores_more_is_on():
    assert words(point(0.7, 10), point(0.8, 20, noise=1), point(0.9, 30)) == ["on"] * 3


def test_equal_points_are_both_on():
    assert words(point(0.8, 10), point(0.8, 10)) == ["on", "on"]


def test_of_equal_scores_the_dearer_is_possibly_on_and_of_equal_costs_the_worse_is_off():
    assert words(point(0.8, 10), point(0.8, 20)) == ["on", "possibly on"]
    assert words(point(0.8, 10), point(0.7, 10, noise=1)) == ["on", "off"]


def test_one_seed_shows_nothing():
    assert words(point(0.9, 10, seeds=1), point(0.1, 20, noise=1, seeds=1)) == [
        "on",
        "possibly on",
    ]


def test_a_constant_difference_has_no_spread_and_shows_nothing():
    a, b = point(0.9, 10), point(0.8, 20)  # the same noise: the difference is 0.1 on every seed
    assert gain(a.scores, b.scores).se is None
    assert words(a, b) == ["on", "possibly on"]


def test_points_of_other_tasks_or_seeds_are_not_compared():
    a, b = point(0.9, 10), point(0.1, 20, noise=1, task="b")
    assert gain(a.scores, b.scores) is None
    assert words(a, b) == ["on", "possibly on"]
    c = Point({"a": {7: 0.1}}, {"a": {7: 20.0}}, True)
    assert gain(a.scores, c.scores) is None and gain({}, {}) is None


def test_points_are_compared_at_the_seeds_that_both_have_on_every_task():
    a = {"x": {2: 0.7, 0: 0.5, 1: 0.6}, "y": {1: 0.9, 2: 0.9, 3: 0.1}}
    b = {"x": {0: 0.1, 1: 0.4, 2: 0.6}, "y": {3: 0.8, 2: 0.6, 1: 0.7}}
    found = gain(a, b)  # seed 1: 0.2 and 0.2; seed 2: 0.1 and 0.3: no spread
    assert (found.n, found.estimate.mean, found.se) == (2, pytest.approx(0.2), None)
    a["x"][1] = 0.8  # seed 1: 0.4 and 0.2, its mean 0.3; s = 0.1 / sqrt(2), SE = 0.05
    found = gain(a, b)
    assert (found.estimate.mean, found.se) == (pytest.approx(0.25), pytest.approx(0.05))
    assert gain({"x": {0: 1.0}, "y": {1: 1.0}}, {"x": {0: 0.0}, "y": {1: 0.0}}) is None


def test_a_clocked_cost_must_be_shown_lower():
    noisy = point(0.9, 0, exact=False, costs=[10, 14, 9, 15, 8])
    near = point(0.7, 0, noise=1, exact=False, costs=[12, 11, 13, 10, 12])
    far = point(0.7, 0, noise=1, exact=False, costs=[40, 50, 45, 52, 38])
    assert not costs_no_more(noisy, near)
    assert words(noisy, near) == ["on", "possibly on"]
    assert costs_no_more(noisy, far) and not costs_no_more(far, noisy)
    assert words(noisy, far) == ["on", "off"]


def test_an_exact_cost_must_be_no_higher_on_every_task():
    a = Point({"x": {0: 0.9}, "y": {0: 0.9}}, {"x": {0: 10.0}, "y": {0: 30.0}}, True)
    b = Point({"x": {0: 0.8}, "y": {0: 0.8}}, {"x": {0: 20.0}, "y": {0: 29.0}}, True)
    assert a.cost < b.cost
    assert not costs_no_more(a, b)


def test_a_cost_is_averaged_geometrically_and_has_an_interval_over_seeds():
    p = Point(
        {"x": {0: 0.5, 1: 0.6}, "y": {0: 0.7, 1: 0.8}},
        {"x": {0: 1.0, 1: 4.0}, "y": {0: 16.0, 1: 4.0}},
    )
    assert p.quality == pytest.approx(0.65)
    assert p.cost == pytest.approx(4.0)  # means 2 and 8
    assert p.cost_range == pytest.approx((4.0, 4.0))  # 4 and 4 by seed
    low, high = point(0.8, 0, exact=False, costs=[9, 10, 11, 10, 10]).cost_range
    assert low < 10 < high and low * high == pytest.approx(9.979**2, rel=1e-3)
    assert point(0.8, 0, exact=False, costs=[9], seeds=1).cost_range is None
    assert point(0.8, 9, seeds=1).cost_range == pytest.approx((9, 9))


def test_a_point_reigns_below_the_first_that_is_not_shown_worse():
    points = [point(0.6, 5, noise=1), point(0.8, 10), point(0.7, 12, noise=1), point(0.9, 50)]
    # The dearest beats the first and the third too, but its rival, the second, costs less.
    assert gain(points[3].scores, points[1].scores).se is None
    (found,) = reigns(points)
    assert (found.point, found.beaten, found.below) == (1, (0, 2), pytest.approx(50))


def test_a_point_that_beats_all_reigns_at_any_cost():
    points = [point(0.6, 5, noise=1), point(0.8, 10)]
    assert [(r.point, r.beaten, r.below) for r in reigns(points)] == [(1, (0,), None)]


def test_nothing_reigns_where_nothing_is_shown_or_a_cost_is_unsure():
    assert reigns([point(0.9, 10, seeds=1), point(0.1, 5, noise=1, seeds=1)]) == ()
    assert reigns([]) == () and reigns([point(0.9, 10)]) == ()
    wide = point(0.8, 0, exact=False, costs=[10, 40, 5, 60, 8])
    worse = point(0.6, 0, noise=1, exact=False, costs=[9, 10, 11, 10, 10])
    rival = point(0.81, 0, exact=False, spread=9, costs=[30, 31, 30, 29, 30])
    assert wide.cost < rival.cost < wide.cost_range[1]
    assert all(r.point != 0 for r in reigns([wide, worse, rival]))


def test_the_interval_of_differences_not_those_of_the_means_decides():
    a, b = point(0.80, 10), point(0.79, 20, noise=1)
    spread = math.sqrt(sum(v**2 for v in SHARED) / 4)
    assert spread > 0.01  # the means' own intervals overlap
    assert words(a, b) == ["on", "off"]


def test_the_nearest_of_several_rivals_bounds_a_reign():
    rivals = [point(0.8002, 30, noise=1, spread=3), point(0.8003, 60, noise=1, spread=3)]
    (found,) = [r for r in reigns([point(0.8, 10), point(0.6, 5, noise=1), *rivals]) if not r.point]
    assert (found.beaten, found.below) == ((1,), pytest.approx(30))

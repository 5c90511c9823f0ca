"""Spreads over seeds, changes in two places, best learning rates: by hand, and what fails."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from claimed import A, B, C, best_rate, build, claim, interaction, row, rows, spread
from factory import make_recipe
from peftmark.analysis.stats import FEWEST_FOR_SPREAD, spread_ratio
from peftmark.catalog.methods import Cell
from peftmark.claims.curves import curve_variance, importance_alarms
from peftmark.claims.verdicts import verdicts
from peftmark.claims.wording import claimed, measured
from peftmark.record.outcome import CurvePoint

STILL = [0.80, 0.81, 0.79, 0.80, 0.81, 0.79]
WILD = [0.60, 0.90, 0.75, 0.95, 0.55, 0.80]


def part_of(records, test):
    ((part,),) = [v.parts for v in verdicts(build(records), [claim(test)])]
    return part


# --- spreads ------------------------------------------------------------------------------------


def test_an_interval_of_a_ratio_of_spreads_is_that_of_pitman_and_morgan():
    """The ends are the ratios for which the correlation of x + ly and x - ly is just not shown."""
    found = spread_ratio(STILL, WILD)
    assert found is not None
    x, y = np.array(STILL), np.array(WILD)
    assert found.ratio == pytest.approx(x.std(ddof=1) / y.std(ddof=1))
    for end in (found.low, found.high):
        r = np.corrcoef(x + end * y, x - end * y)[0, 1]
        p = 2 * stats.t.sf(abs(r) * math.sqrt(4 / (1 - r * r)), 4)
        assert p == pytest.approx(0.05, rel=1e-6)
    back = spread_ratio(WILD, STILL)
    assert back is not None
    assert (back.low, back.high) == pytest.approx((1 / found.high, 1 / found.low))


def test_the_interval_covers_as_often_as_its_level_says():
    """Pairs that go together, spreads 1 and 2: 2,000 draws, so 95 % to within 1.2."""
    rng = np.random.default_rng(1)
    common = rng.normal(size=(2000, 6))
    first = common + rng.normal(size=(2000, 6))
    second = 2 * (common + rng.normal(size=(2000, 6)))
    found = [spread_ratio(a, b) for a, b in zip(first, second, strict=True)]
    share = np.mean([f is not None and f.low <= 0.5 <= f.high for f in found])
    assert 0.938 < share < 0.962


def test_spreads_of_few_seeds_or_none_are_not_known():
    few = FEWEST_FOR_SPREAD - 1
    assert spread_ratio(STILL[:few], WILD[:few]) is None
    assert spread_ratio(STILL[: few + 1], WILD[: few + 1]) is not None
    assert spread_ratio([0.8] * 6, WILD) is None
    assert spread_ratio(WILD, [0.1 + 0.2] * 3 + [0.3] * 3) is None  # rounding is no spread
    with pytest.raises(ValueError, match="pairs of 6 and 5"):
        spread_ratio(STILL, WILD[:5])
    with pytest.raises(ValueError, match="finite"):
        spread_ratio(STILL, [*WILD[:5], math.nan])


@pytest.mark.parametrize(
    ("first", "second", "limits", "kind"),
    [
        (STILL, WILD, {"at_most": 0.5}, "reproduced"),
        (WILD, STILL, {"at_most": 0.5}, "contradicted"),
        (STILL, WILD, {"at_most": 0.05}, "undecided"),
        (STILL[:3], WILD[:3], {"at_most": 0.5}, "undecided"),
    ],
)
def test_a_spread_is_claimed_of_two_cells(first, second, limits, kind):
    part = part_of([*rows(A, first), *rows(B, second)], spread(**limits))
    assert part.kind == kind
    if len(first) == 3:
        assert part.reason == "an interval of spreads needs at least 4 seeds"
        assert part.settle == part.reason
    else:
        assert part.direction == (kind if kind != "undecided" else "reproduced")


def test_spreads_are_of_the_means_over_tasks():
    """Two tasks whose noise goes opposite ways have a mean that hardly varies."""
    other = [1.6 - v for v in WILD]
    shifted = [v + 0.001 * n for n, v in enumerate(other)]
    records = [*rows(A, WILD), *rows(A, shifted, "mrpc"), *rows(B, WILD), *rows(B, WILD, "mrpc")]
    part = part_of(records, spread(at_most=0.1))
    assert (part.kind, part.seeds) == ("reproduced", 6)


def test_a_spread_in_words():
    part = part_of([*rows(A, STILL), *rows(B, WILD)], spread(at_most=0.5))
    assert part.test is not None
    assert claimed(part.test) == "spread over seeds of score, AdaLoRA r8 / LoRA r8: at most 0.500×"
    assert measured(part).startswith("0.056× (0.018× to 0.172×")


# --- changes in two places ----------------------------------------------------------------------

D = Cell("ia3", None, "nf4")


def four(a, b, c, d, seeds=4):
    """Scores of A, B, C and D with a little noise, other for each."""
    noise = [(0.001, -0.001, 0.0, 0.0005), (0.0, 0.001, -0.001, 0.0005)]
    noise += [(0.0, 0.0, 0.001, -0.001), (-0.001, 0.001, 0.0005, 0.0)]
    found = []
    for n, (cell, score) in enumerate(zip((A, B, C, D), (a, b, c, d), strict=True)):
        found += rows(cell, [score + noise[n][s] for s in range(seeds)])
    return found


def two_by_two(**limits):
    test = interaction([A, B], [C, C], **limits)
    test["interaction"]["to"][1]["quantization"] = "nf4"
    return test


@pytest.mark.parametrize(
    ("scores", "kind"),
    [
        ((0.85, 0.80, 0.81, 0.80), "reproduced"),  # 0.05 less 0.01
        ((0.81, 0.80, 0.85, 0.80), "contradicted"),  # 0.01 less 0.05
        ((0.80, 0.80, 0.80, 0.80), "undecided"),
    ],
)
def test_what_a_change_does_is_held_against_what_it_does_elsewhere(scores, kind):
    part = part_of(four(*scores), two_by_two(at_least=0.0))
    assert part.kind == kind
    a, b, c, d = scores
    assert part.effect == pytest.approx((a - b) - (c - d), abs=1e-3)


def test_the_interval_of_a_change_is_students_over_seeds():
    records = four(0.85, 0.80, 0.81, 0.80)
    scores = {(r.job.cell, r.job.seed): r.outcome.metric_value for r in records}
    each = [scores[A, s] - scores[B, s] - (scores[C, s] - scores[D, s]) for s in range(4)]
    part = part_of(records, two_by_two(at_least=0.02))
    low, high = stats.t.interval(0.95, 3, loc=np.mean(each), scale=stats.sem(each))
    assert (part.low, part.high) == pytest.approx((low, high))
    assert part.direction == "reproduced"


def test_a_change_of_one_seed_or_on_other_numbers_of_rows_decides_nothing():
    alone = [r for r in four(0.85, 0.80, 0.81, 0.80) if r.job.seed == 0]
    assert part_of(alone, two_by_two(at_least=0.0)).reason == "one seed has no interval"
    longer = [
        replace(r, outcome=replace(r.outcome, steps=240)) if r.job.cell == D else r
        for r in four(0.85, 0.80, 0.81, 0.80)
    ]
    assert part_of(longer, two_by_two(at_least=0.0)).kind == "not comparable"


def test_a_change_in_words():
    part = part_of(four(0.85, 0.80, 0.81, 0.80), two_by_two(at_least=0.0))
    assert part.test is not None
    assert claimed(part.test) == (
        "score, (AdaLoRA r8 − LoRA r8) − (IA3 − IA3 + NF4): at least 0.000"
    )
    assert measured(part).startswith("+0.040 (")


# --- best learning rates ------------------------------------------------------------------------

RATES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3)


def trials(cell, best, task="sst-2", rates=RATES, seeds=(100, 101), **job):
    """Trials that score best at one rate; `best` may be one for each seed."""
    found = []
    for n, seed in enumerate(seeds):
        mine = best[n] if isinstance(best, tuple) else best
        for rate in rates:
            recipe = make_recipe(learning_rate=rate)
            score = 0.8 - 0.05 * abs(math.log(rate / mine))
            fields = {"purpose": "tuning", "recipe": recipe, **job}
            found.append(row(cell, seed, score, task, job=fields))
    return found


def rate_part(of, to, **limits):
    return part_of([*of, *to], best_rate(**limits))


@pytest.mark.parametrize(
    ("of", "to", "kind"),
    [
        (1e-3, 2e-4, "reproduced"),  # 5 times
        (2e-4, 1e-3, "contradicted"),
        ((1e-3, 2e-4), 2e-4, "undecided"),  # 5 times on one seed, as large on the other
        (2e-3, 2e-4, "reproduced"),  # 10 times or more: the highest of its grid
        (1e-3, 1e-4, "reproduced"),  # the lowest of the other's
        (2e-3, 1e-3, "undecided"),  # twice or more
        (1e-4, 1e-3, "contradicted"),  # a tenth or less
    ],
)
def test_best_rates_are_compared_by_task_and_seed_of_the_trials(of, to, kind):
    part = rate_part(trials(A, of), trials(B, to), at_least=4.0)
    assert part.kind == kind
    assert (part.seeds, part.exact, len(part.jobs)) == (2, True, 20)
    edge = any(rate in (RATES[0], RATES[-1]) for rate in (of, to))
    assert bool(part.notes) == edge
    if edge and kind == "undecided":
        assert (part.reason, part.settle) == ("a grid ends too early", "a wider grid of rates")


def test_an_upper_limit_is_not_shown_where_the_grid_ends():
    assert rate_part(trials(A, 2e-3), trials(B, 2e-4), within=[5.0, 20.0]).kind == "undecided"
    part = rate_part(trials(A, 1e-3), trials(B, 2e-4), within=[4.0, 20.0])
    assert (part.kind, part.effect) == ("reproduced", pytest.approx(5.0))
    assert part.direction == "reproduced"


@pytest.mark.parametrize(
    ("of", "kind", "reason"),
    [
        ([], "not comparable", "profile quick has no cell AdaLoRA r8"),
        (rows(A, [0.8, 0.9]), "not comparable", "the profile tries no learning rates"),
        (trials(A, 1e-3, seeds=(100,)), "undecided", "the trials share 1 seeds"),
        (trials(A, 1e-3)[:-1], "not comparable", "not every rate of AdaLoRA r8"),
        (trials(A, 1e-3, rates=RATES[:2]), "not comparable", "fewer than three rates"),
    ],
)
def test_without_enough_trials_nothing_is_said_of_best_rates(of, kind, reason):
    part = rate_part(of, trials(B, 2e-4), at_least=4.0)
    assert (part.kind, part.reason.startswith(reason)) == (kind, True), part.reason


@pytest.mark.parametrize("status", ["crashed", "interrupted", "out_of_memory"])
def test_a_trial_that_told_nothing_leaves_it_open_and_one_that_diverged_does_not(status):
    of = trials(A, 1e-3)

    def with_status(name):
        last = replace(of[-1], outcome=replace(of[-1].outcome, status=name, status_reason="x"))
        return rate_part([*of[:-1], last], trials(B, 2e-4), at_least=4.0)

    part = with_status(status)
    assert (part.kind, part.reason) == ("undecided", "AdaLoRA r8 lacks 1 trials")
    assert part.settle == "peftmark run demo --profile quick"
    assert with_status("diverged").kind == "reproduced"


def test_shorter_trials_are_not_taken_for_whole_ones():
    short = [
        replace(r, job=replace(r.job, recipe=replace(r.job.recipe, steps=30)))
        for r in trials(A, 2e-4, seeds=(102,))
    ]
    part = rate_part(
        [*trials(A, 1e-3), *short], trials(B, 2e-4, seeds=(100, 101, 102)), at_least=4.0
    )
    assert (part.kind, part.seeds) == ("reproduced", 2)


def test_best_rates_take_no_interval_from_the_others_and_are_plain_data():
    records = [*trials(A, 2e-3), *trials(B, 2e-4), *rows(A, [0.85, 0.86]), *rows(B, [0.8, 0.82])]
    (verdict,) = verdicts(build(records), [claim(best_rate(at_least=4.0))])
    assert verdict.level is None
    part = verdict.parts[0]
    assert part.test is not None
    assert claimed(part.test) == "best learning rate, AdaLoRA r8 / LoRA r8: at least 4.000×"
    assert measured(part) == "10.000× (exact; 2 seeds, 1 task)"
    assert part.low is not None and part.high is not None and math.isfinite(part.high)


# --- measures of a course -----------------------------------------------------------------------


def with_losses(*losses, every=10):
    points = tuple(CurvePoint(every * (n + 1), v, 0.5, 1.0) for n, v in enumerate(losses))
    return row(A, 0, curve=points)


def test_a_variance_about_the_course_leaves_a_straight_fall_out():
    """Up and down by 0.1 about a fall of 0.2 a point: bends of 0.4, 0.16 / 6 of variance."""
    losses = [2 - 0.2 * n + 0.1 * (-1) ** n for n in range(8)]
    assert curve_variance(with_losses(*losses)) == pytest.approx(0.16 / 6)
    rng = np.random.default_rng(0)
    noisy = [3 - 0.01 * n + 0.3 * e for n, e in enumerate(rng.normal(size=4000))]
    assert curve_variance(with_losses(*noisy)) == pytest.approx(0.09, rel=0.1)


@pytest.mark.parametrize(
    ("losses", "reason"),
    [
        ([1.0] * 5, "the run has 5 evaluations, fewer than 6"),
        ([1.0] * 6, "its loss lies on a straight line"),
        ([1.0, 2.0, 1.0, math.inf, 1.0, 2.0], "its loss is not finite"),
    ],
)
def test_a_course_that_says_nothing_has_no_variance(losses, reason):
    found = curve_variance(with_losses(*losses))
    assert isinstance(found, str) and found.startswith(reason)


def test_uneven_evaluations_have_no_variance():
    record = with_losses(*[1.0, 2.0] * 4)
    points = record.outcome.curve
    uneven = (*points[:-1], replace(points[-1], step=points[-1].step + 5))
    found = curve_variance(replace(record, outcome=replace(record.outcome, curve=uneven)))
    assert found == "its evaluations are not equally far apart"


def test_alarms_are_counted_over_modules():
    swings, calm, none = [0.0, 2.0] * 4, [1.0, 1.2] * 4, [None, None, 1.0, 1.1, 1.0, 1.1, 1.0, 1.1]
    some = row(A, 0, importance_history={"a": swings, "b": calm, "c": none, "d": [0.0] * 8})
    assert importance_alarms(some) == 0.5  # an importance of 0 throughout is none to rely on
    assert importance_alarms(row(A, 0)) == "the method scores no importance"
    early = row(A, 0, importance_history={"a": [None] * 3 + [1.0] * 5})
    assert importance_alarms(early) == "a module's importance is known at 5 evaluations, below 6"

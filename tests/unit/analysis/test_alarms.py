"""Every alarm on series made by hand: raised, just not, not measured; and how they are counted."""

from __future__ import annotations

from dataclasses import replace

import pytest

from factory import make_failure, make_job, make_outcome, make_recipe, make_record
from peftmark.analysis.alarms import FIGURES, count, read
from peftmark.catalog.alarms import ALARMS
from peftmark.record.fields import FIELDS
from peftmark.record.growth import Value, growths, sustained
from peftmark.record.outcome import CurvePoint


def curve(losses, scores=None, selection=True):
    scores = scores or [0.5] * len(losses)
    return tuple(
        CurvePoint(16 * i, loss, 0.1, 1.0, score if selection else None)
        for i, (loss, score) in enumerate(zip(losses, scores, strict=True), 1)
    )


def run(points=5, seed=0, **changes):
    """A run of so many evaluations, one an epoch: 256 rows, 16 a step."""
    job = make_job(recipe=make_recipe(batch_size=16), seed=seed)
    losses = [1 - 0.1 * i for i in range(points)]
    given = {"curve": curve(losses, [0.5 + 0.01 * i for i in range(points)]), "train_rows": 256}
    return make_record(job=job, outcome=make_outcome(**{**given, **changes}))


def reading(key, row):
    [found] = [one for one in read(row) if one.alarm.key == key]
    return found


def shares(end, throughout):
    return {
        "below 1e-04": [0.9] * 5,
        "below 1e-05": [0.8] * 5,
        "below 1e-06": [*[0.1] * 4, end],
        "below 1e-05 so far": [*[1.0] * 4, throughout],
    }


GROWN = {"steady": [3.0] * 5, "grown": [1.0, 1.6, 2.6, 4.2, 4.2]}
HELD = {"grown": [1.0, 1.5, 2.25, 3.375, 3.375]}
BROKEN = {"grown": [1.0, 1.6, 2.6, 2.6, 4.2]}
FALLING = [1.0, 0.9, 0.8, 0.7, 0.6]
CASES = [
    ("norm-growth", {"norm_history": GROWN}, True, 1.6),
    ("norm-growth", {"norm_history": HELD}, False, 1.5),  # by half is not by more than half
    ("norm-growth", {"norm_history": BROKEN}, False, 1.0),
    ("norm-growth-evaluations", {"norm_history": GROWN}, True, 1.6),
    ("norm-growth-evaluations", {"norm_history": HELD}, False, 1.5),
    (
        "importance-parts",
        {"importance_variation": {"a": [None, 0.2, 0.51, 0.3, 0.3], "b": [0.1] * 5}},
        True,
        0.51,
    ),
    ("importance-parts", {"importance_variation": {"a": [0.5] * 5}}, False, 0.5),
    # 1, 2 and 3 have a mean of 2 and a deviation of 1; what is repeated at the end is no score.
    ("importance-drift", {"importance_history": {"a": [1.0, 2.0, 3.1, 3.1, 3.1]}}, True, 0.517),
    ("importance-drift", {"importance_history": {"a": [1.0, 2.0, 3.0, 3.0, 3.0]}}, False, 0.5),
    ("gap", {"curve": curve(FALLING, [0.5, 0.8, 0.79, 0.78, 0.79])}, True, 1.0),
    ("gap", {"curve": curve(FALLING, [0.5, 0.8, 0.79, 0.78, 0.8])}, False, 0.0),
    ("gap", {"curve": curve([1, 0.5, 0.6, 0.7, 0.8], [0.5, 0.8, 0.7, 0.6, 0.5])}, False, 0.0),
    ("saw-tooth", {"curve": curve([1.0, 0.9, 1.05, 0.85, 0.85])}, True, 4 / 3),
    ("saw-tooth", {"curve": curve([1.0, 0.75, 1.0, 0.75, 1.0])}, False, 1.0),
    ("saw-tooth", {"curve": curve(FALLING)}, False, 0.0),
    ("conflict", {"part_cosines": {"a + b": [0.9, 0.2, -0.01, 0.5, 0.5]}}, True, -0.01),
    ("conflict", {"part_cosines": {"a + b": [0.9, 0.2, 0.0, 0.5, 0.5]}}, False, 0.0),
    ("vanishing-end", {"gradient_shares": shares(0.714, 0.1)}, True, 0.714),
    ("vanishing-end", {"gradient_shares": shares(0.713, 0.1)}, False, 0.713),
    ("vanishing-throughout", {"gradient_shares": shares(0.1, 0.69)}, True, 0.69),
    ("vanishing-throughout", {"gradient_shares": shares(0.1, 0.68)}, False, 0.68),
]


@pytest.mark.parametrize(("key", "changes", "raised", "value"), CASES)
def test_an_alarm_is_raised_beyond_its_threshold_and_no_sooner(key, changes, raised, value):
    found = reading(key, run(**changes))
    assert found.raised is raised
    assert found.value == pytest.approx(value, abs=1e-3)


def test_every_alarm_has_a_figure_a_column_that_there_is_and_both_cases_above():
    assert set(FIGURES) == set(ALARMS)
    for key, alarm in ALARMS.items():
        assert alarm.columns and set(alarm.columns) <= set(FIELDS)
        assert {raised for k, _, raised, _ in CASES if k == key} == {True, False}
        assert alarm.action and alarm.source and alarm.said


@pytest.mark.parametrize("key", [key for key in ALARMS if ALARMS[key].columns != ("curve",)])
def test_what_a_row_does_not_hold_is_not_measured_and_no_all_clear(key):
    [column] = ALARMS[key].columns
    found = reading(key, run(null_reasons={column: "not recorded by peftmark 0.0.9"}))
    assert (found.raised, found.value) == (None, None)
    assert found.text == "not measured: not recorded by peftmark 0.0.9"


@pytest.mark.parametrize(
    ("key", "points", "said"),
    [
        ("gap", 3, "3 evaluations in a row"),
        ("saw-tooth", 3, "2 evaluations in a row"),
        ("norm-growth", 3, "3 epochs in a row"),
        ("norm-growth-evaluations", 3, "3 evaluations in a row"),
    ],
)
def test_a_run_too_short_for_an_alarm_is_not_measured(key, points, said):
    found = reading(key, run(points, norm_history={"a": [1.0, 2.0, 4.0]}))
    assert found.raised is None and said in found.text


def test_a_failed_run_is_not_measured():
    assert {r.raised for r in read(replace(run(), outcome=make_failure()))} == {None}


def test_the_gap_is_of_the_selection_rows_where_there_are_some():
    scores = [0.5, 0.8, 0.79, 0.78, 0.79]
    assert reading("gap", run(curve=curve(FALLING, scores, selection=False))).raised is False
    assert reading("gap", run(curve=curve(FALLING, scores))).raised is True


def test_where_and_when_are_told():
    row = run(part_cosines={"a + b": [0.9] * 5, "a + c": [0.5, -0.5, 0.1, 0.1, 0.1]})
    assert reading("conflict", row).text == "-0.5 by step 32, a + c"
    row = run(norm_history=GROWN)
    assert reading("norm-growth", row).text == "1.6 by step 64, grown"


# --- growth -------------------------------------------------------------------------------------


def test_growth_by_epochs_is_that_of_evaluations_an_epoch_apart():
    steps, norms = [8, 16, 24, 32, 40, 48], [9.0, 1.0, 9.0, 2.0, 9.0, 6.0]
    assert growths(steps, norms, 16) == [Value(32, 2.0), Value(48, 3.0)]


def test_growth_over_several_epochs_is_their_mean_rate_and_counts_as_all_of_them():
    [one] = growths([16, 64], [1.0, 8.0], 16)
    assert (one.value, one.weight) == (pytest.approx(2.0), 3.0)
    assert sustained([one], 3) == Value(64, one.value, 3.0)
    assert sustained([one], 4) is None


@pytest.mark.parametrize("norms", [[0.0, 1.0], [None, 1.0], [1.0, None], [1.0, float("inf")]])
def test_growth_from_nothing_or_to_no_number_can_not_be_told(norms):
    assert [v.value for v in growths([1, 2], norms)] == [None]


def test_what_lasts_ends_at_a_gap():
    values = [Value(i, v) for i, v in enumerate([2.0, 2.0, None, 3.0, 1.0, 5.0])]
    assert sustained(values, 2) == Value(1, 2.0, 2.0)
    assert sustained(values, 4) is None


# --- counts -------------------------------------------------------------------------------------


def test_an_alarm_is_false_where_the_run_did_not_fall_behind():
    """Four seeds: the third fell behind by its loss; the first and the third are raised, the
    fourth holds nothing, and another cell has no second seed."""
    alarmed, calm = shares(0.9, 0.1), shares(0.1, 0.1)
    rows = [
        run(seed=0, gradient_shares=alarmed, loss=0.4),
        run(seed=1, gradient_shares=calm, loss=0.4),
        run(seed=2, gradient_shares=alarmed, loss=0.8),
        run(seed=3, loss=0.4),
    ]
    alone = run(gradient_shares=alarmed)
    rows.append(replace(alone, job=replace(alone.job, method="bitfit", size=None)))
    [found] = [c for c in count(rows) if c.alarm.key == "vanishing-end"]
    assert (found.measured, found.raised) == (4, 3)
    assert (found.right, found.false, found.untold, found.missed) == (1, 1, 1, 0)
    assert dict(found.unmeasured) == {"the row holds none": 1}
    [missed] = [c for c in count(rows) if c.alarm.key == "gap"]
    assert (missed.raised, missed.missed) == (0, 1)
    assert missed.verdict == "never raised; missed 1"


def test_an_alarm_of_runs_without_another_seed_can_not_be_told():
    [found] = [c for c in count([run(gradient_shares=shares(0.9, 0.1))]) if c.raised]
    assert found.verdict == "can't be told: no other seed of the 1 that raised it"


def test_an_alarm_that_is_mostly_false_is_named_so_and_one_without_figures_is_not_judged():
    rows = [run(seed=seed, gradient_shares=shares(0.9, 0.1)) for seed in range(3)]
    verdicts = {c.alarm.key: c.verdict for c in count(rows)}
    assert verdicts["vanishing-end"] == "mostly false: 3 of 3"
    assert verdicts["conflict"] == "not judged: no run has the figure"


@pytest.mark.parametrize("purpose", ["tuning", "repeat"])
def test_trials_and_repeats_are_not_counted(purpose):
    row = run()
    rows = [replace(row, job=replace(row.job, purpose=purpose))]
    assert {c.measured + sum(c.unmeasured.values()) for c in count(rows)} == {0}

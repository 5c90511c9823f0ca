"""No number is shown that can't be: an interval ends where its metric does, and one that holds
everything, or a detectable difference beyond the metric's range, becomes a sentence."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest

from factory import ADALORA, LORA, make_causal, make_job, make_outcome, make_record
from peftmark.advice.candidates import Wish, short_standing, standing_text
from peftmark.advice.guide_verdicts import _difference
from peftmark.advice.recommend import recommend
from peftmark.analysis import table
from peftmark.analysis.comparison import against_reference
from peftmark.analysis.scale import limits_of, of_difference, scale_of
from peftmark.analysis.stats import Estimate
from peftmark.render import markdown, words
from shown import row, show


def rows(metric="accuracy", lora=(0.8, 0.9), adalora=(0.85, 0.6), guess=0.1):
    found = []
    for method, values in (("lora", lora), ("adalora", adalora)):
        for seed, value in enumerate(values):
            outcome = make_outcome(
                metric_value=value, metrics={metric: value}, baseline_value=guess
            )
            job = make_job(method=method, task="sst-2", metric=metric, seed=seed)
            found.append(make_record(job=job, outcome=outcome))
    return found


def built(records):
    return table.build(records, [r.job for r in records], LORA)


@pytest.mark.parametrize(
    ("half", "metric", "signed", "text"),
    [
        (0.04, "accuracy", False, "0.950 ± 0.040"),
        (0.06, "accuracy", False, "0.950, 0.890 to 1.000"),
        (1.20, "accuracy", False, "0.950, but 2 seeds allow any value"),
        (1.20, "pearson", False, "0.950, −0.250 to 1.000"),
        (0.06, "rmse", False, "0.950 ± 0.060"),
        (1.20, "rmse", False, "0.950, 0.000 to 2.150"),
        (1.20, "accuracy", True, "+0.950, −0.250 to +1.000"),
        (2.00, "accuracy", True, "+0.950, but 2 seeds can't show any difference"),
        (2.00, "matthews_correlation", True, "+0.950, −1.050 to +2.000"),
        (9.00, "rmse", True, "+0.950 ± 9.000"),
        (9.00, "", True, "+0.950 ± 9.000"),  # on the scale of no one metric: no limits are known
    ],
)
def test_an_interval_ends_where_the_metric_does(half, metric, signed, text):
    assert words.plus_minus(Estimate(0.95, half, 2), metric, signed=signed) == text


@pytest.mark.parametrize(
    ("mean", "signed", "text"),
    [(0.83, False, "0.830"), (-0.1, True, "−0.100"), (0.0, True, "0.000 ± 0.000")],
)
def test_values_that_are_all_the_same_have_no_interval_of_zero_width(mean, signed, text):
    assert words.plus_minus(Estimate(mean, 0.0, 3), "accuracy", signed=signed) == text


def test_limits_of_metrics_of_differences_and_of_means_over_tasks():
    assert limits_of("accuracy") == (0.0, 1.0)
    assert limits_of("rmse") == (0.0, math.inf)
    assert limits_of("some.module:function") is None
    assert of_difference((-1.0, 1.0)) == (-2.0, 2.0)
    assert of_difference((0.0, math.inf)) is None
    assert scale_of({"a": "accuracy", "b": "pearson"}).limits == (-0.5, 1.0)
    assert scale_of({"a": "accuracy", "b": "rmse"}).limits == (-math.inf, 1.0)
    assert scale_of({"a": "accuracy", "b": "unknown"}).limits is None


def test_the_ends_are_drawn_where_they_are_told():
    score = table.task_score(built(rows(lora=(0.95, 0.99))), LORA, "sst-2").estimate
    assert score.high == 1.0 and score.low == pytest.approx(0.97 - 12.706 * 0.02, abs=1e-4)
    assert Estimate(0.97, 0.254, 2).high == 1.224  # without limits as it was


# --- a report of two seeds ------------------------------------------------------------------------

NUMBER = re.compile(r"± (\d+\.\d+)")


@pytest.fixture
def shown():
    return show(rows())


def test_what_two_seeds_would_show_becomes_a_sentence(shown):
    # Differences of +0.05 and −0.3: s = 0.2475, se = 0.175; the smallest is some 19 times that.
    entries = row(shown, "Every cell against", "AdaLoRA r8")
    assert against_reference(built(rows()))[ADALORA].detectable > 1
    assert entries[4].text == "2 seeds can't show any difference"
    assert entries[2].text == "−0.125, but 2 seeds can't show any difference"
    assert "AdaLoRA r8 (−0.125, but 2 seeds can't show any difference; needs about" in shown.finding


@pytest.mark.parametrize("metric", ["accuracy", "matthews_correlation"])
def test_every_half_width_of_a_report_is_possible(metric):
    low, high = limits_of(metric)
    text = markdown.render(show(rows(metric)))
    assert max((float(n) for n in NUMBER.findall(text)), default=0.0) < high - low
    assert "seeds can't show any difference" in text


def test_a_difference_that_can_be_shown_is_a_number():
    close = show(rows(lora=(0.80, 0.82), adalora=(0.79, 0.80)))
    assert row(close, "Every cell against", "AdaLoRA r8")[4].text.startswith("± 0.0")


def test_recommendations_have_no_impossible_points():
    made = rows(lora=(0.80, 0.82), adalora=(0.85, 0.6))
    answer = recommend(built(made), Wish(max_drop=1.0))
    other = next(c for c in (*answer.picks, *answer.others) if c.cell == ADALORA)
    assert short_standing(other) == "−8.5, but 2 seeds can't show any difference"
    assert standing_text(other) == ("8.5 points below it, but 2 seeds can't show any difference")
    guide = replace(other.behind, n=2)
    assert _difference(guide, True) == "−8.5 points, but 2 seeds can't show any difference"
    part = replace(guide, estimate=Estimate(-0.085, 1.02, 2, (-1.0, 1.0)))
    assert _difference(part, True).startswith("−8.5 (−100.0 to +93.5) points")


def test_forgetting_ends_where_nothing_is_left():
    made = [
        replace(r, outcome=replace(r.outcome, unrelated_perplexity_after=25.0 * (1 + r.job.seed)))
        for r in make_causal([LORA], ["chatterbot"], [0, 1])
    ]
    text = row(show(made), "forgotten", "LoRA r8")
    assert any("−100.0\u00a0% to +685.3\u00a0%" in entry.text for entry in text)

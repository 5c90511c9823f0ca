"""Errors and costs, of which less is better: the right direction in every table and verdict."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from errors_rows import CELLS, COST, GAIN, rows_in, table_in, task_of
from factory import ADALORA, HEAD, LORA, REPORT_OPTIONS, make_trials
from peftmark.advice.answer import Advised, advice_text, facts_of, headline
from peftmark.advice.candidates import Wish
from peftmark.advice.recommend import recommend
from peftmark.advice.trade import MEMORY, front
from peftmark.analysis import comparison, scale
from peftmark.analysis.table import build, overall_score, quality
from peftmark.report import axes, radar, summary
from shown import column, grid, paragraphs, row, section, show, write

LOWER = ("rmse", "log_loss", COST)
EACH = (*LOWER, GAIN, "accuracy")


def told(metrics, name, **changes):
    return row(show(rows_in(metrics, **changes)), "Every cell against", name)


# --- the overall score --------------------------------------------------------------------------


@pytest.mark.parametrize("metric", EACH)
def test_the_overall_score_is_higher_for_the_better_cell(metric):
    found = table_in([metric])
    means = {cell: overall_score(found, cell).estimate.mean for cell in CELLS}
    assert sorted(CELLS, key=lambda cell: -means[cell]) == list(CELLS)


def test_an_error_counts_as_a_share_of_the_way_to_none_by_hand():
    found = table_in(["rmse"], seeds=1)
    (value,) = (s.record.outcome.metric_value for s in found.of(LORA))
    assert overall_score(found, LORA).values == pytest.approx([1 - value / 40])
    assert found.averaged.endswith(
        "of the share of the way from a constant predictor to a perfect one"
    )


def test_a_cost_of_ones_own_counts_as_what_it_is_below_the_constant_guess():
    found = table_in([COST], seeds=1)
    (value,) = (s.record.outcome.metric_value for s in found.of(LORA))
    assert overall_score(found, LORA).values == pytest.approx([900 - value])
    assert found.averaged == "mean over tasks of the gain over a constant predictor, in cost"


def test_a_metric_of_ones_own_is_left_out_of_a_mean_of_shares_and_that_is_said():
    found = table_in([*LOWER, "accuracy"])
    assert found.scale.kind == "share" and found.scale.left_out == ("cost",)
    alone = table_in(["rmse", "log_loss", "accuracy"])
    assert overall_score(found, LORA).values == pytest.approx(overall_score(alone, LORA).values)
    page = show(rows_in([*LOWER, "accuracy"]))
    assert "Over 3 tasks (cost left out: no best possible value)" in page.finding
    assert "cost is left out of that mean" in grid(page, "Score after").note
    assert "Quality leaves out cost" in paragraphs(page, "glance")


def test_two_metrics_of_ones_own_have_no_overall_score_and_no_made_up_number():
    rows, found = rows_in([COST, GAIN]), table_in([COST, GAIN])
    assert overall_score(found, LORA).estimate is None
    page = show(rows)
    why = "metrics without a best possible value have no common scale"
    assert page.finding.startswith(f"No overall comparison is made, since {why}")
    cells = row(page, "Score after", "LoRA r8")
    assert column(grid(page, "Score after"), cells, "mean over tasks").note == why
    assert recommend(found, Wish()).reasons == (f"No score over all tasks: {why}.",)
    assert front(found, MEMORY).missing[LORA] == why


def test_without_a_constant_guess_there_is_no_share_and_the_reason_is_told():
    page = show(rows_in([COST], baseline=False))
    entry = column(
        grid(page, "Score after"), row(page, "Score after", "LoRA r8"), "mean over tasks"
    )
    assert entry.text == "n/a" and "returned nan" in entry.note


# --- tables, ranks, fronts, radar ---------------------------------------------------------------


@pytest.mark.parametrize("metric", EACH)
def test_the_table_against_the_reference_says_higher_of_the_better_cell(metric):
    for name, verdict in (("AdaLoRA r8", "higher"), ("head only", "lower")):
        _, score, difference, shown, *_ = told([metric], name)
        assert shown.text == verdict
        assert (difference.sort > 0) == (verdict == "higher")
        assert score.kind == "number"
    columns = grid(show(rows_in([metric])), "Every cell against").columns
    assert columns[1].hint.endswith("higher is better")


@pytest.mark.parametrize("metric", EACH)
def test_the_better_cell_is_first_in_ranks_and_fronts(metric):
    found = table_in([metric])
    ranks = comparison.ranks(found, comparison.pairwise(found))
    assert [ranks[cell] for cell in CELLS] == [(1, 1), (2, 2), (3, 3)]
    places = {s.cell: (s.standing, s.by) for s in front(found, MEMORY).spots}
    # The head costs least; LoRA less than AdaLoRA, which alone is better.
    assert {cell: standing for cell, (standing, _) in places.items()} == dict.fromkeys(CELLS, "on")
    dear = [
        replace(r, outcome=replace(r.outcome, peak_memory_bytes=2**31)) if r.job.cell == HEAD else r
        for r in rows_in([metric])
    ]
    places = {
        s.cell: (s.standing, s.by)
        for s in front(build(dear, [r.job for r in dear], LORA), MEMORY).spots
    }
    assert places[HEAD] == ("off", ADALORA)
    assert places[ADALORA][0] == "on"


@pytest.mark.parametrize("metric", ["rmse", "log_loss"])
def test_the_radar_draws_the_better_cell_further_out(metric):
    found = table_in([metric])
    values = [axes.axis_value(found, cell, "quality").value for cell in CELLS]
    assert values == sorted(values, reverse=True) and 0 < values[-1] < values[0] < 1
    outlines = [radar.points(found, cell, REPORT_OPTIONS)[0].position for cell in CELLS]
    assert outlines == sorted(outlines, reverse=True)


@pytest.mark.parametrize("metric", [COST, GAIN])
def test_quality_of_a_metric_of_ones_own_is_null_with_its_reason(metric):
    found = table_in([metric])
    entry = axes.axis_value(found, LORA, "quality")
    assert entry.value is None
    assert entry.reason == f"{scale.metric_title(metric)}: no best possible value"
    assert quality(rows_in([metric])[0]) is None
    shown = row(show(rows_in([metric])), "Other ways to sum up", "AdaLoRA r8")
    assert shown[1].note == entry.reason
    assert float(shown[2].text) > 0.99  # beats the reference


@pytest.mark.parametrize("metric", LOWER)
def test_a_task_is_told_in_its_own_metric_with_the_direction(metric):
    found = table_in([metric])
    verdicts = comparison.by_task(found)
    task = found.tasks[0]
    assert verdicts[ADALORA, task].verdict == "lower" and verdicts[ADALORA, task].better is True
    assert verdicts[HEAD, task].verdict == "higher" and verdicts[HEAD, task].better is False
    text = summary.task_finding(found, task, verdicts)
    assert "AdaLoRA r8 (−" in text and "scored lower, which is better" in text
    assert "head only (+" in text and "scored higher, which is worse" in text
    page = show(rows_in([metric]))
    entries = row(page, "Difference to LoRA r8 by task", "AdaLoRA r8")
    assert entries[1].note.startswith("lower, better; ") and entries[1].sort < 0
    hint = grid(page, "Difference to LoRA r8 by task").columns[1].hint
    assert hint == f"difference of {scale.metric_title(metric)}, lower is better"
    assert grid(page, "Score after").columns[1].hint.endswith("lower is better")
    assert "−" not in text.partition("head only")[2]


def test_higher_is_better_metrics_are_told_as_before():
    found = table_in(["accuracy"])
    text = summary.task_finding(found, "accuracy", comparison.by_task(found))
    assert text.count("AdaLoRA r8 (+0.0") == 1 and "scored higher; head only" in text
    assert "which is" not in text


@pytest.mark.parametrize("unit", [1e-3, 1.0, 1e6])
def test_what_is_equivalent_does_not_depend_on_the_unit_of_the_scores(unit):
    rows = [r for r in rows_in(["rmse"], seeds=9, unit=unit) if r.job.cell == LORA]
    twin = [
        replace(
            r,
            job=replace(r.job, method="adalora"),
            outcome=replace(
                r.outcome, metric_value=r.outcome.metric_value + unit * (0.01 * (-1) ** r.job.seed)
            ),
        )
        for r in rows
    ]
    found = build([*rows, *twin], [r.job for r in (*rows, *twin)], LORA)
    assert comparison.task_margin(found, "rmse") == pytest.approx(0.4 * unit)
    (verdict,) = {d.verdict for d in comparison.by_task(found).values()}
    assert verdict == "equivalent"
    text = summary.task_finding(found, "rmse", comparison.by_task(found))
    assert "matched it within 0.01 of the way from a constant predictor to a perfect one" in text


def test_nothing_is_equivalent_by_a_metric_without_points():
    found = table_in([COST])
    assert comparison.task_margin(found, "cost") is None
    assert not any(d.equivalent for d in comparison.by_task(found).values())
    assert not any(d.equivalent for d in comparison.pairwise(found).values())


@pytest.mark.slow
@pytest.mark.heavy
def test_one_report_of_five_metrics_says_the_direction_of_each(tmp_path):
    page = show(rows_in(EACH))
    hints = [c.hint for c in grid(page, "Score after").columns[1:6]]
    assert ["lower is better" in h for h in hints] == [True, True, True, False, False]
    assert ["higher is better" in h for h in hints] == [False, False, False, True, True]
    assert "(cost and profit left out" in page.finding
    text = write(tmp_path, rows_in(EACH))["report.md"]
    assert "AdaLoRA r8 is first over all tasks." in text


FIVE = ("macro_f1", "auroc", "rmse", "log_loss", COST)


@pytest.mark.slow
@pytest.mark.heavy
def test_every_table_of_one_report_has_the_direction_of_each_of_five_metrics(tmp_path):
    rows, found = rows_in(FIVE), table_in(FIVE)
    page = show(rows)
    lower = [False, False, True, True, True]
    for caption in ("Score after", "Difference to LoRA r8 by task"):
        told = [c.hint for c in grid(page, caption).columns[1:6]]
        assert ["lower is better" in hint for hint in told] == lower, caption
    verdicts = comparison.by_task(found)
    by_task = grid(page, "Difference to LoRA r8 by task")
    for metric, less in zip(FIVE, lower, strict=True):
        task = task_of(metric)
        better, worse = verdicts[ADALORA, task], verdicts[HEAD, task]
        assert (better.better, worse.better) == (True, False)
        assert (better.verdict, worse.verdict) == (
            ("lower", "higher") if less else ("higher", "lower")
        )
        text = summary.task_finding(found, task, verdicts)
        assert ("AdaLoRA r8 (−" if less else "AdaLoRA r8 (+") in text
        for name, sign in (("AdaLoRA r8", -1), ("head only", 1)):
            entry = column(by_task, row(page, by_task.caption, name), task)
            assert entry.sort * (sign if less else -sign) > 0
    # Over all tasks the better cell is first in every place, whatever its metrics' directions.
    ranks = comparison.ranks(found, comparison.pairwise(found))
    assert [ranks[cell] for cell in CELLS] == [(1, 1), (2, 2), (3, 3)]
    means = [overall_score(found, cell).estimate.mean for cell in CELLS]
    assert means == sorted(means, reverse=True)
    radii = [axes.axis_value(found, cell, "quality").value for cell in CELLS]
    assert radii == sorted(radii, reverse=True) and None not in radii
    assert row(page, "Every cell against", "AdaLoRA r8")[3].text == "higher"
    assert row(page, "Every cell against", "head only")[3].text == "lower"
    assert recommend(found, Wish()).best == ADALORA
    text = write(tmp_path, rows)["report.md"]
    assert "AdaLoRA r8 is first over all tasks." in text


def test_metrics_beside_the_primary_one_have_a_table_with_their_directions():
    def with_more(r):
        more = {"calibration_error": 0.1, "auroc": 0.9} if r.job.cell != HEAD else {}
        return replace(r, outcome=replace(r.outcome, metrics=r.outcome.metrics | more))

    page = show([with_more(r) for r in rows_in(["accuracy"])])
    found = grid(page, "Further metrics")
    assert [c.hint for c in found.columns[1:]] == [
        "calibration error, lower is better",
        "AUROC, higher is better",
    ]
    assert [e.text for e in row(page, "Further metrics", "LoRA r8")[1:]] == [
        "0.100",
        "0.900",
    ]
    head = row(page, "Further metrics", "head only")[1]
    assert (head.text, head.note) == ("n/a", "not for these evaluation rows")
    alone = show(rows_in(["accuracy"]))
    assert not [
        b for s in alone.sections for b in s.blocks if "Further" in getattr(b, "caption", "")
    ]


# --- which to pick ------------------------------------------------------------------------------


@pytest.mark.parametrize("metric", EACH)
def test_the_better_cell_is_recommended(metric):
    found = table_in([metric])
    answer = recommend(found, Wish())
    assert answer.best == ADALORA
    assert answer.picks[0].cell == ADALORA
    assert headline(answer).startswith("AdaLoRA r8 has the highest score")
    behind = {c.cell: c.behind for c in (*answer.picks, *answer.others)}
    assert (
        behind[LORA].estimate.mean < 0 and behind[HEAD].estimate.mean < behind[LORA].estimate.mean
    )
    section_text = section(show(rows_in([metric])), "choice").lead
    assert "AdaLoRA r8" in section_text


@pytest.mark.parametrize("metric", ["rmse", "log_loss", "accuracy"])
def test_a_drop_in_points_is_one_of_the_way(metric):
    found = table_in([metric])
    wide, narrow = (recommend(found, Wish(max_drop=d, least="memory")) for d in (90.0, 1.0))
    assert wide.picks[0].cell == HEAD
    assert {c.cell for c in narrow.others} >= {HEAD, LORA}
    assert narrow.picks[0].cell == ADALORA


@pytest.mark.parametrize("metric", [COST, GAIN])
def test_no_drop_in_points_is_taken_of_a_metric_without_points(metric):
    found = table_in([metric])
    answer = recommend(found, Wish(max_drop=1.0))
    assert answer.verdict == "unknown"
    assert answer.reasons[0].startswith("A drop of 1 point means nothing where scores are the gain")
    free = recommend(found, Wish())
    text = advice_text(Advised((free,), ()))
    own, guided, _ = text.partition("What guides advise")  # who may speak of points of their own
    assert "difference to the best" in own and "point" not in own and guided
    assert json.dumps(facts_of(Advised((free,), ())))
    page = show(rows_in([metric]))
    shown = grid(page, "The evidence")
    assert "difference to the best" in [c.title for c in shown.columns]
    assert "point" not in shown.note and "point" not in section(page, "choice").lead
    guided = grid(page, "not measured here")
    losses = [r for r in guided.rows if "loses 2 points" in r[3].text]
    assert losses and losses[0][2].text == "not measured"


# --- learning rates and time --------------------------------------------------------------------


@pytest.mark.parametrize(("metric", "share"), [("rmse", "50\u00a0%"), (COST, "n/a")])
def test_ease_of_use_counts_rates_near_the_lowest_error(metric, share):
    values = {5e-4: 16.0, 1e-3: 12.0, 2e-3: 12.3, 5e-3: 30.0}
    trials = []
    for r in make_trials([LORA], ["sst2"]):
        job = replace(r.job, metric=metric, task="rmse")
        value = values[job.recipe.learning_rate]
        outcome = replace(r.outcome, metric_value=value, baseline_value=40.0)
        trials.append(replace(r, job=job, outcome=outcome))
    rows = [replace(r, job=replace(r.job, metric=metric)) for r in rows_in(["rmse"])]
    page = show([*trials, *rows])
    entry = row(page, "Share of the learning rates", "LoRA r8")[1]
    assert entry.text == share and entry.note.startswith("1e-3")


@pytest.mark.parametrize(
    ("metrics", "kind"),
    [
        (["accuracy", "macro_f1", "pearson"], "value"),
        (["calibration_error"], "share"),  # has both limits, and is better the lower it is
        (["accuracy", "log_likelihood"], "share"),
        (["mae", GAIN], "share"),
        ([GAIN], "gain"),
        (["novel"], "value"),
    ],
)
def test_only_scores_that_are_better_the_higher_are_averaged_as_they_are(metrics, kind):
    assert scale.scale_of({m: m for m in metrics}).kind == kind


def test_the_word_points_stands_only_where_there_are_some():
    assert scale.point_text("accuracy") == "0.01"
    assert scale.point_text("log_loss") == "0.01 nats"
    assert "of the way" in scale.point_text("rmse")
    assert scale.point("log_loss", 0.69) == 0.01 and scale.point("mae", 5.0) == 0.05
    assert scale.point("rmse", None) is None and scale.point(COST, 5.0) is None

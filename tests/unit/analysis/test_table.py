import math
from dataclasses import replace

import pytest

from factory import (
    ADALORA,
    BASE,
    FULL,
    HEAD,
    LORA,
    QLORA,
    SPOKEN,
    make_causal,
    make_failure,
    make_job,
    make_matrix,
    make_outcome,
    make_record,
    make_repeat,
    make_trials,
)
from peftmark.analysis import scale
from peftmark.analysis import table as t
from peftmark.analysis.time_to_target import reach


def record(method, task, seed, value, status="ok", **outcome):
    """A row with just the numbers that the test is about."""
    job = make_job(method=method, task=task, seed=seed)
    result = make_outcome(metric_value=value, **outcome) if status == "ok" else make_failure(status)
    return make_record(job=job, outcome=result)


def build(records, extra=(), reference=LORA):
    return t.build(records, [*(r.job for r in records), *extra], reference)


def memory(row):
    return row.outcome.peak_memory_bytes


def test_overall_is_the_mean_over_tasks_within_each_seed_by_hand():
    rows = [
        record("lora", "a", 0, 0.5),
        record("lora", "b", 0, 0.7),
        record("lora", "a", 1, 0.6),
        record("lora", "b", 1, 0.9),
    ]
    score = t.overall_score(build(rows), LORA)
    assert score.by_seed == ((0, pytest.approx(0.6)), (1, pytest.approx(0.75)))
    # mean 0.675; s = 0.15 / sqrt(2), so half = 12.7062 * 0.15 / 2
    assert score.estimate.mean == pytest.approx(0.675)
    assert score.estimate.half_width == pytest.approx(0.952965, abs=1e-5)
    assert score.by_task == ((0.5, 0.6), (0.7, 0.9))
    assert score.complete


def test_a_failed_task_takes_its_seed_out_of_the_overall_figure():
    rows = [
        record("lora", "a", 0, 0.5),
        record("lora", "b", 0, 0.7),
        record("lora", "a", 1, 0.9),
        record("lora", "b", 1, None, status="diverged"),
    ]
    table = build(rows)
    score = t.overall_score(table, LORA)
    assert score.by_seed == ((0, pytest.approx(0.6)),)
    assert (score.planned, score.complete) == (2, False)
    assert t.task_score(table, LORA, "a").complete


def test_a_seed_that_never_ran_is_missing_not_zero():
    rows = [record("lora", "a", 0, 0.5)]
    score = t.task_score(build(rows, [make_job(task="a", seed=1)]), LORA, "a")
    assert (score.values, score.planned) == ((0.5,), 2)


def test_a_cell_planned_on_fewer_tasks_has_no_overall_figure():
    rows = [
        record("lora", "a", 0, 0.5),
        record("lora", "b", 0, 0.7),
        record("adalora", "a", 0, 0.9),
    ]
    assert t.overall_score(build(rows), ADALORA).estimate is None


@pytest.mark.parametrize("status", ["invalid", "diverged", "interrupted"])
def test_the_numbers_of_a_failed_row_are_not_used(status):
    row = make_record(outcome=make_outcome(status=status, metric_value=0.99))
    assert t.task_score(build([row]), LORA, "sst2").estimate is None


def test_nan_is_not_a_value():
    assert t.task_score(build([record("lora", "a", 0, math.nan)]), LORA, "a").values == ()


def test_differences_are_paired_by_seed():
    mine = t.Score(((0, 0.5), (1, 0.6)), 3)
    theirs = t.Score(((1, 0.7), (2, 0.9)), 3)
    pairs = t.difference(mine, theirs)
    assert pairs.by_seed == ((1, pytest.approx(-0.1)),)
    assert (pairs.planned, pairs.complete) == (3, False)


def test_ratio_is_geometric_over_pairs_by_hand():
    rows = [
        record("lora", "a", 0, 0.5, peak_memory_bytes=100),
        record("lora", "b", 0, 0.5, peak_memory_bytes=200),
        record("adalora", "a", 0, 0.5, peak_memory_bytes=200),
        record("adalora", "b", 0, 0.5, peak_memory_bytes=1600),
    ]
    # ratios 2 and 8: sqrt(16) = 4
    ratio = t.ratio(build(rows), ADALORA, memory)
    assert ratio.value == pytest.approx(4.0)
    assert (ratio.pairs, ratio.planned) == (2, 2)


def test_ratio_says_why_it_is_unknown():
    lora = record("lora", "a", 0, 0.5, peak_memory_bytes=100)
    other = record("adalora", "a", 0, 0.5, peak_memory_bytes=90, peak_memory_source="another")
    bare = record("adalora", "a", 0, 0.5, peak_memory_bytes=None)
    dead = record("adalora", "a", 0, None, status="crashed")
    source = {"same": lambda row: row.outcome.peak_memory_source}
    assert "differently" in t.ratio(build([lora, other]), ADALORA, memory, **source).reason
    assert t.ratio(build([lora, bare]), ADALORA, memory).reason == "not recorded"
    assert t.ratio(build([lora, dead]), ADALORA, memory).reason == "no run finished"
    assert t.ratio(build([other]), ADALORA, memory).reason == "no finished reference run"


def test_quality_runs_from_the_baseline_predictor_to_the_best_possible():
    row = make_record(outcome=make_outcome(metric_value=0.8, baseline_value=0.5))
    assert t.quality(row) == pytest.approx(0.6)
    assert t.quality(replace(row, outcome=make_outcome(baseline_value=None))) is None


def test_steps_to_target_are_not_imputed():
    never = {"target_reached": False, "steps_to_target": None}
    rows = [
        record("lora", "a", 0, 0.8, steps_to_target=40),
        record("lora", "a", 1, 0.8, steps_to_target=80),
        record("lora", "a", 2, 0.6, **never),
        record("lora", "a", 3, None, status="out_of_memory"),
    ]
    found = reach(build(rows), LORA, "a")
    assert (found.reached, found.finished, found.planned) == (2, 3, 4)
    # At 40 two of three are not there yet, at 80 one of three.
    assert (found.median, found.steps) == (80, (40, 80))
    assert [(w.step, w.reached) for w in found.waits] == [(40, True), (80, True), (120, False)]
    only = reach(build([record("lora", "a", 2, 0.6, **never)]), LORA, "a")
    assert only.median is None


def test_order_is_reference_first_and_reference_lines_last():
    rows = make_matrix(cells=[FULL, HEAD, ADALORA, QLORA, LORA])
    cells = t.build(rows, [r.job for r in rows], LORA).cells
    assert cells[0] == LORA
    assert set(cells[-2:]) == {FULL, HEAD}
    assert t.build(rows[::-1], [r.job for r in rows], LORA).cells == cells


def test_rows_of_other_jobs_are_counted_and_left_out():
    rows = make_matrix(cells=[LORA])
    stray = make_record(job=make_job(profile="full"))
    table = t.build([*rows, stray], [r.job for r in rows], LORA)
    assert table.strays == 1
    assert len(table.rows) == len(rows)


def test_two_rows_of_one_job_are_refused():
    with pytest.raises(ValueError, match="same job"):
        t.build([make_record(), make_record(attempt=2)], [make_job()], LORA)


def test_counts_cover_every_planned_job():
    rows = [record("lora", "a", 0, 0.5), record("lora", "a", 1, None, status="timed_out")]
    counts = build(rows, [make_job(task="a", seed=2)]).counts()
    assert counts == {"ok": 1, "timed_out": 1, "not run": 1}


def test_other_purposes_are_kept_apart_and_are_no_strays():
    rows = make_matrix(cells=[LORA], tasks=["sst2"], seeds=[0])
    trials = make_trials(cells=[LORA, QLORA], tasks=["sst2"])
    repeat = make_repeat(rows[0], metric_value=0.0)
    stray = make_record(job=make_job(purpose="tuning", profile="other"))
    records = [*trials, *rows, repeat]
    table = t.build([stray, *records], [r.job for r in records], LORA)
    assert [s.record for s in table.slots] == rows
    assert (table.rows, table.extras) == (tuple(rows), (*trials, repeat))
    assert [s.record for s in table.planned("repeat")] == [repeat]
    assert (table.strays, table.counts()) == (1, {"ok": 1})
    assert table.cells == (LORA, QLORA)
    assert t.task_score(table, LORA, "sst2").values == (rows[0].outcome.metric_value,)


def test_variants_of_a_cell_stand_side_by_side():
    fp32, bf16 = (LORA._replace(variant=v) for v in ("fp32", "bf16"))
    rows = make_matrix(cells=[QLORA, fp32, bf16])
    cells = t.build(rows, [r.job for r in rows], fp32).cells
    assert cells == (fp32, bf16, QLORA)


# --- metrics without bounds ----------------------------------------------------------------------


def test_metrics_with_bounds_are_averaged_as_they_are():
    found = build(make_causal([LORA], ["sst-2", "chatterbot"]))
    assert found.read is t.metric_value and found.averaged == "mean over tasks"
    accuracy, rouge = (t.task_score(found, LORA, task).values for task in found.tasks)
    means = [(a + b) / 2 for a, b in zip(accuracy, rouge, strict=True)]
    assert t.overall_score(found, LORA).values == pytest.approx(means)


def test_beside_a_log_likelihood_every_task_counts_as_a_share_by_hand():
    found = build(make_causal([LORA], seeds=[0]))
    assert found.read is t.quality
    assert found.averaged == (
        "mean over tasks of the share of the way from a constant predictor to a perfect one"
    )
    a, r, ll = (t.task_score(found, LORA, task).values[0] for task in SPOKEN)
    # From 0.51 to 1, from 0.1 to 1, from -6.5 to 0, which is 1 - ll / -6.5.
    shares = [(a - 0.51) / 0.49, (r - 0.1) / 0.9, 1 - ll / -6.5]
    assert t.overall_score(found, LORA).values == pytest.approx([sum(shares) / 3])
    assert t.task_score(found, LORA, "reviews").values == (ll,)


def test_without_the_baseline_there_is_no_share():
    row = make_causal([LORA], ["reviews"], [0])[0]
    bare = replace(row, outcome=replace(row.outcome, baseline_value=None))
    assert t.overall_score(build([bare]), LORA).estimate is None
    assert scale.span("perplexity", 1.0) is None and scale.span("accuracy", 1.0) is None
    assert scale.share("perplexity", 11.0, 21.0) == pytest.approx(0.5)  # the best possible is 1
    assert scale.share("log_likelihood", -8.0, -6.5) < 0


@pytest.mark.parametrize(
    ("before", "after", "found"),
    [
        (20.0, 25.0, 0.25),
        (20.0, 19.0, -0.05),
        (20.0, 20.0, 0.0),
        (None, 20.0, None),
        (20.0, None, None),
    ],
)
def test_forgetting_is_the_rise_of_a_perplexity(before, after, found):
    outcome = make_outcome(unrelated_perplexity_before=before, unrelated_perplexity_after=after)
    value = t.forgetting(make_record(outcome=outcome))
    assert value is None if found is None else value == pytest.approx(found)


def test_a_figure_that_one_side_lacks_was_not_measured_differently():
    rows = make_causal([LORA, BASE], ["reviews"], [0])
    source = {"same": lambda row: row.outcome.peak_memory_source}
    found = t.ratio(build(rows), BASE, memory, **source)
    assert (found.value, found.reason) == (None, "not recorded")

"""Cells that compete in trials: which of them are reported, and what is said of the others."""

from __future__ import annotations

from dataclasses import replace

import pytest

from factory import make_failure, make_outcome, make_record
from peftmark.analysis.table import build
from peftmark.report.coverage import section as coverage
from peftmark.report.tuning import section
from peftmark.run.notes import notes_of_plan
from peftmark.storage.store import Contents
from peftmark.suite.expand import as_recorded, expand
from peftmark.suite.load import load_suite
from peftmark.suite.search import left_out, score_of
from small_suite import QUICK, changed, refusal, write

SCORES = {"full": 0.7, "head": 0.6, "lora": 0.2, "adalora": 0.9}
GRIDS = tuple((("methods", i, "tune"), {"learning_rate": [1e-3, 2e-3]}) for i in range(4))
TUNING = {"seeds": [7], "best": 2}


def of_suite(tmp_path, *paths, tuning=TUNING):
    write(tmp_path, changed(*GRIDS, ((*QUICK, "tuning"), tuning), *paths))
    return load_suite("demo", tmp_path)


def run(suite, scores=SCORES):
    """The plan once all trials are made, and their rows; a score of None is a trial that failed."""
    records = {}
    while True:
        plan = expand(suite, "quick", "cpu", records)
        new = [j for j in plan.jobs if j.purpose == "tuning" and j.job_id not in records]
        if not new:
            return plan, records
        for job in new:
            value = scores[job.method]
            better = 0.01 * (job.recipe.learning_rate > 1e-3)
            outcome = make_failure() if value is None else make_outcome(metric_value=value + better)
            records[job.job_id] = make_record(job=job, outcome=outcome)


def methods(jobs, purpose="report"):
    return [
        method for method in SCORES if method in {j.method for j in jobs if j.purpose == purpose}
    ]


def test_the_best_by_their_trials_are_reported_and_the_reference(tmp_path):
    plan, _ = run(of_suite(tmp_path))
    assert methods(plan.jobs) == ["full", "lora", "adalora"]  # LoRA is the reference
    assert methods(plan.jobs, "tuning") == list(SCORES)
    assert [cell.method for cell in plan.left_out] == ["head"]
    assert not plan.waits
    (again,) = [j for j in plan.jobs if j.purpose == "repeat"]
    assert again.method in methods(plan.jobs)


def test_reported_jobs_are_those_that_a_profile_without_a_search_has(tmp_path):
    found, _ = run(of_suite(tmp_path))
    every, _ = run(of_suite(tmp_path, tuning={"seeds": [7]}))
    ids = {job.job_id for job in every.jobs if job.method != "head"}
    trials = {job.job_id for job in every.jobs if job.purpose == "tuning"}
    assert {job.job_id for job in found.jobs} == ids | trials
    assert every.left_out == ()


def test_as_many_wait_as_will_come(tmp_path):
    suite = of_suite(tmp_path)
    first, last = expand(suite, "quick", "cpu"), run(suite)[0]
    assert first.left_out == ()  # nothing is known yet
    assert len(first.jobs) + first.waiting == len(last.jobs)


def test_a_cell_whose_trials_failed_does_not_go_on(tmp_path):
    plan, _ = run(of_suite(tmp_path), {**SCORES, "adalora": None, "full": None})
    assert methods(plan.jobs) == ["head", "lora"]
    assert [cell.method for cell in plan.left_out] == ["full", "adalora"]


def test_of_equals_the_first_goes_on(tmp_path):
    plan, _ = run(of_suite(tmp_path, tuning={**TUNING, "best": 1}), dict.fromkeys(SCORES, 0.5))
    assert methods(plan.jobs) == ["full", "lora"]


def test_a_metric_that_is_better_the_lower_it_is(tmp_path):
    plan, _ = run(of_suite(tmp_path))
    lower = {key: replace(one, metric="log_loss") for key, one in plan.choices.items()}
    reference = next(cell for cell, _ in lower if cell.method == "lora")
    behind = left_out(lower, True, 1, reference)
    assert [cell.method for cell in behind] == ["full", "adalora"]  # the head has the least


def test_a_cell_is_as_good_as_the_mean_over_its_tasks(tmp_path):
    plan, _ = run(of_suite(tmp_path))
    (cell,) = {c for c, _ in plan.choices if c.method == "full"}
    assert score_of(plan.choices, cell) == pytest.approx(0.71)  # of the rate that was chosen
    one = plan.choices[cell, "trec"]
    worse = replace(one, tried=tuple(replace(t, score=0.11, whole=0.11) for t in one.tried))
    both = {**plan.choices, (cell, "other"): worse}
    assert score_of(both, cell) == pytest.approx(0.41)
    unknown = replace(one, tried=tuple(replace(t, score=None, whole=None) for t in one.tried))
    assert score_of({**plan.choices, (cell, "other"): unknown}, cell) is None


@pytest.mark.parametrize("best", [3, 4, 100])
def test_a_search_that_leaves_nothing_out_is_refused(tmp_path, best):
    message = refusal(tmp_path, changed(*GRIDS, ((*QUICK, "tuning"), {**TUNING, "best": best})))
    assert f"tuning.best: found {best} of 3 cells with trials beside the reference" in message


@pytest.mark.parametrize("best", [0, 101, "two", 1.5])
def test_no_number_of_cells(tmp_path, best):
    content = changed(*GRIDS, ((*QUICK, "tuning"), {**TUNING, "best": best}))
    assert "tuning.best" in refusal(tmp_path, content)


def test_the_plan_and_the_report_name_what_was_left_out(tmp_path):
    suite = of_suite(tmp_path)
    plan, records = run(suite)
    (note,) = notes_of_plan(plan, Contents({}, 0, {}), here=True)
    assert note == "not reported, since other cells did better in trials: head only"
    planned = as_recorded(suite, "quick", records).jobs
    table = build(list(records.values()), planned, suite.report.reference)
    told = "".join(str(block) for block in section(table).blocks)
    assert "3 cells of 4 went on to the reported seeds" in told
    assert "head only (0.610)" in told
    assert "others did better in trials" in str(coverage(table))


def test_without_a_search_nothing_is_said(tmp_path):
    suite = of_suite(tmp_path, tuning={"seeds": [7]})
    plan, records = run(suite)
    table = build(list(records.values()), plan.jobs, suite.report.reference)
    assert "went on" not in "".join(str(block) for block in section(table).blocks)
    assert notes_of_plan(plan, Contents({}, 0, {}), here=True) == []

"""Tasks cut from the same texts: the noise of their rows isn't independent, and a mean says so."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from factory import ADALORA, LORA, make_job, make_outcome, make_record
from peftmark.advice import answer as advice
from peftmark.advice import shared_rows_lines
from peftmark.advice.candidates import Wish
from peftmark.advice.recommend import recommend
from peftmark.analysis import comparison, table
from peftmark.analysis.shared_rows import families, share_rows
from peftmark.catalog.tasks import TASKS
from peftmark.record.outcome import numbers
from peftmark.record.own import Own
from shown import grid, show

WRONG = {"sts-b": 1, "sts-pairs": 2, "trec": 1}
"""Of four rows how many the second cell gets wrong. Standard errors of the mean difference: of
(0, 0, 0, 1) √(3/12)/2 = 0.25, of (0, 0, 1, 1) √(1/3)/2 = 0.288675."""


def rows(*tasks):
    found = []
    for task in tasks:
        for cell, wrong in ((LORA, 0), (ADALORA, WRONG[task])):
            for seed, score in enumerate((0.9, 0.91, 0.92)):
                outcome = make_outcome(
                    metric_value=score - wrong / 4,
                    baseline_value=0.1,
                    predictions=numbers([1] * (4 - wrong) + [0] * wrong),
                    references=numbers([1] * 4),
                    eval_rows=4,
                )
                job = make_job(task=task, method=cell.method, seed=seed)
                found.append(make_record(job=job, outcome=outcome))
    return found


def built(records):
    return table.build(records, [r.job for r in records], LORA)


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        (("sts-b", "trec"), math.hypot(0.25, 0.25) / 2),
        (("sts-b", "sts-pairs"), (0.25 + 0.288675) / 2),
        (("sts-b", "sts-pairs", "trec"), math.hypot(0.25 + 0.288675, 0.25) / 3),
    ],
)
def test_errors_of_shared_rows_move_together_and_those_of_others_apart(tasks, expected):
    found = comparison.overall_row_error(built(rows(*tasks)), ADALORA)
    assert found == pytest.approx(expected, abs=1e-6)


def test_the_catalogue_tells_which_tasks_share_rows():
    jobs = {key: make_job(task=key) for key in TASKS}
    sharing = {(a, b) for a in jobs for b in jobs if a < b and share_rows(jobs[a], jobs[b])}
    assert {("sts-b", "sts-pairs"), ("labelled-instructions", "movie")} <= sharing
    # One data set on the hub, other configurations; and nothing is known of a task of nowhere.
    assert not sharing & {("cola", "sst-2"), ("mnli", "qnli"), ("movie", "trec")}
    assert not share_rows(make_job(task="gone"), make_job(task="gone-too"))


def test_rows_of_ones_own_are_shared_where_their_fingerprints_are_equal():
    own = Own("classification", ("no", "yes"), (), 40, 10)
    one = make_job(task="tickets", own=own, data_fingerprint="a" * 64)
    assert share_rows(one, replace(one, task="tickets-f1", metric="f1"))
    assert not share_rows(one, replace(one, task="others", data_fingerprint="b" * 64))


def test_tasks_hang_together_through_a_third():
    made = [
        make_record(job=make_job(task=t))
        for t in ("movie", "sts-b", "trec", "labelled-instructions", "sts-pairs", "rte")
    ]
    found = built(made)
    assert families(found, found.tasks) == [
        ("movie", "trec", "labelled-instructions"),
        ("sts-b", "sts-pairs"),
    ]


# --- what is said -------------------------------------------------------------------------------


def test_a_mean_over_them_says_so_wherever_it_stands():
    made = rows("sts-b", "sts-pairs", "trec")
    shown = show(made)
    start = "Over 3 tasks (sts-b and sts-pairs share evaluation rows) and 3 seeds, LoRA r8 scored"
    assert start in shown.finding
    text = "sts-b and sts-pairs share evaluation rows: those texts weigh more than once in the mean"
    assert text in grid(shown, "Score after the last step").note
    (found,), _ = advice.tables_of(made)
    assert any(note.startswith(text) for note in recommend(found, Wish()).caveats)


def test_nothing_is_said_of_tasks_with_rows_of_their_own():
    found = built(rows("sts-b", "trec"))
    assert shared_rows_lines.clause(found) == shared_rows_lines.sentence(found) == ""

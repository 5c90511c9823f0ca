"""Tasks of the user's own from their files to stored rows, a report, and what never judges them."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest

import fake_runs
from factory import make_outcome, make_record
from peftmark.catalog.task import Example, Task
from peftmark.core.errors import UserError
from peftmark.core.sealed import unsealed
from peftmark.record.columns import from_row, to_row
from peftmark.run import runner
from peftmark.run.own_metrics import made_up
from peftmark.run.own_tasks import private
from peftmark.run.runner import Selection, command, fetch, make_plan
from peftmark.sources.assets import Located
from peftmark.sources.own_cache import own_file
from peftmark.suite.expand import as_recorded
from peftmark.suite.load import load_suite

SUITE = """
model: minilm-l6
tasks:
  tickets: {kind: classification, train: tickets.csv, text: body, label: category}
  others: {kind: regression, train: others.csv, text: body, label: score}
methods: [head]
seeds: [0]
recipe: {batch_size: 8}
"""


@pytest.fixture
def here(no_devices, tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "model_files", lambda model, places: Located(tmp_path, "a file"))
    monkeypatch.setenv("PEFTMARK_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "suites").mkdir()
    (tmp_path / "suites" / "mine.yaml").write_text(SUITE)
    write(tmp_path)
    return tmp_path


def write(folder, changed=""):
    words = ("crash", "refund", "thanks")
    rows = [f"{i} {words[i % 3]}{changed if i == 7 else ''},{words[i % 3]}" for i in range(60)]
    (folder / "tickets.csv").write_text("body,category\n" + "\n".join(rows) + "\n")
    scores = [f"{i} words,{i / 7:.3f}" for i in range(60)]
    (folder / "others.csv").write_text("body,score\n" + "\n".join(scores) + "\n")


def selection(folder):
    return Selection("mine", suites=folder / "suites", results=folder / "results", jobs=1)


def run(folder, **asked_for):
    asked = replace(selection(folder), **asked_for)
    return [record for record, _ in fake_runs.run(asked, fetched=True)]


@pytest.mark.heavy
def test_one_row_changed_makes_that_tasks_jobs_new_and_nothing_else(here):
    assert {record.outcome.status for record in run(here)} == {"ok"}
    assert make_plan(selection(here)).to_run == []
    write(here, changed=" again")
    again = make_plan(selection(here))
    assert {job.task for job in again.to_run} == {"tickets"}
    assert {p.action for p in again.planned if p.job.task == "others"} == {"done"}
    reasons = {p.reason for p in again.planned if p.job.task == "tickets"}
    assert any("data_fingerprint" in reason for reason in reasons)


@pytest.mark.heavy
def test_results_are_shown_without_the_files_they_were_made_of(here):
    run(here)
    (here / "tickets.csv").unlink()
    plan = make_plan(selection(here), recorded=True)
    assert plan.to_run == [] and len(plan.jobs) == 3
    with pytest.raises(UserError, match="there is no file"):
        make_plan(selection(here))
    records = plan.store.read().records
    shown = as_recorded(load_suite("mine", here / "suites"), "default", records)
    assert {job.job_id for job in shown.jobs} == set(records)


@pytest.mark.heavy
def test_a_run_of_one_task_is_reported_though_the_other_has_no_row(here):
    plan = make_plan(selection(here))
    of_one = tuple(job.job_id for job in plan.jobs if job.task == "tickets")
    run(here, only=of_one)
    plan = make_plan(selection(here))
    shown = as_recorded(plan.suite, "default", plan.contents.records)
    assert {job.task for job in shown.jobs} == {"tickets", "others"}
    (here / "tickets.csv").unlink()
    again = make_plan(selection(here), recorded=True)
    assert {job.task for job in as_recorded(again.suite, "default", again.contents.records).jobs}


def test_files_that_change_while_jobs_run_change_nothing_of_the_run(here, monkeypatch):
    first = make_plan(selection(here))
    (here / "tickets.csv").unlink()
    (here / "suites" / "mine.yaml").write_text("no suite any more")
    later = make_plan(selection(here), before=first)
    assert [job.job_id for job in later.jobs] == [job.job_id for job in first.jobs]
    assert later.notes == first.notes


def test_tasks_without_rows_are_named_where_rows_alone_count(here):
    with pytest.raises(UserError, match="no row of task tickets, others"):
        as_recorded(load_suite("mine", here / "suites"), "default", {})


def test_rows_are_kept_for_workers_only_when_they_run(here):
    plan = make_plan(selection(here))
    cache = here / "cache"
    assert not cache.exists()
    fetch(plan)
    for job in plan.jobs:
        assert own_file(cache, job.data_fingerprint).is_file()
    kept = own_file(cache, plan.jobs[0].data_fingerprint).read_text()
    assert unsealed(kept)[0] == {
        "source": "own rows: tickets.csv",
        "train": 48,
        "eval": 12,
    }


def test_a_file_beside_the_suite_is_found_too(here):
    (here / "tickets.csv").rename(here / "suites" / "tickets.csv")
    assert make_plan(selection(here)).jobs


def test_what_is_to_be_known_of_the_rows_is_noted(here):
    notes = make_plan(selection(here)).notes
    assert any(note.startswith("tickets: no evaluation rows were given: 12") for note in notes)


def test_a_metric_of_ones_own_is_part_of_the_identity(here):
    (here / "costs.py").write_text("def cost(references, predictions):\n    return 1.0\n")
    text = SUITE.replace("label: category}", "label: category, metric: 'costs:cost:lower'}")
    (here / "suites" / "mine.yaml").write_text(text)
    before = make_plan(selection(here)).jobs[0]
    assert before.own.code and before.metric == "costs:cost:lower"
    (here / "costs.py").write_text("def cost(references, predictions):\n    return 2.0\n")
    after = make_plan(selection(here)).jobs[0]
    assert after.job_id != before.job_id


def test_what_was_written_to_own_rows_is_kept_only_on_demand(here):
    job = make_plan(selection(here)).jobs[0]
    outcome = make_outcome(completions=("my secret",))
    kept = private(job, outcome)
    assert kept.completions == ()
    assert "--show-texts" in kept.null_reasons["completions"]
    row = to_row(make_record(job=job, outcome=kept))
    assert "--show-texts" in row["null_reasons"] and "secret" not in str(row)
    assert "--show-texts" in from_row(row).outcome.null_reasons["completions"]
    of_catalogue = replace(job, own=None, task="chatterbot")
    assert private(of_catalogue, outcome) is outcome


@pytest.mark.heavy
def test_a_run_strips_texts_and_says_how_to_keep_them(here, monkeypatch):
    seen = []
    monkeypatch.setattr(runner, "private", lambda job, outcome: seen.append(job) or outcome)
    run(here)
    assert len(seen) == 3
    asked = replace(selection(here), show_texts=True)
    assert "--show-texts" in command(seen[0], asked)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("def cost(references, predictions:\n", "costs.py, line 1 is no Python"),
        ("def price(references, predictions):\n    return 1.0\n", "has no function cost"),
    ],
)
def test_a_metric_that_can_t_be_called_is_refused_before_anything_runs(here, text, words):
    (here / "costs.py").write_text(text)
    suite = SUITE.replace("label: category}", "label: category, metric: 'costs:cost'}")
    (here / "suites" / "mine.yaml").write_text(suite)
    with pytest.raises(UserError, match=words):
        make_plan(selection(here))


# --- metrics of one's own -------------------------------------------------------------------------

METRIC = """
import sys
from pathlib import Path

def euros(references, predictions, probabilities):
    print("what a metric prints is no answer")
    Path("called").write_text(str(probabilities.shape))
    return float((references == predictions).mean())

def broken(references, predictions):
    Path("called").write_text("")
    raise ValueError("no price for class 2")

def leaves(references, predictions):
    raise SystemExit(4)

def nothing(references, predictions):
    return float("nan")
"""


def measured_by(folder, key):
    text = SUITE.replace("label: category}", f"label: category, also: ['{key}']}}")
    (folder / "suites" / "mine.yaml").write_text(text)
    (folder / "costs.py").write_text(METRIC)
    return make_plan(selection(folder))


@pytest.mark.heavy
def test_a_metric_that_raises_is_told_before_anything_is_written(here):
    plan = measured_by(here, "costs:broken")
    assert not (here / "called").exists(), "a plan runs nothing of the user's"
    with pytest.raises(UserError) as caught:
        fetch(plan)
    said = "task tickets: metric costs:broken raised ValueError: no price for class 2"
    assert caught.value.what.startswith(said) and caught.value.remedy
    assert not (here / "cache").exists() and not (here / "results").exists()


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("function", "said"), [("leaves", "exit code 4"), ("nothing", "returned nan")]
)
def test_a_metric_without_a_number_is_told_before_anything_is_trained(here, function, said):
    with pytest.raises(UserError, match=said):
        fetch(measured_by(here, f"costs:{function}"))


@pytest.mark.heavy
def test_a_metric_that_gives_numbers_is_tried_and_nothing_of_it_loaded_here(here):
    fetch(measured_by(here, "costs:euros"))
    assert (here / "called").read_text() == "(12, 3)"
    assert "costs" not in sys.modules


@pytest.mark.parametrize(
    ("kind", "row", "shapes"),
    [
        ("classification", Example("a", None, 1), ((5,), (5,), (5, 3))),
        ("multi-label", Example("a", None, 0, tags=(0, 2)), ((5, 3), (5, 3), (5, 3))),
        ("regression", Example("a", None, 0.5), ((5,), (5,), ())),
        ("multiple-choice", Example("a", None, 1, choices=("x", "y")), ((5,), (5,), (5, 2))),
        ("instruction", Example("a", "b", 0), ((5,), (5,), ())),
        ("instruction", Example("", None, 0, turns=(("user", "a"),)), ((5,), (5,), ())),
        ("language", Example("a b", None, 0), ((5,), (5,), ())),
    ],
)
def test_made_up_predictions_have_the_shapes_of_their_kind(kind, row, shapes):
    task = Task("t", "t", kind, ("x", "y", "z"), "", (), 0, 0, "", "", own=True)
    made = made_up(task, [row] * 5)
    names = ("references", "predictions", "probabilities")
    assert tuple(np.shape(made[name]) for name in names) == shapes
    if made["probabilities"] is not None and kind != "multi-label":
        assert np.sum(made["probabilities"], axis=1) == pytest.approx(np.ones(5))

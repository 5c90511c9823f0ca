"""Rows that come with the project: readable, whole, of a suite as it is, and small."""

from __future__ import annotations

from collections import Counter

import pytest

from peftmark.analysis.validity import flags
from peftmark.catalog.methods import Cell
from peftmark.storage.rows_file import read_rows_file
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite
from places import ROOT, SUITES

FOLDER = ROOT / "results" / "published"
FILES = sorted(FOLDER.glob("*/*"))
MOST = 25 * 2**20


def test_it_is_one_file_a_suite_and_small():
    assert FILES
    assert {path.name for path in FILES} == {"rows.parquet"}
    assert sum(path.stat().st_size for path in FILES) < MOST


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_every_row_is_readable_and_says_which_commit_made_it(path):
    found = read_rows_file(path)
    assert not found.damaged and not found.older
    suite = load_suite(path.parent.name, SUITES)
    rows = found.records.values()
    assert {row.job.suite for row in rows} == {suite.name}
    assert {row.job.suite_version for row in rows} == {suite.version}
    assert all(len(row.environment.commit) == 40 and not row.environment.dirty for row in rows)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_tuned_methods_saw_equally_many_rows_in_trials(path):
    """From stored rows alone, to within two percent; what is chosen comes from the trials. Of one
    size of batch that is equally many steps."""
    rows = read_rows_file(path).records.values()
    seen: Counter[tuple[tuple[str, str], Cell]] = Counter()
    for row in rows:
        if row.job.purpose == "tuning":
            assert row.ok
            recipe = row.job.recipe
            seen[(row.job.profile, row.job.task), row.job.cell] += recipe.steps * recipe.batch_size
    by_task: dict[tuple[str, str], set[int]] = {}
    for (task, _), count in seen.items():
        by_task.setdefault(task, set()).add(count)
    for counts in by_task.values():
        assert max(counts) <= 1.02 * min(counts)


def test_a_small_profile_of_glue_has_what_the_published_trials_chose():
    """Every cell and task, by the rule of `offline-tuned` and the rows of its trials."""
    suite = load_suite("glue", SUITES)
    rows = read_rows_file(FOLDER / "glue" / "rows.parquet").records
    chosen = expand(suite, "offline-tuned", "cpu", rows)
    assert not chosen.waiting, "every trial has its row"

    def recipes(plan):
        return {(j.cell, j.task): j.recipe for j in plan.jobs if j.purpose == "report"}

    assert recipes(expand(suite, "offline-chosen", "cpu")) == recipes(chosen)


def test_every_form_of_a_method_trained_and_none_is_another_under_a_new_name():
    """Of one matrix: each form in which guides describe a method ran, learned something of its own
    and came back from its files."""
    rows = read_rows_file(FOLDER / "methods" / "rows.parquet").records
    plan = expand(load_suite("methods", SUITES), "offline-variants", "cpu")
    jobs = [job for job in plan.jobs if job.purpose == "report"]
    assert len(jobs) == 24
    found = [rows[job.job_id] for job in jobs]
    assert all(row.ok for row in found)
    assert len({row.outcome.final_weights_hash for row in found}) == 24
    assert len({tuple(row.outcome.curve) for row in found}) == 24
    assert all(row.outcome.metric_value > row.outcome.baseline_value for row in found)
    assert all(row.outcome.reload_max_error < 4e-3 for row in found)
    assert [flag.kind for flag in flags(jobs, rows) if flag.kind == "twins"] == []

"""docs/data-types.md shows the stored errors of data types, and they are stored as written."""

from peftmark.claims.weight_errors import load_file
from peftmark.docgen.data_types_page import LEDGER, PAGE, TUNED, _job, ledger, page
from places import ROOT, SUITES


def test_the_page_is_what_the_stored_errors_make_of_it():
    found = load_file([SUITES])
    assert (ROOT / PAGE).read_text("utf-8") == page(found)
    assert (ROOT / LEDGER).read_text("utf-8") == ledger(found)


def test_the_fine_tuned_weights_are_of_a_job_that_the_suite_still_has(monkeypatch):
    monkeypatch.chdir(ROOT)
    job = _job()
    (model, facts) = next(iter(load_file([SUITES]).fine_tuned.items()))
    assert (job.model, job.task, job.recipe.steps) == (model, facts.task, facts.steps)
    assert (job.suite, job.profile, job.task, job.seed) == TUNED

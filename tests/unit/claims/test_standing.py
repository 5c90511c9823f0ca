"""How claims stand by the rows that are here: own ones, published ones, of several profiles."""

from __future__ import annotations

from contextlib import chdir
from dataclasses import replace
from pathlib import Path

import pytest

from claimed import A, B, build, claim, difference, rows
from peftmark.claims.standing import Line, Standing, look
from peftmark.claims.text import claims_facts, claims_text
from peftmark.claims.verdicts import verdicts
from peftmark.core.errors import UserError
from peftmark.record.outcome import Outcome
from peftmark.storage.published import published_rows
from peftmark.storage.store import Store

RESULTS = Path("results")
PROFILE = "offline-chosen"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Every claim, from published rows alone."""
    with chdir(tmp_path_factory.mktemp("empty")):
        return look(None, None, RESULTS, None)


def own(take=lambda record: True, change=lambda record: record):
    """Rows of one's own: some of the published ones of `glue`."""
    store = Store(RESULTS, "glue")
    with store.lock():
        for record in published_rows(RESULTS, "glue").records.values():
            if record.job.profile == PROFILE and take(record):
                store.append(change(record))


def of(ledger, name):
    return next(line for line in ledger.lines if line.claim.id == name)


def test_published_rows_count_and_are_named(whole):
    line = of(whole, "C07")
    assert line.status == "decided"
    assert ("glue", PROFILE, True) in [(s.suite, s.profile, s.published) for s in line.standings]
    assert f"     glue, profile {PROFILE}, published rows: contradicted" in claims_text(whole)
    (facts,) = [f for f in claims_facts(whole)["claims"] if f["id"] == "C07"]
    assert facts["verdicts"][0]["published_rows"] is True


def test_another_results_folder_is_asked_alone():
    ledger = look(None, None, Path("elsewhere"), None)
    assert not any(line.standings for line in ledger.lines)
    with pytest.raises(UserError, match="holds no results"):
        look("glue", None, Path("elsewhere"), None)


def test_a_suite_without_own_rows_is_answered_by_published_ones():
    ledger = look("glue", None, RESULTS, None)
    assert ledger.profile == PROFILE
    assert claims_text(ledger).startswith(f"Suite glue, profile {PROFILE}, published rows. ")


def test_own_rows_of_a_profile_count_alone():
    own(lambda record: record.job.method != "adalora")
    line = of(look(None, None, RESULTS, None), "C01")
    found = {s.profile: s for s in line.standings if s.suite == "glue"}
    assert not found[PROFILE].published
    judged = [part for part in found[PROFILE].verdict.parts if not part.elsewhere]
    assert judged and all("AdaLoRA r8 has 0 of 12 runs" in part.reason for part in judged)
    assert found["offline-tuned"].published  # of which there are none of one's own


def test_a_run_that_finished_nothing_hides_no_published_row(whole):
    def stopped(record):
        return replace(record, outcome=Outcome("interrupted", status_reason="stopped by the user"))

    own(lambda record: record.job.seed == 0 and record.job.method == "lora", stopped)
    found = look(None, None, RESULTS, None)
    assert [line.status for line in found.lines] == [line.status for line in whole.lines]
    assert look("glue", PROFILE, RESULTS, None).lines[0].standings[0].published


def test_a_profile_that_tests_none_of_a_claim_is_no_result(whole):
    assert [s.suite for s in of(whole, "C16").standings] == ["adalora-settings"]
    line = of(whole, "C35")  # of the same suite, by the curves of another profile
    assert (line.standings, line.status) == ((), "no results")


def test_parts_that_different_profiles_decide_decide_together():
    better = [*rows(A, [0.85, 0.86, 0.89]), *rows(B, [0.80, 0.82, 0.83])]
    two = claim(
        difference(at_least=0.0, part="here"),
        difference(at_least=0.0, part="there", profiles=["other"]),
    )
    (here,) = verdicts(build(better), [two])
    assert here.kind == "undecided"
    one = Standing("demo", "quick", here)
    assert Line(two, (one,), ()).status == "undecided"
    swapped = claim(
        difference(at_least=0.0, part="there"),
        difference(at_least=0.0, part="here", profiles=["other"]),
    )
    (there,) = verdicts(build(better), [swapped])
    other = Standing("demo", "other", there)
    assert Line(two, (one, other), ()).status == "decided"
    worse = [*rows(A, [0.80, 0.86, 0.83]), *rows(B, [0.81, 0.82, 0.83])]
    (open_,) = verdicts(build(worse), [swapped])
    assert Line(two, (one, Standing("demo", "other", open_)), ()).status == "undecided"

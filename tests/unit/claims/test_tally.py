"""How the claims of a ledger stand, counted."""

from __future__ import annotations

import json

import pytest

from claimed import A, B, build, claim, difference, paper, rows
from peftmark.claims.standing import Ledger, Line, Standing
from peftmark.claims.tally import STATUSES, status_of, tally_lines
from peftmark.claims.text import claims_facts, claims_text
from peftmark.claims.verdicts import verdicts


@pytest.mark.parametrize(
    ("kinds", "paper_kind", "waits", "status"),
    [
        ([], "untestable", False, "not runnable here"),
        ([], "undecided", True, "no results"),
        ([], "undecided", False, "undecided"),
        ([], "refuted on paper", True, "decided"),
        (["undecided", "contradicted"], "undecided", True, "decided"),
        (["undecided", "not comparable"], "undecided", True, "undecided"),
        (["not comparable"], "undecided", True, "not comparable"),
    ],
)
def test_a_claim_stands_as_the_best_of_its_suites_says(kinds, paper_kind, waits, status):
    assert status_of(kinds, paper_kind, waits) == status
    assert status in STATUSES


def test_claims_are_counted_by_state_with_suite_or_reason():
    found = [
        ("C01", "decided", "x"),
        ("C02", "no results", "run a"),
        ("C03", "no results", "run a"),
    ]
    assert tally_lines(found) == [
        "3 claims: 1 decided, 0 undecided, 2 no results, 0 not comparable, 0 not runnable here.",
        "  decided: C01: x",
        "  no results: C02, C03: run a",
    ]


def test_the_printed_ledger_begins_with_the_counts():
    better = [*rows(A, [0.85, 0.86, 0.89]), *rows(B, [0.80, 0.82, 0.83])]
    shown = claim(difference(at_least=0.0))
    open_ = claim(difference(at_least=0.05), id="C02")
    waits = claim(difference(at_least=0.0, suite="other"), id="C03")
    sum_ = claim(paper("1 + 1", 3), id="C04")
    never = claim(tests=None, untestable="Needs what no row holds.", id="C05")
    elsewhere = claim(difference(at_least=0.0, tasks=["mnli"]), id="C06")
    judged = verdicts(build(better), [shown, open_, elsewhere])
    lines = [Line(v.claim, (Standing("demo", "quick", v),), ()) for v in judged]
    lines += [Line(waits, (), ("other",)), Line(sum_, (), ()), Line(never, (), ())]
    ledger = Ledger(tuple(lines))
    text = claims_text(ledger).splitlines()
    assert text[0] == (
        "6 claims: 2 decided, 1 undecided, 1 no results, 1 not comparable, 1 not runnable here."
    )
    assert text[1].startswith("  decided: C01: reproduced at MiniLM-L6 scale (quick profile): demo")
    assert "  decided: C04: refuted on paper" in text
    assert "  no results: C03: run other" in text
    assert "  not runnable here: C05: Needs what no row holds." in text
    facts = json.loads(json.dumps(claims_facts(ledger), allow_nan=False))
    assert facts["counts"] == {
        "decided": 2, "undecided": 1, "no results": 1, "not comparable": 1, "not runnable here": 1,
    }  # fmt: skip
    assert {c["id"]: c["status"] for c in facts["claims"]}["C06"] == "not comparable"


def test_a_claim_whose_sums_fit_and_whose_rest_no_suite_tests_is_not_runnable_here():
    rest = {"part": "measured", "untestable": "no base is stored so"}
    line = Line(claim(paper("1 + 1", 2), rest), (), ())
    assert (line.status, line.because) == ("not runnable here", "no base is stored so")
    wrong = Line(claim(paper("1 + 1", 3), rest), (), ())
    assert (wrong.status, wrong.because) == ("decided", "refuted on paper")

"""docs/evidence.md says what was run for claims, and what is left out, as the code counts it."""

from __future__ import annotations

import pytest

from peftmark.claims.ledger import load_claims
from peftmark.docgen.evidence_page import HERE, LEFT_OUT, PAGE, page, parts
from peftmark.suite.checks import suite_folders
from places import ROOT


@pytest.fixture(scope="module")
def found():
    return parts(ROOT)


def test_the_page_is_what_suites_ledger_and_published_rows_say():
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    assert text == page(text, ROOT), "run: python -m peftmark.docgen.evidence_page"


def test_every_claim_of_rows_is_tested_here_or_left_out(found):
    text = (ROOT / PAGE).read_text(encoding="utf-8").split(LEFT_OUT[0])[1]
    here = {name for part in found if part.here for name in part.claims}
    for claim in load_claims(suite_folders(None)).values():
        measured = any(test.measured for test in claim.tests or ())
        if measured or claim.untestable:
            assert (f"\n- {claim.id}: " in text) is (claim.id not in here), claim.id


def test_published_rows_are_counted_without_the_repeated_one(found):
    (part,) = [p for p in found if (p.suite, p.profile) == ("glue", "offline-chosen")]
    assert (len(part.jobs), part.published) == (72, 72)


@pytest.mark.parametrize("mark", [*HERE, *LEFT_OUT])
def test_a_page_without_its_marks_is_refused(mark):
    text = (ROOT / PAGE).read_text(encoding="utf-8").replace(mark, "")
    with pytest.raises(ValueError, match="evidence"):
        page(text, ROOT)

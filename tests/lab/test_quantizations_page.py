"""docs/quantizations.md shows what the catalogue has, and what libraries answered and still do."""

from __future__ import annotations

import pytest

from peftmark.docgen.quantizations_page import PAGE, page, stored
from peftmark.lab.quantization import refused
from peftmark.lab.quantization.refused import REFUSALS, Refusal, words
from places import ROOT


def test_the_page_is_what_the_catalogue_and_the_stored_answers_make_of_it():
    assert set(stored()["answers"]) == {one.key for one in REFUSALS}
    assert (ROOT / PAGE).read_text("utf-8") == page(stored()), (
        "write it anew: python -m peftmark.docgen.quantizations_page"
    )


@pytest.mark.parametrize("one", REFUSALS, ids=lambda one: one.key)
def test_a_library_answers_as_it_did(one):
    """If this fails, a library has learned something, or says it otherwise: look whether the
    catalogue can have it, then write the page anew."""
    said = words(one)
    if said is None:
        pytest.skip(f"can't be asked with what is installed: {one.needs or one.unless}")
    assert said == stored()["answers"][one.key]


def test_what_is_done_is_no_refusal_and_what_can_t_be_asked_has_no_answer():
    with pytest.raises(RuntimeError, match="new: torch no longer refuses: to add"):
        words(Refusal("new", "sums", "to add", "torch", lambda: 1 + 1))
    assert words(Refusal("x", "-", "-", "torch", lambda: 1 / 0, needs="no-such-package")) is None
    assert words(Refusal("x", "-", "-", "torch", lambda: 1 / 0, unless="torch")) is None
    assert words(Refusal("x", "-", "-", "torch", lambda: 1 / 0)).startswith("ZeroDivisionError: ")
    assert refused.SIZE % 32 == 0, "a layer of the asked size has whole groups"

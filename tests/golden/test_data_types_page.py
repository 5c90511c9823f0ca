"""docs/data-types.md shows the stored errors of data types, and they are stored as written."""

from peftmark.claims.weight_errors import load_errors
from peftmark.docgen.data_types_page import LEDGER, PAGE, ledger, page
from places import ROOT, SUITES


def test_the_page_is_what_the_stored_errors_make_of_it():
    found = load_errors([SUITES])
    assert (ROOT / PAGE).read_text("utf-8") == page(found)
    assert (ROOT / LEDGER).read_text("utf-8") == ledger(found)

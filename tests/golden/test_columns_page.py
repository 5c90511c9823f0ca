"""docs/columns.md shows the measured figures as the fields have them."""

import pytest

from peftmark.docgen.columns_page import END, PAGE, SECTIONS, START, with_fields
from peftmark.record.fields import FIELDS
from places import DOCS, ROOT


def test_the_page_is_what_the_fields_make_of_it():
    assert ROOT / PAGE == DOCS / "columns.md"
    page = (ROOT / PAGE).read_text(encoding="utf-8")
    assert with_fields(page) == page, "run: python -m peftmark.docgen.columns_page"


def test_what_stands_outside_the_marks_stays_and_every_field_is_shown_once():
    page = "".join(f"## {s}\n\nby hand\n\n{START.format(s)}old\n{END}\nafter\n" for s in SECTIONS)
    made = with_fields(page)
    assert "old" not in made.replace("threshold", "").split()
    assert made.count("by hand") == made.count("after\n") == len(SECTIONS)
    for key in FIELDS:
        assert made.count(f"\n| `{key}` |") == 1, key
    assert with_fields(made) == made


def test_a_section_without_marks_is_said():
    page = "".join(f"{START.format(s)}{END}" for s in SECTIONS if s != "Energy")
    with pytest.raises(ValueError, match=r"every section of .*field\.py needs.*Energy"):
        with_fields(page)

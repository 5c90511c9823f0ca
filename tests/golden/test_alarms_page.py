"""docs/alarms.md says what the alarms are and how often they are false, as the code counts it."""

from __future__ import annotations

import pytest

from peftmark.catalog.alarms import ALARMS
from peftmark.docgen.alarms_page import COUNTS, PAGE, TABLE, page, stored
from places import ROOT


def test_the_page_is_what_the_table_and_the_stored_rows_say():
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    assert text == page(text, ROOT), "run: python -m peftmark.docgen.alarms_page"
    for key in ALARMS:
        assert text.count(f"\n| `{key}` |") == 2


def test_every_figure_is_in_some_stored_row():
    held = {
        name
        for _, rows in stored(ROOT)
        for row in rows
        for name in vars(row.outcome)
        if getattr(row.outcome, name)
    }
    assert {column for alarm in ALARMS.values() for column in alarm.columns} <= held


@pytest.mark.parametrize("mark", [*TABLE, *COUNTS])
def test_a_page_without_a_mark_is_refused(mark):
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="has no"):
        page(text.replace(mark, ""), ROOT)

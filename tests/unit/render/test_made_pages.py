"""Pages beside the report: short where they open, of one mind, and alike in colours and order."""

from __future__ import annotations

import pytest

import consistent
import made_pages
import seen
from peftmark.render.chart_specs import Dots, Lanes
from peftmark.render.page import Page, marks

MADE: dict[str, Page] = dict([*made_pages.gates(), *made_pages.compared(), *made_pages.trends()])
MOST_WORDS = 420


@pytest.mark.parametrize("name", MADE)
def test_a_page_says_one_thing_of_each_fact(name):
    assert consistent.faults(made_pages.undrawn(MADE[name])) == []


@pytest.mark.parametrize("name", MADE)
def test_a_page_opens_short_and_its_links_lead_somewhere(name):
    text = made_pages.undrawn(MADE[name])
    found = seen.seen(text)
    assert len(found.words) <= MOST_WORDS and len(found.tables) <= 1
    for tile in MADE[name].first.tiles:
        assert all(f'id="{sign.section}-list"' in text for sign in tile.signs)


def test_a_method_has_one_look_and_one_place_on_all_pages():
    cells = made_pages.CELLS
    look = {mark.label: mark for mark in marks(tuple(cells)).values()}
    order = ["LoRA r8", "QLoRA r8", "AdaLoRA r8", "head only"]
    drawn = 0
    for page in MADE.values():
        for figure in page.figures():
            if isinstance(figure.drawing, Dots | Lanes):
                rows = getattr(figure.drawing, "rows", ()) or figure.drawing.marks
                found = [getattr(row, "mark", row) for row in rows]
                names = [mark.label.partition(", ")[0] for mark in found]
                assert list(dict.fromkeys(names)) == order
                assert all(m.series == look[n].series for m, n in zip(found, names, strict=True))
                drawn += 1
    assert drawn >= 6


def test_cells_that_no_side_knows_are_drawn_grey():
    shown = made_pages.gate_page(
        made_pages.judge(*reversed(made_pages.dropped()), made_pages.Policy()), []
    )
    rows = shown.first.charts[0].figure.drawing.rows
    assert {row.mark.series for row in rows} == {"other"}

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


def test_what_an_entry_says_is_what_it_claims():
    said = 0
    for page in MADE.values():
        first = [page.first.table] if page.first.table else []
        for grid in (*first, *(g for s in page.sections for g in s.grids())):
            titles = [column.title for column in grid.columns]
            for row in grid.rows:
                for title, entry in zip(titles, row, strict=True):
                    if title in ("verdict", "what is shown") and entry.fact:
                        assert entry.text == entry.fact.verdict
                        said += 1
    assert said >= 40


def test_the_first_screen_of_a_comparison_names_what_its_table_shows():
    first = MADE["compare-three"].first
    lower = [row[0].text for row in first.table.rows if row[4].text == "lower"]
    assert lower == ["LoRA r8 in after"]
    assert first.tiles[0].value == "lower: LoRA r8 in after"
    assert first.answer.startswith("after scored lower than before with LoRA r8, as 5 seeds show")
    finding = first.charts[0].figure.finding
    assert "1 lower, 4 undecided and 3 equivalent" in finding


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

"""Money on a page: one chart, one column, one tile, or why there is none."""

from dataclasses import replace

import pytest

import consistent
from factory import LORA, QLORA, REPORT_OPTIONS, make_matrix
from peftmark.core.amounts import Price
from peftmark.report import view
from peftmark.report.report_input import ReportInput
from shown import column, grid, paragraphs, show, write

PRICE = Price(3.60, "EUR")
"""A thousandth of a euro a second."""


def rows():
    """LoRA pays 25 s a run and QLoRA 50."""
    return [
        replace(r, outcome=replace(r.outcome, phase_seconds={"train": s, "deploy": 9.0}))
        for r in make_matrix([LORA, QLORA])
        for s in [25.0 if r.job.cell == LORA else 50.0]
    ]


@pytest.fixture(scope="module")
def priced():
    made = rows()
    given = ReportInput(made, [r.job for r in made], REPORT_OPTIONS, "a demo", price=PRICE)
    return view.page(given)


def test_money_is_a_button_of_the_first_chart_with_its_currency(priced):
    chart = next(c for c in priced.first.charts if c.label == "money")
    assert chart.figure.drawing.x_axis.startswith("price of a run, EUR, lower is better")
    assert [p.cost for p in chart.figure.drawing.points] == pytest.approx([0.025, 0.050])


def test_money_stands_in_the_tile_in_the_costs_and_beside_the_picks(priced):
    assert "0.0250 EUR" in priced.first.tiles[1].note
    assert "0.0500 EUR" in priced.first.tiles[1].value
    time = grid(priced, "Time and work")
    found = [column(time, row, "price of a run") for row in time.rows]
    assert {(e.text, e.note) for e in found} == {("0.0250", ""), ("0.0500", "")}
    evidence = grid(priced, "The evidence")
    assert column(evidence, evidence.rows[1], "price of a run").text == "0.0500 EUR"
    places = grid(priced, "On, possibly on")
    assert column(places, places.rows[0], "price of a run").text == "0.0250 EUR"
    assert ("price", "3.60 EUR an hour of wall time of loading") in [
        (name, text.partition(",")[0]) for name, text in priced.facts
    ]


@pytest.mark.slow
@pytest.mark.heavy
def test_a_priced_page_says_one_thing_of_each_fact(tmp_path):
    page = write(tmp_path, rows(), price=PRICE)["index.html"]
    assert consistent.faults(page) == []
    assert page.count('data-figure="money"') == 4


def test_without_a_price_the_page_says_what_to_give():
    shown = show(rows())
    assert "money" not in [c.label for c in shown.first.charts]
    assert "price of a run (no price of an hour was given; --price 2.50USD)" in paragraphs(
        shown, "trade"
    )
    assert "Price of a run: n/a, as no price of an hour was given" in grid(shown, "Time and").note
    assert shown.first.tiles[1].value.endswith(" parameters")


def test_rows_without_phases_have_no_price():
    bare = [replace(r, outcome=replace(r.outcome, phase_seconds={})) for r in rows()]
    given = ReportInput(bare, [r.job for r in bare], REPORT_OPTIONS, "a demo", price=PRICE)
    shown = view.page(given)
    assert "price of a run (not recorded)" in paragraphs(shown, "trade")
    time = grid(shown, "Time and work")
    assert "price of a run" not in [c.title for c in time.columns]
    assert time.note.endswith("price of a run (not recorded).")

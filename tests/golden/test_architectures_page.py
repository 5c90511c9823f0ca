"""docs/architectures.md has a row for every class of every architecture that is tried."""

import re

import pytest

from peftmark.catalog.tried_architectures import METHODS, TRIED
from peftmark.docgen.architectures_page import (
    HEAD,
    PAGE,
    TARGETS,
    TRIALS,
    Reasons,
    between,
    expected_rows,
    put,
    shown,
    trials_table,
)
from places import ROOT

PAGE_TEXT = (ROOT / PAGE).read_text(encoding="utf-8")
AGAIN = "run: python -m peftmark.docgen.architectures_page"
ROWS = between(PAGE_TEXT, TRIALS)


def test_the_page_has_the_rows_and_columns_of_the_list():
    assert ROWS[0] == list(HEAD), AGAIN
    assert [tuple(row[:2]) for row in ROWS[1:]] == expected_rows(), AGAIN
    assert [row[0] for row in between(PAGE_TEXT, TARGETS)[1:]] == [
        tried.title for tried in TRIED.values()
    ], AGAIN


def test_a_class_that_there_is_was_tried_and_one_that_is_not_is_refused():
    there = {(tried.title, made) for tried in TRIED.values() for made in tried.classes}
    for row in ROWS[1:]:
        refused = all(cell.startswith("no (") for cell in row[3:])
        assert refused == ((row[0], row[1]) not in there), row
        assert (row[2] == "-") == refused, row


def test_every_refusal_has_its_reason_with_the_words_of_the_library():
    reasons = dict(re.findall(r"^(\d+)\. (.*)$", PAGE_TEXT, re.M))
    cited = set(re.findall(r"no \((\d+)\)", PAGE_TEXT))
    assert cited and cited == set(reasons)
    for reason in reasons.values():
        assert re.search(r"transformers .*: `.+`$", reason), reason


def test_twenty_architectures_are_reloaded_as_they_were_with_lora_and_qlora():
    held = {
        title: {
            row[0] for row in ROWS[1:] if not row[at].startswith("no") and float(row[at]) <= 1e-5
        }
        for at, title in enumerate(HEAD)
        if title in [method for method, _, _ in METHODS]
    }
    assert all(len(architectures) >= 20 for architectures in held.values()), held
    assert len(held["LoRA"] & held["QLoRA"]) >= 20


def test_a_table_takes_its_place_between_the_marks_alone():
    page = f"before\n{TRIALS[0]}old\n{TRIALS[1]}after\n"
    reasons = Reasons()
    cells = {row: ["8", shown(0.0), shown(3.2e-8), *["x"] * 3] for row in expected_rows()}
    cells[expected_rows()[0]] = ["-", *[reasons.mark("it isn't there")] * 5]
    made = put(page, TRIALS, trials_table(cells, reasons.lines()))
    assert made.startswith("before\n") and made.endswith("after\n") and "old" not in made
    assert "| no (1) |" in made and "\n1. it isn't there\n" in made
    assert between(made, TRIALS)[2][3:5] == ["0", "3e-08"]
    assert put(made, TRIALS, trials_table(cells, reasons.lines())) == made


def test_a_page_without_marks_is_said():
    with pytest.raises(ValueError, match="has no marks"):
        put("nothing", TRIALS, "")

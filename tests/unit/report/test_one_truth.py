"""A page says one thing of each fact, is short where it opens, and says n once."""

import re
from pathlib import Path

import pytest

import consistent
import seen
from factory import ADALORA, FULL, HEAD, LORA, QLORA, make_matrix
from peftmark.render.page import Column, Entry, FirstScreen, Grid, Page
from peftmark.render.said_once import said_once
from places import ROOT
from shown import write

EXAMPLE = ROOT / "docs" / "example" / "index.html"
MOST_WORDS, MOST_TABLES, MOST_BYTES = 1200, 4, 1_000_000


@pytest.fixture(scope="module")
def example():
    return EXAMPLE.read_text("utf-8")


def test_the_example_says_one_thing_of_each_fact(example):
    assert consistent.faults(example) == []


@pytest.mark.slow
@pytest.mark.heavy
def test_a_page_of_made_rows_does_too(tmp_path):
    rows = make_matrix([LORA, QLORA, ADALORA, FULL, HEAD], seeds=range(4))
    page = write(tmp_path, rows)["index.html"]
    assert consistent.faults(page) == []
    assert page.count('data-figure="peak_memory_bytes"') >= 10


@pytest.mark.parametrize(
    ("said", "instead", "fault"),
    [
        ('data-verdict="lower"', 'data-verdict="undecided"', "higher and undecided"),
        (
            'data-figure="peak_memory_bytes" data-cell="LoRA r8" data-value="5',
            'data-figure="peak_memory_bytes" data-cell="LoRA r8" data-value="6',
            "peak_memory_bytes of LoRA r8",
        ),
        (' data-figure="peak_memory_bytes, ratio', ' data-other="', "without saying of what"),
    ],
)
def test_the_script_finds_what_disagrees(example, said, instead, fault):
    assert said in example
    assert any(fault in f for f in consistent.faults(example.replace(said, instead, 1)))


def test_a_page_without_claims_is_no_proof():
    assert consistent.faults("<p>nothing</p>") == ["no entry carries what it claims"]


def test_the_example_opens_short(example):
    found = seen.seen(example)
    assert len(found.words) <= MOST_WORDS
    assert 1 <= len(found.tables) <= MOST_TABLES
    assert len(example.encode()) < MOST_BYTES


def test_the_counter_of_words_leaves_out_what_is_folded_hidden_or_for_phones():
    page = (
        "<h1>two words</h1><details><summary>seen</summary><p>not this</p><table></table></details>"
        '<p class="unseen">nor this</p><div class="phone">nor that</div><table><tr><td>and</td>'
        '</tr></table><figure class="panel">first</figure><figure class="panel">second</figure>'
    )
    found = seen.seen(page)
    assert found.words == ["two", "words", "seen", "and", "first"] and len(found.tables) == 1


def test_the_usual_number_of_seeds_is_said_once():
    rows = tuple((Entry("1", note),) for note in ("n = 3", "n = 3; saw 2×", "n = 2/3 incomplete"))
    grid = Grid("a", (Column("x"),), (*rows, (Entry("2", "n = 3: 1 collapsed"),)))
    page = Page("t", (), "", (), "", (), (), first=FirstScreen("", "", "", table=grid))
    once = said_once(page)
    notes = [row[0].note for row in once.first.table.rows]
    assert notes == ["", "saw 2×", "n = 2/3 incomplete", "n = 3: 1 collapsed"]
    assert once.facts == (("seeds of a figure", "n = 3 where nothing else is said"),)


def test_the_example_has_no_number_of_seeds_in_every_entry(example):
    assert example.count("n = 3") - example.count("n = 3: 1 collapsed") <= 2


def test_both_files_open_with_the_same_two_sentences(example):
    text = (Path(EXAMPLE.parent) / "report.md").read_text("utf-8").split("\n\n")
    answer, caveat = [part for part in text[2:] if not part.startswith(">")][:2]
    answer = answer.strip("*")
    plain = re.sub(r"</?(?:button|span).*?>", "", example.replace("\u00a0", " "))
    assert f'<p class="answer">{answer}</p>' in plain
    assert f'<p class="caveat">{caveat}</p>' in plain

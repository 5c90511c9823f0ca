"""Tables of a terminal."""

from __future__ import annotations

from peftmark.render.plain_table import aligned


def test_columns_are_as_wide_as_their_widest_cell():
    assert aligned(("a", "bb"), [("long", "1"), ("", "22")], numbers=(1,)) == [
        "a     bb",
        "long   1",
        "      22",
    ]


def test_a_line_of_words_ends_with_its_last_letter_and_one_of_numbers_at_the_edge():
    assert aligned(("a", "b"), [("x", "")]) == ["a  b", "x"]
    assert aligned(("a", "b"), [("x", "")], numbers=(1,)) == ["a  b", "x   "]


def test_a_sentence_runs_on_past_the_columns():
    assert aligned(("a", "b", "c"), [("longer", "not at all"), ("x", "1", "2")], (1, 2)) == [
        "a       b  c",
        "longer  not at all",
        "x       1  2",
    ]

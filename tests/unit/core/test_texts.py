"""Numbers, JSON and empty texts as people write them."""

from __future__ import annotations

import argparse

import pytest

from peftmark.cli.options import count, count_from_zero
from peftmark.core.texts import number, read_json, shows_nothing, whole_number

ODD = [
    "",
    " 3",
    "3 ",
    "3\n",
    "0_3",
    "1_000",
    "٣",
    "３",
    "²",
    "½",
    "nan",
    "inf",
    "0x10",
    "+",
    "e5",
]


@pytest.mark.parametrize("text", [*ODD, "1e5", "-1", "+1", "3.0", "9" * 19])
def test_what_is_no_whole_number(text):
    assert whole_number(text) is None
    with pytest.raises(argparse.ArgumentTypeError):
        count(text)
    with pytest.raises(argparse.ArgumentTypeError):
        count_from_zero(text)


@pytest.mark.parametrize(("text", "value"), [("0", 0), ("007", 7), ("9" * 18, 10**18 - 1)])
def test_whole_numbers(text, value):
    assert whole_number(text) == count_from_zero(text) == value


@pytest.mark.parametrize("text", [*ODD, "1e", "1,5", "--1", "."])
def test_what_is_no_number(text):
    assert number(text) is None


@pytest.mark.parametrize(
    ("text", "value"), [("3", 3), ("-.5", -0.5), ("1e5", 1e5), ("+2.", 2), ("0.25E-1", 0.025)]
)
def test_numbers(text, value):
    assert number(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "",
        " \t",
        "\u200b",
        "\ufeff",
        "\u00ad\u2066 \u2069",
        "\u2800\u3164",
        "\u200d\ufe0f",
        "\x01\x7f",
    ],
)
def test_texts_in_which_there_is_nothing_to_see(text):
    assert shows_nothing(text)


@pytest.mark.parametrize(
    "text", ["a", "\u200ba", "٣", "☃\ufe0f", "\x01.", "\u0301", "\N{CJK UNIFIED IDEOGRAPH-4E00}"]
)
def test_texts_in_which_there_is_something(text):
    assert not shows_nothing(text)


@pytest.mark.parametrize("text", ['{"a": 1, "a": 1}', '[{"b": {"a": 1, "a": 2}}]'])
def test_a_key_of_json_stands_once(text):
    with pytest.raises(ValueError, match="the key 'a' stands twice in one object"):
        read_json(text)

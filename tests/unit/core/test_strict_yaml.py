"""YAML reads the same with either of the two parsers that a machine may have."""

import random

import pytest
import yaml

from peftmark.core import strict_yaml
from places import SUITES

FILES = sorted(SUITES.rglob("*.yaml"))
ODD = (
    "\t", " ", "\n", ":", "-", "#", "'", '"', "[", "]", "{", "}", "&a", "*a", "!", "|", ">", "|#",
    "?", "%", "@", "`", ",", "\u2028", "\x85", "\ufeff", "\0", "é", "010", "1e3", "~", "yes",
    "---", "...", "<<", ": ", "- ", "\\", "\r", "%YAML 1.2\n", "0x1f", ".5", "=", "\xa0", "😀",
)  # fmt: skip


def told(read, text):
    """The values of a text with their types, or what is told of it."""
    try:
        return repr(read(text))
    except (yaml.YAMLError, ValueError) as error:
        return str(error)


def plainly(text):
    return yaml.load(text, Loader=strict_yaml._Loader)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_shipped_file_reads_the_same_with_either_parser(path):
    text = path.read_text("utf-8")
    assert not strict_yaml._DOUBTFUL.search(text)  # or it would be read slowly
    assert repr(yaml.load(text, Loader=strict_yaml._Quick)) == repr(plainly(text))


def test_text_that_was_damaged_reads_the_same_with_either_parser():
    chance = random.Random(3)
    for path in FILES:
        start = path.read_text("utf-8")[:600]
        for _ in range(12):
            text = start[: chance.randrange(1, 600)]
            for _ in range(chance.randint(1, 4)):
                at = chance.randrange(len(text))
                text = text[:at] + chance.choice(ODD) + text[at + chance.randint(0, 1) :]
            assert told(strict_yaml._values, text) == told(plainly, text), text


@pytest.mark.parametrize(
    "text", ["b\t", "|#", ">#x", "\n\ufeff", "[a?b]", "{a?: 1}", "{a: 1", "a: 010"]
)
def test_where_the_parsers_differ_the_slow_one_counts(text):
    assert told(strict_yaml._values, text) == told(plainly, text)

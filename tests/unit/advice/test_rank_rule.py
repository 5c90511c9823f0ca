"""The published rule for ranks, against numbers that its own printed function gives."""

import pytest

from peftmark.advice.rank_rule import made, ranks

# Run from the article's listing, which counts a model in units of 1e8 parameters.
PRINTED = [
    ("classification", 800, 22.7e6, 24, (2, 4, 4)),
    ("classification", 999, 2e9, 24, (2, 5, 5)),
    ("classification", 1_000, 1e9, 24, (4, 8, 8)),
    ("classification", 5_000, 22.7e6, 24, (4, 8, 8)),
    ("classification", 10_000, 1e9, 24, (4, 8, 8)),
    ("classification", 20_000, 22.7e6, 24, (6, 12, 12)),
    ("classification", 5_000, 3e9, 24, (6, 13, 13)),
    ("generation", 500, 7e9, 24, (8, 20, 31)),
    ("generation", 5_000, 7e9, 24, (16, 40, 63)),
    ("generation", 20_000, 7e9, 24, (24, 60, 95)),
    ("generation", 20_000, 70e9, 0.5, (22, 55, 100)),  # the one case here that memory cuts
    ("sequence to sequence", 5_000, 3e8, 16, (6, 12, 16)),
    ("sequence to sequence", 20_000, 13e9, 80, (18, 45, 72)),
]


@pytest.mark.parametrize(("task", "rows", "parameters", "gigabytes", "printed"), PRINTED)
def test_ranks_are_those_of_the_printed_function(task, rows, parameters, gigabytes, printed):
    assert ranks(task, rows, parameters, gigabytes) == printed


def test_what_is_not_known_moves_nothing():
    assert ranks("classification", None, None) == (4, 8, 8)
    assert ranks("generation", None, None, 24) == (8, 16, 24)
    assert ranks("classification", 500, None) == (2, 4, 4)


def test_text_is_generated_by_tasks_that_ask_for_it():
    assert {kind: made(kind) for kind in ("classification", "regression", "instruction")} == {
        "classification": "classification",
        "regression": "classification",
        "instruction": "generation",
    }
    assert made("language") == "generation"
    assert made("multiple-choice") == "classification"

"""Looks at a run that adds seeds: when, with which share of the error, and what they show."""

from __future__ import annotations

import numpy as np
import pytest

from peftmark.analysis.sequential import (
    Look,
    looks,
    sequential_p,
    sequentially_equivalent,
    sizes,
)
from peftmark.analysis.simulation_looks import Seen, looks_text, play, played
from peftmark.analysis.stats import compare, equivalent
from places import DOCS


@pytest.mark.parametrize(
    ("most", "found"),
    [
        (2, (2,)),
        (3, (3,)),
        (4, (3, 4)),
        (12, (3, 4, 5, 7, 9, 12)),
        (20, (3, 4, 5, 7, 9, 12, 16, 20)),
    ],
)
def test_a_run_looks_at_three_seeds_and_then_after_a_third_more(most, found):
    assert sizes(most) == found


def test_all_looks_together_spend_the_error_once_and_the_first_little():
    every = looks(range(100, 112), 12)
    assert sum(one.share for one in every) == pytest.approx(1.0)
    assert every[0] == Look(1, frozenset({100, 101, 102}), (3 / 12) ** 2)
    assert every[1].share == pytest.approx((4**2 - 3**2) / 12**2)
    assert [one.number for one in looks(range(6), 12)] == [1, 2, 3], "six seeds are five and one"
    assert looks(range(2), 12) == ()


VALUES = [
    (seed, (value, value + 0.01)) for seed, value in enumerate([0.03, 0.05, 0.04, 0.06, 0.02])
]


def p_of(count):
    return compare(list(zip(*(tasks for _, tasks in VALUES[:count]), strict=True))).p


def test_a_p_of_a_look_counts_divided_by_its_share_and_the_smallest_stays():
    seen = looks(range(5), 12)
    by_hand = [p_of(n) / share for n, share in ((3, 9 / 144), (4, 7 / 144), (5, 9 / 144))]
    assert sequential_p(VALUES, seen) == pytest.approx(min(by_hand))
    assert sequential_p(VALUES, seen[:1]) == pytest.approx(min(1.0, by_hand[0]))
    assert sequential_p(VALUES, ()) is None
    assert sequential_p([(s, (0.0,)) for s in range(5)], seen) == 1.0, "never above one"
    assert sequential_p(VALUES, looks(range(5), 5)[-1:]) == pytest.approx(p_of(5) / (9 / 25))


def test_what_is_equivalent_is_so_at_a_looks_share_of_the_error():
    even = [(seed, (value,)) for seed, value in enumerate([1e-4, -1e-4, 2e-4, 0.0, -2e-4])]
    seen = looks(range(5), 12)
    assert sequentially_equivalent(even, seen, 0.01, 0.05)
    wide = [(seed, (80 * value,)) for seed, (value,) in even]
    plain = compare([[value for _, (value,) in wide]])
    assert equivalent(plain, 0.02, 0.05), "with the error all at once"
    assert not sequentially_equivalent(wide, seen, 0.02, 0.05)
    assert not sequentially_equivalent(even, (), 0.01, 0.05)


def test_a_simulated_run_stops_when_it_is_decided():
    seen = Seen()
    suite = np.random.default_rng(0).standard_normal((6, 4, 12)) * 0.01
    play(suite, 5.0, 12, seen)
    assert seen.found == [True] and seen.fixed == [True] and seen.seeds == [3]
    play(np.random.default_rng(0).standard_normal((6, 4, 12)), 0.0, 12, seen)
    assert len(seen.alarms) == 2 and len(seen.found) == 1


@pytest.mark.slow
def test_false_alarms_stay_rare_and_seeds_are_saved():
    for name in ("4 tasks, equal spread", "4 tasks, shared luck"):
        assert np.mean(played(name, 0.0, 12, 400, 5).alarms) <= 0.08
    one = played("4 tasks, equal spread", 1.0, 12, 400, 5)
    assert np.mean(one.found) >= np.mean(one.fixed) - 0.03
    assert 1 - np.mean(one.seeds) / 12 >= 0.3


def test_the_tables_are_the_same_for_the_same_seed():
    text = looks_text(3, 7)
    assert text == looks_text(3, 7)
    assert text.count("\n| ") == 1 + 4 + 2 * 2 * 3
    assert "| gain of 2 SD, 1 task: seeds saved |" in text


@pytest.mark.slow
def test_the_document_has_what_the_command_prints():
    page = (DOCS / "statistics.md").read_text(encoding="utf-8")
    shown = page.split("<!-- looks: begin -->\n")[1].split("\n<!-- looks: end -->")[0]
    assert shown == looks_text()

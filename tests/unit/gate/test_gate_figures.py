"""The gate's own statistics against scipy or by hand, and what it says where it can't decide."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from scipy import stats

from factory import LORA
from gated import by_new_code, make_line, make_side
from gated import declared as judge
from peftmark.gate.convergence import _fisher
from peftmark.gate.costs import _floor, hodges_lehmann
from peftmark.gate.matching import Pair
from peftmark.gate.policy import Policy
from peftmark.gate.run_lines import Round


@pytest.mark.parametrize("runs", [1, 2, 5])
def test_the_chance_of_more_collapses_is_fishers(runs):
    for before in range(runs + 1):
        for after in range(runs + 1):
            pairs = [
                Pair(make_line(collapsed=i < before), make_line(collapsed=i < after), ())
                for i in range(runs)
            ]
            table = [[after, runs - after], [before, runs - before]]
            wanted = stats.fisher_exact(table, alternative="greater").pvalue
            assert _fisher(pairs) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("values", "middle"), [([3.0], 3.0), ([1.0, 2.0, 6.0], 2.75), ([0.0, 0.0, 4.0], 1.0)]
)
def test_hodges_and_lehmanns_middle_by_hand(values, middle):
    assert hodges_lehmann(values) == middle


def rounds(*logs):
    return tuple(Round("", "", math.exp(log)) for log in logs)


@pytest.mark.parametrize(
    ("before", "after", "floor"),
    [
        # Steps 0.1, 0.1; drift from the first half to the second 0.2, 0.2.
        ((0.0, 0.1, 0.2, 0.3), (0.0,) * 4, 0.2),
        # Steps -0.3, -0.3; no drift.
        ((0.0,) * 4, (0.3, 0.0, 0.3, 0.0), 0.3),
        ((0.5,) * 4, (0.7,) * 4, 0.0),
        # The last of five rounds has no other to be held against.
        ((0.0, 0.0, 0.4, 0.4, 9.0), (0.0,) * 5, 0.4),
    ],
)
def test_what_a_side_differs_from_itself_by_hand(before, after, floor):
    pair = Pair(make_line(rounds=rounds(*before)), make_line(rounds=rounds(*after)), ())
    assert _floor([pair]) == pytest.approx(floor)


def findings(values, policy, seeds=5, **facts):
    """What the gate says of one cell on one task whose scores moved so."""
    side = make_side(
        (LORA,), ("sst2",), seeds, lambda x: by_new_code(x, value=0.84 + values[x.seed], **facts)
    )
    return judge(side, make_side((LORA,), ("sst2",), seeds), policy).findings


def test_a_drop_that_is_not_ruled_out_is_told_with_its_size_and_the_seeds_it_takes():
    found = findings((-0.004, 0.002, -0.002, 0.004, 0.0), Policy(quality="non-inferior"))
    (one,) = [f for f in found if f.check == "quality.non-inferior"]
    assert (one.kind, one.cell) == ("undecided", "LoRA r8")
    assert one.sentence == (
        "score from 0.840 to 0.840 (0.000 ± 0.004); a drop of up to 0.003 isn't ruled out, "
        "0.0025 is allowed; about 12 seeds would be needed"
    )


def test_few_seeds_are_undecided_by_cell_and_say_what_would_decide():
    found = findings((-0.1, 0.0), Policy(), seeds=2)
    (one,) = [f for f in found if f.kind == "undecided" and f.check.startswith("quality")]
    assert (one.check, one.cell) == ("quality.overall", "LoRA r8")
    assert one.sentence.endswith("; 2 seeds can't be tested, 3 can; few_seeds_limit would decide")


def test_a_comparison_has_neither_code_nor_policy():
    from peftmark.gate.judge import compare

    gate = compare(make_side(), make_side())
    assert (gate.code, gate.policy) == (None, {})
    changed = compare(make_side(change=by_new_code), make_side())
    assert all("declared" not in f.sentence for f in changed.findings)
    assert replace(changed, code=None) == changed

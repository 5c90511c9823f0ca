"""A gate as a page: the verdict first, three lines why, then what there is."""

from __future__ import annotations

from dataclasses import replace

from factory import LORA
from gated import CELLS, by_new_code, make_side
from made_pages import dropped
from peftmark.gate.judge import judge
from peftmark.gate.page import page
from peftmark.gate.policy import Policy
from peftmark.gate.show import said


def test_the_verdict_comes_first_and_three_lines_say_why():
    before, after = dropped()
    gate = judge(after, before, Policy())
    shown = page(gate, CELLS).first
    assert shown.answer == gate.sentence and shown.answer.startswith("Failed: ")
    counts, overall, tasks = shown.reasons
    assert counts == said(gate.findings[0]) and "trainable parameters went" in counts
    assert overall == said(gate.findings[1]) and "[quality.overall] LoRA r8: score" in overall
    assert tasks == f"{said(gate.findings[2])} (and 2 more alike)"
    told = {tile.title: tile for tile in shown.tiles}
    assert (told["Exit code"].value, told["Exit code"].note) == ("3", "a regression is shown")
    assert told["Quality"].value == "worse: LoRA r8"
    assert told["Can it be trusted"].value == "with care"  # a run is missing
    assert shown.caveat.startswith("A drop of quality below 0.0")


def test_what_did_not_change_is_not_drawn_and_three_lines_say_what_was_looked_at():
    side = make_side()
    shown = page(judge(side, side, Policy()), CELLS).first
    assert shown.charts == () and len(shown.reasons) == 3
    assert shown.reasons[0].startswith("40 of 40 runs gave the baseline's bits")
    assert {tile.title: tile.value for tile in shown.tiles}["Quality"] == "the same bits"


def test_only_what_moved_has_a_chart():
    def slower(x):
        return by_new_code(x, step_seconds=0.13)

    gate = judge(make_side(change=slower), make_side(), Policy(), declared="a test")
    assert [chart.label for chart in page(gate, CELLS).first.charts] == ["time"]


def test_two_seeds_that_can_not_be_tested_are_the_caveat():
    moved = make_side(seeds=2, change=lambda x: by_new_code(x, value=0.83 + 0.001 * x.seed))
    gate = judge(moved, make_side(seeds=2), Policy(few_seeds_limit=0.05), declared="a test")
    text = "2 seeds can't be tested: a drop of quality may be there."
    assert page(gate, CELLS).first.caveat == text


def test_the_same_code_with_other_bits_is_not_to_be_trusted():
    other = make_side(change=lambda x: replace(x, bits="other") if x.cell == LORA else x)
    shown = page(judge(other, make_side(), Policy()), CELLS).first
    trust = next(tile for tile in shown.tiles if tile.signs)
    assert trust.value == "no" and trust.signs[0].state == "bad"


def test_numbers_that_nobody_declared_are_to_be_taken_with_care():
    other = make_side(change=lambda x: by_new_code(x, value=0.8401))
    shown = page(judge(other, make_side(), Policy()), CELLS).first
    trust = next(tile for tile in shown.tiles if tile.signs)
    assert trust.value == "with care"
    assert trust.signs[0].text == "numbers changed, and nobody said why"
    assert len(shown.reasons) == 1 and "with other numbers than the baseline's" in shown.reasons[0]


def test_every_finding_cell_task_and_key_of_the_policy_is_on_the_page():
    before, after = dropped()
    gate = judge(after, before, Policy())
    grids = {g.caption: g for s in page(gate, CELLS).sections for g in s.grids()}
    assert len(grids["Every finding"].rows) == len(gate.findings)
    assert [r[0].text for r in grids["Every cell"].rows][-1] == "head only"
    assert len(grids["Every cell on every task"].rows) == 12
    assert {r[0].text for r in grids["Policy"].rows} == set(gate.policy)

"""Runs held against the first: what is said, what is compared, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import consistent
from factory import LORA, QLORA, make_environment
from gate_cli import smoke_rows
from gated import CELLS, by_new_code, make_side, noisy
from peftmark.compare import answer, tiles
from peftmark.compare import runs as named
from peftmark.compare.held import hold, ratio
from peftmark.compare.page import page
from peftmark.compare.runs import Run, names_of
from peftmark.compare.write import text, to_json
from peftmark.core.errors import UserError
from peftmark.gate.costs import peak_ratio

FAR = make_environment(machine={"cpu": "another", "gpus": []})


def runs(*sides):
    return tuple(Run(name, side) for name, side in zip("abc", sides, strict=False))


def drop_of(cell, by=0.05, seeds=5):
    """Two sides, of which the second scores lower with one cell."""
    first, second = noisy(
        np.random.default_rng(1), 0.002, drop=lambda c, _task, _seed: by * (c == cell)
    )
    return make_side(change=first, seeds=seeds), make_side(change=second, seeds=seeds)


# --- what is said -------------------------------------------------------------------------------


def test_the_same_bits_are_said_to_be_the_same_bits():
    held = hold(runs(make_side(), make_side()))
    assert answer.sentence(held) == "b gave the same bits as a in all 40 runs compared."
    assert {held.verdict((1, cell, "")) for cell in CELLS} == {"identical"}
    assert held.found == {}


def test_a_drop_is_told_with_the_seeds_that_show_it_and_the_rest_is_not_called_equal():
    held = hold(runs(*drop_of(LORA)))
    said = answer.sentence(held)
    assert said.startswith("b scored lower than a with LoRA r8, as 5 seeds show")
    assert said.endswith("show; b is within 0.01 of a with QLoRA r8, AdaLoRA r8 and head only.")
    assert "equal" not in said and "same" not in said
    assert held.verdict((1, LORA, "")) == "lower"
    assert held.found[1, LORA, ""].comparison.estimate.mean == pytest.approx(-0.05, abs=0.004)
    assert tiles.changed(held).value == "lower: LoRA r8"


def test_where_nothing_is_shown_the_seeds_are_said_to_show_nothing():
    first, second = noisy(np.random.default_rng(3), 0.03)
    held = hold(runs(make_side(change=first), make_side(change=second)))
    assert answer.sentence(held) == "b: 5 seeds show no difference to a with any of 4 methods."
    assert tiles.changed(held).value == "nothing that is shown"
    assert tiles.undecided(held).value.startswith("LoRA r8, QLoRA r8, AdaLoRA r8")


def test_runs_of_which_the_same_is_shown_are_told_together():
    before, after = drop_of(LORA)
    held = hold(runs(before, after, after))
    assert answer.sentence(held).startswith("b and c scored lower than a with LoRA r8, as 5 seeds")
    alone = hold(runs(before, after, before))
    assert "b scored lower than a with LoRA r8" in answer.sentence(alone)
    assert "LoRA r8 in b" in tiles.changed(alone).value


def test_one_seed_shows_nothing():
    held = hold(runs(*drop_of(LORA, seeds=1)))
    assert "one seed can't show a difference" in answer.sentence(held)
    assert held.verdict((1, LORA, "")) == "no interval"


def test_verdicts_hold_together_over_all_runs():
    """Holm over cells and runs: eight comparisons here, four of two runs."""
    before, after = drop_of(LORA)
    assert {d.family for (*_, t), d in hold(runs(before, after)).found.items() if not t} == {4}
    three = hold(runs(before, after, drop_of(QLORA)[1]))
    assert {d.family for (*_, t), d in three.found.items() if not t} == {8}


def test_what_was_asked_for_otherwise_is_not_compared_and_named():
    other = make_side(change=lambda x: replace(x, config={**x.config, "recipe.steps": 60}))
    held = hold(runs(make_side(), other))
    assert "b can't be compared with a: recipe.steps 120 in a, 60 in b" in answer.sentence(held)
    assert answer.uncompared(held) == 40
    assert answer.caveat(held).startswith("40 of 40 runs are not compared")
    page(held)  # says so, and doesn't fall over it


def test_a_missing_run_is_counted_and_the_others_are_compared():
    held = hold(runs(make_side(), make_side(change=lambda x: x if x.seed else None)))
    assert answer.caveat(held).startswith("8 of 40 runs are not compared")
    assert held.matched[1].pairs and tiles.trust(held).signs[2].state == "care"


# --- machines -----------------------------------------------------------------------------------


def test_times_of_another_machine_are_not_compared_and_scores_are():
    slow = make_side(change=lambda x: by_new_code(replace(x, environment=FAR), step_seconds=9.0))
    slow = replace(slow, lines=tuple(replace(x, environment=FAR) for x in slow.lines))
    held = hold(runs(make_side(), slow))
    pairs = held.matched[1].of(LORA)
    assert ratio(pairs, "time") is None and ratio(pairs, "memory") == 1.0
    assert "b ran on another kind of machine than a" in answer.caveat(held)
    assert held.verdict((1, LORA, "")) == "undecided"  # all zero, by other bits
    costs = next(s for s in page(held).sections if s.key == "costs")
    row = costs.blocks[0].rows[0]
    assert [e.text for e in row[1:3]] == ["1.00×", "n/a"]
    assert row[2].note == "made on another kind of machine"


def test_memory_of_a_cpu_and_of_a_gpu_are_different_quantities():
    gpu = make_side(change=lambda x: replace(x, device="cuda", memory={"torch_allocated_bytes": 9}))
    pairs = hold(runs(make_side(), gpu)).matched[1].of(LORA)
    assert pairs and ratio(pairs, "memory") is None and peak_ratio(pairs) is None


# --- the page and its other forms -------------------------------------------------------------


def test_every_verdict_of_the_page_says_of_what_and_the_terminal_has_the_same():
    held = hold(runs(*drop_of(LORA)))
    shown = page(held)
    row = next(r for r in shown.first.table.rows if r[0].text == "LoRA r8")
    assert row[4].text == "lower" and row[4].fact.against == "LoRA r8 in a"
    line = next(x for x in text(held).splitlines() if x.startswith("LoRA r8"))
    assert "lower" in line and line.split("  ")[0] == "LoRA r8"
    assert [c.label for c in shown.first.charts] == ["score", "memory", "time"]


def test_json_of_two_is_a_gate_and_of_three_a_list_of_them():
    before, after = drop_of(LORA)
    two = json.loads(to_json(hold(runs(before, after))))
    assert two["peftmark_gate"] == 1 and two["code"] is None
    three = json.loads(to_json(hold(runs(before, after, before))))
    assert three["runs"] == ["a", "b", "c"]
    assert three["against_first"][0] == two and len(three["against_first"]) == 2


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["old/smoke", "new/smoke"], ["old", "new"]),
        (["results/smoke", "results/smoke-main"], ["smoke", "smoke-main"]),
        (["x/v1/smoke", "x/v2/smoke", "x/v3/smoke"], ["v1", "v2", "v3"]),
        (
            ["results/baselines/smoke/cpu.jsonl", "results/smoke"],
            ["baselines/smoke/cpu", "smoke"],
        ),
        (["a" * 50 + "/smoke", "b/smoke"], ["A", "B"]),
    ],
)
def test_a_run_is_called_by_what_its_path_alone_has(paths, names):
    assert names_of([Path(p) for p in paths]) == names


def test_a_suite_whose_name_in_the_rows_would_leave_the_folder_is_refused(monkeypatch):
    evil = make_side(suite="../../evil\x1b[2J")
    monkeypatch.setattr(named, "a_side", lambda path: evil)
    with pytest.raises(UserError, match="nothing was written") as caught:
        named.read_runs([Path("a"), Path("b")], [])
    assert "\x1b" not in str(caught.value)


def test_runs_of_two_profiles_are_refused(monkeypatch):
    sides = {"a": make_side(), "b": make_side(profile="full")}
    monkeypatch.setattr(named, "a_side", lambda path: sides[str(path)])
    with pytest.raises(UserError, match="of profile quick, results/demo of profile full"):
        named.read_runs([Path("a"), Path("b")], [])


# --- the command ----------------------------------------------------------------------------------


def test_a_run_named_twice_is_told(monkeypatch):
    monkeypatch.setattr(named, "a_side", lambda path: make_side())
    with pytest.raises(UserError, match="a run is named twice"):
        named.read_runs([Path("a/smoke"), Path("a/../a/smoke")], [])


@pytest.mark.slow
@pytest.mark.heavy
def test_three_folders_become_a_page_that_says_one_thing_of_each_fact(peftmark):
    smoke_rows(Path("a"))
    new = make_environment(sources={"peftmark": "new"})
    smoke_rows(Path("b"), new, value=0.71)
    smoke_rows(Path("c"), replace(new, machine=FAR.machine), value=0.65)
    evil = "<script>a(1)</script>\x1b"
    code, said = peftmark("compare", "a/smoke", "b/smoke", "c/smoke", *labels("x", evil, "../../y"))
    assert code == 0 and "Page: reports/smoke/compare/index.html" in said and "\x1b" not in said
    folder = Path("reports/smoke/compare")
    shown = (folder / "index.html").read_text("utf-8")
    assert "<script>a" not in shown and "&lt;script&gt;a(1)" in shown
    assert consistent.faults(shown) == []
    assert shown.count('data-verdict="') >= 16
    assert sorted(p.name for p in folder.iterdir()) == ["compare.md", "figures", "index.html"]
    assert sorted(p.name for p in Path().iterdir()) == ["a", "b", "c", "reports"]


def labels(*names):
    return [word for name in names for word in ("--name", name)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a/smoke"], "1 named, 2 to 8 can be compared"),
        (["a/smoke", "b/smoke", *labels("x")], "1 different names for 2 runs"),
        (["a/smoke", "b/smoke", *labels("x", "x")], "1 different names for 2 runs"),
        (["a/smoke", "b/smoke", *labels("x", "y" * 25)], "has 25 characters"),
        (["a/smoke", "b/smoke"], "there is no a/smoke"),
    ],
)
def test_bad_input_is_told_and_nothing_is_written(peftmark, arguments, words):
    code, said = peftmark("compare", *arguments)
    assert code == 2 and words in said and not Path("reports").exists()

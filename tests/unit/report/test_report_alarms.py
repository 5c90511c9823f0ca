"""The section of alarms: what was raised, by which cell and seed, and what is not measured."""

from __future__ import annotations

from dataclasses import replace

from factory import LORA, make_matrix
from peftmark.catalog.alarms import ALARMS
from peftmark.report.alarms import TITLE
from shown import grid, section, show

COSINES = {"LoRA + biases": [0.5, -0.25, *[0.5] * 10]}


def rows(raised_seeds=(1,)):
    found = []
    for row in make_matrix((LORA,)):
        size = len(row.outcome.curve)
        cosines = {"LoRA + biases": [0.5] * size}
        if row.job.seed in raised_seeds:
            cosines["LoRA + biases"][1] = -0.25
        found.append(replace(row, outcome=replace(row.outcome, part_cosines=cosines)))
    return found


def test_the_cell_and_seed_that_raised_an_alarm_are_named_with_value_and_threshold():
    shown = show(rows())
    alarm = ALARMS["conflict"]
    told = [[entry.text for entry in row] for row in grid(shown, "Runs that raised one").rows]
    mine = [row for row in told if row[0] == alarm.title]
    assert mine and all(row[1] == "LoRA r8" and row[3] == "1" for row in mine)
    assert "-0.25 by step" in mine[0][4] and mine[0][5] == "below 0 at one evaluation"
    assert alarm.title in section(shown, "alarms").lead
    assert grid(shown, "Runs that raised one").folded


def test_what_no_run_measures_is_said_and_is_no_all_clear():
    shown = show(rows(()))
    found = section(shown, "alarms")
    assert found.title == TITLE and found.depth == "appendix"
    told = {row[0].text: row[1:] for row in grid(shown, "Alarms").rows}
    assert len(told) == len(ALARMS)
    conflict, norm = (told[ALARMS[key].title] for key in ("conflict", "norm-growth"))
    assert conflict[0].text.startswith("0 of")
    assert (norm[0].text, norm[0].note) == ("not measured", "the row holds none")
    assert norm[1].text.startswith("0 of ")
    assert "Not measured in any run: " in found.lead and "all fine" not in found.lead

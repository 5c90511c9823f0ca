"""Where learning rates come from is said wherever scores are judged: the evaluation rows only
report where trials on other rows picked every rate."""

from __future__ import annotations

from dataclasses import replace

import pytest

from factory import (
    ADALORA,
    BASE,
    LORA,
    make_causal,
    make_failure,
    make_matrix,
    make_recipe,
    make_record,
    make_trials,
)
from peftmark.advice import answer as advice
from peftmark.advice import rates_lines
from peftmark.advice.candidates import Wish
from peftmark.advice.recommend import recommend
from peftmark.analysis import table
from shown import grid, paragraphs, show

CELLS = (LORA, ADALORA)
TUNED = "Learning rates: picked by trials on selection rows; the evaluation rows only report."
FIXED = (
    "Learning rates: fixed in the suite; which rows they were chosen on is not recorded. No trials "
    "among these rows picked them, so these rows alone can't show that methods are equally tuned, "
    "and scores may flatter."
)


def built(records):
    return table.build(records, [r.job for r in records], LORA)


def told(records, rates):
    return [replace(r, job=replace(r.job, rates=rates)) for r in records]


def test_the_evaluation_rows_only_report_where_trials_picked_every_rate():
    assert rates_lines.sentence(built([*make_matrix(CELLS), *make_trials(CELLS)])) == TUNED


def test_without_trials_the_suite_fixes_them():
    assert rates_lines.sentence(built(make_matrix(CELLS))) == FIXED


def test_what_the_suite_says_of_them_is_repeated():
    words = "fixed in the suite: chosen on learning curves of seed 0 on evaluation rows"
    text = rates_lines.sentence(built(told(make_matrix(CELLS), words)))
    assert text.startswith(f"Learning rates: {words}. No trials among these rows picked them")
    assert "only report" not in text and "not recorded" not in text


def test_cells_with_trials_are_told_from_those_without():
    text = rates_lines.sentence(built([*make_matrix(CELLS), *make_trials([ADALORA])]))
    assert text.startswith(
        "Learning rates: picked by trials on selection rows for AdaLoRA r8, else fixed in the suite"
    )
    assert "No trials among these rows picked those" in text and "only report" not in text


@pytest.mark.parametrize("why", ["failed", "another rate", "one task"])
def test_a_rate_that_no_finished_trial_tried_was_not_picked_by_one(why):
    trials = make_trials([LORA])
    if why == "failed":
        trials = [replace(r, outcome=make_failure("crashed")) for r in trials]
    elif why == "another rate":
        trials = [r for r in trials if r.job.recipe.learning_rate != make_recipe().learning_rate]
    else:
        trials = [r for r in trials if r.job.task == "sst2"]
    planned = "chosen by trials on selection rows, equally many for every cell"
    made = told([*make_matrix([LORA]), *trials], planned)
    assert rates_lines.sentence(built(made)) == FIXED


def test_nothing_is_said_where_nothing_trains():
    assert rates_lines.sentence(built(make_causal([BASE]))) == ""


# --- where it stands ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("trials", "text", "fact"),
    [
        ([], FIXED, "fixed in the suite"),
        (make_trials(CELLS), TUNED, "picked by trials on selection rows"),
    ],
)
def test_it_stands_at_the_top_the_verdicts_and_the_splits(trials, text, fact):
    shown = show([*make_matrix(CELLS), *trials])
    assert dict(shown.facts)["learning rates"] == fact
    assert grid(shown, "Every cell against").note.endswith(text)
    assert grid(shown, "Difference to LoRA r8 by task").note.endswith(text)
    assert paragraphs(shown, "validity").endswith(text)
    (found,), _ = advice.tables_of([*make_matrix(CELLS), *trials])
    assert text in recommend(found, Wish()).caveats


def test_rows_that_are_cut_and_not_cut_pick_no_learning_rate_by_themselves():
    cut = paragraphs(show(make_matrix(CELLS)), "validity")
    assert "The selected step is picked on them; all other figures are those of the last" in cut
    plain = paragraphs(show([make_record()]), "validity")
    assert "no step is picked by score" in plain and "nothing is picked" not in plain
    stops = [
        replace(r, job=replace(r.job, recipe=replace(r.job.recipe, early_stopping=3)))
        for r in make_matrix(CELLS)
    ]
    assert "picked on them, and when training stops early;" in paragraphs(show(stops), "validity")


def test_trials_enter_no_figure_of_a_recommendation():
    rows = make_matrix(CELLS)
    (bare,), _ = advice.tables_of(rows)
    with_trials, notes = advice.tables_of([*rows, *make_trials((*CELLS, BASE), ["sst2", "rte"])])
    assert [t.slots for t in with_trials] == [bare.slots] and not notes
    assert (with_trials[0].cells, with_trials[0].tasks) == (bare.cells, bare.tasks)
    old = [replace(r, job=replace(r.job, suite_version=0)) for r in make_trials(CELLS)]
    ((found,), _) = advice.tables_of([*rows, *old])
    assert rates_lines.sentence(found) == FIXED

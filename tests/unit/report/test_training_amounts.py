"""Scores after other amounts of training carry the factor wherever they are compared."""

from __future__ import annotations

from dataclasses import replace

import pytest

from factory import ADALORA, BASE, FULL, HEAD, LORA, make_causal, make_matrix
from peftmark.advice import training_lines
from peftmark.advice.guide_verdicts import judge
from peftmark.analysis import table
from peftmark.analysis.comparison import pairwise, ranks
from peftmark.analysis.training import factor, rows_seen, unlike, yardstick
from shown import fail, grid, paragraphs, row, section, show

CELLS = (LORA, FULL, HEAD)


def trained(cell, task=None, cells=CELLS, reference=LORA, **recipe):
    """A table in which a cell took other steps, or other batches, than the 120 × 16 of the rest."""
    steps = recipe.pop("steps", 120)
    made = [
        replace(
            r,
            job=replace(r.job, recipe=replace(r.job.recipe, **recipe)),
            outcome=replace(r.outcome, steps=steps),
        )
        if r.job.cell == cell and task in (None, r.job.task)
        else r
        for r in make_matrix(cells)
    ]
    return made, table.build(made, [r.job for r in made], reference)


@pytest.mark.parametrize(
    ("changes", "times"),
    [
        ({"steps": 516}, 4.3),
        ({"batch_size": 4}, 0.25),
        ({"steps": 60, "batch_size": 32}, 1.0),
        # A batch is the rows of a step, in however many passes: accumulation adds none.
        ({"batch_size": 16, "gradient_accumulation": 4}, 1.0),
    ],
)
def test_rows_seen_are_steps_times_the_rows_of_a_step(changes, times):
    _, found = trained(FULL, **changes)
    assert factor(found, FULL, LORA, "sst2") == pytest.approx(times)


def test_steps_are_those_that_were_taken_where_they_are_recorded():
    (row_, *_) = make_matrix([LORA])
    stopped = replace(row_, outcome=replace(row_.outcome, steps=30))
    unknown = replace(row_, outcome=replace(row_.outcome, steps=None))
    assert (rows_seen(stopped), rows_seen(unknown)) == (30 * 16, 120 * 16)


def test_what_trains_nothing_saw_no_rows():
    made = make_causal((LORA, BASE))
    assert {rows_seen(r) for r in made if r.job.cell == BASE} == {None}
    assert training_lines.sentence(table.build(made, [r.job for r in made], LORA)) == ""


@pytest.mark.parametrize(("steps", "other"), [(121, False), (122, True), (119, False), (118, True)])
def test_amounts_within_a_hundredth_are_the_same(steps, other):
    _, found = trained(FULL, steps=steps)
    assert bool(unlike(found, FULL, LORA)) == other


def test_the_tasks_and_the_smallest_and_largest_factor_are_named():
    _, one = trained(FULL, "sst2", steps=516)
    assert training_lines.saw(one, FULL) == "saw 4.30× the rows of LoRA r8 on sst2"
    assert training_lines.saw(one, FULL, ["stsb"]) == ""
    made, _ = trained(FULL, "sst2", steps=516)
    made = [
        replace(r, outcome=replace(r.outcome, steps=60))
        if (r.job.cell, r.job.task) == (FULL, "stsb")
        else r
        for r in made
    ]
    both = table.build(made, [r.job for r in made], LORA)
    assert training_lines.saw(both, FULL) == "saw 0.50× to 4.30× the rows of LoRA r8"


def test_where_the_reference_has_no_run_the_first_other_cell_is_the_measure():
    made, _ = trained(HEAD, steps=240)
    made = [fail(r) if r.job.cell == LORA else r for r in made]
    found = table.build(made, [r.job for r in made], LORA)
    assert yardstick(found, "sst2") == FULL
    assert training_lines.saw(found, HEAD) == "saw 2.00× the rows of full fine-tuning"


# --- in a report --------------------------------------------------------------------------------

SAW = "saw 4.30× the rows of LoRA r8"
TOLD = f"Unequal training: full fine-tuning {SAW}; these scores are not of the methods alone."


@pytest.fixture(scope="module")
def shown():
    return show(trained(FULL, steps=516)[0])


def test_every_difference_carries_the_factor(shown):
    assert "full fine-tuning (" in shown.finding and f"; {SAW})" in shown.finding
    assert shown.finding.count("saw") == 1
    verdict = row(shown, "Every cell against", "full fine-tuning")
    assert verdict[2].note.endswith(f"; {SAW}")
    by_task = row(shown, "Difference to LoRA r8 by task", "full fine-tuning")
    assert all(SAW in entry.note for entry in by_task[1:])
    plots = section(shown, "quality").blocks
    titles = [f.finding for b in plots if b.kind == "figures" for f in b.figures]
    assert len(titles) == 2 and all(SAW in title for title in titles)


def test_ranks_pairs_and_other_sums_carry_it(shown):
    scores = row(shown, "Score after the last step", "full fine-tuning")
    assert scores[-1].note == SAW
    assert row(shown, "Score after the last step", "LoRA r8")[-1].note == ""
    assert TOLD in paragraphs(shown, "quality")
    assert TOLD in grid(shown, "Other ways to sum up").note
    pairs = row(shown, "Every pair of cells", "full fine-tuning")
    assert [entry.note for entry in pairs[1:]] == ["saw 4.30× the rows", "", "saw 4.30× the rows"]


def test_the_trade_and_the_recommendation_carry_it(shown):
    assert section(shown, "trade").lead.endswith(TOLD)
    assert row(shown, "possibly on or off", "full fine-tuning")[1].note == f"n = 3; {SAW}"
    assert SAW in row(shown, "The evidence", "full fine-tuning")[1].note
    assert TOLD in paragraphs(shown, "choice")


def test_equal_training_is_not_spoken_of():
    even = show(make_matrix(CELLS))
    texts = f"{even.finding} {[s.lead for s in even.sections]} {even.opening}"
    assert "saw" not in texts and "Unequal" not in texts


def test_a_guide_is_neither_confirmed_nor_refuted_by_unequal_training():
    from peftmark.advice.guides import ADVICE

    advice = next(a for a in ADVICE if a.test and a.test.says == "AdaLoRA scores higher than LoRA")
    made = [
        replace(r, outcome=replace(r.outcome, metric_value=0.9 + 0.001 * r.job.seed))
        if r.job.cell == ADALORA
        else r
        for r in make_matrix((LORA, ADALORA))
    ]
    even = table.build(made, [r.job for r in made], LORA)
    assert judge(even, advice).word == "agree"
    longer = [
        replace(r, outcome=replace(r.outcome, steps=240)) if r.job.cell == ADALORA else r
        for r in made
    ]
    found = judge(table.build(longer, [r.job for r in longer], LORA), advice)
    assert found.word == "not measured" and "but it saw 2.00× the rows" in found.why


def test_ranks_themselves_stay_as_the_pairs_show_them():
    _, even = trained(FULL)
    _, longer = trained(FULL, steps=516)
    assert ranks(even, pairwise(even)) == ranks(longer, pairwise(longer))

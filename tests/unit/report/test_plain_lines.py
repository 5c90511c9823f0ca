"""Cells that are not above a line that needs no fine-tuning are what a reader is told first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from factory import ADALORA, FULL, LORA, make_job, make_outcome, make_record, make_repeat
from peftmark.advice import answer as advice
from peftmark.advice import plain_lines
from peftmark.advice.candidates import Wish
from peftmark.advice.recommend import recommend
from peftmark.analysis import table
from peftmark.analysis.plain_lines import not_above
from peftmark.catalog.methods import Cell
from shown import grid, row, section, show, write

WORDS = Cell("bag-of-words", None, "none")
STATES = Cell("embeddings", None, "none")
REASON = "an estimator is fitted, nothing trains by steps"
NULL = (
    "steps", "train_seconds", "step_seconds_p10", "step_seconds_p50", "step_seconds_p90",
    "samples_per_second", "tokens_per_second", "cpu_seconds", "live_bytes", "peak_memory_bytes",
    "peak_memory_source", "flops_per_step", "mfu", "head_parameters", "adapter_parameters",
    "active_parameters", "best_metric_value", "selected_metric_value", "selected_step", "loss",
    "steps_to_target", "target_reached", "timed_steps", "final_rank", "matched_rank",
    "initial_weights_hash", "batch_order_hash", "padding_share", "gemm_flops_per_second",
)  # fmt: skip


def rows(cell, task="sst-2", metric="accuracy", scores=(0.8, 0.82, 0.84), seeds=(0, 1, 2)):
    """Finished rows of a cell on a task; those of a line as the lab makes them."""
    found = []
    for seed, value in zip(seeds, scores, strict=True):
        job = make_job(
            method=cell.method, size=cell.size, quantization=cell.quantization, task=task,
            metric=metric, seed=seed,
        )  # fmt: skip
        outcome = make_outcome(metric_value=value, metrics={metric: value})
        if cell.fits:
            nulls = dict.fromkeys(NULL)
            reasons = outcome.null_reasons | dict.fromkeys(NULL, REASON)
            outcome = replace(outcome, curve=(), null_reasons=reasons, **nulls)
        found.append(make_record(job=job, outcome=outcome))
    return found


def built(records):
    return table.build(records, [r.job for r in records], LORA)


# --- which cells --------------------------------------------------------------------------------


def test_a_cell_whose_mean_is_not_above_a_line_is_found():
    found = not_above(
        built([*rows(LORA), *rows(FULL, scores=(0.9,) * 3), *rows(WORDS, scores=(0.85,) * 3)])
    )
    assert [(one.cell, one.line, one.task, one.seeds) for one in found] == [
        (LORA, WORDS, "sst-2", 3)
    ]
    assert found[0].mine == pytest.approx(0.82)
    assert found[0].theirs == pytest.approx(0.85)


@pytest.mark.parametrize(("theirs", "beaten"), [(0.819, True), (0.82, False), (0.821, False)])
def test_the_same_mean_is_not_above(theirs, beaten):
    made = [*rows(LORA, scores=(0.82,) * 3), *rows(WORDS, scores=(theirs,) * 3)]
    assert (not not_above(built(made))) == beaten


def test_where_lower_is_better_less_is_above():
    from peftmark.catalog.metrics import METRICS

    lower = next(m.key for m in METRICS.values() if m.direction == "lower")
    made = [
        *rows(LORA, metric=lower, scores=(3.0,) * 3),
        *rows(FULL, metric=lower, scores=(5.0,) * 3),
        *rows(WORDS, metric=lower, scores=(4.0,) * 3),
    ]
    assert [one.cell for one in not_above(built(made))] == [FULL]


def test_means_are_over_the_seeds_that_both_have_where_there_are_some():
    made = [
        *rows(LORA, scores=(0.8, 0.9, 0.7), seeds=(0, 1, 2)),
        *rows(WORDS, scores=(0.85, 0.85), seeds=(1, 3)),
    ]
    assert not_above(built(made)) == ()  # seed 1: 0.9 against 0.85, though 0.8 over all
    apart = [*rows(LORA), *rows(WORDS, scores=(0.85,), seeds=(7,))]
    (one,) = not_above(built(apart))
    assert (one.seeds, one.theirs) == (0, 0.85)
    assert "no shared seed" in plain_lines.sentence(built(apart))


def test_of_two_lines_the_better_one_is_named_and_the_widest_gap_first():
    made = [
        *rows(LORA), *rows(ADALORA, scores=(0.6,) * 3), *rows(WORDS, scores=(0.83,) * 3),
        *rows(STATES, scores=(0.9,) * 3),
    ]  # fmt: skip
    found = not_above(built(made))
    assert [(one.cell, one.line) for one in found] == [(ADALORA, STATES), (LORA, STATES)]


def test_a_line_is_not_held_against_a_line_and_no_run_says_nothing():
    assert not_above(built([*rows(WORDS), *rows(STATES, scores=(0.5,) * 3)])) == ()
    failed = [replace(r, outcome=replace(r.outcome, status="crashed")) for r in rows(WORDS)]
    assert not_above(built([*rows(LORA), *failed])) == ()


# --- what is said -------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_first_sentence_of_a_report_names_them(tmp_path):
    made = [*rows(LORA), *rows(WORDS, scores=(0.85,) * 3)]
    first = (
        "No better than a line that needs no fine-tuning, by mean score: LoRA r8 on sst-2 (0.820, "
        "bag "
        "of words 0.850, 3 shared seeds). These are means alone; no test stands behind them. "
    )
    assert show(made).finding.startswith(first + "Over 1 task and 3 seeds, LoRA r8 scored 0.820")
    assert first in write(tmp_path, made)["report.md"]


def test_nothing_is_said_where_every_cell_is_above_or_there_is_no_line():
    above = [*rows(LORA), *rows(WORDS, scores=(0.5,) * 3)]
    for made in (above, rows(LORA)):
        assert plain_lines.sentence(built(made)) == ""
        assert show(made).finding.startswith("Over 1 task")


def test_many_pairs_are_counted_and_the_furthest_named():
    tasks = [f"task-{i}" for i in range(6)]
    made = [r for t in tasks for r in (*rows(LORA, t), *rows(WORDS, t, scores=(0.9,) * 3))]
    text = plain_lines.sentence(built(made))
    assert "score: 6 pairs of cell and task, furthest LoRA r8 on task-0 (" in text
    assert text.count("LoRA r8") == 1
    some = [r for r in made if r.job.task in tasks[: plain_lines.MOST_NAMED]]
    assert plain_lines.sentence(built(some)).count("LoRA r8") == plain_lines.MOST_NAMED


@pytest.mark.slow
def test_a_report_with_lines_has_every_section_and_says_why_costs_are_missing(tmp_path):
    made = [*rows(LORA), *rows(WORDS), *rows(STATES, scores=(0.7,) * 3)]
    shown = show([*made, make_repeat(made[0])])
    assert shown.alarms == ()
    entries = row(shown, "Every cell against", "bag of words")
    assert [e.text for e in entries if e.note == REASON] == ["n/a", "n/a"]
    assert {"costs", "trade", "choice", "validity"} <= {s.key for s in shown.sections}
    learning = section(shown, "learning")
    assert "bag of words" not in str(learning)
    assert "frozen embeddings" in write(tmp_path, made)["report.md"]
    picked = {e.note for e in row(shown, "evidence", "bag of words")}
    assert "needs no fine-tuning, so it is no pick" in picked
    assert grid(shown, "Checks")


# --- recommendations ----------------------------------------------------------------------------


def asked(records):
    ((found,), _) = advice.tables_of(records)
    return recommend(found, Wish())


def test_a_line_is_no_pick_and_what_is_not_above_it_is_told_before_the_answer():
    answer = asked([*rows(LORA), *rows(WORDS, scores=(0.85, 0.85, 0.85))])
    assert [c.title for c in answer.picks if c.cell.fits] == []
    lines = advice.advice_text(advice.Advised((answer,), ())).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("No better than a line"))
    assert lines[at + 1] == advice.headline(answer)
    assert any("needs no fine-tuning, for comparison" in line for line in lines)
    (facts,) = advice.facts_of(advice.Advised((answer,), ()))["answers"]
    assert facts["not_above"].startswith("No better than a line")


def test_steps_and_batches_are_those_of_cells_that_train():
    made = [
        replace(r, job=replace(r.job, recipe=replace(r.job.recipe, steps=1, batch_size=1)))
        if r.job.cell.fits
        else r
        for r in (*rows(LORA), *rows(WORDS))
    ]
    answer = asked(made)
    notes = " ".join(answer.caveats)
    assert "batches of 16 rows" in notes and "different numbers of steps" not in notes
    assert "120 optimizer steps" in advice.scale(replace(answer, table=answer.table))

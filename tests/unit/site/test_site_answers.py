"""The answers of the first page follow the rows: made ones here, whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import pytest

from claimed import claim
from factory import ADALORA, FULL, HEAD, LORA, QLORA, make_failure, make_matrix
from peftmark.analysis.comparison import against_reference
from peftmark.claims.part import Part
from peftmark.claims.standing import Line, Standing
from peftmark.claims.verdicts import Verdict
from peftmark.site.answers import (
    answers,
    difference_text,
    is_qlora,
    pair,
    scored,
    seeds_to_slower,
    slower,
    under_a_gigabyte,
    worth,
)
from peftmark.site.evidence import weight
from site_runs import run_of

SEEDS = tuple(range(6))


def shifted(records, cell, by):
    """The rows with all scores of a cell moved."""
    return [
        replace(r, outcome=replace(r.outcome, metric_value=r.outcome.metric_value + by))
        if r.job.cell == cell
        else r
        for r in records
    ]


def test_pairs_of_steps_are_counted_by_task_and_seed():
    """Steps of QLoRA took half as long at one seed of each of two tasks, and one run failed."""
    rows = [
        replace(r, outcome=replace(r.outcome, step_seconds_p50=0.01))
        if (r.job.cell, r.job.seed) == (QLORA, 1)
        else r
        for r in make_matrix((LORA, QLORA))
    ]
    rows = [
        replace(r, outcome=make_failure())
        if (r.job.cell, r.job.seed, r.job.task) == (LORA, 0, rows[0].job.task)
        else r
        for r in rows
    ]
    answer = slower("slower?", run_of(rows), (line_of(run_of(rows), direction="undecided"),))
    assert "It took longer in 3 of 5 pairs of task and seed." in answer.text


def test_runs_that_collapsed_are_told_beside_the_mean_that_has_them():
    rows = make_matrix((LORA, ADALORA), seeds=SEEDS)
    bad = next(i for i, r in enumerate(rows) if r.job.cell == ADALORA)
    rows[bad] = replace(rows[bad], outcome=replace(rows[bad].outcome, collapsed=True))
    told = worth("worth it?", run_of(rows), ()).text
    assert told.endswith("1 of 12 runs of AdaLoRA r8 collapsed (the same answer for every row).")
    assert "collapsed" not in worth_of(0.0).text


def test_that_every_method_fits_is_said_where_no_run_is_over_the_limit():
    assert under_a_gigabyte("which?", run_of(make_matrix()), ()).text.startswith("All ")
    rows = [
        replace(r, outcome=replace(r.outcome, peak_memory_bytes=2 * 10**9))
        if r.job.cell == FULL
        else r
        for r in make_matrix((LORA, FULL))
    ]
    assert "measured here fit" not in under_a_gigabyte("which?", run_of(rows), ()).text


def worth_of(by):
    rows = shifted(make_matrix((LORA, ADALORA), seeds=SEEDS), ADALORA, by)
    return worth("worth it?", run_of(rows), ())


def test_without_rows_nothing_is_answered_and_what_would_measure_it_is_said():
    found = answers((), ())
    assert [answer.word for answer in found] == ["Not measured"] * 3
    assert all(answer.run is None and "make bench" in answer.next for answer in found)


def test_adalora_is_worth_it_where_its_verdict_is_higher_and_not_where_it_is_lower():
    better, worse = worth_of(+0.15), worth_of(-0.15)
    assert better.word == "Yes, for its score" and "is shown to score higher" in better.text
    assert worse.word == "No" and "is shown to score lower" in worse.text
    assert not better.next and not worse.next


def test_what_scores_the_same_at_a_higher_price_is_not_worth_it():
    rows = shifted(make_matrix((LORA, ADALORA), seeds=(0, 1)), ADALORA, 0.025)
    answer = worth("worth it?", run_of(rows), ())
    assert answer.word == "No, it scores the same"
    assert "within 0.01 of LoRA r8" in answer.text and "1.30× the time of a step" in answer.text


def test_an_answer_holds_the_figures_of_the_verdict_and_its_seeds():
    answer = worth_of(+0.15)
    found = against_reference(answer.run.table)[ADALORA]
    assert difference_text(found) in answer.text
    assert f"{len(SEEDS)} seeds" in answer.text
    assert answer.text != worth_of(+0.10).text


def test_what_no_verdict_decides_is_undecided_with_the_seeds_that_would():
    rows = make_matrix((LORA, ADALORA), seeds=(0, 1))
    answer = worth("worth it?", run_of(shifted(rows, ADALORA, 0.030)), ())
    assert answer.word == "Undecided"
    assert "Neither AdaLoRA r8 nor LoRA r8 is shown" in answer.text
    assert "seeds" in answer.next


def test_a_run_without_the_cells_is_not_asked():
    run = run_of(make_matrix((LORA, HEAD)))
    assert worth("worth it?", run, ()) is None
    assert slower("slower?", run, ()) is None
    found = answers((run,), ())
    assert [answer.word for answer in found][1:] == ["Not measured"] * 2


def test_which_method_is_asked_of_the_run_with_most_cells():
    few, many = run_of(make_matrix((LORA, ADALORA))), run_of(make_matrix((LORA, QLORA, FULL)))
    first, _, third = answers((few, many), ())
    assert first.run is many and third.run is few


def test_a_run_of_several_tasks_counts_before_one_of_more_seeds():
    tasks = run_of(make_matrix((LORA, QLORA), tasks=("sst2", "cola"), seeds=(0, 1)))
    seeds = run_of(make_matrix((LORA, QLORA), tasks=("sst2",), seeds=(0, 1, 2, 3, 4)))
    assert sorted((seeds, tasks), key=weight, reverse=True)[0] is tasks


def test_settings_of_one_method_are_no_choice_among_methods():
    settings = run_of(make_matrix((LORA, *(ADALORA._replace(variant=f"{n}") for n in range(4)))))
    methods = run_of(make_matrix((LORA, QLORA, FULL)))
    assert answers((settings, methods), ())[0].run is methods


def test_a_run_of_one_seed_answers_nothing_however_many_cells_it_has():
    one = run_of(make_matrix((LORA, QLORA, ADALORA, FULL), seeds=(0,)))
    assert answers((one,), ())[0].word == "Not measured"
    several = run_of(make_matrix((LORA, QLORA)))
    assert answers((one, several), ())[0].run is several


def test_what_takes_more_than_a_gigabyte_is_no_answer():
    rows = [
        replace(r, outcome=replace(r.outcome, live_bytes=2 * 10**9, peak_memory_bytes=2 * 10**9))
        for r in make_matrix((LORA, QLORA))
    ]
    answer = under_a_gigabyte("which?", run_of(rows), ())
    assert answer.word == "Unknown" and answer.next
    assert answer.text.startswith("No method was measured within 1,000")


def line_of(run, **changes):
    """A claim on step times with a verdict by a run."""
    sides = {
        "of": {"method": "lora", "rank": 8, "quantization": "nf4"},
        "to": {"method": "lora", "rank": 8},
    }
    limits = {"measure": "step_seconds_p50", "within": [1.1, 1.2]}
    test = {"part": "step time", "suite": "demo", "ratio": sides | limits}
    made = claim(test)
    shown = {"effect": 1.3, "low": 1.2, "high": 1.4, "seeds": 3, "tasks": ("sst2",)}
    part = Part(made.tests[0], **({"kind": "contradicted"} | shown | changes))
    verdict = Verdict(made, part.kind, "", (part,), 0.99, ())
    return Line(made, (Standing(run.suite, run.profile, verdict),), ())


@pytest.mark.parametrize(
    ("direction", "word"),
    [("reproduced", "Yes"), ("contradicted", "No"), ("undecided", "Undecided")],
)
def test_whether_qlora_is_slower_is_the_verdict_on_the_direction_of_a_claim(direction, word):
    run = run_of(make_matrix((LORA, QLORA)))
    answer = slower("slower?", run, (line_of(run, direction=direction, more=999),))
    assert answer.word == word
    assert "took 1.300× that of LoRA r8 on a CPU" in answer.text
    assert "(1.200× to 1.400×; 3 seeds, 1 task; interval at 99\xa0%, as several" in answer.text
    assert "It took longer in 6 of 6 pairs of task and seed." in answer.text
    assert bool(answer.next) == (word == "Undecided")
    assert "999" not in answer.next, "the claim's own number is for the size that it claims"


def test_the_seeds_that_would_show_which_is_slower_fall_with_the_ratio():
    def needed(times):
        def timed(row):
            spread = 0.02 * row.job.seed
            seconds = 0.1 * (times + spread) if row.job.cell == QLORA else 0.1
            return replace(row, outcome=replace(row.outcome, step_seconds_p50=seconds))

        rows = [timed(row) for row in make_matrix((LORA, QLORA))]
        return seeds_to_slower(run_of(rows).table, QLORA, LORA, alpha=0.05)

    assert needed(1.02) > needed(1.2)


def test_a_verdict_by_another_run_answers_nothing():
    run, other = run_of(make_matrix((LORA, QLORA))), run_of(make_matrix((LORA,), suite="other"))
    assert slower("slower?", run, (line_of(other, direction="reproduced"),)) is None


def test_a_pair_is_of_one_size_and_its_difference_is_turned_where_the_table_has_it_so():
    table = run_of(make_matrix((LORA, QLORA))).table
    assert pair(table, is_qlora, lambda cell: cell == LORA) == (QLORA, LORA)
    one, turned = scored(table, QLORA, LORA)
    other, straight = scored(table, LORA, QLORA)
    assert one is other and turned != straight
    text = difference_text(one, turned)
    mean = one.comparison.estimate.mean
    sign = "−" if (-mean if turned else mean) < 0 else "+"
    assert text.startswith(sign)

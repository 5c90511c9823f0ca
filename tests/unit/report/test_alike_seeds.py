"""Seeds that are all alike, or one alone: no sentence says more than they show, either way.

The task is an easy one of three classes: a constant guess has a third of 512 rows right.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from factory import FULL, HEAD, LORA, QLORA, WORDS, make_matrix
from peftmark.advice.answer import headline, state
from peftmark.advice.candidates import Wish
from peftmark.advice.recommend import recommend
from peftmark.analysis.guess import unbeaten
from peftmark.analysis.table import build
from peftmark.report.live import _said
from peftmark.report.paper_table import paper_table
from shown import section, show

ONE = (1.0, 1.0, 1.0)
CELLS = {"lora": LORA, "full": FULL, "head": HEAD, "qlora": QLORA, "words": WORDS}


def rows(guess=1 / 3, metric="accuracy", **scores):
    found = []
    for name, values in scores.items():
        for record in make_matrix([CELLS[name]], ["sst2"], range(len(values))):
            value = values[record.job.seed]
            outcome = replace(
                record.outcome, metric_value=value, metrics={metric: value}, baseline_value=guess
            )
            job = replace(record.job, metric=metric)
            found.append(replace(record, job=job, outcome=outcome))
    return found


def table(made):
    return build(made, [r.job for r in made], LORA)


def first(guess=1 / 3, metric="accuracy", **scores):
    return show(rows(guess, metric, **scores)).first


def test_an_easy_task_was_learned_though_its_seeds_are_all_alike():
    made = rows(lora=ONE, full=ONE, qlora=ONE)
    page = show(made)
    assert page.first.answer == (
        "LoRA r8: 3 seeds show no difference to full fine-tuning, for 1\u00a0% of its trained "
        "parameters."
    )
    assert page.finding.startswith("Over 1 task and 3 seeds, LoRA r8 scored 1.000. Against it:")
    assert "guess" not in page.first.caveat + section(page, "quality").lead
    assert page.first.tiles[0].note == "QLoRA r8 takes less memory and scored the same on 3 seeds"
    assert unbeaten(table(made)) == ()


def test_lines_that_learned_are_told_where_one_method_alone_fine_tunes():
    answer = first(lora=ONE, head=(0.806, 0.800, 0.810), words=(0.79, 0.80, 0.82)).answer
    assert answer == (
        "LoRA r8 is the only method here that fine-tunes; head only and bag of words scored lower."
    )
    alike = first(lora=ONE, head=(0.806,) * 3)
    assert alike.answer == (
        "LoRA r8 is the only method here that fine-tunes; 3 seeds that are all alike can't show a "
        "difference to head only."
    )
    assert alike.tiles[0].value == "LoRA r8"  # the head is 19 points below at every seed
    ahead = first(lora=(0.80, 0.81, 0.82), words=(0.90, 0.912, 0.921)).answer
    assert ahead == "LoRA r8 is the only method here that fine-tunes; bag of words scored higher."


def test_one_method_alone_has_nothing_to_compare_and_the_others_are_told():
    assert first(lora=ONE).answer == (
        "LoRA r8 is the only method here that fine-tunes: nothing to compare."
    )
    assert first(lora=ONE, full=(0.34, 0.35, 0.33)).answer == (
        "LoRA r8 is the only method that fine-tunes and is above the quality floor: nothing to "
        "compare."
    )
    made = rows(lora=ONE, full=ONE)
    failed = [
        replace(r, outcome=replace(r.outcome, status="crashed")) if r.job.method == "full" else r
        for r in made
    ]
    assert show(failed).first.answer == (
        "LoRA r8 is the only method that fine-tunes and finished: nothing to compare."
    )


def test_all_alike_at_the_guess_is_not_above_it():
    screen = first(guess=0.5, lora=(0.5,) * 3, full=(0.5,) * 3)
    assert screen.answer == (
        "No method scored better than a constant guess on any task, by mean score."
    )
    assert screen.tiles[0].value == "nothing yet"
    assert screen.tiles[2].note == "no other cell above the quality floor has a score to compare"


def test_what_rows_can_not_tell_is_said_of_the_seeds():
    screen = first(0.0, "log_likelihood", lora=(-1.0,) * 3, full=(-1.2,) * 3)
    assert "learned" not in screen.answer
    # With a guess of 0, the best there can be, nothing is above; of -3 both are, and no row tells.
    screen = first(-3.0, "log_likelihood", lora=(-1.0,) * 3, full=(-1.2,) * 3)
    assert screen.answer == (
        "No method is shown to beat a constant guess on any task by 3 seeds that are all alike; "
        "the highest mean is that of LoRA r8."
    )


def test_cells_that_share_the_highest_mean_are_all_named():
    answer = first(-3.0, "log_likelihood", lora=(-1.0,) * 3, full=(-1.0,) * 3).answer
    assert answer.endswith("the highest mean is that of LoRA r8 and full fine-tuning.")


def test_a_guess_that_is_not_recorded_is_the_reason():
    assert first(None, lora=ONE, full=ONE).answer.startswith(
        "What a constant guess scores is not recorded, so none is shown to be beaten"
    )


def test_two_seeds_far_above_the_guess_learned_and_two_that_nothing_tells_are_not_shown():
    assert first(lora=(0.9, 1.0), full=(0.8, 0.95)).answer.startswith(
        "LoRA r8: 2 seeds show no difference to full fine-tuning"
    )
    screen = first(-3.0, "log_likelihood", lora=(-0.2, -2.0), full=(-1.50, -1.51))
    assert screen.answer == (
        "LoRA r8, the reference, is not shown above a constant guess, so nothing is compared with "
        "it; the highest mean is that of LoRA r8."
    )
    assert screen.tiles[0].note == (
        "LoRA r8 has the highest mean and is not shown above a constant guess"
    )
    assert screen.charts[0].figure.note.endswith("Grey: not shown above a constant guess.")
    made = rows(-3.0, "log_likelihood", lora=(-0.2, -2.0), full=(-1.50, -1.51))
    (low,) = [c for c in recommend(table(made), Wish()).others if c.cell == LORA]
    assert state(recommend(table(made), Wish()), low) == "not shown above a constant guess"


def test_seeds_that_differ_by_the_same_are_not_called_alike():
    screen = first(lora=(0.80, 0.82, 0.81), full=(0.90, 0.92, 0.91))
    assert screen.answer.startswith(
        "LoRA r8: 3 seeds that all differ by the same can't show a difference to full fine-tuning"
    )


def test_each_kind_of_undecided_pair_is_told_of_its_own_cells():
    """LoRA and QLoRA are alike at every seed, AdaLoRA's seeds differ."""
    answer = first(lora=ONE, qlora=(0.95,) * 3, head=(0.8, 0.9, 1.0)).answer
    assert answer == "LoRA r8: 3 seeds that are all alike can't show a difference to QLoRA r8."
    alone = first(lora=ONE, words=(0.95,) * 3, head=(0.8, 0.9, 1.0)).answer
    assert alone.endswith(
        "3 seeds that are all alike can't show a difference to bag of words; 3 seeds show no "
        "difference to head only."
    ) or alone.endswith(
        "3 seeds show no difference to head only; 3 seeds that are all alike can't show a "
        "difference to bag of words."
    )


@pytest.mark.parametrize("seeds", [1, 3])
def test_what_lost_more_than_is_allowed_at_every_seed_is_not_called_close(seeds):
    made = rows(lora=(1.0,) * seeds, qlora=(0.8,) * seeds)
    assert show(made).first.tiles[0].value == "LoRA r8"
    assert "Perhaps" not in headline(recommend(table(made), Wish(max_drop=1.0)))
    near = rows(lora=(1.0,) * seeds, qlora=(0.995,) * seeds)
    assert show(near).first.tiles[0].value == "QLoRA r8 or LoRA r8"
    assert "Perhaps" in headline(recommend(table(near), Wish(max_drop=1.0)))


def test_a_table_gives_seeds_that_are_all_alike_no_interval():
    """Nor does it give them a width of 0, which would claim to know other seeds."""
    (line, *_) = paper_table(table(rows(lora=ONE))).lines
    assert (line[0].text, line[0].half_width, line[0].low) == ("1.000", None, None)


def test_a_recommendation_from_one_seed_says_so():
    (*_, last) = recommend(table(rows(lora=(1.0,), full=(0.9,))), Wish()).caveats
    assert last == "One seed has no interval: other seeds may order cells differently."
    (*_, last) = recommend(table(rows(lora=ONE, full=ONE)), Wish()).caveats
    assert last.startswith("Intervals are plain 95 % ones")


def test_the_live_page_says_why_seeds_that_are_in_show_nothing():
    lines = list(_said(table(rows(lora=ONE, full=(0.9,) * 3))))
    assert lines[0] == (
        "full fine-tuning: the same difference at every seed can't show a difference to LoRA r8 "
        "(3 of 3 seeds in)."
    )
    (one, _) = _said(table(rows(lora=(1.0,), full=(0.9,))))
    assert one == "full fine-tuning: one seed can't show a difference to LoRA r8 (1 of 1 seed in)."

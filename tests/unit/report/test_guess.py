"""A task on which no cell is shown to beat a constant guess is the first thing a reader is told,
and nothing is recommended there."""

from __future__ import annotations

import json

import pytest

from factory import ADALORA, BASE, LORA, WORDS, make_job, make_outcome, make_record
from peftmark.advice import answer as advice
from peftmark.advice import plain_lines
from peftmark.advice.candidates import Wish
from peftmark.advice.recommend import recommend
from peftmark.analysis import table
from peftmark.analysis.guess import beats, unbeaten
from peftmark.render import markdown
from shown import paragraphs, section, show

GOOD = (0.80, 0.82, 0.84)
"""Mean 0.82, standard deviation 0.02, half-width 4.303 × 0.02 / √3 = 0.0497: beats up to 0.770."""


def rows(cell=LORA, task="sst-2", scores=GOOD, guess=0.5, metric="accuracy"):
    found = []
    for seed, value in enumerate(scores):
        job = make_job(
            method=cell.method,
            size=cell.size,
            quantization=cell.quantization,
            task=task,
            metric=metric,
            seed=seed,
        )
        outcome = make_outcome(
            metric_value=value, metrics={metric: value}, baseline_value=guess, final_rank=None
        )
        found.append(make_record(job=job, outcome=outcome))
    return found


def built(records):
    return table.build(records, [r.job for r in records], LORA)


@pytest.mark.parametrize(("guess", "shown"), [(0.770, True), (0.771, False), (0.9, False)])
def test_a_cell_beats_the_guess_where_its_interval_lies_above_it(guess, shown):
    assert beats(built(rows(guess=guess)), LORA, "sst-2") == shown


@pytest.mark.parametrize(
    ("scores", "guess"), [((0.53,), 0.5), ((0.53, 0.53, 0.53), 0.5), (GOOD, None)]
)
def test_a_little_above_by_seeds_without_an_interval_and_an_unknown_guess_show_nothing(
    scores, guess
):
    """271 of 512 rows right: a fair coin has as many in 9.9 % of draws."""
    (one,) = unbeaten(built(rows(scores=scores, guess=guess)))
    assert (one.task, one.best, one.guess) == ("sst-2", LORA, guess)


@pytest.mark.parametrize("scores", [(0.9,), (1.0, 1.0, 1.0), (0.7, 1.0)])
def test_seeds_without_a_useful_interval_beat_a_guess_by_their_rows(scores):
    assert beats(built(rows(scores=scores)), LORA, "sst-2")


def test_the_chance_of_a_false_alarm_is_shared_among_the_cells_of_a_task():
    """281 of 512 rows: 1.5 %, within 2.5 % and not within half of it."""
    lucky = rows(scores=(0.55,))
    assert beats(built(lucky), LORA, "sst-2")
    assert not beats(built([*lucky, *rows(ADALORA, scores=(0.5,))]), LORA, "sst-2")


def test_one_run_that_is_not_above_is_enough_to_show_nothing():
    assert not beats(built(rows(scores=(0.5, 1.0))), LORA, "sst-2")


def test_where_lower_is_better_below_the_guess_beats_it():
    errors = rows(scores=(2.0, 2.1, 2.2), guess=5.0, metric="rmse")
    assert beats(built(errors), LORA, "sst-2")
    worse = rows(scores=(7.0, 7.1, 7.2), guess=5.0, metric="rmse")
    better = rows(ADALORA, scores=(6.0, 6.1, 6.2), guess=5.0, metric="rmse")
    assert [one.best for one in unbeaten(built([*worse, *better]))] == [ADALORA]


def test_one_cell_that_beats_it_is_enough_and_what_trains_nothing_counts_for_none():
    weak = rows(ADALORA, scores=(0.5, 0.5, 0.49))
    assert unbeaten(built([*rows(), *weak])) == ()
    base = [r for r in rows(BASE) if r.job.method == "base"]
    assert [one.best for one in unbeaten(built([*weak, *base]))] == [ADALORA]
    assert unbeaten(built(base)) == ()


def test_it_is_the_first_sentence_of_the_report():
    made = [*rows(), *rows(task="rte", scores=(0.52, 0.53, 0.54), guess=0.527)]
    first = (
        "No cell is shown to beat a constant guess on rte (best LoRA r8, 0.530 ± 0.025, guess "
        "0.527), so nothing is recommended there. "
    )
    assert show(made).finding.startswith(first + "Over 2 tasks and 3 seeds")
    text = markdown.render(show(made))
    caveat = "No cell is shown to beat a constant guess on rte, so nothing is recommended there."
    assert text.split("\n\n")[3] == caveat == show(made).first.caveat
    assert first in text


def test_nothing_is_said_where_a_cell_beats_it_on_every_task():
    assert plain_lines.no_gain(built(rows())) == ""
    assert show(rows()).finding.startswith("Over 1 task")


def test_what_is_not_known_of_a_guess_or_of_other_seeds_is_said():
    assert "0.520 by one seed, guess 0.500)" in plain_lines.no_gain(built(rows(scores=(0.52,))))
    alike = plain_lines.no_gain(built(rows(scores=(0.52,) * 3)))
    assert "0.520 by 3 seeds that are all alike, guess 0.500)" in alike
    text = plain_lines.no_gain(built(rows(guess=None)))
    assert "what a guess scores is not recorded" in text
    assert text.endswith("so nothing is recommended.")


def test_of_many_tasks_the_first_are_named_and_the_others_counted():
    made = [r for i in range(6) for r in rows(task=f"task-{i}", guess=0.9)]
    text = plain_lines.no_gain(built(made))
    assert "task-3 (" in text and "task-4" not in text and "and 2 more tasks, so" in text


def test_ranks_and_the_trade_say_what_their_mean_rests_on():
    weak = rows(task="rte", guess=0.9)
    some, none = show([*rows(), *weak]), show(weak)
    for key in ("quality", "trade"):
        assert section(some, key).lead.startswith(
            "The mean over tasks has rte in it, where no cell is shown to beat a constant guess. "
        )
        assert section(none, key).lead.startswith(
            "No cell is shown to beat a constant guess on any task, so no order is worth much. "
        )
        assert "guess" not in section(show(rows()), key).lead


def test_a_line_that_beats_the_guess_is_no_contradiction():
    """No cell that trains beats it, though a bag of words does."""
    weak, good = rows(scores=(0.5, 0.51, 0.49)), rows(WORDS, scores=(0.9, 0.91, 0.92))
    (one,) = unbeaten(built([*weak, *good]))
    assert one.others
    for text in (plain_lines.no_gain(built([*weak, *good])), show([*weak, *good]).first.answer):
        assert text.startswith(("No cell that trains is", "No method that trains scored"))


# --- recommendations ----------------------------------------------------------------------------


def test_a_task_without_gain_has_no_say_in_what_is_recommended():
    made = [*rows(), *rows(ADALORA, scores=(0.7, 0.71, 0.72))]
    lost = [
        *rows(task="rte", scores=(0.40, 0.41, 0.42)),
        *rows(ADALORA, "rte", scores=(0.48, 0.52, 0.50)),
    ]
    answer = recommend(built([*made, *lost]), Wish())
    assert answer.table.tasks == ("sst-2",)
    assert answer.picks[0].score.mean == pytest.approx(0.82)
    assert answer.caveats[0] == ("Left out: rte, where no cell is shown to beat a constant guess.")


def test_where_no_task_has_a_gain_nothing_at_all_is_recommended():
    made = [*rows(guess=0.9), *rows(ADALORA, guess=0.9)]
    answer = recommend(built(made), Wish(max_drop=1.0))
    assert (answer.verdict, answer.picks, answer.best) == ("unknown", (), None)
    advised = advice.Advised((answer,), ())
    assert "Unknown. No cell is shown to beat a constant guess on sst-2 (" in (
        advice.advice_text(advised)
    )
    (facts,) = json.loads(json.dumps(advice.facts_of(advised)))["answers"]
    assert facts["cells"] == []
    shown = show(made)
    assert section(shown, "choice").lead.startswith("Unknown. No cell is shown to beat")
    assert "has the least" not in paragraphs(shown, "choice")

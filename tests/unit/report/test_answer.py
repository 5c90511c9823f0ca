"""The first screen: the answer, its caveat and the four facts, case by case."""

import statistics
from dataclasses import replace

import pytest

from factory import ADALORA, FULL, HEAD, LORA, QLORA, make_failure, make_matrix, make_repeat
from peftmark.advice.answer import headline, state
from peftmark.advice.candidates import Wish
from peftmark.advice.recommend import recommend
from peftmark.analysis.stats import compare, minimum_detectable_effect
from peftmark.analysis.table import build
from peftmark.report.recommendation import answers_of
from shown import show

NOISE = (0.0, 0.004, -0.003, 0.002, -0.003)
STEP = {"lora": 1, "full": 2, "adalora": 3, "qlora": 4, "head": 2}
"""How far apart the noise of a cell's seeds is read, so that no two cells share it."""


def first(seeds=5, **means):
    """The first screen of one task on which cells have these means."""
    cells = {"lora": LORA, "full": FULL, "head": HEAD, "adalora": ADALORA, "qlora": QLORA}
    rows = []
    for name, mean in means.items():
        for record in make_matrix([cells[name]], ["sst2"], range(seeds)):
            wobble = NOISE[record.job.seed * STEP[name] % 5]
            value = mean + wobble
            outcome = replace(record.outcome, metric_value=value, baseline_value=0.5)
            rows.append(replace(record, outcome=outcome))
    return show(rows).first


def test_nothing_shown_is_called_no_difference_and_never_as_good():
    screen = first(lora=0.80, full=0.806, seeds=3)
    assert screen.answer == (
        "LoRA r8: 3 seeds show no difference to full fine-tuning, for 1\u00a0% of its trained "
        "parameters."
    )
    assert "±" not in screen.answer + screen.caveat
    assert screen.caveat == (
        "Reduced scale (120 steps) and only 3 seeds: a longer run may order methods differently."
    )


def test_what_is_decided_is_said():
    assert first(lora=0.80, full=0.75).answer.startswith("LoRA r8 scored higher than full")
    assert first(lora=0.80, full=0.801, seeds=3).answer.startswith(
        "LoRA r8 is within 0.01 of full fine-tuning over 3 seeds, for 1"
    )
    ahead = first(lora=0.80, full=0.85).answer
    assert ahead.startswith("full fine-tuning scored higher than LoRA r8, with ")
    assert first(lora=0.80, qlora=0.85, adalora=0.86).answer == (
        "AdaLoRA r8 scored higher than LoRA r8, with 1.17 times its trained parameters, as did 1 "
        "other cell."
    )
    assert first(lora=0.80, qlora=0.805, adalora=0.70).answer == (
        "LoRA r8: 5 seeds show no difference to QLoRA r8; AdaLoRA r8 scored lower."
    )


def test_one_seed_shows_what_learned_and_not_which_is_better():
    """410 of 512 rows right beside a guess of a half; 269 and 264 of them show nothing."""
    assert first(seeds=1, lora=0.8, full=0.9).answer == (
        "LoRA r8: one seed can't show a difference to full fine-tuning, for 1\u00a0% of its "
        "trained parameters; the highest mean is that of full fine-tuning."
    )
    assert first(seeds=1, lora=0.527, full=0.516).answer == (
        "No method is shown to beat a constant guess on any task by one seed; the highest mean is "
        "that of LoRA r8."
    )


def test_a_cell_below_the_floor_is_no_headline_however_cheap():
    screen = first(lora=0.80, head=0.55)
    assert (
        screen.answer == "LoRA r8 is the only method here that fine-tunes; head only scored lower."
    )
    (chart, *_) = screen.charts
    standing = {p.mark.label: p.standing for p in chart.figure.drawing.points}
    assert standing == {"LoRA r8 (reference)": "on", "head only": "below the floor"}
    assert "head only" not in chart.figure.finding
    low = first(lora=0.52, full=0.80)
    assert low.answer == (
        "LoRA r8, the reference, learned too little to compare anything with it; the highest mean "
        "is that of full fine-tuning."
    )


def test_failures_stand_in_the_caveat_and_what_takes_more_memory_is_no_saving():
    rows = make_matrix([LORA, ADALORA], ["sst2"], range(5))
    rows[-1] = replace(rows[-1], outcome=make_failure())
    screen = show(rows).first
    assert screen.caveat.startswith("1 of 10 runs failed and reduced scale (120 steps): a longer")
    pick = screen.tiles[0]
    assert pick.value == "LoRA r8" and "nothing that takes less memory" in pick.note
    jobs = [r.job for r in rows]
    screen = show(rows[3:], jobs).first
    assert screen.caveat.startswith("1 of 10 runs failed, 3 not run yet, reduced scale")


def test_the_price_is_that_of_what_to_pick_with_the_reference_beside_it():
    rows = make_matrix([LORA, QLORA], ["sst2"], range(3))
    for i, row in enumerate(rows):
        if row.job.cell == QLORA:
            better = replace(row.outcome, metric_value=row.outcome.metric_value + 0.1)
            rows[i] = replace(row, outcome=better)
    pick, price, *_ = show(rows).first.tiles
    assert pick.value == "QLoRA r8"
    assert price.value.startswith("301 MiB")
    assert price.note.startswith("QLoRA r8, mean over tasks; LoRA r8: 520 MiB")


def test_that_nothing_is_above_a_guess_is_the_answer_and_not_that_nothing_was_learned():
    assert first(lora=0.50, full=0.499).answer == (
        "No method scored better than a constant guess on any task, by mean score."
    )
    assert first(lora=0.502, full=0.503).answer == (
        "No method is shown to beat a constant guess on any task by 5 seeds; the highest mean is "
        "that of full fine-tuning."
    )


def test_without_a_finished_run_there_is_an_answer_and_no_chart():
    rows = [replace(r, outcome=make_failure()) for r in make_matrix([LORA], ["sst2"])]
    screen = show(rows).first
    assert screen.answer.startswith("No run finished")
    assert screen.caveat == "3 of 3 runs ended with out of memory: asked for 2 GiB."
    assert screen.charts == () and screen.tiles == ()


def test_what_most_runs_ended_with_is_told_on_one_short_line():
    rows = [replace(r, outcome=make_failure()) for r in make_matrix([LORA], ["sst2"])]
    long = replace(rows[0], outcome=make_failure("error", "line\none " + "x" * 500 + "."))
    assert show([long, *rows[1:]]).first.caveat.startswith("2 of 3 runs ended with out of memory")
    alone = show([long], [r.job for r in rows]).first.caveat
    assert alone.startswith("1 of 3 runs ended with error: line one xxx")
    assert alone.endswith("xxx….") and len(alone) < 200
    bare = replace(rows[0], outcome=make_failure("error", ""))
    assert show([bare]).first.caveat == "1 of 1 run ended with error."
    assert show([], [r.job for r in rows]).first.caveat == ""


def test_the_best_cell_that_is_the_cheapest_too_is_said_to_be():
    pick = first(lora=0.60, qlora=0.85, head=0.51).tiles[0]  # the frozen head takes less
    assert (pick.value, pick.note) == (
        "QLoRA r8",
        "the highest mean; nothing that takes less memory is above the quality floor",
    )


def signs(screen):
    return [(s.state, s.text) for s in screen.tiles[-1].signs]


def test_trust_has_a_mark_each_for_the_repeat_the_flags_and_the_failures():
    rows = make_matrix([LORA, FULL], ["sst2"])
    good = show([*rows, make_repeat(rows[0])]).first
    assert signs(good) == [
        ("good", "a repeat gave the same bits"),
        ("good", "no run looks wrong"),
        ("good", "all 6 runs finished"),
    ]
    assert good.tiles[-1].value == "yes, as far as is checked"
    rows[1] = replace(rows[1], outcome=replace(rows[1].outcome, collapsed=True))
    rows[2] = replace(rows[2], outcome=make_failure())
    bad = show([*rows, make_repeat(rows[0], live_bytes=1)]).first
    assert [state for state, _ in signs(bad)] == ["bad", "care", "care"]
    assert signs(bad)[2] == ("care", "1 of 6 runs failed")
    assert bad.tiles[-1].value == "no"
    assert signs(show(rows).first)[0] == ("care", "no job was repeated")
    rows[3] = replace(rows[3], outcome=replace(rows[3].outcome, curve=rows[0].outcome.curve))
    twins = show([*rows, make_repeat(rows[0])]).first
    assert signs(twins)[1][0] == "bad" and twins.tiles[-1].value == "no"


def test_a_phone_has_pictures_of_its_own_and_the_same_words():
    chart = first(lora=0.80, full=0.801).charts[0]
    assert chart.phone.finding == chart.figure.finding
    assert chart.phone.drawing.size[0] <= 360 < chart.figure.drawing.size[0]


@pytest.mark.parametrize("seeds", [2, 5])
def test_scope_says_the_seeds_once(seeds):
    assert f"1 task × {seeds} seeds on all-MiniLM-L6-v2" in first(seeds=seeds, lora=0.8).scope


def seeds_of(**scores):
    """A table of one task in which the seeds of cells have these scores, beside a guess of 0.2."""
    cells = {"lora": LORA, "head": HEAD, "qlora": QLORA}
    rows = []
    for name, values in scores.items():
        for record in make_matrix([cells[name]], ["sst2"], range(len(values))):
            value = values[record.job.seed]
            outcome = replace(record.outcome, metric_value=value, baseline_value=0.2)
            rows.append(replace(record, outcome=outcome))
    return rows


def test_two_seeds_that_decide_nothing_make_no_pick_of_what_learned_little():
    """A head 40 points below, which two seeds of a small suite can't tell from chance."""
    rows = seeds_of(lora=(0.82, 0.83), qlora=(0.84, 0.825), head=(0.42, 0.455))
    for answer in answers_of(build(rows, [r.job for r in rows], LORA)).values():
        assert answer.picks and HEAD not in {c.cell for c in answer.picks}
        (head,) = [c for c in answer.others if c.cell == HEAD]
        assert head.low and state(answer, head) == "learned too little"
        assert "head only" not in headline(answer)
    pick = show(rows).first.tiles[0]
    assert pick.title == "What to pick" and "head only" not in pick.value + pick.note


def test_a_drop_that_was_allowed_and_is_shown_may_end_below_the_floor():
    rows = seeds_of(lora=(0.82, 0.83, 0.825), head=(0.42, 0.432, 0.424))
    table = build(rows, [r.job for r in rows], LORA)
    for drop, picked in ((60.0, True), (1.0, False)):
        answer = recommend(table, Wish(max_drop=drop, least="memory"))
        assert (HEAD in {c.cell for c in answer.picks}) == picked


@pytest.mark.parametrize(("seeds", "alone", "of_five"), [(5, 1.7, 2.6), (3, 3.3, 7.3)])
def test_what_few_seeds_find_is_what_the_limit_of_the_caveat_says(seeds, alone, of_five):
    """In spreads of the differences over seeds, power 0.8; Holm's first step over five cells."""
    values = [(i - (seeds - 1) / 2) for i in range(seeds)]
    found = compare([[v / statistics.stdev(values) for v in values]])
    assert minimum_detectable_effect(found, 0.05) == pytest.approx(alone, abs=0.05)
    assert minimum_detectable_effect(found, 0.05 / 5) == pytest.approx(of_five, abs=0.05)


def test_whoever_stops_a_run_makes_none_of_its_jobs_fail():
    rows = make_matrix([LORA, QLORA], ["sst2"], range(4))
    stopped = [replace(r, outcome=make_failure("interrupted", "by a signal")) for r in rows[6:7]]
    page = show([*rows[:6], *stopped], [r.job for r in rows])
    assert page.first.caveat.startswith("2 of 8 runs not run yet, reduced scale")
    assert signs(page.first)[-1] == ("care", "2 of 8 not run yet")
    lead = next(s for s in page.sections if s.key == "coverage").lead
    assert lead.startswith("8 jobs planned: 6 ok, 0 failed, 2 not run yet.")
    broken = [replace(r, outcome=make_failure("crashed", "x")) for r in rows[7:]]
    page = show([*rows[:6], *stopped, *broken])
    assert page.first.caveat.startswith("1 of 8 runs failed, 1 not run yet, ")
    lead = next(s for s in page.sections if s.key == "coverage").lead
    assert lead.startswith("8 jobs planned: 6 ok, 1 failed, 1 not run yet. Failed: crashed 1.")

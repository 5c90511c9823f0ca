"""Seeds are added until all is decided: which jobs come next follows from the rows alone."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from types import SimpleNamespace

import pytest
from scipy.special import nctdtr, stdtr, stdtrit

from factory import FULL, HEAD, LORA, make_matrix
from peftmark.analysis.comparison import against_reference, by_task, pairwise
from peftmark.analysis.more_seeds import more_seeds
from peftmark.analysis.sequential import looks, looks_beyond, seen
from peftmark.analysis.stats import chance_to_tell, compare
from peftmark.analysis.table import build, overall_score
from peftmark.core.errors import UserError
from peftmark.record.columns import from_row, to_row
from peftmark.run.runner import Selection
from peftmark.run.session import _as_profile_says
from peftmark.run.until_decided import check, decisions_text, next_block
from peftmark.suite.added_seeds import by_hand, with_look, with_looks
from peftmark.suite.expand import Expanded
from peftmark.suite.load import load_suite
from small_suite import QUICK, changed, refusal, write

ROWS = make_matrix([LORA, FULL, HEAD], ["sst2"], range(12))
TWO_TASKS = make_matrix([LORA, HEAD], ["sst2", "stsb"], range(12))
NOISE = [
    0.001,
    -0.001,
    0.0005,
    -0.0005,
    0.0008,
    -0.0007,
    0.0002,
    0.0011,
    -0.0004,
    0.0,
    0.0006,
    1e-4,
]
LEVEL = {LORA: (0.8, 0.0), FULL: (0.9, 0.1), HEAD: (0.8, 30.0)}


def row(one, most=12):
    """A row whose cell is the reference's level, far above it, or all over the place."""
    level, spread = LEVEL[one.job.cell]
    value = level + spread * NOISE[one.job.seed]
    outcome = replace(one.outcome, metric_value=value)
    return replace(one, outcome=outcome, most_seeds=most, look=1)


def plan_of(rows, seeds=(0, 1, 2)):
    first = [one.job for one in ROWS if one.job.seed in seeds]
    return SimpleNamespace(
        expanded=Expanded(sorted(first, key=lambda job: job.seed), [], {}),
        suite=SimpleNamespace(
            profiles={"quick": SimpleNamespace(seeds=list(seeds), tuning=None)},
            report=SimpleNamespace(reference=LORA),
        ),
        profile=ROWS[0].job.profile,
        contents=SimpleNamespace(records={one.job.job_id: one for one in rows}),
    )


@pytest.fixture(autouse=True)
def profile():
    assert {one.job.profile for one in ROWS} == {ROWS[0].job.profile}


def block_of(plan, most=12, question="reference"):
    plan.suite.profiles = {plan.profile: next(iter(plan.suite.profiles.values()))}
    return next_block(plan, most, set(plan.contents.records), question)


def upto(seeds, cells=(LORA, FULL, HEAD)):
    return [row(one) for one in ROWS if one.job.seed in seeds and one.job.cell in cells]


def asked(block):
    return sorted((job.cell.method, job.seed) for job in block.jobs)


def test_the_first_look_takes_three_seeds_of_every_cell():
    block = block_of(plan_of([]))
    assert asked(block) == [(m, s) for m in ("full", "head", "lora") for s in (0, 1, 2)]
    assert block.text == "Look 1 of 6: 3 seeds, 2 cells in question"


def test_what_is_there_is_not_asked_for_and_fewer_seeds_of_a_profile_are_added_to():
    block = block_of(plan_of(upto({0, 1}), seeds=(0, 1)))
    assert asked(block) == [("full", 2), ("head", 2), ("lora", 2)]


def test_a_cell_that_is_told_from_the_reference_gets_no_more_seeds():
    block = block_of(plan_of(upto({0, 1, 2})))
    assert asked(block) == [("head", 3), ("lora", 3)]
    assert block.text == "Look 2 of 6: 4 seeds, 1 cell in question"
    more = [*upto({0, 1, 2}), *upto({3}, (LORA, HEAD))]
    assert asked(block_of(plan_of(more))) == [("head", 4), ("lora", 4)]


def test_rows_of_any_order_and_a_run_cut_short_come_to_the_same_look():
    rows = [*upto({0, 1, 2}), *upto({3}, (LORA,))]
    assert asked(block_of(plan_of(rows[::-1]))) == [("head", 3)]


def test_it_ends_when_nothing_is_open_or_no_seed_is_left():
    assert block_of(plan_of(upto({0, 1, 2}, (LORA, FULL)) + upto(range(12), (LORA, HEAD)))) is None
    last = upto({0, 1, 2}) + upto(range(3, 12), (LORA, HEAD))
    assert block_of(plan_of(last)) is None


def test_a_job_that_failed_counts_as_ended_and_its_seed_as_missing():
    rows = upto({0, 1, 2})
    bad = replace(rows[-1], outcome=replace(rows[-1].outcome, status="crashed", metric_value=None))
    assert asked(block_of(plan_of([*rows[:-1], bad]))) == [("head", 3), ("lora", 3)]


def test_another_number_of_seeds_than_the_rows_have_is_refused():
    plan = plan_of(upto({0, 1, 2}))
    check(plan, 12, "reference")
    with pytest.raises(UserError, match="were made with at most 12 seeds"):
        check(plan, 20, "reference")
    with pytest.raises(UserError, match="the first look takes 3 seeds"):
        check(plan_of([]), 2, "reference")


def test_rows_of_another_question_are_refused():
    rows = [replace(one, question="best") for one in upto({0, 1, 2})]
    check(plan_of(rows), 12, "best")
    with pytest.raises(UserError, match="rows of profile quick were made for the question 'best'"):
        check(plan_of(rows), 12, "reference")
    with pytest.raises(UserError, match="for the question 'reference'"):
        check(plan_of(upto({0, 1, 2})), 12, "best")  # rows from before there was another


# --- which is best -------------------------------------------------------------------------------


def test_what_cannot_be_first_any_more_gets_no_more_seeds_not_even_the_reference():
    """The reference is shown to be lower than full fine-tuning; head only is all over the place."""
    rows = upto({0, 1, 2})
    block = block_of(plan_of(rows), question="best")
    assert asked(block) == [("full", 3), ("head", 3)]
    assert block.text == "Look 2 of 6: 4 seeds, 2 cells in question"


def test_it_ends_with_one_cell_left_and_says_when():
    rows = upto({0, 1, 2}, (LORA, FULL))
    first = list(rows)
    plan = plan_of(first)
    plan.expanded = replace(
        plan.expanded, jobs=[job for job in plan.expanded.jobs if job.cell != HEAD]
    )
    assert block_of(plan, question="best") is None
    table = build(first, plan.expanded.jobs, LORA)
    text = decisions_text(table, "best")
    assert "full fine-tuning first at look 1 of 6 (3 seeds)" in text
    assert "LoRA r8 lower than another at look 1 of 6 (3 seeds)" in text


def test_it_ends_where_all_that_are_left_are_equivalent():
    def same(one):
        value = 0.9 + 1e-4 * NOISE[one.job.seed] * (1 if one.job.cell == FULL else -1)
        return replace(row(one), outcome=replace(one.outcome, metric_value=value))

    rows = [same(one) for one in ROWS if one.job.seed < 3 and one.job.cell in (LORA, FULL)]
    plan = plan_of(rows)
    plan.expanded = replace(
        plan.expanded, jobs=[job for job in plan.expanded.jobs if job.cell != HEAD]
    )
    assert block_of(plan, question="best") is None
    text = decisions_text(build(rows, plan.expanded.jobs, LORA), "best")
    assert "LoRA r8 may be first, after 3 seeds; full fine-tuning may be first" in text


def test_a_cell_that_never_finishes_gets_no_more_seeds():
    rows = upto({0, 1, 2})
    failed = {"status": "crashed", "metric_value": None}
    rows = [
        replace(r, outcome=replace(r.outcome, **failed)) if r.job.cell == HEAD else r for r in rows
    ]
    assert block_of(plan_of(rows), question="best") is None
    assert block_of(plan_of(rows)) is None
    assert "head only has no score" in decisions_text(table_of(rows), "best")


# --- what lies within the margin -----------------------------------------------------------------


def test_a_difference_that_is_shown_and_not_shown_to_pass_the_margin_is_open():
    """0.013 better: shown to be higher, and not shown to be more than 0.01 higher."""

    def better(one, by):
        value = 0.8 + by * (one.job.cell == FULL) + NOISE[one.job.seed] * (one.job.cell == LORA)
        return replace(row(one), outcome=replace(one.outcome, metric_value=value))

    def left(by):
        rows = [better(one, by) for one in ROWS if one.job.seed < 3 and one.job.cell != HEAD]
        plan = plan_of(rows)
        plan.expanded = replace(
            plan.expanded, jobs=[job for job in plan.expanded.jobs if job.cell != HEAD]
        )
        found = block_of(plan, question="equivalence"), block_of(plan)
        return found, decisions_text(build(rows, plan.expanded.jobs, LORA), "equivalence")

    (open_, plain), text = left(0.013)
    assert plain is None and asked(open_) == [("full", 3), ("lora", 3)]
    assert "full fine-tuning still undecided at 3 seeds" in text
    (far, _), text = left(0.4)
    assert far is None and "full fine-tuning outside the margin at look 1 of 6 (3 seeds)" in text


def test_the_p_of_a_margin_has_both_tails_and_pays_for_the_looks():
    looks_ = looks((0, 1, 2), 12)
    by_seed = [(0, [0.031]), (1, [0.029]), (2, [0.030])]
    p = looks_beyond(by_seed, looks_, 0.01)
    t = 0.02 / (0.001 / 3**0.5)
    assert p == pytest.approx(2 * float(stdtr(2, -t)) / (9 / 144))
    assert looks_beyond([(s, [-v for v in x]) for s, x in by_seed], looks_, 0.01) == p
    assert looks_beyond(by_seed, looks_, 0.05) == 1.0
    assert looks_beyond(by_seed, (), 0.01) is None


def test_the_jobs_of_a_report_are_those_that_ran_and_the_first_looks():
    rows = upto({0, 1, 2, 3}, (LORA, HEAD)) + upto({0, 1}, (FULL,))
    plan = plan_of(rows, seeds=(0, 1, 2, 3, 4))
    jobs = plan.expanded.jobs
    seeds = {}
    for job in with_looks(jobs, plan.contents.records, plan.profile):
        seeds.setdefault(job.cell.method, []).append(job.seed)
    assert seeds == {"lora": [0, 1, 2, 3], "head": [0, 1, 2, 3], "full": [0, 1, 2]}
    fixed = {k: replace(r, most_seeds=None) for k, r in
             plan.contents.records.items()}  # fmt: skip
    assert with_looks(jobs, fixed, plan.profile) == jobs


def table_of(rows):
    plan = plan_of(rows)
    jobs = with_looks(plan.expanded.jobs, plan.contents.records, plan.profile)
    return build(rows, jobs, LORA)


def test_every_p_of_a_report_pays_for_the_looks():
    rows = upto({0, 1, 2}) + upto({3}, (LORA, HEAD))
    table = table_of(rows)
    found = against_reference(table)
    plain = found[FULL].comparison.p
    assert found[FULL].adjusted == pytest.approx(2 * plain / (9 / 144)) and plain < 1e-4
    assert found[FULL].score.complete, "three seeds were planned of it, and are there"
    assert found[FULL].verdict == "higher" and found[HEAD].verdict == "undecided"
    assert len(seen(table, FULL)) == 1 and len(seen(table, HEAD)) == 2
    alone = by_task(table)[FULL, "sst2"]
    assert alone.adjusted == pytest.approx(2 * alone.comparison.p / (9 / 144)), "on a task too"
    assert pairwise(table)[LORA, FULL].adjusted == pytest.approx(found[FULL].adjusted)
    text = decisions_text(table)
    assert "at most 12, and every p pays for all looks" in text
    assert "full fine-tuning higher at look 1 of 6 (3 seeds)" in text
    assert "head only still undecided at 4 seeds, its difference known to ±" in text


def test_a_look_that_is_not_whole_does_not_count():
    rows = upto({0, 1, 2}, (LORA, FULL)) + upto({0, 1}, (HEAD,))
    table = table_of(rows)
    assert seen(table, HEAD) == ()
    assert against_reference(table)[HEAD].adjusted is None
    fixed = [replace(r, most_seeds=None) for r in rows]
    assert seen(table_of(fixed), HEAD) is None and decisions_text(table_of(fixed)) == ""


def test_rows_say_what_they_were_run_for():
    found = with_look(ROWS[0], 12, 3, "best", 5)
    assert (found.most_seeds, found.look, found.question) == (12, 3, "best")
    repeat = replace(ROWS[0], job=replace(ROWS[0].job, purpose="repeat"))
    for one in (with_look(ROWS[0], None, None, "best", 5), with_look(repeat, 12, 3, "best", 5)):
        assert (one.most_seeds, one.look, one.question) == (None, None, None)
        assert one.null_reason("look") == "the number of seeds was fixed"
        assert from_row(to_row(one)).null_reason("most_seeds") == "the number of seeds was fixed"
    back = from_row(to_row(found))
    assert (back.most_seeds, back.look, back.question) == (12, 3, "best")


def test_seeds_that_were_added_by_hand_are_named_as_what_they_are():
    fixed = [
        with_look(replace(one, most_seeds=None), None, None, "", 3)
        for one in ROWS
        if one.job.seed < 3
    ]
    assert {one.profile_seeds for one in fixed} == {3} and by_hand(fixed) == ""
    more = [
        with_look(replace(one, most_seeds=None), None, None, "", 5)
        for one in ROWS
        if one.job.seed in (3, 4)
    ]
    told = by_hand([*fixed, *more])
    assert "Rows were made when the profile had 3 seeds and others when it had 5" in told
    assert "p values and intervals are too small" in told
    old = [replace(one, profile_seeds=None) for one in (*fixed, *more)]
    assert by_hand(old) == "", "rows of an older peftmark don't say"
    again = [replace(fixed[0], profile_seeds=5), *fixed]
    assert by_hand(again) == by_hand([]) == "", "the same seeds"


# --- what a profile says -------------------------------------------------------------------------


def test_a_profile_may_say_that_seeds_are_added(tmp_path):
    decide = {"question": "best", "max_seeds": 5}
    write(tmp_path, changed(((*QUICK, "decide"), decide)))
    suite = load_suite("demo", tmp_path)
    plan = SimpleNamespace(suite=suite, profile="quick")
    told = _as_profile_says(Selection("demo"), plan)
    assert (told.most_seeds, told.question) == (5, "best")
    asked = Selection("demo", most_seeds=9)
    assert _as_profile_says(asked, plan) is asked
    for chosen in (Selection("demo", only=("x",)), Selection("demo", again=True)):
        assert _as_profile_says(chosen, plan) is chosen, "somebody chose the jobs"
    message = refusal(tmp_path, changed(((*QUICK, "decide"), {"max_seeds": 2, "question": "x"})))
    assert "max_seeds" in message and "'reference', 'best' or 'equivalence'" in message


def test_seeds_that_chose_settings_are_not_added():
    plan = plan_of([])
    plan.suite.profiles[plan.profile] = SimpleNamespace(
        seeds=[0, 1, 2], tuning=SimpleNamespace(seeds=[7])
    )
    check(plan, 7, "best")
    with pytest.raises(UserError, match="seed 7 would be reported, and trials choose settings"):
        check(plan, 12, "best")
    plan.suite.profiles[plan.profile] = SimpleNamespace(seeds=[2**31 - 2], tuning=None)
    with pytest.raises(UserError, match="they lie below"):
        check(plan, 5, "best")


def test_a_decision_is_told_of_the_look_that_both_cells_had():
    rows = upto({0, 1, 2}, (LORA, FULL)) + upto({3}, (FULL,))
    text = decisions_text(table_of(rows))
    assert "full fine-tuning higher at look 1 of 6" in text


# --- what the hours that are left would buy ------------------------------------------------------


def test_a_run_that_stopped_early_says_what_more_seeds_would_tell_and_take():
    rows = [replace(r, wall_seconds=90.0) for r in upto({0, 1, 2, 3, 4})]
    text = decisions_text(table_of(rows))
    # Head lacks seven of twelve seeds, and so does the reference.
    assert "Going on to 12 seeds takes 14 more runs (about 21:00, one after the other)" in text
    found = against_reference(table_of(rows))[HEAD].comparison
    share = 1 - (_sizes()[-2] / 12) ** 2
    critical = stdtrit(11, 1 - 0.05 * share / 2 / 2)
    draws, told = random.Random(3), 0
    seen = [v - LEVEL[LORA][0] for _, v in overall_score(table_of(rows), HEAD).by_seed]
    for _ in range(4000):
        more = [draws.gauss(found.estimate.mean, found.se * 5**0.5) for _ in range(7)]
        every = compare([[*seen, *more]])
        told += abs(every.estimate.mean) > critical * every.se
    shown = float(re.search(r"head only and LoRA r8: (\d+)%", text)[1])
    assert shown == pytest.approx(100 * told / 4000, abs=2)
    assert "full fine-tuning and" not in text, "it is decided"


def _sizes():
    return [len(look.seeds) for look in looks(tuple(range(12)), 12)]


def test_nothing_is_left_where_all_is_decided_or_all_seeds_ran():
    assert more_seeds(table_of(upto({0, 1, 2}, (LORA, FULL))), "reference") is not None
    decided = build(upto({0, 1, 2}, (LORA, FULL)), jobs_of((LORA, FULL)), LORA)
    assert more_seeds(replace(decided, most_seeds=12), "reference") is None
    every = table_of(upto(set(range(12))))
    assert more_seeds(every, "reference") is None
    fixed = [replace(r, most_seeds=None) for r in upto({0, 1, 2})]
    assert more_seeds(table_of(fixed), "reference") is None


def jobs_of(cells):
    return [one.job for one in ROWS if one.job.seed < 3 and one.job.cell in cells]


def test_of_those_that_may_be_first_the_leader_is_compared_with_each():
    rows = upto({0, 1, 2})
    left = more_seeds(table_of(rows), "best")
    (one,) = left.chances
    means = {
        cell: sum(r.outcome.metric_value for r in rows if r.job.cell == cell)
        for cell in (FULL, HEAD)
    }
    assert (one.cell, one.other) == tuple(sorted(means, key=means.get, reverse=True))
    assert left.runs == 2 * 9


def test_both_sides_of_the_margin_have_to_be_found():
    rows = upto({0, 1, 2}, (LORA, FULL))

    def moved(by):
        return [
            replace(
                r,
                outcome=replace(
                    r.outcome,
                    metric_value=0.8
                    + by * (r.job.cell == FULL)
                    + 2 * NOISE[r.job.seed] * (r.job.cell == LORA),
                ),
            )
            for r in rows
        ]

    def chance(by):
        table = build(moved(by), jobs_of((LORA, FULL)), LORA)
        left = more_seeds(replace(table, most_seeds=12), "equivalence")
        return left and left.chances[0].power

    near, edge, beyond = chance(0.003), chance(0.0099), chance(0.014)
    assert near > 0.9 and edge < 0.1 and beyond > 0.9


def test_unknown_times_and_spreads_are_said():
    rows = upto({0, 1, 2}, (LORA, FULL)) + upto({0}, (HEAD,))
    text = decisions_text(table_of(rows))
    assert "head only and LoRA r8: can't be said" in text
    gone = upto({0, 1, 2}, (LORA, FULL))
    assert "(an unknown time)" in decisions_text(table_of(gone))


def test_a_stop_within_a_block_counts_what_is_missing_by_task():
    rows = [r for r in TWO_TASKS if r.job.seed < 4 or (r.job.seed == 4 and r.job.task == "sst2")]
    rows = [replace(row(r), wall_seconds=60.0) for r in rows]
    jobs = [r.job for r in TWO_TASKS if r.job.seed < 5]
    table = replace(build(rows, jobs, LORA), most_seeds=12)
    left = more_seeds(table, "reference")
    assert left.runs == 2 * (7 + 8) and left.seconds == 60.0 * left.runs


def test_seeds_that_are_in_stay_in_the_test():
    """Of eighteen of twenty seeds near nothing two more can't make much."""
    values = [0.3 + z for z in (-1.6, -1.2, -0.9, -0.7, -0.5, -0.3, -0.2, -0.1, 0.0)]
    values += [0.6 - v for v in values]
    c = compare([values])
    level = stdtrit(19, 1 - 0.03 / 2)
    told = chance_to_tell(c, 20, lambda m, e: abs(m) > level * e)
    fresh = 1 - float(nctdtr(19, 0.3 * 20**0.5 / (c.se * 18**0.5), level))
    assert told < fresh - 0.05
    assert chance_to_tell(c, 18, lambda m, e: m > 0) is None
    assert chance_to_tell(compare([[0.1]]), 12, lambda m, e: m > 0) is None
    assert chance_to_tell(compare([[0.1, 0.1]]), 12, lambda m, e: m > 0) is None

"""Seeds are added until all is decided: which jobs come next follows from the rows alone."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from factory import FULL, HEAD, LORA, make_matrix
from peftmark.analysis.comparison import against_reference, by_task, pairwise
from peftmark.analysis.sequential import seen
from peftmark.analysis.table import build
from peftmark.core.errors import UserError
from peftmark.record.columns import from_row, to_row
from peftmark.run.until_decided import check, decisions_text, next_block
from peftmark.suite.added_seeds import with_look, with_looks
from peftmark.suite.expand import Expanded

ROWS = make_matrix([LORA, FULL, HEAD], ["sst2"], range(12))
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
        expanded=Expanded(sorted(first, key=lambda job: job.seed), 0, {}),
        suite=SimpleNamespace(
            profiles={"quick": SimpleNamespace(seeds=list(seeds))},
            report=SimpleNamespace(reference=LORA),
        ),
        profile=ROWS[0].job.profile,
        contents=SimpleNamespace(records={one.job.job_id: one for one in rows}),
    )


@pytest.fixture(autouse=True)
def profile():
    assert {one.job.profile for one in ROWS} == {ROWS[0].job.profile}


def block_of(plan, most=12):
    plan.suite.profiles = {plan.profile: next(iter(plan.suite.profiles.values()))}
    return next_block(plan, most, set(plan.contents.records))


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
    check(plan, 12)
    with pytest.raises(UserError, match="were made with at most 12 seeds"):
        check(plan, 20)
    with pytest.raises(UserError, match="the first look takes 3 seeds"):
        check(plan_of([]), 2)


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
    found = with_look(ROWS[0], 12, 3)
    assert (found.most_seeds, found.look) == (12, 3)
    repeat = replace(ROWS[0], job=replace(ROWS[0].job, purpose="repeat"))
    for one in (with_look(ROWS[0], None, None), with_look(repeat, 12, 3)):
        assert (one.most_seeds, one.look) == (None, None)
        assert one.null_reason("look") == "the number of seeds was fixed"
        assert from_row(to_row(one)).null_reason("most_seeds") == "the number of seeds was fixed"
    back = from_row(to_row(found))
    assert (back.most_seeds, back.look) == (12, 3)

"""What jobs take: phases from work and shapes, corrected by what has run, and a plan's end."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from factory import FULL, LORA, make_matrix
from peftmark.cli import plan_time
from peftmark.duration import estimates as module
from peftmark.duration.estimates import (
    UNCALIBRATED,
    Ended,
    Estimate,
    corrected,
    estimates,
    key_of,
    remaining,
    wall_seconds,
)
from peftmark.duration.jobs import FOLLOWED, START, SYMBOLIC, Shapes, Step, between, phases
from peftmark.duration.rates import Rates
from peftmark.duration.shapes import NOT_YET, longest_shapes
from peftmark.memory.forecast import Forecast
from peftmark.record.recipe import Causal

RATES = Rates({"mm float32": (0.0, 0.0, 1e-3)}, (1e-4, 0.0, 0.0))
ROWS = make_matrix([LORA, FULL], ["sst2", "stsb"], range(2))
REAL = [replace(row.job, task={"sst2": "sst-2", "stsb": "sts-b"}[row.job.task]) for row in ROWS]


def work(tokens):
    """A step whose forward pass takes a millisecond a token, backward two, and the update three."""
    return {
        "forward mm float32": [1, 0, tokens],
        "backward mm float32": [1, 0, 2 * tokens],
        "update mm float32": [1, 0, 3],
        "scored mm float32": [1, 0, tokens],
    }


def step(rows=4):
    return Step(rows, {10: work(10), 100: work(100)}, RATES)


def test_a_polynomial_goes_through_its_places():
    assert between([16, 128], [2.0, 9.0], 16) == 2.0
    assert between([16, 128], [2.0, 9.0], 72) == pytest.approx(5.5)
    assert between([1, 2, 3], [1.0, 4.0, 9.0], 5) == pytest.approx(25.0)


def test_a_step_is_known_at_any_length_and_scoring_at_any_number_of_rows():
    assert step().seconds(50) == pytest.approx(0.050 + 0.100 + 0.003)
    assert step().forward(8, 50) == pytest.approx(0.100), "twice the rows of a pass"
    assert step().calls == 4


def test_phases_are_those_of_the_jobs_batches():
    job = replace(ROWS[0].job, recipe=replace(ROWS[0].job.recipe, steps=4, eval_every=3))
    shapes = Shapes(
        train=[20, 40, 40, 60],
        scored=[(4, 30)],
        selected=[(8, 10)],
        timed=[(4, 10), (4, 20)],
        written=[(4, 5, 6)],
        read_seconds=2.0,
    )
    found = phases(job, step(), shapes, parameters=10**8)
    assert found["start"] == pytest.approx(START["cpu"] + 2.0 + 0.5)
    assert found["train"] == pytest.approx((160 * 3 + 4 * 3) / 1000)
    assert found["evaluate"] == pytest.approx(2 * (0.030 + 0.020)), "twice: every 3, and at the end"
    assert found["generate"] == pytest.approx(2 * (0.005 + 6 * 0.001))
    assert found["deploy"] == pytest.approx(0.5 + (5 + 2 + 5 + 1) * 0.030)
    probed = sum(3 * n + 3 for n in (20, 40, 60)) / 1000
    assert found["probe"] == pytest.approx(0.5 + probed + 3 * FOLLOWED * 1e-4 * 4)
    assert found["predict"] == pytest.approx(SYMBOLIC * 1e-4 * 4)


def test_a_trial_ends_with_training_and_what_has_nothing_to_merge_is_timed_once():
    trial = replace(ROWS[0].job, purpose="tuning")
    assert phases(trial, step(), Shapes(train=[20])).keys() == {
        "start", "train", "evaluate", "generate",
    }  # fmt: skip
    full = next(r.job for r in ROWS if r.job.method == "full")
    found = phases(full, step(), Shapes(train=[20], timed=[(4, 10)]))
    assert found["deploy"] == pytest.approx(7 * 0.010)


def test_without_a_calibration_there_is_a_reason_and_no_number():
    found = estimates([row.job for row in ROWS], None, None)
    assert len(found) == 4
    assert {one.reason for one in found.values()} == {UNCALIBRATED}
    assert all(one.seconds is None for one in found.values())


@pytest.fixture
def predicted(monkeypatch):
    """Predictions without processes."""
    told = {"shapes": Shapes(train=[10]), "reason": ""}
    monkeypatch.setattr(
        module, "shapes_of", lambda jobs, places, only_kept: [told["shapes"]] * len(jobs)
    )
    monkeypatch.setattr(
        module,
        "forecasts",
        lambda asked, cache, heard, only_kept: [
            Forecast(reason=told["reason"], work=work(one.tokens)) for one in asked
        ],
    )

    class Places:
        cache = None

    def run(jobs):
        return estimates(jobs, RATES, Places(), {job.model: {} for job in jobs})

    return run, told


def test_every_cell_and_task_has_an_estimate_that_its_repeat_shares(predicted):
    run, _ = predicted
    found = run([*REAL, replace(REAL[0], purpose="repeat")])
    assert len(found) == 4 and all(one.seconds > 0 for one in found.values())
    assert key_of(replace(REAL[0], purpose="repeat")) == key_of(REAL[0])


def test_what_cannot_be_predicted_says_why(predicted):
    run, told = predicted
    job = REAL[0]
    told["reason"] = "it chooses by data"
    assert run([job])[key_of(job)].reason == "it chooses by data"
    told["shapes"] = Shapes(reason=NOT_YET)
    assert run([job])[key_of(job)].reason == NOT_YET
    on_gpu = replace(job, device="cuda")
    assert run([on_gpu])[key_of(on_gpu)].reason == "the rates are those of the CPU"


def test_a_line_that_needs_no_training_takes_its_start_and_its_rows(predicted):
    run, told = predicted
    told["shapes"] = Shapes(train=[10], read_seconds=2.0)
    line = replace(REAL[0], method="bag-of-words", size=None)
    assert run([line])[key_of(line)].seconds == START["cpu"] + 2.0


def test_a_base_as_it_is_takes_the_passes_of_a_method_beside_it(predicted):
    run, told = predicted
    told["shapes"] = Shapes(train=[10], scored=[(4, 30)], timed=[(4, 10)])
    untouched = replace(REAL[0], method="base", size=None)
    why = "no method beside it that trains the same base is predicted"
    assert run([untouched])[key_of(untouched)].reason == why
    found = run([untouched, REAL[0]])[key_of(untouched)]
    tokens = REAL[0].recipe.pass_rows  # of the step; a pass has four rows
    scored = 0.030 * 4 / tokens
    assert found.phases["evaluate"] == pytest.approx(scored), "once"
    assert found.phases["train"] == 0.0
    assert found.phases.keys() == {"start", "train", "evaluate", "generate"}
    spoken = replace(untouched, causal=Causal("1:x", 8, ""))
    found = run([spoken, replace(REAL[0], causal=Causal("1:x", 8, ""))])
    read = 5 * 0.128 * 8 / REAL[0].recipe.pass_rows
    assert [one.phases["forget"] for one in found.values()] == pytest.approx([read] * 2)


def test_rows_that_are_not_here_are_taken_as_long_as_they_may_be(predicted):
    run, told = predicted
    told["shapes"] = Shapes(reason="no rows here")
    job = REAL[0]
    found = run([job])[key_of(job)]
    recipe = job.recipe
    step = 3 * recipe.max_length / 1000 + 0.003
    assert found.at_most == "no rows here" and not found.reason
    assert found.phases["train"] == pytest.approx(recipe.steps * step)
    shapes = longest_shapes(job)
    assert sum(rows for rows, _ in shapes.scored) == min(872, recipe.eval_rows or 872)
    assert shapes.timed == [(8, recipe.max_length)] * 8 and not shapes.written
    spoken = replace(
        job,
        task="gsm8k",
        causal=Causal("1:x", 64, ""),
        recipe=replace(recipe, eval_rows=30, eval_batch_size=20, selection_rows=5),
    )
    n = recipe.max_length
    assert longest_shapes(spoken).written == [(20, n, 64), (10, n, 64), (5, n, 64)]
    assert longest_shapes(spoken).timed == [(4, n)] * 2


def here(row, seconds):
    return replace(
        row,
        wall_seconds=seconds,
        environment=replace(row.environment, machine=module.machine()),
    )


def test_jobs_that_have_run_here_correct_their_cell_and_then_all_others():
    found = {key_of(row.job): Estimate({"train": 10.0}) for row in ROWS}
    lora = [row for row in ROWS if row.job.method == "lora"]
    sst2 = next(row for row in lora if row.job.task == "sst2")
    made = corrected(found, [here(sst2, 15.0), here(sst2, 17.0)])
    by = {(key[0].method, key[1]): one.seconds for key, one in made.items()}
    assert by == {
        ("lora", "sst2"): 16.0,
        ("lora", "stsb"): pytest.approx(16.0),
        ("full", "sst2"): pytest.approx(16.0),
        ("full", "stsb"): pytest.approx(16.0),
    }
    full = next(row for row in ROWS if row.job.method == "full" and row.job.task == "stsb")
    made = corrected(found, [here(sst2, 15.0), here(full, 40.0)])
    by = {(key[0].method, key[1]): one.seconds for key, one in made.items()}
    assert by["lora", "stsb"] == pytest.approx(15.0)
    assert by["full", "sst2"] == pytest.approx(40.0)


def test_rows_of_another_machine_and_failed_ones_say_nothing():
    found = {key_of(ROWS[0].job): Estimate({"train": 10.0})}
    failed = replace(ROWS[0], outcome=replace(ROWS[0].outcome, status="crashed"))
    made = corrected(found, [replace(ROWS[0], wall_seconds=99.0), here(failed, 99.0)])
    assert made[key_of(ROWS[0].job)].seconds == 10.0


def test_rows_of_a_gpu_that_others_used_too_say_nothing():
    found = {key_of(ROWS[0].job): Estimate({"train": 10.0})}
    for jobs, seconds in ((4, 10.0), (1, 99.0)):
        outcome = replace(ROWS[0].outcome, jobs_on_gpu=jobs)
        made = corrected(found, [here(replace(ROWS[0], outcome=outcome), 99.0)])
        assert made[key_of(ROWS[0].job)].seconds == seconds


def test_jobs_take_the_first_place_that_is_free():
    assert wall_seconds([3.0, 1.0, 1.0, 1.0], 2) == 3.0
    assert wall_seconds([1.0, 1.0, 1.0, 3.0], 2) == 4.0
    assert wall_seconds([], 4) == 0.0


def test_the_table_names_what_was_measured_and_what_nobody_knows(monkeypatch):
    keys = [key_of(row.job) for row in ROWS[::2]]
    found = dict.fromkeys(keys, Estimate({"train": 75.0}))
    found[keys[0]] = Estimate({"train": 75.0}, measured=62.0)
    found[keys[-1]] = Estimate(reason="no rows here")

    plan = SimpleNamespace(
        to_run=[row.job for row in ROWS],
        venue=SimpleNamespace(at_once=2),
        expanded=SimpleNamespace(waiting=3),
    )

    text = "\n".join(
        plan_time.time_lines(plan_time.Times(plan, found, 90.0, {"no rows here": 2}, 2))
    )
    assert "1:02*" in text and "1:15" in text and "?" in text
    assert "Not known for 2 of 8 jobs to run: no rows here." in text
    assert "6 jobs to run, 2 at once: about 1:30 without those, then 3 that wait" in text
    text = "\n".join(plan_time.time_lines(plan_time.Times(plan, found, 300.0, {}, 2)))
    assert "8 jobs to run, 2 at once: about 5:00, then 3 that wait for trials." in text
    nothing = dict.fromkeys(keys, Estimate(reason=UNCALIBRATED))
    text = "\n".join(
        plan_time.time_lines(plan_time.Times(plan, nothing, 0.0, {UNCALIBRATED: 8}, 2))
    )
    assert "not calibrated" in text and "peftmark doctor --calibrate" in text


def test_what_is_left_is_told_by_what_has_ended():
    a1, a2, b1 = (key_of(job) for job in (ROWS[0].job, *two_others()))
    waiting = {a1: [10.0, 10.0], a2: [20.0], b1: [5.0]}
    assert remaining(waiting, []) == 45.0, "as predicted, before any job ended"
    ended = [Ended(a1, 10.0, 15.0)]
    assert remaining(waiting, ended) == pytest.approx(2 * 15 + 20 * 1.5 + 5 * 1.5)
    ended += [Ended(b1, 5.0, 20.0)]
    assert remaining(waiting, ended) == pytest.approx(2 * 15 + 20 * 1.5 + 20)
    assert remaining({}, ended) == 0.0


def two_others():
    """A job of the first row's cell on the other task, and one of the other cell."""
    first = ROWS[0].job
    same = next(r.job for r in ROWS if r.job.cell == first.cell and r.job.task != first.task)
    other = next(r.job for r in ROWS if r.job.cell != first.cell)
    return same, other

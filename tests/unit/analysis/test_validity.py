"""Signs that numbers can't be trusted: a repeat that differs, and what finished jobs show."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from factory import (
    BASE,
    LORA,
    make_causal,
    make_environment,
    make_failure,
    make_job,
    make_matrix,
    make_outcome,
    make_recipe,
    make_record,
)
from peftmark.analysis.validity import FLAG_KINDS, flags, repeatability
from peftmark.record.outcome import CurvePoint

JOB = make_job()
REPEAT = make_job(purpose="repeat")
POINT = CurvePoint(20, 0.5, 0.0, 2.0, selection_metric=0.7, penalty=0.1, gradient_norm=3.0)
LAST = replace(POINT, step=40)
OUTCOME = make_outcome(
    curve=(POINT, LAST),
    metrics={"accuracy": 0.86, "f1": math.nan},
    live_bytes=1000,
    final_rank=96,
    rank_history={"query": [8, 8]},
)
ENVIRONMENT = make_environment()


def verdict(outcome=OUTCOME, environment=ENVIRONMENT):
    """The verdict when the repeat has this outcome and environment."""
    first = make_record(job=JOB, outcome=OUTCOME, environment=ENVIRONMENT)
    second = make_record(job=REPEAT, outcome=outcome, environment=environment)
    return repeatability([JOB, REPEAT], {JOB.job_id: first, REPEAT.job_id: second})


def test_the_same_bits_are_the_same_also_where_one_is_not_a_number():
    found = verdict(replace(OUTCOME, metrics={"accuracy": 0.86, "f1": float("nan")}))
    assert (found.verdict, found.detail, found.job) == ("same", "", REPEAT)


def test_times_may_differ():
    curve = tuple(replace(point, seconds=point.seconds * 3) for point in OUTCOME.curve)
    assert verdict(replace(OUTCOME, curve=curve, train_seconds=99.0)).verdict == "same"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"initial_weights_hash": "c" * 64}, ["initial_weights_hash: aaa", " and ccc"]),
        ({"batch_order_hash": None}, ["batch_order_hash: bbb", "and None"]),
        ({"metrics": {"accuracy": 0.86}}, ["metrics: ", "and {'accuracy': 0.86}"]),
        ({"metrics": {"accuracy": 0.86 + 2**-53, "f1": math.nan}}, ["0.8600000000000001"]),
        ({"live_bytes": 1001}, ["live_bytes: 1000 and 1001"]),
        ({"final_rank": 95}, ["final_rank: 96 and 95"]),
        ({"rank_history": {"query": [8, 7]}}, ["rank_history", "[8, 7]"]),
        ({"curve": (POINT,)}, ["curve: 2 and 1 points"]),
        ({"curve": (POINT, replace(LAST, step=41))}, ["step at step 40: 40 and 41"]),
        ({"curve": (POINT, replace(LAST, loss=0.6))}, ["loss at step 40: 0.5 and 0.6"]),
        ({"curve": (POINT, replace(LAST, metric=-0.0))}, ["metric at step 40: 0.0 and -0.0"]),
        ({"curve": (POINT, replace(LAST, penalty=None))}, ["penalty at step 40: 0.1 and None"]),
        ({"curve": (POINT, replace(LAST, gradient_norm=1.0))}, ["gradient_norm at step 40"]),
        ({"curve": (POINT, replace(LAST, selection_metric=1.0))}, ["selection_metric at step 40"]),
    ],
)
def test_any_other_difference_is_told_with_both_values(changes, words):
    found = verdict(replace(OUTCOME, **changes))
    assert found.verdict == "different"
    for word in words:
        assert word in found.detail


def test_rows_of_other_versions_or_machines_are_not_compared():
    other = replace(OUTCOME, live_bytes=1)
    newer = replace(ENVIRONMENT, versions={**ENVIRONMENT.versions, "torch": "3.0"})
    found = verdict(other, newer)
    assert found.verdict == "not comparable"
    assert "torch 2.9.0 -> 3.0" in found.detail
    for part, value in (("cpu", "Another CPU"), ("gpus", ["Another GPU"])):
        machine = {**ENVIRONMENT.machine, part: value}
        found = verdict(other, replace(ENVIRONMENT, machine=machine))
        assert found.verdict == "not comparable"
        assert f"{part} " in found.detail
        assert "Another" in found.detail
    harmless = replace(ENVIRONMENT, versions={**ENVIRONMENT.versions, "pandas": "3.0"})
    assert verdict(other, harmless).verdict == "different"


def test_a_failed_row_is_not_compared():
    found = verdict(make_failure())
    assert found.verdict == "not comparable"
    assert found.detail == "its repeat ended as out_of_memory"


def test_without_both_rows_there_is_no_verdict():
    rows = {job.job_id: make_record(job=job, outcome=OUTCOME) for job in (JOB, REPEAT)}
    for missing, words in ((JOB, "the job has no row"), (REPEAT, "its repeat has no row")):
        records = {key: row for key, row in rows.items() if key != missing.job_id}
        found = repeatability([JOB, REPEAT], records)
        assert found.verdict == "not run"
        assert words in found.detail
    assert repeatability([JOB], rows) is None


# --- flags --------------------------------------------------------------------------------------


def flagged(*rows):
    return flags([row.job for row in rows], {row.job.job_id: row for row in rows})


def rows_of(*jobs):
    return [make_record(job=job) for job in jobs]


def test_a_plausible_matrix_has_no_flags():
    assert flagged(*make_matrix()) == []


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"collapsed": True}, "collapsed", "all the same"),
        ({"reload_max_error": 2e-4}, "unfaithful", "0.0002 after loading, 0.0001 allowed"),
        ({"reload_max_error": math.nan}, "unfaithful", "nan"),
    ],
)
def test_what_a_row_says_about_itself_is_flagged(changes, kind, words):
    outcome = make_outcome(**changes)
    [flag] = flagged(make_record(outcome=outcome))
    assert (flag.kind, flag.job) == (kind, JOB)
    assert words in flag.detail
    others = [make_job(purpose=purpose) for purpose in ("tuning", "repeat")]
    assert flagged(*(make_record(job=job, outcome=outcome) for job in others)) == []
    assert flagged(make_record(outcome=replace(outcome, status="invalid"))) == []


def seeds(*outcomes, **job):
    """Runs of one cell on one task, a seed each, with the same score and loss unless changed."""
    return [
        make_record(
            job=make_job(seed=seed, **job),
            outcome=make_outcome(**{"metric_value": 0.8, "loss": 0.4, **changes}),
        )
        for seed, changes in enumerate(outcomes)
    ]


def behind(rows):
    return {flag.job.seed: flag.detail for flag in flagged(*rows) if flag.kind == "behind"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"loss": 0.61}, ""),  # the highest of the others is 0.41: 1.5 times that is 0.615
        ({"loss": 0.62}, "a training loss of 0.62, the other seeds' at most 0.41"),
        ({"metric_value": 0.69}, ""),  # the lowest of the others is 0.78: ten points less, 0.68
        ({"metric_value": 0.679}, "a score of 0.679, the other seeds' at worst 0.780"),
        ({"metric_value": None, "loss": None}, ""),
    ],
)
def test_a_run_is_flagged_for_ending_far_worse_than_every_other_seed(changes, words):
    rows = seeds(changes, {"loss": 0.41}, {"metric_value": 0.78})
    assert behind(rows) == ({0: words} if words else {})


def test_a_gradient_norm_that_rises_is_no_harm_by_itself_and_told_of_a_run_that_fell_behind():
    best = {"metric_value": 0.84, "loss": 0.35, "exploding_step": 103}
    weak = {"metric_value": 0.77, "loss": 0.63}
    rows = seeds(weak, {"metric_value": 0.84, "loss": 0.35}, best)
    assert list(behind(rows)) == [0]
    [detail] = behind(seeds(weak | {"exploding_step": 62}, best, best)).values()
    assert detail.endswith("; its gradient norm rose by half three times in a row up to step 62")


def test_where_lower_is_better_a_higher_score_is_behind():
    # A point of an RMSE is a hundredth of the way from the guess, 5.0, to none: ten are 0.5.
    errors = [{"metric_value": v, "baseline_value": 5.0} for v in (2.0, 1.9, 2.49)]
    assert behind(seeds(*errors, metric="rmse")) == {}
    errors[2]["metric_value"] = 2.51
    assert list(behind(seeds(*errors, metric="rmse"))) == [2]


def test_only_the_same_cell_on_the_same_task_is_held_against_a_run():
    weak = {"metric_value": 0.3, "loss": 4.0}
    assert behind(seeds(weak)) == {}
    assert behind([*seeds(weak), *seeds({}, task="rte"), *seeds({}, method="dora")]) == {}
    assert behind([*seeds(weak), *seeds({}, {}, profile="other")[1:]]) == {}
    failed = seeds({}, weak)
    failed[0] = replace(failed[0], outcome=make_failure())
    assert behind(failed) == {}
    assert behind(seeds(weak, {}, method="base", size=None)) == {}  # trains nothing


def test_a_base_in_16_bits_rounds_what_is_loaded_a_little():
    job = make_job(recipe=make_recipe(precision="bf16", weights="bf16"))
    near, far = (make_outcome(reload_max_error=error) for error in (9e-4, 1.1e-3))
    assert flagged(make_record(job=job, outcome=near)) == []
    [flag] = flagged(make_record(job=job, outcome=far))
    assert (flag.kind, flag.detail.endswith("0.001 allowed")) == ("unfaithful", True)


def test_what_is_unknown_or_within_bounds_is_no_flag():
    known = make_outcome(collapsed=False, reload_max_error=1e-4)
    unknown = make_outcome(collapsed=None, loss=None, reload_max_error=None)
    assert flagged(make_record(outcome=known)) == []
    assert flagged(make_record(outcome=unknown)) == []
    assert flags([JOB], {}) == []


def test_two_cells_that_learn_alike_to_the_bit_are_twins():
    other = make_job(quantization="nf4", recipe=make_recipe(double_quantization=True))
    [flag] = flagged(*rows_of(JOB, other))
    assert (flag.kind, flag.job) == ("twins", other)
    assert "same loss and score as LoRA r8" in flag.detail


def test_equal_scores_with_other_losses_are_no_twins_whatever_the_weights():
    curve = tuple(replace(p, loss=p.loss + 1e-9) for p in make_outcome().curve)
    other = make_outcome(curve=curve, final_weights_hash="c" * 64)
    first = make_outcome(final_weights_hash="c" * 64)
    rows = [
        make_record(outcome=first),
        make_record(job=make_job(method="dora"), outcome=other),
    ]
    assert flagged(*rows) == []


@pytest.mark.parametrize(
    ("hashes", "words"),
    [
        (("c" * 64, "c" * 64), "at every point; the same final weights"),
        (("c" * 64, "d" * 64), "at every point; other final weights"),
        (("c" * 64, None), "their final weights are not on record"),
    ],
)
def test_twins_say_whether_their_final_weights_are_the_same(hashes, words):
    one, other = (make_outcome(final_weights_hash=digest) for digest in hashes)
    jobs = (JOB, make_job(method="dora"))
    rows = [make_record(job=j, outcome=o) for j, o in zip(jobs, (one, other), strict=True)]
    [flag] = flagged(*rows)
    assert (flag.kind, flag.job) == ("twins", jobs[1])
    assert words in flag.detail


def test_a_budget_that_gives_the_size_another_cell_has_makes_no_twin():
    job = make_job(size=None, variant="budget 0.1%", recipe=make_recipe(budget="0.1%"))
    same = make_record(job=job, outcome=make_outcome(solved_size=8))
    assert flagged(make_record(job=JOB), same) == []
    other = make_record(job=job, outcome=make_outcome(solved_size=7))
    assert [flag.job for flag in flagged(make_record(job=JOB), other)] == [job]
    dora = make_record(job=replace(job, method="dora"), outcome=same.outcome)
    assert len(flagged(make_record(job=JOB), dora)) == 1


def test_two_ways_to_choose_layers_that_chose_the_same_make_no_twin():
    def row(select, layer, scores):
        recipe = make_recipe(options={"select": select})
        outcome = make_outcome(rank_history={f"layer.{layer}.query": [8]}, layer_scores=scores)
        return make_record(
            job=make_job(method="sensitive-layers", variant=select, recipe=recipe), outcome=outcome
        )

    scores = {"layer.0": 0.1, "layer.1": 0.2}
    assert flagged(row("top", 1, scores), row("random", 1, scores)) == []
    [flag] = flagged(row("top", 1, scores), row("random", 0, scores))
    assert flag.job.variant == "random"
    assert len(flagged(row("top", 1, {}), row("random", 1, {}))) == 1


def test_each_of_several_twins_is_told_beside_the_first():
    jobs = [make_job(size=rank) for rank in (4, 8, 16)]
    assert [flag.job.size for flag in flagged(*rows_of(*jobs))] == [8, 16]


def test_other_tasks_seeds_and_curves_are_no_twins():
    assert flagged(*rows_of(JOB, make_job(task="stsb", size=4), make_job(seed=1, size=4))) == []
    other = make_job(size=4)
    curve = make_outcome().curve
    for changed in (
        (*curve[:-1], replace(curve[-1], loss=0.1)),
        (*curve[:-1], replace(curve[-1], metric=0.1)),
        curve[:-1],
    ):
        row = make_record(job=other, outcome=make_outcome(curve=changed))
        assert flagged(make_record(), row) == []
    rows = [make_record(job=job, outcome=make_outcome(curve=())) for job in (JOB, other)]
    assert flagged(*rows) == []


def test_recomputing_activations_changes_no_number_and_makes_no_twin():
    def variant(name, **changes):
        return make_job(variant=name, recipe=make_recipe(**changes))

    plain = variant("fp32, no checkpointing")
    saving = variant("fp32, checkpointing", gradient_checkpointing=True)
    assert flagged(*rows_of(plain, saving)) == []
    half = variant("bf16, no checkpointing", precision="bf16")
    assert [flag.job for flag in flagged(*rows_of(plain, half))] == [half]
    other = replace(saving, size=4)
    assert [flag.job for flag in flagged(*rows_of(plain, other))] == [other]


def test_flags_stand_by_kind():
    rows = [
        make_record(job=make_job(seed=1), outcome=make_outcome(reload_max_error=1.0)),
        make_record(job=make_job(seed=2), outcome=make_outcome(collapsed=True, loss=9.0)),
        *rows_of(JOB, make_job(size=4)),
    ]
    assert [flag.kind for flag in flagged(*rows)] == list(FLAG_KINDS)


# --- language models -----------------------------------------------------------------------------


def of_all(rows):
    return flags([r.job for r in rows], {r.job.job_id: r for r in rows})


def test_an_untouched_base_is_never_suspect_for_being_alike():
    rows = make_causal([BASE], ["sst-2", "chatterbot"])
    point = CurvePoint(0, 0.0, 0.5, 0.0)
    rows = [replace(r, outcome=replace(r.outcome, collapsed=True, curve=(point,))) for r in rows]
    small = replace(rows[0].job.recipe, batch_size=8)
    twin = [replace(r, job=replace(r.job, variant="batch 8", recipe=small)) for r in rows]
    assert of_all([*rows, *twin]) == []


def test_answers_that_are_all_the_same_are_flagged_as_answers():
    rows = make_causal([LORA], ["sst-2", "chatterbot"], [0])
    rows = [replace(r, outcome=replace(r.outcome, collapsed=True, curve=())) for r in rows]
    assert [(f.kind, f.detail) for f in of_all(rows)] == [
        ("collapsed", "the last predictions are all the same"),
        ("collapsed", "the last answers written are all the same"),
    ]


@pytest.mark.parametrize(
    "changes", [{"completions": ("another",)}, {"unrelated_perplexity_after": 26.0}]
)
def test_a_repeat_must_write_and_forget_the_same(changes):
    assert verdict(replace(OUTCOME, **changes)).verdict == "different"

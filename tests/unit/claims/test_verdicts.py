"""Verdicts: each kind, each boundary, and what they rest on."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from scipy import stats

from claimed import SETTING, A, B, C, build, claim, difference, order, paper, ratio, row, rows
from factory import make_environment, make_failure
from peftmark.analysis.sequential import looks, share_at
from peftmark.catalog.methods import Cell
from peftmark.claims.judging import fits
from peftmark.claims.verdicts import combined, scale_of, verdicts, without_rows
from peftmark.record.own_model import OwnModel

# Differences of A and B by seed: 0.05, 0.04, 0.06; the same for all.
BETTER = [0.85, 0.86, 0.89]
BASE = [0.80, 0.82, 0.83]
INF = math.inf


def one(table, *tests, **changes):
    """The verdict on one claim with these tests."""
    return verdicts(table, [claim(*tests, **changes)])[0]


def both(better=BETTER, base=BASE, **outcome):
    return [*rows(A, better, **outcome), *rows(B, base, **outcome)]


def by_hand(values, level):
    """Student's interval."""
    return stats.t.interval(
        level, len(values) - 1, loc=sum(values) / len(values), scale=stats.sem(values)
    )


# --- limits -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "limits", "shown"),
    [
        (0.02, 0.04, (0.02, INF), True),  # exactly at the threshold
        (0.3 - 0.28, 0.04, (0.02, INF), True),  # and a rounding error below it
        (0.0199, 0.04, (0.02, INF), None),
        (0.0, 0.02, (0.02, INF), None),  # touching it from below contradicts nothing
        (0.0, 0.0199, (0.02, INF), False),
        (0.1, 0.2, (-INF, 0.2), True),
        (0.2, 0.3, (-INF, 0.2), None),
        (0.2001, 0.3, (-INF, 0.2), False),
        (1.15, 1.2, (1.15, 1.2), True),
        (1.14, 1.2, (1.15, 1.2), None),
        (1.0, 1.3, (1.15, 1.2), None),
        (1.21, 1.3, (1.15, 1.2), False),
        (1.0, 1.1, (1.15, 1.2), False),
        (0.0, 0.0, (0.0, INF), True),
    ],
)
def test_an_interval_fits_does_not_or_leaves_it_open(low, high, limits, shown):
    assert fits(low, high, limits) is shown


def test_a_difference_is_reproduced_contradicted_or_undecided_by_its_whole_interval():
    table = build(both())
    low, high = by_hand([0.05, 0.04, 0.06], 0.95)
    kinds = {
        threshold: one(table, difference(at_least=threshold)).kind
        for threshold in (low - 1e-6, low + 1e-6, high - 1e-6, high + 1e-6)
    }
    assert list(kinds.values()) == ["reproduced", "undecided", "undecided", "contradicted"]
    (part,) = one(table, difference(at_least=0.0)).parts
    assert (part.low, part.high) == (pytest.approx(low), pytest.approx(high))
    assert (part.effect, part.seeds, part.tasks) == (pytest.approx(0.05), 3, ("sst-2",))


def test_rows_to_which_seeds_were_added_have_an_interval_that_pays_for_the_looks():
    """Three of at most six seeds spend a quarter of the error: (3 / 6)²."""
    added = [replace(one, most_seeds=6, look=1) for one in both()]
    low, high = by_hand([0.05, 0.04, 0.06], 1 - 0.05 / 4)
    (part,) = one(build(added), difference(at_least=0.0)).parts
    assert (part.low, part.high) == (pytest.approx(low), pytest.approx(high))
    assert "the interval pays for the looks" in " ".join(part.notes)
    (fixed,) = one(build(both()), difference(at_least=0.0)).parts
    assert fixed.low > part.low and not any("looks" in note for note in fixed.notes)


def test_a_number_of_seeds_at_which_no_run_looks_spends_the_least_of_any():
    shares = [one.share for one in looks(tuple(range(12)), 12)]
    assert [share_at(n, 12) for n in (3, 4, 5, 7, 9, 12)] == shares
    assert share_at(6, 12) == share_at(1, 12) == min(shares)
    assert sum(shares) == pytest.approx(1.0)


def test_at_most_and_within_read_the_other_ends():
    table = build(both())
    low, high = by_hand([0.05, 0.04, 0.06], 0.95)
    assert one(table, difference(at_most=high + 1e-6)).kind == "reproduced"
    assert one(table, difference(at_most=low - 1e-6)).kind == "contradicted"
    assert one(table, difference(within=[low - 1e-6, high + 1e-6])).kind == "reproduced"
    assert one(table, difference(within=[high + 1e-6, 1.0])).kind == "contradicted"
    assert one(table, difference(within=[0.05, 1.0])).kind == "undecided"


def test_a_level_alone_is_a_difference_without_a_second_cell():
    table = build(both())
    verdict = one(table, difference(to=None, within=[0.8, 0.93]))
    low, high = by_hand(BETTER, 0.95)
    assert (verdict.parts[0].low, verdict.parts[0].high) == pytest.approx((low, high))
    assert verdict.kind == "reproduced"
    assert len(verdict.jobs) == 3


def test_the_mean_is_over_tasks_and_tasks_can_be_named():
    table = build([*both(), *both([0.7, 0.73, 0.71], [0.8, 0.82, 0.83], task="mrpc")])
    every, some = verdicts(
        table,
        [claim(difference(at_least=0.0)), claim(difference(at_least=0.0, tasks=["mrpc"]))],
    )
    assert every.parts[0].effect == pytest.approx((0.05 - (0.1 + 0.09 + 0.12) / 3) / 2)
    assert every.parts[0].tasks == ("sst-2", "mrpc")
    assert some.parts[0].effect == pytest.approx(-(0.1 + 0.09 + 0.12) / 3)
    assert some.kind == "contradicted"


def test_an_interval_over_tasks_rests_on_the_means_of_the_seeds_that_all_tasks_share():
    # Differences 0.05, 0.04, 0.06 on one task; 0.01, 0.03, 0.02 and one of a fourth seed on the
    # other. Means of the seeds: 0.03, 0.035, 0.04.
    other = both([0.61, 0.63, 0.72, 0.99], [0.6, 0.6, 0.7, 0.1], task="mrpc")
    turned = [row(A, 1, 0.86), row(A, 0, 0.85), row(A, 2, 0.89), *rows(B, BASE)]
    for first in (both(), turned):
        (part,) = one(build([*first, *other]), difference(at_least=0.0)).parts
        assert (part.kind, part.seeds) == ("reproduced", 3)
        assert (part.low, part.high) == pytest.approx(by_hand([0.03, 0.035, 0.04], 0.95))
        (part,) = one(build([*first, *other]), order(A, B)).parts
        assert (part.kind, part.seeds) == ("reproduced", 3)
        ends = (part.pairs[0].low, part.pairs[0].high)
        assert ends == pytest.approx(by_hand([0.03, 0.035, 0.04], 0.95))


def test_tasks_without_a_seed_in_common_are_undecided():
    other = [row(c, s, 0.6 + 0.1 * (c == A) + s / 99, "mrpc") for c in (A, B) for s in (7, 8)]
    table = build([*both(), *other])
    for test in (difference(at_least=0.0), order(A, B)):
        (part,) = one(table, test).parts
        assert (part.kind, part.reason) == (
            "undecided",
            "no seed was run by both cells on every task",
        )


def test_all_intervals_of_a_profile_hold_together():
    table = build([*both(), *rows(C, [0.7, 0.72, 0.71])])
    claims = [
        claim(difference(at_least=0.0)),
        claim(order(A, B, C), id="C02"),  # three pairs
        claim(ratio(at_most=9.0, measure="peak_memory_bytes"), id="C03"),  # a count
        claim(difference(at_least=0.0, suite="other"), id="C04"),
        claim(difference(at_least=0.0, tasks=["mnli"]), id="C05"),  # not in this profile
        claim(paper("1", 1), id="C06"),
        claim(untestable="there is no such row", tests=None, id="C07"),
    ]
    found = verdicts(table, claims)
    level = 1 - 0.05 / 4
    assert [v.level for v in found] == [level, level, None, None, None, None, None]
    low, high = by_hand([0.05, 0.04, 0.06], level)
    assert (found[0].parts[0].low, found[0].parts[0].high) == pytest.approx((low, high))


def test_too_few_seeds_are_undecided_with_the_number_that_would_do():
    table = build(both([0.85, 0.82, 0.90], BASE))
    verdict = one(table, difference(at_least=0.0))
    assert verdict.kind == "undecided"
    assert verdict.settle[0].startswith("about ") and verdict.settle[0].endswith(" seeds")
    assert 3 < int(verdict.settle[0].split()[1]) < 20
    assert verdict.parts[0].more == int(verdict.settle[0].split()[1])
    near = one(table, difference(at_least=verdict.parts[0].effect))
    assert "too close to the limit" in near.settle[0]


@pytest.mark.parametrize("scores", [[0.9], [0.85, 0.87, 0.88], BASE])
def test_one_seed_and_no_spread_decide_nothing(scores):
    verdict = one(build(both(scores, BASE[: len(scores)])), difference(at_least=0.0))
    assert verdict.kind == "undecided"
    assert (verdict.parts[0].low, verdict.level) == (None, None)
    assert ("one seed" if len(scores) == 1 else "same amount") in verdict.parts[0].reason


def test_a_level_that_is_the_same_at_every_seed_is_no_difference_of_cells():
    verdict = one(build(both([0.9] * 3)), difference(to=None, at_least=0.5))
    assert verdict.parts[0].reason == (
        "the figure is the same at every seed, so its spread is unknown"
    )
    assert "seeds" in verdict.settle[0]


@pytest.mark.parametrize(
    "changes",
    [
        *({"compile": True}, {"pad_to": 8}, {"attention": "eager"}, {"devices": 2}),
        *({"shard": True}, {"packing": True}, {"kernels": "liger"}),
    ],
)
def test_rows_of_two_forms_of_a_step_are_not_compared_even_by_score(changes):
    found = both()
    assert one(build(found), difference(at_least=0.02)).kind == "reproduced"
    recipe = replace(found[0].job.recipe, **changes)
    mixed = [replace(r, job=replace(r.job, recipe=recipe)) if r.job.cell == A else r for r in found]
    (part,) = one(build(mixed), difference(at_least=0.02)).parts
    assert f"the recipes differ in {next(iter(changes))} on sst-2" in part.reason


# --- ratios -------------------------------------------------------------------------------------


def timed(cell, seconds):
    return [row(cell, i, step_seconds_p50=s) for i, s in enumerate(seconds)]


def test_a_ratio_is_judged_on_logarithms():
    table = build([*timed(A, [1.1, 1.3, 1.2]), *timed(B, [1.0, 1.0, 1.0])])
    low, high = (math.exp(x) for x in by_hand([math.log(x) for x in (1.1, 1.3, 1.2)], 0.95))
    (part,) = one(table, ratio(measure="step_seconds_p50", at_least=1.0)).parts
    assert (part.low, part.high) == pytest.approx((low, high))
    assert part.effect == pytest.approx((1.1 * 1.3 * 1.2) ** (1 / 3))
    limits = [(low - 1e-6, "reproduced"), (low + 1e-6, "undecided"), (high + 1e-6, "contradicted")]
    for limit, kind in limits:
        assert one(table, ratio(measure="step_seconds_p50", at_least=limit)).kind == kind
    assert part.notes == ("timed on a CPU",)


def test_a_ratio_of_scores_needs_positive_ones():
    good = one(build(both()), ratio(at_least=0.98))
    assert good.kind == "reproduced"
    bad = one(build(both([-0.1, 0.1, 0.2], BASE)), ratio(at_least=0.98))
    assert (bad.kind, bad.parts[0].reason) == ("undecided", "0 and negative figures have no ratio")


def test_two_measures_may_be_held_against_each_other():
    found = [*rows(A, BASE, merged_latency_p50_seconds=0.02), *rows(B, BASE)]
    found = [
        replace(r, outcome=replace(r.outcome, latency_p50_seconds=0.02 + i * 1e-4))
        for i, r in enumerate(found)
    ]
    test = ratio(
        measure="merged_latency_p50_seconds", to_measure="latency_p50_seconds", within=[0.9, 1.1]
    )
    verdict = one(build(found), test)
    assert verdict.parts[0].effect == pytest.approx(0.02 / 0.0204, rel=1e-3)
    assert verdict.kind == "reproduced"


# --- counts -------------------------------------------------------------------------------------


def sized(cell, sizes, **outcome):
    return [row(cell, i, peak_memory_bytes=size, **outcome) for i, size in enumerate(sizes)]


def test_counts_need_no_interval_and_no_second_seed():
    table = build([*sized(A, [20]), *sized(B, [100])])
    verdict = one(table, ratio(measure="peak_memory_bytes", at_most=0.2))  # exactly at it
    (part,) = verdict.parts
    assert (verdict.kind, verdict.level) == ("reproduced", None)
    assert (part.effect, part.low, part.high, part.exact) == (pytest.approx(0.2), 0.2, 0.2, True)
    assert one(table, ratio(measure="peak_memory_bytes", at_most=0.1999)).kind == "contradicted"


def test_a_count_must_fit_on_seeds_that_only_one_task_has():
    other = [*sized(A, [20, 50], task="mrpc"), *sized(B, [100, 100], task="mrpc")]
    table = build([*sized(A, [20]), *sized(B, [100]), *other])
    (part,) = one(table, ratio(measure="peak_memory_bytes", at_most=0.4)).parts
    assert (part.kind, part.high, part.seeds) == ("undecided", 0.5, 1)


def test_a_count_that_varies_must_fit_everywhere():
    table = build([*sized(A, [20, 40]), *sized(B, [100, 100])])
    limits = {0.4: "reproduced", 0.39: "undecided", 0.2: "undecided", 0.19: "contradicted"}
    for limit, kind in limits.items():
        verdict = one(table, ratio(measure="peak_memory_bytes", at_most=limit))
        assert verdict.kind == kind
        assert (verdict.parts[0].low, verdict.parts[0].high) == (0.2, 0.4)


def test_memory_of_different_meters_is_not_compared():
    cuda = sized(A, [20], peak_memory_source="torch_allocated_bytes")
    verdict = one(build([*cuda, *sized(B, [100])]), ratio(measure="peak_memory_bytes", at_most=0.5))
    assert verdict.kind == "not comparable"
    assert "live_bytes and by torch_allocated_bytes" in verdict.parts[0].reason
    unknown = [*sized(A, [20], peak_memory_source=None), *sized(B, [9], peak_memory_source=None)]
    assert one(build(unknown), ratio(measure="peak_memory_bytes", at_most=9.0)).kind == (
        "not comparable"
    )


def test_costs_of_unlike_recipes_or_machines_are_not_compared():
    recipe = replace(row(A, 0).job.recipe, batch_size=32)
    other = [row(A, i, 0.9 + i / 100, job={"recipe": recipe}) for i in range(3)]
    table = build([*other, *rows(B, BASE)])
    for measure in ("step_seconds_p50", "peak_memory_bytes", "steps_to_target"):
        verdict = one(table, ratio(measure=measure, at_most=9.0))
        assert verdict.kind == "not comparable", measure
        assert "batch_size on sst-2: 16 and 32" in verdict.parts[0].reason
    stored = replace(row(A, 0).job.recipe, weights="bf16")
    low = [row(A, i, 0.9 + i / 100, job={"recipe": stored}) for i in range(3)]
    verdict = one(build([*low, *rows(B, BASE)]), ratio(measure="peak_memory_bytes", at_most=9.0))
    assert verdict.kind == "not comparable"
    assert "weights on sst-2: bf16 and fp32" in verdict.parts[0].reason
    elsewhere = make_environment(machine={"cpu": "another"})
    moved = [replace(r, environment=elsewhere) for r in timed(A, [1.0, 1.1, 1.2])]
    verdict = one(
        build([*moved, *timed(B, [1.0, 1.1, 1.3])]), ratio(measure="step_seconds_p50", at_most=9.0)
    )
    assert verdict.parts[0].reason == "the rows were timed on different machines"


# --- steps to the target ------------------------------------------------------------------------


def stepped(cell, steps):
    return [
        row(cell, i, target_reached=s is not None, steps_to_target=s) for i, s in enumerate(steps)
    ]


def test_steps_count_only_where_every_run_reached_the_target():
    test = ratio(measure="steps_to_target", at_most=0.7)
    table = build([*stepped(A, [20, 20, 40]), *stepped(B, [80, 100, 120])])
    assert one(table, test).kind == "reproduced"
    censored = one(build([*stepped(A, [20, None, 40]), *stepped(B, [80, 100, 120])]), test)
    assert censored.kind == "undecided"
    assert "AdaLoRA r8 reached the target in 2 of 3 runs" in censored.parts[0].reason
    assert censored.parts[0].effect is None


# --- orders -------------------------------------------------------------------------------------

HIGH, MIDDLE, LOW = [0.9, 0.91, 0.92], [0.8, 0.811, 0.819], [0.7, 0.709, 0.721]


def ordered(a, b, c):
    return build([*rows(A, a), *rows(B, b), *rows(C, c)])


def test_an_order_needs_every_neighbouring_pair():
    assert one(ordered(HIGH, MIDDLE, LOW), order(A, B, C)).kind == "reproduced"
    spread = [0.78, 0.82, 0.80]
    verdict = one(ordered(HIGH, MIDDLE, spread), order(A, B, C))
    assert verdict.kind == "undecided"
    assert verdict.parts[0].reason == "not shown: LoRA r8 before IA3"
    assert verdict.settle[0] == f"about {verdict.parts[0].more} seeds"
    assert verdict.parts[0].more > 3


def test_one_reversed_pair_is_enough_to_contradict_an_order():
    verdict = one(ordered(MIDDLE, [0.78, 0.82, 0.80], HIGH), order(A, B, C))
    assert verdict.kind == "contradicted"
    assert "the reverse is shown for AdaLoRA r8 before IA3" in verdict.parts[0].reason
    assert [p.shown for p in verdict.parts[0].pairs] == [None, False, False]


def test_orders_of_counts_are_exact_and_less_is_better():
    table = build([*sized(A, [10]), *sized(B, [20]), *sized(C, [30])])
    assert one(table, order(A, B, C, measure="peak_memory_bytes")).kind == "reproduced"
    assert one(table, order(B, A, measure="peak_memory_bytes")).kind == "contradicted"
    even = build([*sized(A, [10]), *sized(B, [10])])
    assert one(even, order(A, B, measure="peak_memory_bytes")).kind == "undecided"


# --- what is not there --------------------------------------------------------------------------


def test_runs_that_failed_or_are_missing_leave_it_undecided():
    table = [*both()]
    broken = replace(table[0], outcome=make_failure("out_of_memory"))
    verdict = one(build([broken, *table[1:-1]], [table[-1]]), difference(at_least=0.0))
    assert verdict.kind == "undecided"
    assert verdict.parts[0].reason == (
        "AdaLoRA r8 has 2 of 3 runs (1 out of memory); LoRA r8 has 2 of 3 runs (1 not run)"
    )
    assert verdict.parts[0].effect is None
    assert verdict.settle[0] == "peftmark run demo --profile quick"


def test_a_cell_that_this_machine_cannot_run_is_undecided_though_the_report_leaves_it_out():
    unsupported = [
        replace(r, outcome=make_failure("unsupported", "no kernel")) for r in rows(A, BASE)
    ]
    table = build([*unsupported, *rows(B, BASE)])
    verdict = one(table.without(table.unsupported), difference(at_least=0.0))
    assert verdict.kind == "undecided"
    assert verdict.parts[0].reason == "AdaLoRA r8 has 0 of 3 runs (3 unsupported)"
    assert verdict.settle[0] == "a machine that can run it"


def test_a_figure_that_no_row_has_is_undecided_with_its_reason():
    found = both(
        merged_latency_p50_seconds=None,
        null_reasons={"merged_latency_p50_seconds": "no adapter to merge"},
    )
    verdict = one(build(found), ratio(measure="merged_latency_p50_seconds", at_most=1.0))
    assert verdict.kind == "undecided"
    assert "has no merged latency in 3 of 3 runs: no adapter to merge" in verdict.parts[0].reason


def test_a_cell_task_profile_or_suite_that_is_not_there_is_not_comparable():
    table = build(both())
    nf4 = difference(of=Cell("adalora", 8, "none"), at_least=0.0)
    nf4["difference"]["of"]["quantization"] = "nf4"
    reasons = {
        "profile quick has no cell AdaLoRA + NF4 r8": nf4,
        "profile quick has no task mnli": difference(at_least=0.0, tasks=["mnli"]),
        "tested by the full profile": difference(at_least=0.0, profiles=["full"]),
        "tested by suite other": difference(at_least=0.0, suite="other"),
    }
    for reason, test in reasons.items():
        verdict = one(table, test)
        assert (verdict.kind, verdict.parts[0].reason) == ("not comparable", reason)
        assert verdict.jobs == ()
        assert verdict.settle[-1] == "run a profile of full scale: stated for RoBERTa-large"


def test_suspect_rows_count_and_are_named():
    found = both()
    found[1] = replace(found[1], outcome=replace(found[1].outcome, collapsed=True))
    verdict = one(build(found), difference(at_least=0.0))
    assert verdict.kind == "reproduced"
    assert verdict.parts[0].notes[0] == "1 run of AdaLoRA r8 predicted the same for every row"


# --- paper, parts, scale ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claimed", "tolerance", "kind"),
    [
        (13.2, 0.5, "refuted on paper"),
        (32.5, 0.0, "confirmed on paper"),
        (32.0, 0.5, "confirmed on paper"),
        (31.99, 0.5, "refuted on paper"),
    ],
)
def test_a_claim_may_be_settled_on_paper(claimed, tolerance, kind):
    one_claim = claim(paper("65e9 * 4 / 8 / 1e9", claimed, tolerance))
    for verdict in (without_rows(one_claim), verdicts(build(both()), [one_claim])[0]):
        assert (verdict.kind, verdict.text, verdict.jobs) == (kind, kind, ())
        assert verdict.parts[0].effect == 32.5


def test_a_claim_holds_only_if_all_its_parts_do():
    def kind(*kinds):
        parts = without_rows(claim(difference(at_least=0.0))).parts
        return combined([replace(parts[0], kind=k) for k in kinds])

    good, bad, unknown, other = "reproduced", "contradicted", "undecided", "not comparable"
    right, wrong, never = "confirmed on paper", "refuted on paper", "untestable"
    assert kind(good, good) == kind(good, right) == good
    assert kind(good, bad) == kind(unknown, bad, other, never) == bad
    assert kind(good, unknown) == kind(good, other) == kind(good, never) == unknown
    assert kind(other, other) == kind(right, other) == kind(never, other) == other
    assert kind(right, right) == right
    assert kind(right, never) == unknown
    assert kind(wrong, good) == kind(wrong, bad) == wrong
    assert kind(never) == never


def test_a_part_that_another_suite_tests_keeps_a_claim_from_being_reproduced():
    tests = difference("here", at_least=0.0), difference("there", at_least=0.0, suite="other")
    verdict = one(build(both()), *tests)
    assert [p.kind for p in verdict.parts] == ["reproduced", "not comparable"]
    assert verdict.kind == "undecided"
    assert "run suite other" in verdict.settle
    table = build(both(BASE, [s + 0.1 + i / 100 for i, s in enumerate(BASE)]))
    assert one(table, *tests).kind == "contradicted"


@pytest.mark.parametrize(
    ("model", "profile", "scale"),
    [
        ("roberta-large", "full", ""),
        ("roberta-large", "base", "in profile base"),
        ("roberta-base", "full", "at RoBERTa-base scale"),
        ("minilm-l6", "offline", "at MiniLM-L6 scale (offline profile)"),
    ],
)
def test_the_scale_stands_in_the_verdict(model, profile, scale):
    job = {"model": model, "profile": profile}
    found = [row(r.job.cell, r.job.seed, r.outcome.metric_value, job=job) for r in both()]
    verdict = one(build(found), difference(at_least=0.0))
    assert verdict.text == f"reproduced {scale}".strip()
    assert scale_of(verdict.claim, verdict.parts, [found[0].job]) == scale
    stated = any("stated for RoBERTa-large" in text for text in verdict.settle)
    assert stated == (model != "roberta-large")
    if model == "roberta-base":
        assert verdict.settle == ("stated for RoBERTa-large",)


def test_a_model_of_the_users_own_is_not_the_claims_whatever_its_name():
    own = OwnModel(causal=False, parameters=1, title="Mine")
    job = {"model": "roberta-large", "profile": "full", "own_model": own}
    found = [row(r.job.cell, r.job.seed, r.outcome.metric_value, job=job) for r in both()]
    verdict = one(build(found), difference(at_least=0.0))
    assert verdict.text == "reproduced at Mine scale"
    assert verdict.settle == ("stated for RoBERTa-large",)


def test_a_source_that_names_no_model_says_so():
    silent = SETTING | {"model": "not stated", "models": []}
    verdict = one(build(both()), difference(at_least=0.0), setting=silent)
    assert verdict.settle == ("run a profile of full scale: the source names no model",)


def test_of_several_numbers_of_seeds_the_largest_is_told():
    table = build([*both([0.85, 0.82, 0.90], BASE), *rows(C, [0.79, 0.84, 0.83])])
    verdict = one(table, difference("one", at_least=0.0), difference("two", to=C, at_least=0.0))
    most = max(part.more for part in verdict.parts)
    assert verdict.settle[0] == f"about {most} seeds"
    assert sum("seeds" in text for text in verdict.settle) == 1


def test_a_part_of_another_profile_names_that_profile_first():
    tests = (
        difference("mnli", at_least=0.0, suite="other"),
        difference("mnli", at_least=0.0, profiles=["full"]),
    )
    assert one(build(both()), *tests).parts[0].reason == "tested by the full profile"


def test_without_rows_every_measured_claim_is_undecided():
    verdict = without_rows(claim(difference(at_least=0.0)))
    assert (verdict.kind, verdict.parts[0].reason) == ("undecided", "no results yet")
    assert verdict.settle == ("run suite demo",)
    assert without_rows(claim(untestable="no such row", tests=None)).kind == "untestable"


def test_a_table_without_jobs_has_no_verdicts():
    with pytest.raises(ValueError, match="planned"):
        verdicts(build([]), [claim(difference(at_least=0.0))])


# --- traces -------------------------------------------------------------------------------------


def test_a_verdict_names_exactly_the_jobs_it_rests_on():
    table = build([*both(), *both(task="mrpc"), *rows(C, BASE)])
    test = difference(at_least=0.0, tasks=["mrpc"])
    verdict = one(table, test)
    wanted = {r.job.job_id for r in table.rows if r.job.task == "mrpc" and r.job.cell in (A, B)}
    assert set(verdict.jobs) == wanted
    assert len(verdict.jobs) == len(wanted) == 6
    ranks = one(table, order(A, B, C, tasks=["sst-2"]))
    assert set(ranks.jobs) == {r.job.job_id for r in table.rows if r.job.task == "sst-2"}


# --- metrics without bounds -----------------------------------------------------------------------


def test_a_log_likelihood_is_not_averaged_with_other_metrics():
    text = {"job": {"metric": "log_likelihood"}}
    mixed = [
        *both(),
        *rows(A, [-3.0, -3.1, -3.2], task="reviews", **text),
        *rows(B, [-4.0, -4.2, -4.1], task="reviews", **text),
    ]
    table = build(mixed)
    found = one(table, difference(at_least=0.01))
    assert found.kind == "not comparable"
    (part,) = found.parts
    assert part.reason == "a mean of accuracy and log-likelihood over tasks means nothing"
    alone = one(table, difference(at_least=0.5, tasks=["reviews"]))
    assert alone.kind == "reproduced"

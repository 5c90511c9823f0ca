"""When AdaLoRA moved its ranks: the share by hand, and every reason for having none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from claimed import A, build, claim, difference, row
from factory import make_recipe
from peftmark.claims.measures import MEASURES
from peftmark.claims.rank_moves import moves_beyond_schedule, rank_moves, schedule_share
from peftmark.claims.verdicts import verdicts
from peftmark.record.job import Record
from peftmark.record.outcome import CurvePoint
from peftmark.record.recipe import AdaLoraSchedule
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite
from places import SUITES

MEASURE = "rank_moves_20_to_60"

# 60 steps, evaluated and allocated every 6; ranks may move at 12, 18, ..., 42.
SCHEDULE = AdaLoraSchedule(12, 6, 18, 6, 0.85, 0.85, 0.1)
STEPS = tuple(range(6, 61, 6))
# step:  6, 12, 18, 24, 30, 36, 42, 48, 54, 60
ONE = [12, 10, 10, 8, 8, 9, 8, 8, 8, 8]  # 2 at 12; 2 + 1 in the window; 1 at 42
TWO = [12, 12, 9, 9, 7, 7, 7, 7, 7, 7]  # 3 + 2 in the window


def moved(
    history: dict[str, list[int | None]],
    steps: tuple[int, ...] = STEPS,
    schedule: AdaLoraSchedule | None = SCHEDULE,
    seed: int = 0,
    **job: Any,
) -> Record:
    """A run of 60 steps with these ranks at these evaluations."""
    recipe = make_recipe(steps=60, eval_every=6, adalora=schedule)
    curve = tuple(CurvePoint(s, 0.5, 0.8, s * 0.1) for s in steps)
    return row(A, seed, job={"recipe": recipe, **job}, rank_history=history, curve=curve)


def test_the_share_counts_every_change_up_and_down_in_all_modules():
    assert rank_moves(moved({"q": ONE, "v": TWO})) == pytest.approx(8 / 11)
    assert rank_moves(moved({"q": ONE})) == pytest.approx(3 / 6)
    assert rank_moves(moved({"v": TWO})) == 1.0


def test_the_window_is_open_at_a_fifth_and_closed_at_three_fifths():
    at = {step: [12] * i + [8] * (10 - i) for i, step in enumerate(STEPS)}
    found = {step: rank_moves(moved({"q": at[step]})) for step in STEPS[1:]}
    assert found == {s: 1.0 if 12 < s <= 36 else 0.0 for s in STEPS[1:]}


def test_a_change_before_the_first_evaluation_counts_from_the_rank_of_the_recipe():
    early = replace(SCHEDULE, tinit=2, delta_t=2)
    history = {"q": [10, 10, *[8] * 8]}
    assert rank_moves(moved(history, schedule=early)) == pytest.approx(2 / 4)
    # Without it, or where modules start at other ranks, what came before is not known.
    for unknown in (
        moved(history, schedule=replace(early, init_rank=None, init_ratio=1.5)),
        moved(history, schedule=early, method="hybrid", size=None),
    ):
        assert "before the first evaluation" in str(rank_moves(unknown))
    # Nor is it needed if the first evaluation comes before the first allocation.
    budget = replace(SCHEDULE, init_rank=None, init_ratio=1.5)
    assert rank_moves(moved({"q": ONE}, schedule=budget)) == pytest.approx(3 / 6)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (moved({"q": ONE}, schedule=None), "moves no ranks"),
        (moved({}), "moves no ranks"),
        (moved({"q": [None, *ONE[1:]]}), "before there were ranks"),
        (moved({"q": [12] * 10}), "no rank changed"),
        (moved({"q": [12, 10, 8, 8]}, steps=(15, 30, 45, 60)), "15 of 60 steps apart"),
        (moved({"q": ONE[:9]}, steps=(*STEPS[:8], 60)), "12 of 60 steps apart"),
        (moved({"q": ONE[1:]}, steps=STEPS[1:]), "12 of 60 steps apart"),
        (moved({"q": ONE[:9]}, steps=STEPS[:9], seed=1), ""),  # a tenth apart is near enough
        (moved({"q": ONE}, schedule=replace(SCHEDULE, delta_t=5)), "5 steps apart"),
    ],
)
def test_a_row_without_it_says_why(record, reason):
    measure = MEASURES[MEASURE]
    if reason:
        assert measure.value(record) is None
        assert reason in measure.reason(record)
    else:
        assert measure.value(record) is not None
        assert measure.reason(record) == ""


def test_verdicts_use_it_and_fail_closed():
    test = difference(to=None, measure=MEASURE, at_least=0.5)
    more = difference(to=None, measure=MEASURE, at_least=0.6)
    other = {"q": [12, 11, 9, 9, 7, 7, 7, 7, 7, 7], "v": TWO}
    found = [moved({"q": ONE, "v": TWO}), moved({"v": TWO}, seed=1), moved(other, seed=2)]
    # 8/11, 1 and 9/10: Student's interval is 0.533 to 1.2185.
    (verdict,) = verdicts(build(found), [claim(test)])
    (part,) = verdict.parts
    assert (part.kind, part.seeds) == ("reproduced", 3)
    assert (part.low, part.high) == pytest.approx((0.5330, 1.2185), abs=1e-4)
    assert verdicts(build(found), [claim(more)])[0].kind == "undecided"
    assert part.effect == pytest.approx((8 / 11 + 1 + 9 / 10) / 3)
    (verdict,) = verdicts(build([*found, moved({"q": [12] * 10}, seed=3)]), [claim(test)])
    (part,) = verdict.parts
    assert part.kind == "undecided"
    assert part.reason.endswith("in 1 of 4 runs: no rank changed")
    assert "between 20 and 60 % of the steps" in part.reason


def test_the_schedule_alone_puts_a_cubic_share_of_its_fall_into_the_window():
    # The budget falls from step 6 to 42 of 60: at 12 and 36 (20 and 60 %) 5/6 and 1/6 of the way
    # are left, of the fall their cubes.
    record = moved({"q": ONE})
    alone = (30 / 36) ** 3 - (6 / 36) ** 3
    assert schedule_share(record) == pytest.approx(alone)
    assert alone == pytest.approx(0.574, abs=1e-3)
    assert moves_beyond_schedule(record) == pytest.approx(3 / 6 - alone)
    assert moves_beyond_schedule(moved({"q": ONE, "v": TWO})) == pytest.approx(8 / 11 - alone)
    # With a fifth of the run before the fall, as the article has it, nearly all falls inside.
    assert schedule_share(moved({"q": ONE}, schedule=replace(SCHEDULE, tinit=12))) == pytest.approx(
        1 - (6 / 30) ** 3
    )


def test_ranks_that_follow_the_schedule_are_no_more_than_it_gives():
    budget = [12 - 4 * (1 - ((42 - s) / 36) ** 3) if s < 42 else 8 for s in STEPS]
    record = moved({f"m{i}": [round(100 * b) for b in budget] for i in range(2)})
    assert moves_beyond_schedule(record) == pytest.approx(0, abs=0.01)


def test_a_row_without_a_schedule_of_its_own_has_no_share_beyond_it():
    for record in (moved({"q": ONE}, schedule=None), moved({"q": ONE}, method="two-stage")):
        assert isinstance(moves_beyond_schedule(record), str)
    measure = MEASURES["rank_moves_beyond_schedule"]
    assert measure.value(moved({"q": [12] * 10})) is None


@pytest.mark.parametrize("profile", ["full", "offline"])
def test_the_suite_that_asks_for_it_evaluates_on_allocations_and_on_the_ends_of_the_window(profile):
    for job in expand(load_suite("adalora-settings", SUITES), profile, "cpu").jobs:
        recipe, schedule = job.recipe, job.recipe.adalora
        if schedule is None:
            continue
        assert recipe.eval_every % schedule.delta_t == 0
        assert 10 * recipe.eval_every <= recipe.steps
        assert recipe.steps % (5 * recipe.eval_every) == 0


def test_a_pruned_rank_trains_on_until_the_next_allocation():
    """Why ranks can be read at allocations alone: PEFT masks only there."""
    torch = pytest.importorskip("torch")
    from peft import AdaLoraConfig, get_peft_model

    torch.manual_seed(0)
    config = AdaLoraConfig(
        init_r=6, target_r=3, tinit=6, tfinal=18, deltaT=6, total_step=60, target_modules=["0"]
    )
    model = get_peft_model(torch.nn.Sequential(torch.nn.Linear(8, 8)), config)
    trained = [p for n, p in model.named_parameters() if ".lora_" in n]
    optimizer = torch.optim.AdamW(trained, lr=4e-3)
    rows = torch.randn(32, 8)
    ranks = []
    for step in range(1, 61):
        optimizer.zero_grad()
        (model(rows) - rows).square().mean().backward()
        optimizer.step()
        model.base_model.update_and_allocate(step)
        ranks.append(sum(int(p.count_nonzero()) for p in trained if p.shape[1] == 1))
    assert ranks[29] < 6 and ranks[30] == 6
    assert ranks[41:] == [3] * 19

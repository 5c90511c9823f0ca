"""How trials spend their steps: the same for every method, whatever its grid."""

from __future__ import annotations

import pytest

from factory import make_recipe
from peftmark.record.recipe import AdaLoraSchedule, first_stage_steps
from peftmark.suite.rounds import Round, UnequalRounds, rounds_of, seeds_of, shortened
from peftmark.suite.schema_runs import Tuning


def tuning(trainings=6, *seeds):
    return Tuning(seeds=list(seeds) or [100], trainings=trainings)


def shapes(settings, steps, trainings=6):
    return [(one.settings, one.steps) for one in rounds_of(settings, steps, tuning(trainings))]


def test_without_a_number_of_trainings_every_setting_is_trained_whole_with_every_seed():
    assert rounds_of(4, 60, Tuning(seeds=[7, 8])) == (Round(4, 60, (7, 8)),)
    assert seeds_of(4, Tuning(seeds=[7, 8])) == [7, 8]


@pytest.mark.parametrize(
    ("settings", "trainings", "rounds"),
    [
        (2, 4, [(2, 60), (2, 60)]),
        (3, 5, [(3, 60), (2, 60)]),
        (3, 7, [(3, 60), (2, 60), (2, 60)]),
        (4, 6, [(4, 60), (2, 60)]),
        (6, 6, [(6, 60)]),
        (3, 4, [(3, 40), (2, 60)]),
        (5, 6, [(5, 48), (2, 60)]),
        (8, 6, [(8, 15), (4, 30), (2, 60)]),
        (12, 6, [(12, 10), (4, 30), (2, 60)]),
        (20, 8, [(20, 6), (7, 17), (4, 30), (2, 60)]),
    ],
)
def test_the_better_settings_are_trained_longer(settings, trainings, rounds):
    assert shapes(settings, 60, trainings) == rounds


def test_every_method_gets_the_same_steps_to_two_percent():
    compared = 0
    for steps in (40, 60, 80, 140, 1000, 6139):
        for trainings in (4, 5, 6, 8, 9, 12, 20):
            for settings in range(2, 60):
                try:
                    found = rounds_of(settings, steps, tuning(trainings))
                except UnequalRounds:
                    continue
                spent = sum(one.settings * one.steps for one in found)
                assert spent == pytest.approx(trainings * steps, rel=0.02)
                assert [one.steps for one in found] == sorted(one.steps for one in found)
                assert found[-1].steps == steps and found[0].settings == settings
                assert found[-1].settings >= 2 and found[0].steps >= steps / 10
                compared += 1
    assert compared > 900


def test_every_round_has_a_seed_of_its_own():
    assert [one.seeds for one in rounds_of(8, 60, tuning(6, 100))] == [(100,), (101,), (102,)]
    assert [one.seeds for one in rounds_of(8, 60, tuning(6, 9, 5))] == [(9,), (5,), (10,)]
    assert seeds_of(8, tuning(6, 9, 5)) == [9, 5, 10]


@pytest.mark.parametrize(
    ("settings", "trainings", "remedy"),
    [(2, 5, "trainings: 4 would do"), (40, 6, "trainings: 14 would do")],
)
def test_a_grid_that_cannot_spend_them_is_refused_with_what_would_do(settings, trainings, remedy):
    with pytest.raises(UnequalRounds) as caught:
        rounds_of(settings, 60, tuning(trainings))
    assert f"{settings} settings can't be tried" in str(caught.value)
    assert remedy in str(caught.value)
    fits = int(remedy.split()[1])
    assert rounds_of(settings, 60, tuning(fits))


def test_a_short_trial_is_a_whole_training_of_its_length():
    schedule = AdaLoraSchedule(12, 12, 36, 5, 0.85, 0.85, 0.1)
    recipe = make_recipe(steps=120, warmup_steps=18, eval_every=30, adalora=schedule)
    short = shortened(recipe, 30)
    assert (short.steps, short.warmup_steps, short.eval_every) == (30, 4, 30)
    assert (short.adalora.tinit, short.adalora.tfinal, short.adalora.delta_t) == (3, 9, 5)
    assert shortened(recipe, 6).adalora.delta_t == 3, "at least one allocation is left"
    assert short.learning_rate == recipe.learning_rate
    whole = shortened(recipe, 120)
    assert (whole.warmup_steps, whole.adalora, whole.eval_every) == (18, schedule, 120)


def test_a_trial_that_may_end_early_is_scored_on_the_way():
    recipe = make_recipe(steps=120, eval_every=30, early_stopping=2)
    assert shortened(recipe, 120).eval_every == 30
    assert shortened(recipe, 20).eval_every == 20


def test_two_stages_leave_their_second_room_for_an_allocation():
    schedule = AdaLoraSchedule(12, 2, 6, 8, 0.85, 0.85, 0.1)
    recipe = make_recipe(steps=40, adalora=schedule, options={"first_stage": 0.5})
    for steps in range(4, 41):
        short = shortened(recipe, steps)
        second = steps - first_stage_steps(short.options, steps)
        one = short.adalora
        assert one.tinit + one.tfinal + one.delta_t <= max(second, one.tinit + one.tfinal + 1)

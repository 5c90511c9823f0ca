"""The profiles for one GPU end, as predicted, within the hours that they are sized for."""

from __future__ import annotations

import pytest

from peftmark.cli.plan_time import times_of
from peftmark.machine.gpus import device
from peftmark.run.runner import Selection, make_plan

HOURS = {
    ("glue", "gpu", "rtx4090"): 1.0,
    ("glue", "gpu", "l40s"): 1.0,
    ("glue", "gpu", "h100"): 0.5,
    ("glue", "gpu-offline", "rtx4090"): 1.0,
    ("instruct", "gpu", "l40s"): 1.0,
}


@pytest.mark.slow
@pytest.mark.parametrize(("suite", "profile", "gpu"), HOURS)
def test_a_profile_ends_in_the_hours_it_is_sized_for(suite, profile, gpu, tmp_path):
    plan = make_plan(Selection(suite, profile, results=tmp_path))
    times = times_of(plan, device(gpu))
    assert times is not None and not times.unknown
    hours = (times.total + (times.later or 0.0)) / 3600
    assert HOURS[suite, profile, gpu] / 3 < hours <= HOURS[suite, profile, gpu], (
        "or it is too small"
    )


def test_every_method_of_a_profile_trains_for_the_same_steps_on_the_same_rows(tmp_path):
    for profile in ("gpu", "gpu-offline"):
        plan = make_plan(Selection("glue", profile, results=tmp_path))
        seen = {(job.recipe.steps, job.recipe.batch_size) for job in plan.jobs}
        assert len(seen) == 1
        trials = {}
        for job in plan.jobs:
            if job.purpose == "tuning":
                key = job.cell, job.task
                trials[key] = trials.get(key, 0) + job.recipe.steps
        assert len(set(trials.values())) == 1, "the same trial steps for every method"
        assert len(plan.suite.profiles[profile].seeds) == 5

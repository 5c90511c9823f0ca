"""Trials in rounds: which follow from the rows of those before, and what they choose."""

from __future__ import annotations

from dataclasses import replace

import pytest

from factory import make_failure, make_outcome, make_record
from peftmark.analysis.table import build
from peftmark.core.errors import SuiteError
from peftmark.report.tuning import section
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite
from peftmark.suite.trials import choices
from small_suite import ADALORA, FULL, HEAD, LORA, QUICK, changed, refusal, write

RATES = [1e-3, 2e-3, 4e-3, 8e-3]
GRIDS = [(("methods", i, "tune"), {"learning_rate": list(RATES)}) for i in (FULL, HEAD, LORA)]
WEIGHTS = [0, 0.1]
ROUNDS = changed(
    *GRIDS,
    (
        ("methods", ADALORA, "tune"),
        {"adalora.orthogonal_weight": list(WEIGHTS), "learning_rate": list(RATES)},
    ),
    (("recipe", "steps"), 100),
    ((*QUICK, "tuning"), {"seeds": [7], "trainings": 6}),
)


@pytest.fixture
def suite(tmp_path):
    write(tmp_path, ROUNDS)
    return load_suite("demo", tmp_path)


def scored(job, best=(4e-3, 0)):
    """Better the nearer the setting is to the best, and after more steps."""
    recipe = job.recipe
    weight = recipe.adalora.orthogonal_weight if recipe.adalora else 0
    off = abs(recipe.learning_rate - best[0]) * 10 + abs(weight - best[1])
    return 0.5 + recipe.steps / 1000 - off


def rows_of(jobs, score=scored):
    found = {}
    for job in jobs:
        value = score(job)
        failed = isinstance(value, str)
        outcome = make_failure(value) if failed else make_outcome(metric_value=value)
        found[job.job_id] = make_record(job=job, outcome=outcome)
    return found


def finished(suite, score=scored):
    """The plan after as many rounds as there are, and the trials of each round."""
    records, rounds = {}, []
    for _ in range(10):
        plan = expand(suite, "quick", "cpu", records)
        new = [j for j in plan.jobs if j.purpose == "tuning" and j.job_id not in records]
        if not new:
            return plan, rounds, records
        rounds.append(new)
        records |= rows_of(new, score)
    raise AssertionError("the rounds never end")


def of(jobs, method):
    return [job for job in jobs if job.method == method]


def tried(job):
    return job.recipe.learning_rate, job.recipe.adalora.orthogonal_weight


def test_a_round_follows_from_the_rows_of_those_before(suite):
    plan, rounds, _ = finished(suite)
    ada = [of(new, "adalora") for new in rounds]
    assert [(len(r), r[0].recipe.steps, r[0].seed) for r in ada] == [
        (8, 25, 7),
        (4, 50, 8),
        (2, 100, 9),
    ]
    assert {tried(job) for job in ada[0]} == {(rate, w) for rate in RATES for w in WEIGHTS}
    assert {tried(job) for job in ada[1]} == {(4e-3, 0), (2e-3, 0), (1e-3, 0), (8e-3, 0)}
    assert {tried(job) for job in ada[2]} == {(4e-3, 0), (2e-3, 0)}
    lora = [of(new, "lora") for new in rounds]
    assert [(len(r), r[0].recipe.steps) for r in lora if r] == [(4, 100), (2, 100)]
    assert plan.waiting == 0
    reported = [job for job in plan.jobs if job.purpose == "report"]
    assert {tried(job) for job in of(reported, "adalora")} == {(4e-3, 0)}
    assert {job.recipe.learning_rate for job in reported} == {4e-3}
    assert all(job.recipe.steps == 100 and job.recipe.eval_every < 100 for job in reported)


def test_every_cell_spends_the_same_steps(suite):
    _, rounds, records = finished(suite)
    found = choices([job for new in rounds for job in new], records)
    assert {choice.steps for choice in found.values()} == {600}
    assert [
        (one.settings, one.steps, one.seed)
        for one in found[next(key for key in found if key[0].method == "adalora")].lengths
    ] == [(8, 25, 7), (4, 50, 8), (2, 100, 9)]


def test_what_waits_is_as_long_as_what_comes(suite):
    """Trials of later rounds and reported jobs are counted, and their time can be told."""
    first = expand(suite, "quick", "cpu")
    plan, rounds, _ = finished(suite)
    everything = [*(job for new in rounds for job in new), *plan.jobs]
    assert len(first.jobs) + first.waiting == len({job.job_id for job in everything})

    def work(jobs):
        return sum(job.recipe.steps for job in jobs)

    unique = {job.job_id: job for job in everything}.values()
    assert work([*first.jobs, *first.waits]) == work(unique)


def test_finalists_are_told_apart_by_all_their_whole_trainings(suite):
    """The second best of the first seed wins where the next seed says more."""

    def score(job):
        rates = {1e-3: 0.1, 2e-3: 0.70, 4e-3: 0.72, 8e-3: 0.2}
        luck = {(2e-3, 8): 0.1, (4e-3, 8): -0.1}
        rate = job.recipe.learning_rate
        return rates[rate] + luck.get((rate, job.seed), 0.0)

    plan, _, records = finished(suite, score)
    [lora] = {job.recipe.learning_rate for job in of(plan.jobs, "lora") if job.purpose == "report"}
    assert lora == 2e-3
    [choice] = [c for (cell, _), c in choices(plan.jobs, records).items() if cell.method == "lora"]
    assert [one.whole for one in choice.tried] == pytest.approx([0.1, 0.75, 0.67, 0.2])
    assert [one.score for one in choice.tried] == pytest.approx([0.1, 0.70, 0.72, 0.2])


def test_a_setting_whose_trial_failed_comes_last_and_every_failure_leaves_the_recipes_own(suite):
    plan, rounds, _ = finished(
        suite, lambda job: "diverged" if job.recipe.learning_rate == 4e-3 else scored(job)
    )
    assert {job.recipe.learning_rate for job in of(rounds[1], "lora")} == {2e-3, 1e-3}
    plan, _, _ = finished(suite, lambda job: "crashed")
    reported = [job for job in plan.jobs if job.purpose == "report"]
    assert {job.recipe.learning_rate for job in reported} == {0.001}
    assert all(plan.untuned(job) for job in reported)


def test_a_stopped_trial_holds_up_its_cell_alone(suite):
    first = [j for j in expand(suite, "quick", "cpu").jobs if j.purpose == "tuning"]
    records = rows_of(first)
    stopped = of(first, "lora")[0]
    records |= rows_of([stopped], lambda job: "interrupted")
    plan = expand(suite, "quick", "cpu", records)
    assert len(of(plan.jobs, "head")) == 6 and len(of(plan.jobs, "lora")) == 4


def test_lower_scores_go_on_where_lower_is_better(tmp_path):
    write(tmp_path, ROUNDS)
    suite = load_suite("demo", tmp_path)
    jobs = [replace(j, metric="rmse") for j in expand(suite, "quick", "cpu").jobs]
    found = choices(jobs, rows_of(jobs, lambda job: job.recipe.learning_rate))
    assert {choice.chosen[0] for choice in found.values()} == {1e-3}
    [lora] = [choice for (cell, _), choice in found.items() if cell.method == "lora"]
    assert lora.gain == pytest.approx(2e-3), "1e-3, where the middle of the four is 3e-3"


# --- what the trials say --------------------------------------------------------------------------


def test_the_flat_range_and_the_gain_are_of_the_first_round(suite):
    plan, _, records = finished(suite)
    [choice] = [
        c for (cell, _), c in choices(plan.jobs, records).items() if cell.method == "adalora"
    ]
    assert choice.knobs == ("learning_rate", "adalora.orthogonal_weight")
    assert choice.along("learning_rate") == [
        (rate, pytest.approx(0.525 - abs(rate - 4e-3) * 10)) for rate in RATES
    ]
    assert choice.along("adalora.orthogonal_weight") == [(0, 0.525), (0.1, pytest.approx(0.425))]
    assert choice.flat("learning_rate", 0.02) == [2e-3, 4e-3]
    assert choice.flat("adalora.orthogonal_weight", 0.02) == [0]
    assert choice.within(0.02) == 2 / 8
    assert choice.gain == pytest.approx(0.07), "0.525, where the middle is 0.455"
    assert choice.at_edge("adalora.orthogonal_weight") and not choice.at_edge("learning_rate")


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (
            ("methods", LORA, "tune"),
            {"batch_size": [16, 32]},
            ["tune.batch_size", "not a setting that trials vary; allowed: learning_rate"],
        ),
        (("methods", LORA, "tune"), {"alpha": [8]}, ["tune.alpha", "at least 2"]),
        (("methods", LORA, "tune"), {"alpha": [8, 8]}, ["tune.alpha: found [8, 8]", "once"]),
        (("methods", LORA, "tune"), {"max_grad_norm": [None, 1.0]}, ["null says nothing"]),
        (
            ("methods", LORA, "tune"),
            {"dropout": [0, 0.0], "learning_rate": [1e-3, 2e-3]},
            ["lora rank 8 on trec: tune: ", "are the same setting"],
        ),
        (("methods", LORA, "tune"), {"alpha": [16, 8]}, ["tune.alpha: found [16, 8]", "ascending"]),
        (("methods", LORA, "tune"), {"alpha": [-1, 8]}, ["tune.alpha: found -1", "greater than 0"]),
        (("methods", LORA, "tune"), {"dropout": ["a", 0.1]}, ["tune.dropout: found 'a'", "number"]),
        (("methods", HEAD, "tune"), {"alpha": [8, 16]}, ["tune.alpha: means nothing for head"]),
        (
            ("methods", LORA, "tune"),
            {"adalora.beta1": [0.8, 0.9]},
            ["tune.adalora.beta1: means nothing for lora"],
        ),
        (
            ("methods", LORA, "tune"),
            {"options.rate_ratio": [2, 4]},
            ["tune.options.rate_ratio: found 2"],
        ),
        (
            ("methods", LORA, "learning_rates"),
            [1e-3, 2e-3],
            ["learning_rates: stands beside `tune`"],
        ),
        (("methods", LORA, "tune"), None, ["(lora).learning_rates: missing"]),
        ((*QUICK, "tuning", "trainings"), 3, ["tuning.trainings", "greater than or equal to 4"]),
        ((*QUICK, "seeds"), [0, 8], ["tuning.seeds: found [8] (each round takes the next)"]),
        (
            ("methods", LORA, "tune"),
            {"learning_rate": [round(1e-3 * (n + 1), 4) for n in range(40)]},
            ["lora rank 8 on trec: tuning.trainings: 40 settings", "would do"],
        ),
        (
            ("methods", LORA, "recipe", "steps"),
            50,
            ["lora rank 8 on trec: steps: found 50 where another method has 100"],
        ),
    ],
)
def test_what_is_not_equal_or_means_nothing_is_refused(tmp_path, path, value, words):
    content = changed(*(((*path,), value),), base=ROUNDS)
    message = refusal(tmp_path, content)
    for word in words:
        assert word in message


def test_options_of_a_method_are_tried(tmp_path):
    entry = {
        "method": "lora-plus",
        "rank": [8],
        "tune": {"options.rate_ratio": [2.0, 4.0, 8.0], "learning_rate": [1e-3, 2e-3]},
        "recipe": {"targets": "attention", "alpha": 16},
    }
    content = changed((("methods", LORA), entry), (("reference",), {"method": "head"}), base=ROUNDS)
    write(tmp_path, content)
    jobs = of(expand(load_suite("demo", tmp_path), "quick", "cpu").jobs, "lora-plus")
    assert [(j.recipe.learning_rate, j.recipe.options["rate_ratio"]) for j in jobs] == [
        (rate, ratio) for rate in (1e-3, 2e-3) for ratio in (2.0, 4.0, 8.0)
    ]
    assert len({job.job_id for job in jobs}) == 6


def test_a_size_is_no_setting_that_trials_vary(tmp_path):
    content = changed((("methods", LORA, "tune"), {"alpha": [8, 8], "rank": [1, 2]}), base=ROUNDS)
    write(tmp_path, content)
    with pytest.raises(SuiteError) as caught:
        load_suite("demo", tmp_path)
    assert "tune.rank" in str(caught.value) and "not a setting that trials vary" in str(
        caught.value
    )


def test_a_grid_without_a_rate_is_reported_like_others(tmp_path):
    """Its choice has no learning rate to be at the edge of."""
    content = changed((("methods", LORA, "tune"), {"alpha": [8, 16, 32]}), base=ROUNDS)
    write(tmp_path, content)
    plan, _, records = finished(load_suite("demo", tmp_path))
    rows = list(records.values())
    found = choices(plan.jobs, records)
    [choice] = [c for (cell, _), c in found.items() if cell.method == "lora"]
    assert choice.knobs == ("alpha",) and not choice.at_edge("learning_rate")
    assert section(build(rows, plan.jobs, rows[0].job.cell)).key == "tuning"


def test_where_the_last_trials_failed_those_before_choose(suite):
    def score(job):
        return "crashed" if job.recipe.steps == 100 and job.seed > 7 else scored(job)

    plan, _, _ = finished(suite, score)
    reported = [job for job in plan.jobs if job.purpose == "report"]
    assert {job.recipe.learning_rate for job in of(reported, "lora")} == {4e-3}
    assert {tried(job) for job in of(reported, "adalora")} == {(4e-3, 0)}
    assert not any(plan.untuned(job) for job in reported)


def test_seeds_that_a_run_may_add_are_none_of_the_trials(tmp_path):
    decide = {"question": "best", "max_seeds": 12}
    message = refusal(tmp_path, changed(((*QUICK, "decide"), decide), base=ROUNDS))
    assert "tuning.seeds: found [7, 8, 9], which are seeds of the reported jobs too" in message
    far = changed(((*QUICK, "decide"), decide), ((*QUICK, "tuning", "seeds"), [100]), base=ROUNDS)
    write(tmp_path, far)
    assert load_suite("demo", tmp_path).profiles["quick"].decide.max_seeds == 12


def test_whole_trainings_of_every_seed_decide_who_goes_on(tmp_path):
    """The worst of the second seed goes on where the mean of both says so."""
    content = changed(*(((*QUICK, "tuning", "trainings"), 9),), base=ROUNDS)
    del content["methods"][ADALORA]
    write(tmp_path, content)
    scores = {
        (1e-3, 7): 0.9, (2e-3, 7): 0.8, (4e-3, 7): 0.5, (8e-3, 7): 0.1,
        (1e-3, 8): 0.6, (2e-3, 8): 0.7, (4e-3, 8): 0.75,
    }  # fmt: skip
    _, rounds, _ = finished(
        load_suite("demo", tmp_path),
        lambda job: scores.get((job.recipe.learning_rate, job.seed), 0.6),
    )
    assert [len(of(new, "lora")) for new in rounds] == [4, 3, 2]
    assert {job.recipe.learning_rate for job in of(rounds[2], "lora")} == {1e-3, 2e-3}

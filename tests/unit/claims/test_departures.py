"""What a verdict says beside its kind: direction, amount of training, and what the source had."""

from __future__ import annotations

from dataclasses import replace

import pytest

from claimed import SETTING, A, B, build, claim, difference, ratio, row, rows
from factory import make_job, make_recipe
from peftmark.catalog.methods import Cell
from peftmark.claims.comparisons import BestRate, Difference, Ratio, Spread
from peftmark.claims.evidence import unequal_steps, unequal_training
from peftmark.claims.measures import MEASURES
from peftmark.claims.standing import Ledger, Line, Standing
from peftmark.claims.stated import StatedRecipe, recipe_departures
from peftmark.claims.text import claims_facts, claims_text
from peftmark.claims.verdicts import verdicts
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite
from places import SUITES

# Differences of A and B by seed: 0.010, 0.011, 0.009; Student's interval 0.010 +- 0.0025.
ABOVE, BASE = [0.810, 0.831, 0.829], [0.80, 0.82, 0.82]


def one(table, *tests, **changes):
    """The verdict on one claim with these tests."""
    return verdicts(table, [claim(*tests, **changes)])[0]


def both(above=ABOVE, base=BASE, **outcome):
    return [*rows(A, above, **outcome), *rows(B, base, **outcome)]


# --- direction and size -------------------------------------------------------------------------


def test_a_point_against_a_claimed_one_point_eight_is_another_size_and_no_worse_method():
    verdict = one(build(both()), difference(at_least=0.018))
    (part,) = verdict.parts
    assert (part.kind, part.direction) == ("contradicted", "reproduced")
    words = "contradicted in size and reproduced in direction"
    assert (part.text, verdict.kind) == (words, "contradicted")
    assert verdict.text == f"{words} at MiniLM-L6 scale (quick profile)"


@pytest.mark.parametrize(
    ("above", "text"),
    [
        ([0.85, 0.86, 0.869], "reproduced"),  # 0.05, 0.04, 0.049: 0.046 +- 0.014
        ([0.79, 0.811, 0.809], "contradicted"),
        # differences of 0.001, -0.001 and 0.0
        ([0.801, 0.819, 0.82], "contradicted in size and undecided in direction"),
        # 0.01, 0.02 and 0.015: 0.015 +- 0.0124
        ([0.81, 0.84, 0.835], "undecided in size and reproduced in direction"),
        ([0.78, 0.86, 0.83], "undecided"),
    ],
)
def test_direction_is_told_where_it_is_another_verdict_than_that_on_the_size(above, text):
    verdict = one(build(both(above)), difference(at_least=0.018))
    assert verdict.text == f"{text} at MiniLM-L6 scale (quick profile)"
    assert verdict.parts[0].text == text


def test_a_claim_is_reproduced_in_direction_only_if_every_part_that_fails_is():
    table = build([*both(), *both([0.70, 0.711, 0.709], task="mrpc")])
    on = [difference("one", at_least=0.018, tasks=["sst-2"])]
    on += [difference("two", at_least=0.018, tasks=["mrpc"])]
    assert one(table, *on).text.startswith("contradicted at")
    assert one(table, on[0]).text.startswith("contradicted in size and reproduced in direction")


@pytest.mark.parametrize(
    ("limits", "kind", "expected"),
    [
        ({"at_least": 0.018}, Difference, (0.0, float("inf"))),
        ({"at_most": -0.01}, Difference, (-float("inf"), 0.0)),
        ({"at_least": -0.01}, Difference, None),  # at most a point below: no direction
        ({"at_least": 0.0}, Difference, None),  # nothing but a direction
        ({"within": [1.15, 1.2]}, Ratio, (1.0, float("inf"))),
        ({"within": [0.98, 1.02]}, Ratio, None),
        ({"at_most": 0.2}, Ratio, (-float("inf"), 1.0)),
        ({"at_most": 0.5}, Spread, (-float("inf"), 1.0)),
        ({"within": [5.0, 20.0]}, BestRate, (1.0, float("inf"))),
    ],
)
def test_a_claim_has_a_direction_where_all_that_fits_lies_on_one_side_of_no_difference(
    limits, kind, expected
):
    cell = {"method": "adalora", "rank": 8}
    assert kind.model_validate({"of": cell, "to": cell, **limits}).beyond() == expected


def test_counts_that_are_the_same_have_no_direction_of_a_claimed_saving():
    def memory(a, b):
        found = [row(A, 0, peak_memory_bytes=a), row(B, 0, peak_memory_bytes=b)]
        return one(build(found), ratio(measure="peak_memory_bytes", at_most=0.2)).parts[0].text

    assert memory(100, 100) == "contradicted"
    assert memory(99, 100) == "contradicted in size and reproduced in direction"
    assert memory(20, 100) == "reproduced"


# --- the amount of training ---------------------------------------------------------------------


def trained(cell, steps, batch, scores=ABOVE):
    recipe = make_recipe(steps=steps, batch_size=batch)
    return rows(cell, scores, steps=steps, job={"recipe": recipe})


def test_scores_of_cells_that_trained_on_other_numbers_of_rows_are_not_compared():
    table = build([*trained(A, 100, 32), *trained(B, 430, 32, BASE)])
    verdict = one(table, difference(at_least=0.0))
    assert verdict.kind == "not comparable"
    assert verdict.parts[0].reason == (
        "on sst-2 LoRA r8 trained on 4.3 times as many rows as AdaLoRA r8 (steps times batch)"
    )
    costs = one(table, ratio(measure="step_seconds_p50", at_most=2.0))
    assert costs.kind != "not comparable"
    alone = one(table, difference(to=None, within=[0.8, 0.9]))
    assert alone.kind != "not comparable"


def test_a_line_that_goes_through_no_step_is_held_to_no_number_of_rows():
    fitted = Cell("bag-of-words", None, "none")
    found = [*trained(A, 100, 32), *trained(fitted, 1, 1)]
    assert unequal_training(found) == unequal_steps(found) == ""
    assert "3.2e+03 times" in unequal_training([*found[:3], *trained(B, 1, 1)])


def test_a_begun_batch_more_is_no_other_amount_of_training():
    fits = build([*trained(A, 1000, 16), *trained(B, 1009, 16, BASE)])
    assert one(fits, difference(at_least=0.0)).kind == "reproduced"
    more = build([*trained(A, 1000, 16), *trained(B, 1011, 16, BASE)])
    assert one(more, difference(at_least=0.0)).kind == "not comparable"


def test_the_same_rows_in_other_steps_are_compared_and_the_factor_is_told():
    verdict = one(build([*trained(A, 100, 32), *trained(B, 200, 16, BASE)]), difference(at_least=0))
    assert verdict.kind == "reproduced"
    told = "on sst-2 LoRA r8 took 2 times the steps of AdaLoRA r8 for the same rows"
    assert verdict.parts[0].notes == (told,)


# --- what the source states ---------------------------------------------------------------------


def stated(**setting):
    return {"setting": SETTING | setting}


def test_every_departure_from_the_stated_setting_is_told():
    recipe = {"learning_rate": 3e-5, "batch_size": 16, "max_length": 128}
    table = build(both())
    job = table.jobs[0]
    assert (job.recipe.batch_size, job.recipe.max_length) == (16, 64)
    found = one(
        table,
        difference(at_least=0.0, differs="rank 8 for 0.1 %"),
        reading="the sign alone is tested",
        **stated(recipe=recipe, task_names=["mnli"], tasks="MNLI"),
    )
    assert found.differs == (
        "model all-MiniLM-L6-v2, stated RoBERTa-large",
        "tasks sst-2, stated MNLI",
        "learning rate 5e-4, stated 3e-5",
        "max length 64, stated 128",
        "rank 8 for 0.1 %",
        "the sign alone is tested",
    )


def test_a_value_that_several_parts_depart_from_is_told_once_with_its_span():
    def at(cell, rate, task):
        job = {"recipe": make_recipe(learning_rate=rate)}
        return rows(cell, ABOVE if cell == A else BASE, task=task, job=job)

    table = build(
        [*at(A, 1e-3, "sst-2"), *at(B, 5e-4, "sst-2"), *at(A, 4e-4, "mrpc"), *at(B, 5e-4, "mrpc")]
    )
    tests = [difference(task, at_least=0.0, tasks=[task]) for task in ("sst-2", "mrpc")]
    found = one(table, *tests, **stated(recipe={"learning_rate": 3e-4}))
    assert [text for text in found.differs if "rate" in text] == [
        "learning rate 4e-4 to 1e-3, stated 3e-4"
    ]
    # A part whose figure has a source of its own is held to that one's recipe.
    own = [tests[0], tests[1] | {"recipe": {"learning_rate": 5e-4}}]
    found = one(table, *own, **stated(recipe={"learning_rate": 3e-4}))
    assert [text for text in found.differs if "rate" in text] == [
        "learning rate 5e-4 to 1e-3, stated 3e-4",
        "learning rate 4e-4 to 5e-4, stated 5e-4",
    ]


def test_what_is_run_as_stated_departs_in_nothing():
    job = {"model": "roberta-large", "profile": "full"}
    recipe = make_recipe()
    given = {"learning_rate": recipe.learning_rate, "batch_size": 16, "steps": 120}
    table = build(both(job=job))
    setting = stated(recipe=given, task_names=["sst-2"])
    assert one(table, difference(at_least=0.0), **setting).differs == ()
    assert one(table, difference(at_least=0.0), **setting).text == "reproduced"
    other = stated(recipe=given | {"batch_size": 32}, task_names=["sst-2"])
    found = one(table, difference(at_least=0.0), **other)
    assert found.differs == ("batch size 16, stated 32",)
    assert found.text == "reproduced with another recipe than stated"


def test_a_source_without_a_recipe_or_a_model_is_said_to_have_none():
    found = one(build(both()), difference(at_least=0.0), **stated(model="not stated", models=[]))
    assert found.differs[0] == "model all-MiniLM-L6-v2, which the source does not state"
    assert found.differs[-1] == "the source gives no recipe"


def test_epochs_are_steps_over_batches_of_the_rows_that_train():
    # 800 rows in batches of 32 are 25 steps an epoch.
    job = make_job(task="trec", recipe=make_recipe(train_rows=800, batch_size=32, steps=75))
    assert recipe_departures(StatedRecipe(epochs=3), [job]) == []
    assert recipe_departures(StatedRecipe(epochs=5), [job]) == ["epochs 3, stated 5"]
    longer = make_job(task="trec", recipe=replace(job.recipe, steps=250))
    assert recipe_departures(StatedRecipe(epochs=5), [job, longer]) == ["epochs 3 to 10, stated 5"]
    assert recipe_departures(StatedRecipe(train_rows=2000), [job]) == [
        "train rows 800, stated 2,000"
    ]
    assert recipe_departures(StatedRecipe(train_rows=830), [job]) == []


# --- where the learning rates come from ---------------------------------------------------------


@pytest.mark.parametrize(
    ("profile", "said"),
    [
        ("offline-tuned", "chosen by trials on selection rows, equally many steps for every cell"),
        ("cpu", "chosen by trials on selection rows, equally many for every cell"),
        ("offline", "fixed in the suite: "),
        ("full", "fixed in the suite: "),
    ],
)
def test_a_plan_says_where_its_learning_rates_come_from(profile, said):
    job = expand(load_suite("glue", SUITES), profile, "cpu").jobs[0]
    assert job.rates.startswith(said)
    assert replace(job, rates="another").job_id == job.job_id


def test_a_verdict_says_where_the_learning_rates_come_from():
    table = build(both(job={"rates": "fixed in the suite: a paper's"}))
    (found,) = verdicts(table, [claim(difference(at_least=0.0))])
    assert found.rates == "fixed in the suite: a paper's"
    ledger = Ledger((Line(found.claim, (Standing("demo", "quick", found),), ()),), "demo", "quick")
    assert "learning rates: fixed in the suite: a paper's" in claims_text(ledger)
    assert "unlike the source: model all-MiniLM-L6-v2" in claims_text(ledger)
    facts = claims_facts(ledger)["claims"][0]["verdicts"][0]
    assert facts["learning_rates"] == "fixed in the suite: a paper's"
    assert facts["unlike_the_source"][0].startswith("model all-MiniLM-L6-v2")
    (elsewhere,) = verdicts(table, [claim(difference(at_least=0.0, suite="other"))])
    assert elsewhere.rates == ""


# --- measures of overfitting --------------------------------------------------------------------


def test_what_was_lost_since_the_best_evaluation_is_told_whichever_side_is_better():
    measure = MEASURES["score_given_back"]
    assert measure.value(row(A, 0, 0.80, best_metric_value=0.83)) == pytest.approx(0.03)
    assert measure.value(row(A, 0, 2.5, best_metric_value=2.1)) == pytest.approx(0.4)
    assert measure.value(row(A, 0, 0.80, best_metric_value=None)) is None
    assert measure.reason(row(A, 0, 0.80, best_metric_value=None)) == "the run has no score"


def test_training_losses_are_compared_on_one_task_and_not_averaged_over_several():
    def trained_to(cell, losses, task="sst-2"):
        return [row(cell, seed, task=task, loss=one) for seed, one in enumerate(losses)]

    low, high = [0.10, 0.12, 0.11], [0.30, 0.33, 0.31]
    test = difference(measure="loss", at_most=0.0)
    one_task = build([*trained_to(A, low), *trained_to(B, high)])
    assert one(one_task, test).kind == "reproduced"
    two = [*trained_to(A, low, "mrpc"), *trained_to(B, high, "mrpc")]
    verdict = one(build([*trained_to(A, low), *trained_to(B, high), *two]), test)
    assert verdict.kind == "not comparable"
    assert "a mean of training losses over tasks" in verdict.parts[0].reason

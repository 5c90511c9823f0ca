"""Options that a recipe leaves no room for: told when the suite is read, each in one message."""

from __future__ import annotations

import pytest

from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite
from peftmark.suite.rounds import shortened
from places import SUITES
from small_suite import changed, recipes, refusal

SCHEDULE = {"init_rank": 12, "tinit": 2, "tfinal": 3, "delta_t": 1, "orthogonal_weight": 0.1}


def suite_with(method, quantization="none", options=None, **recipe):
    content = changed(*((("recipe", name), value) for name, value in recipe.items()))
    own = {"alpha": 16}
    if method == "two-stage":
        own |= {"targets": "attention", "adalora": SCHEDULE}
    entry = {"method": method, "rank": [8], "quantization": [quantization], "recipe": own}
    content["methods"].append({**entry, "options": options or {}})
    return content


NETWORK = {"gates": "network"}
PLAIN, BEST = {"second_quantization": "none"}, {"from": "best"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (suite_with("unipelt", options=NETWORK, early_stopping=2), "temperature that falls"),
        (suite_with("unipelt", options=NETWORK, gradient_accumulation=2), "allowed: 1, or gates"),
        (suite_with("unipelt", options=NETWORK, devices=2), "devices: found 2; gates: network"),
        (suite_with("unipelt", attention="eager"), "attention: found eager; a part of unipelt"),
        (suite_with("unipelt", attention="flash"), "attention: found flash; a part of unipelt"),
        (suite_with("unipelt", options={"prune_below": 0.2}), "it is for gates: network"),
        (suite_with("unipelt", options={"gates": "mlp"}), "allowed: paper, network"),
        (suite_with("two-stage", options=PLAIN), "none with quantization none"),
        (suite_with("two-stage", "int8", options=PLAIN), "on nf4 or fp4 alone; use same"),
        (suite_with("two-stage", options=BEST, selection_rows=0), "with selection_rows 0"),
        (suite_with("two-stage", options=BEST, eval_every=51), "the first stage has 50 steps"),
        (suite_with("two-stage", options={"from": "first"}), "allowed: last, best"),
        (suite_with("diff-pruning", options={"mask": "gumbel"}), "hard-concrete, straight-through"),
    ],
)
def test_what_leaves_no_room_is_refused(tmp_path, content, said):
    if content["methods"][-1]["method"] == "diff-pruning":
        content["methods"][-1].pop("rank")
    assert said in refusal(tmp_path, content)


@pytest.mark.parametrize(
    ("content", "stored"),
    [
        (suite_with("unipelt", early_stopping=2, gradient_accumulation=2), {}),
        (suite_with("unipelt", options={"gates": "paper", "entropy_weight": 0.1}), {}),
        (suite_with("unipelt", options={**NETWORK, "prune_below": 0.2}), {"prune_below": 0.2}),
        (suite_with("two-stage", "nf4", options=PLAIN | BEST, eval_every=50), PLAIN | BEST),
        (suite_with("two-stage", options={"second_quantization": "same", "from": "last"}), {}),
    ],
)
def test_what_is_as_before_is_not_stored_and_the_rest_is(tmp_path, content, stored):
    method = content["methods"][-1]["method"]
    found = recipes(tmp_path, content)[method].options
    wanted = {"width": 48, "tokens": 10} if method == "unipelt" else {}
    if method == "two-stage":
        wanted = {"first_stage": 0.5, "second_rate": 0.25}
    gates = NETWORK if "prune_below" in stored else {}
    assert found == wanted | stored | gates


def test_a_short_trial_evaluates_the_first_stage():
    jobs = expand(load_suite("seeds-main", SUITES), "offline", "cpu").jobs
    recipe = next(j.recipe for j in jobs if j.recipe.options.get("from") == "best")
    assert (recipe.steps, recipe.eval_every) == (60, 15)
    assert shortened(recipe, 60).eval_every == 15
    assert shortened(recipe, 20).eval_every == 10
    other = next(j for j in jobs if j.method == "two-stage" and "from" not in j.recipe.options)
    assert shortened(other.recipe, 20).eval_every == 20

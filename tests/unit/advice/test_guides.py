"""The trees of guides as data: every way through them, and what rows say to each leaf."""

import random
from dataclasses import replace

import pytest

from factory import ADALORA, FULL, LORA, QLORA, make_matrix
from peftmark.advice import guide_lines
from peftmark.advice.answer import Advised, advice_text, facts_of
from peftmark.advice.branches import Advice, Group, Leaf, Question, Side, Test, When, branches
from peftmark.advice.candidates import Wish
from peftmark.advice.guide_verdicts import judge, judged
from peftmark.advice.guides import (
    ADVICE,
    FAMILIES,
    FAMILIES_TREE,
    RANKS,
    RULE,
    TWO,
    TWO_TREE,
)
from peftmark.advice.rank_leaves import rank_leaves
from peftmark.advice.recommend import recommend
from peftmark.analysis.table import build
from peftmark.catalog.methods import Cell

HYBRID = Cell("hybrid", None, "none", "low")
TREES = {FAMILIES: FAMILIES_TREE, TWO: TWO_TREE}


def table_of(records):
    return build(records, [r.job for r in records], LORA)


def rows(cells=(LORA, QLORA, ADALORA, FULL), tasks=("sst-2", "sts-b"), **changes):
    return make_matrix(cells, tasks, range(5), **changes)


def with_outcome(records, **changes):
    return [replace(r, outcome=replace(r.outcome, **changes)) for r in records]


def sides(node):
    """Every question of a tree."""
    if isinstance(node, Question):
        yield node
        for side in (node.yes, node.no):
            yield from sides(side.then)


# --- the data -----------------------------------------------------------------------------------


def test_the_first_tree_has_the_leaves_of_its_guide():
    found = [(a.condition, a.advice) for a in branches(FAMILIES_TREE, FAMILIES)]
    small, large = "the GPU has less than 24 GB", "the GPU has 24 GB or more"
    few, many = (
        "there are fewer than 1,000 training rows",
        "there are at least 1,000 training rows",
    )
    close = "the task is close to pre-training"
    assert found == [
        (small, "QLoRA"),
        (small, "IA3"),
        (f"{large} and {few}", "an adapter or LoRA"),
        (
            f"{large} and {many} and {close}",
            "prompt or prefix tuning (in the text: BitFit or DiffPruning)",
        ),
        (
            f"{large} and {many} and {close.replace('is close', 'is not close')}",
            "LoRA, or full fine-tuning if it can be afforded",
        ),
    ]


def test_the_second_tree_has_the_leaves_of_its_guide():
    assert len(list(branches(TWO_TREE, TWO))) == 6
    by_path = {a.condition: a.advice for a in branches(TWO_TREE, TWO)}
    small, large = "the GPU has less than 24 GB", "the GPU has 24 GB or more"
    assert by_path[f"{small} and the highest score is needed"] == "AdaLoRA"
    assert by_path[f"{small} and a little loss is fine"].startswith("QLoRA")
    assert by_path[f"{large} and adapters are trained again and again"].startswith("AdaLoRA")
    once = f"{large} and adapters are trained once and the adapter may have"
    assert by_path[f"{once} at most 0.1 % of the model's parameters"] == "AdaLoRA"
    assert by_path[f"{once} more than 0.1 % of them"] == "QLoRA"


def test_every_branch_is_in_one_list_with_its_guide():
    trees = [a for source, tree in TREES.items() for a in branches(tree, source)]
    assert set(trees) <= set(ADVICE) and set(RULE) <= set(ADVICE)
    assert len(set(ADVICE)) == len(ADVICE)
    assert all(bool(a.reason) == (a.test is None) for a in ADVICE)


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_one_side_of_a_question_holds_and_the_other_does_not(tree):
    for question in sides(tree):
        yes, no = question.yes.when, question.no.when
        if yes.yours or no.yours:
            assert yes.yours and no.yours
            continue
        for rows_ in (0, 999, 1000, 50_000):
            for memory in (8 * 10**9, 24 * 10**9, 80 * 10**9):
                told = [when.holds(rows_, memory, False, 10**8) for when in (yes, no)]
                assert sorted(told) == [False, True]


def test_a_path_asks_for_all_that_its_questions_ask():
    small = When(memory=(0, 24e9))
    both = small.both(When(rows=(0, 1000))).both(When(yours=True))
    assert both == When((0, 1000), (0, 24e9), False, True)
    assert both.holds(500, 10**9, False, None) is None  # part of it only the user knows
    assert both.holds(5000, 10**9, False, None) is False
    assert small.both(When(memory=(8e9, 1e12))).memory == (8e9, 24e9)


def test_a_tree_of_one_question_has_a_branch_a_leaf():
    tree = Question(
        Side("a", When(), (Leaf("x", reason="r"), Leaf("y", reason="r"))),
        Side("b", When(yours=True), (Leaf("z", reason="r"),)),
    )
    assert [(a.condition, a.advice, a.when.yours) for a in branches(tree, "s, t")] == [
        ("a", "x", False),
        ("a", "y", False),
        ("b", "z", True),
    ]


# --- ranks of the rule --------------------------------------------------------------------------


def test_the_rules_ranks_are_judged_by_a_hybrid_that_has_them():
    records = with_outcome(rows((LORA, HYBRID)), train_rows=500, steps=120)
    given = {"low": 2, "middle": 4, "high": 4}
    mixed = [
        replace(r, job=replace(r.job, recipe=replace(r.job.recipe, options=given)))
        if r.job.cell == HYBRID
        else r
        for r in records
    ]
    (one,) = rank_leaves(table_of(mixed))
    few = "there are fewer than 1,000 training rows"
    assert one.condition == f"the task is classification and {few}"
    assert one.advice == "ranks 2, 4 and 4 for lower, middle and upper layers"
    assert one.source == RANKS
    agreed, against = (judge(table_of(scored(mixed, loss)), one) for loss in (0.0, 0.2))
    assert (agreed.word, against.word) == ("agree", "disagree")
    assert agreed.pairs[0].second == "LoRA r8"


def scored(records, loss):
    """All cells score 0.8 with a little noise by seed, the hybrid so much less."""
    found = []
    for r in records:
        noise = random.Random(f"{r.job.cell} {r.job.task} {r.job.seed}").gauss(0, 0.0005)
        value = 0.8 + noise - (loss if r.job.cell == HYBRID else 0.0)
        found.append(replace(r, outcome=replace(r.outcome, metric_value=value)))
    return found


def test_a_hybrid_of_other_ranks_says_nothing_of_the_rules():
    records = with_outcome(rows((LORA, HYBRID)), train_rows=5000)
    (one,) = rank_leaves(table_of(records))
    assert one.advice.startswith("ranks 4, 8 and 8 for")
    found = judge(table_of(records), one)
    assert found.word == "not measured"
    assert found.why == "needs a layered hybrid of ranks 4, 8 and 8 and LoRA; not measured here"


def test_tasks_between_two_steps_of_the_rule_have_no_leaf():
    records = rows((LORA, QLORA), ("sst-2",))
    odd = [
        replace(r, outcome=replace(r.outcome, train_rows=900 if r.job.cell == LORA else 1200))
        for r in records
    ]
    assert rank_leaves(table_of(odd)) == ()
    assert rank_leaves(table_of(with_outcome(records, train_rows=None))) == ()


# --- words --------------------------------------------------------------------------------------


def test_every_verdict_names_its_pairs_and_seeds():
    for _, told in judged(table_of(rows())):
        if told.word != "not measured":
            assert told.pairs and told.seeds == "5 seeds"
            assert told.pairs[0].first in told.why


def test_an_interval_off_zero_that_no_verdict_bears_out_says_so():
    gains = (0.003, 0.009, 0.0, 0.012, 0.006)  # p = 0.05, which more pairs than one don't pass
    near = []
    for r in rows((LORA, QLORA, ADALORA, FULL), ("sst-2",)):
        value = 0.8 + (gains[r.job.seed] if r.job.cell == ADALORA else 0.001 * (r.job.seed % 2))
        near.append(replace(r, outcome=replace(r.outcome, metric_value=value)))
    advice = next(a for a in ADVICE if a.test and a.test.says == "AdaLoRA scores higher than LoRA")
    found = judge(table_of(near), advice)
    assert found.word == "not told apart"
    assert found.why.endswith("not shown once all pairs are judged together (Holm)")
    (alone,) = judge(table_of([r for r in near if r.job.cell in (LORA, ADALORA)]), advice).pairs
    assert "Holm" not in alone.text


def test_pairs_that_no_one_measured_alike_are_not_measured():
    advice = Advice(
        "x", "x", "x, x", Test("x", "score", Group("full", ("full",)), Group("l", ("lora",)))
    )
    longer = [
        replace(r, outcome=replace(r.outcome, steps=240)) if r.job.cell == FULL else r
        for r in rows((LORA, FULL))
    ]
    assert judge(table_of(longer), advice).word == "not measured"
    half = [
        replace(r, outcome=replace(r.outcome, steps=240)) if r.job.cell == LORA else r
        for r in rows((LORA, FULL, Cell("lora", 16, "none")))
    ]
    found = judge(table_of(half), advice)
    assert found.word in ("not told apart", "mixed") and len(found.pairs) == 2


# --- what recommend shows -----------------------------------------------------------------------


def answer_of(records, **wish):
    return recommend(table_of(records), Wish(**wish))


def test_recommend_shows_each_branch_that_the_rows_say_something_to():
    answer = answer_of(rows())
    text = advice_text(Advised((answer,), ()))
    assert "What guides advise, compared with these rows (reduced scale):" in text
    line = next(x for x in text.splitlines() if "less than 24 GB: QLoRA." in x)
    assert line == (
        "- a guide to PEFT families, if the GPU has less than 24 GB: QLoRA. Agree: QLoRA needs "
        "less memory than LoRA; QLoRA r8 to LoRA r8: 0.58× its peak memory, 5 seeds."
    )
    measured = sum(told.word != "not measured" for _, told in judged(answer.table))
    shown = [x for x in guide_lines.lines(answer) if x.startswith("- ")]
    holds = [f["holds"] for f in guide_lines.facts(answer) if f["verdict"] != "not measured"]
    assert len(shown) == measured - holds.count(False) > 2
    full = answer_of(rows(profile="full"))
    assert "(full scale):" in "\n".join(guide_lines.lines(full))


def test_branches_that_ask_for_something_else_are_left_out():
    small = "\n".join(guide_lines.lines(answer_of(rows(), memory=16e9)))
    large = "\n".join(guide_lines.lines(answer_of(rows(), memory=80e9)))
    assert "less than 24 GB" in small and "less than 24 GB" not in large
    assert [
        f["holds"]
        for f in guide_lines.facts(answer_of(rows(), memory=16e9))
        if (f["if"] == "the GPU has less than 24 GB" and f["source"] == FAMILIES)
    ] == [True, True]


def test_json_has_every_branch_with_its_pairs():
    (answer,) = facts_of(Advised((answer_of(rows()),), ()))["answers"]
    guides = answer["guides"]
    assert len(guides) == len(ADVICE) + 1
    (one,) = [g for g in guides if g["tested"] == "QLoRA needs less memory than LoRA"]
    assert (one["verdict"], one["source"], one["holds"]) == ("agree", FAMILIES, None)
    assert one["pairs"] == [
        {
            "cell": "QLoRA r8",
            "against": "LoRA r8",
            "shows": "for",
            "figure": "0.58× its peak memory",
            "seeds": 5,
        }
    ]
    unknown = next(g for g in guides if g["advice"].startswith("prompt or prefix tuning (in"))
    assert (unknown["verdict"], unknown["tested"], unknown["pairs"]) == ("not measured", None, [])


def test_rows_of_something_else_say_nothing_to_guides():
    answer = answer_of(rows(), model="smollm2-135m")
    assert answer.far and list(guide_lines.lines(answer)) == []
    assert guide_lines.facts(answer) == []

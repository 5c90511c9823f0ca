"""Facts of the first step and recall of classes: what a score over all rows doesn't show."""

from __future__ import annotations

from dataclasses import replace

import pytest

from factory import LORA, make_job, make_matrix, make_outcome
from gated import NEW, by_new_code, make_side, with_counts
from peftmark.core.errors import Exit
from peftmark.gate import baseline
from peftmark.gate.counts import STARTED_WITHIN
from peftmark.gate.judge import judge
from peftmark.gate.policy import Policy
from peftmark.gate.run_lines import class_hits, line_of
from peftmark.record.outcome import numbers

DEFAULT = Policy()
FACTS = {
    "first_step.loss": 1.8,
    "first_step.penalty": 0.9,
    "first_step.gradient norm": 3.0,
    "first_step.group 1 parameters": 200_000.0,
    "first_step.group 1 learning rate": 5e-5,
    "first_step.group 1 weight decay": 0.01,
    "first_step.group 1 gradient norm": 0.9,
    "first_step.group 2 weight decay": 0.0,
    "first_step.dropout modules at 0.1": 26.0,
}


def with_facts(line, **changes):
    names = {f"first_step.{k.replace('_', ' ')}": v for k, v in changes.items()}
    return with_counts(line, **FACTS | names)


def gate_of(change, declared="", policy=DEFAULT, before=None):
    before = before or make_side(change=with_facts)
    return judge(make_side(change=change), before, policy, declared=declared)


def elsewhere(line):
    """Made by other code on another kind of machine, with other bits."""
    machine = {**NEW.machine, "cpu": "another"}
    return replace(line, environment=replace(NEW, machine=machine), bits=f"{line.bits} elsewhere")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss": 29.0}, "loss of the first step went from 1.8 to 29"),
        ({"penalty": 0.0}, "penalty of the first step went from 0.9 to 0"),
        ({"gradient_norm": 2.0}, "gradient norm of the first step went from 3 to 2"),
        ({"group_1_gradient_norm": 3.0}, "group 1 gradient norm of the first step went"),
        ({"group_1_parameters": 199_999.0}, "group 1 parameters of the first step went"),
        ({"group_1_learning_rate": 1e-4}, "group 1 learning rate of the first step went"),
        ({"group_2_weight_decay": 0.01}, "group 2 weight decay of the first step went"),
        ({"dropout_modules_at_0.1": None}, "dropout modules at 0.1 of the first step: 26 there,"),
        ({"group_3_parameters": 5.0}, "group 3 parameters of the first step: none there, 5 here"),
    ],
)
def test_another_fact_of_the_first_step_is_a_regression_on_any_machine(changes, said):
    """Weight decay on biases, a sum for a mean, a penalty times 0: planted, all of them passed."""
    for place in (elsewhere, by_new_code):
        gate = gate_of(lambda x, place=place: place(with_facts(x, **changes)))
        assert gate.code == Exit.REGRESSION
        told = [f.sentence for f in gate.findings if f.kind == "regression"]
        assert len(told) == 1 and said in told[0]


def test_other_kernels_move_what_the_first_step_computes_a_little():
    near, far = 1 + 0.9 * STARTED_WITHIN, 1 + 1.1 * STARTED_WITHIN
    for name in ("loss", "penalty", "gradient_norm", "group_1_gradient_norm"):
        value = FACTS[f"first_step.{name.replace('_', ' ')}"]
        for factor, code in ((near, Exit.OK), (far, Exit.REGRESSION)):
            change = {name: value * factor}
            assert gate_of(lambda x, c=change: elsewhere(with_facts(x, **c))).code == code
    # What is set is not computed: nothing moves it.
    rate = {"group_1_learning_rate": 5e-5 * near}
    assert gate_of(lambda x: elsewhere(with_facts(x, **rate))).code == Exit.REGRESSION


def test_declared_numbers_may_start_from_another_loss_and_not_at_another_rate():
    said = "PEFT draws its weights anew"
    gate = gate_of(lambda x: by_new_code(with_facts(x, loss=2.5)), said)
    assert gate.code == Exit.OK
    assert any("loss of the first step went" in f.sentence for f in gate.findings)
    other = gate_of(lambda x: by_new_code(with_facts(x, group_1_learning_rate=1e-4)), said)
    assert other.code == Exit.REGRESSION


def test_a_baseline_that_knows_nothing_of_the_first_step_asks_nothing_of_it():
    assert gate_of(with_facts, before=make_side()).findings == ()


def test_a_first_step_that_is_not_told_any_more_does_not_pass():
    assert gate_of(lambda x: x).code == Exit.REGRESSION


def test_an_advisory_policy_tells_the_first_step_and_passes():
    gate = gate_of(lambda x: elsewhere(with_facts(x, loss=29.0)), policy=Policy(counts="advisory"))
    assert gate.code == Exit.OK and "loss of the first step" in gate.findings[0].sentence


# --- from rows ----------------------------------------------------------------------------------


def row(**changes):
    """A stored run of six rows in three classes."""
    facts = {
        "predictions": numbers([0, 0, 1, 1, 1, 2]),
        "references": numbers([0, 1, 1, 1, 2, 2]),
        "eval_rows": 6,
        "class_rows": {"0": 10, "1": 30, "2": 20},
        "first_step": {"loss": 1.5, "gradient norm": None},
    }
    return replace(make_matrix()[0], job=make_job(), outcome=make_outcome(**facts | changes))


def test_a_row_gives_hits_by_class_and_facts_as_counts():
    line = line_of(row())
    assert line.class_hits == {"0": (1, 1), "1": (2, 3), "2": (1, 2)}
    assert line.counts["class_rows"] == "0: 10; 1: 30; 2: 20"
    assert line.counts["first_step.loss"] == 1.5
    assert line.counts["first_step.gradient norm"] is None


@pytest.mark.parametrize(
    "changes",
    [{"class_rows": {}}, {"predictions": numbers([])}, {"eval_rows": 3, "class_rows": {"0": 1}}],
    ids=["no classes", "kept back", "several labels"],
)
def test_what_is_no_classification_has_no_hits_by_class(changes):
    assert class_hits(row(**changes)) == {}


# --- saved files --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reload", "merge", "found"),
    [
        (0.0, 6e-6, ()),
        (2e-4, 0.001, ()),
        (0.4, 6e-6, ("deployment.reload_max_error",)),
        (0.0, 1.5, ("deployment.merge_max_error",)),
        (None, 6e-6, ("deployment.reload_max_error",)),
    ],
)
def test_files_that_are_not_what_was_trained_are_found(reload, merge, found):
    """A head that isn't saved, a merge at half the scale: training knows nothing of either."""

    def having(reload, merge):
        errors = {"merge_max_error": merge, "reload_max_error": reload}
        return lambda x: replace(x, errors=errors)

    gate = gate_of(having(reload, merge), before=make_side(change=having(0.0, 5e-6)))
    assert tuple(f.check for f in gate.findings) == found
    assert (gate.code == Exit.OK) == (not found)


# --- recall of classes --------------------------------------------------------------------------


def recalling(*hits, rows=20):
    """Lines in which each seed finds so many of the rows of class 0, and the same of class 1."""

    def change(line):
        found = {"0": (hits[line.seed % len(hits)], rows), "1": (90, 180)}
        return replace(line, class_hits=found)

    return change


def recall_gate(after, before, seeds=5, policy=DEFAULT):
    """One cell on one task, by other code elsewhere: no other finding is in the way."""
    sides = [
        make_side((LORA,), ("trec",), seeds, change)
        for change in (lambda x: elsewhere(recalling(*after)(x)), recalling(*before))
    ]
    return judge(*sides, policy)


def test_a_class_that_nobody_finds_any_more_is_a_regression():
    """A rare class left out of the loss: the score over all rows hardly moves."""
    gate = recall_gate((0,), (16, 14, 12, 17, 10))
    assert gate.code == Exit.REGRESSION
    (found,) = [f for f in gate.findings if f.check == "quality.class"]
    assert found.sentence == "no row of class 0 on trec is found any more; recall was 0.500"


def test_a_class_that_was_seldom_found_is_not_missed_untested():
    gate = recall_gate((0,), (9, 14, 12, 17, 10), seeds=2, policy=Policy(few_seeds_limit=0.05))
    assert gate.code == Exit.OK


@pytest.mark.parametrize(("limit", "code"), [(0.05, Exit.REGRESSION), (None, Exit.UNDECIDED)])
def test_two_seeds_tell_a_class_that_is_gone(limit, code):
    gate = recall_gate((0,), (16, 14), 2, Policy(few_seeds_limit=limit))
    found = [f for f in gate.findings if f.check == "quality.class"]
    assert len(found) == 1 and gate.code == code


def test_a_recall_that_falls_on_all_seeds_is_tested():
    gate = recall_gate((6, 5, 7, 6, 5), (16, 14, 16, 17, 15))
    (found,) = [f for f in gate.findings if f.check == "quality.class"]
    assert (
        found.kind == "regression" and "recall of class 0 on trec fell by 0.490" in found.sentence
    )


@pytest.mark.parametrize("after", [(15, 16, 13, 16, 16), (16, 2, 16, 17, 15), (14, 12, 14, 15, 13)])
def test_recall_that_varies_or_falls_by_no_more_than_the_margin_fails_nothing(after):
    assert recall_gate(after, (16, 14, 16, 17, 15)).code == Exit.OK


def test_identical_runs_are_not_asked_for_their_classes():
    side = make_side((LORA,), ("trec",), 5, recalling(16))
    other = make_side((LORA,), ("trec",), 5, recalling(0))  # can't be: the bits are the same
    assert judge(other, side, DEFAULT).code == Exit.OK


def test_a_baseline_keeps_facts_and_classes(tmp_path):
    side = make_side((LORA,), ("trec",), 2, lambda x: with_facts(recalling(16)(x)))
    path = tmp_path / "cpu.jsonl"
    path.write_text(baseline.text_of(baseline.accepted(side, "first", False, None)))
    kept = baseline.read(path).lines[0]
    assert kept.class_hits == {"0": (16, 20), "1": (90, 180)}
    assert FACTS.items() <= kept.counts.items()

"""Families of comparisons: what is shown, what is adjusted, and the noise of rows."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from factory import (
    ADALORA,
    HEAD,
    LORA,
    QLORA,
    make_causal,
    make_job,
    make_matrix,
    make_outcome,
    make_record,
    rows_of,
)
from peftmark.analysis import comparison, table
from peftmark.analysis.stats import compare, holm
from peftmark.analysis.table import Score
from peftmark.catalog.methods import Cell
from peftmark.lab import metrics
from peftmark.record.outcome import numbers


def score(*values):
    return Score(tuple(enumerate(values)), len(values))


def built(rows):
    return table.build(rows, [r.job for r in rows], LORA)


def test_verdicts_hold_together_over_the_family():
    clear, faint = score(0.10, 0.11, 0.12, 0.11), score(0.01, 0.02, 0.03, 0.015)
    alone = comparison.judge({"faint": faint})["faint"]
    assert alone.comparison.p < 0.05
    assert alone.verdict == "higher"
    many = comparison.judge({"clear": clear, "faint": faint} | dict.fromkeys(range(5), faint))
    assert many["clear"].verdict == "higher"
    assert many["faint"].verdict == "undecided"
    ps = [d.comparison.p for d in many.values()]
    assert [d.adjusted for d in many.values()] == list(holm(ps))
    assert {d.family for d in many.values()} == {7}


def test_equivalence_needs_the_margin_and_counts_the_family():
    narrow = score(0.001, -0.001, 0.0005, -0.0005, 0.0002)
    assert comparison.judge({"a": narrow})["a"].verdict == "equivalent"
    wide = score(0.02, -0.02, 0.01, -0.01, 0.0)
    found = comparison.judge({"a": wide})["a"]
    assert found.verdict == "undecided"
    assert found.seeds is None  # a mean of zero is never decided
    assert found.detectable > 0.01


def test_equivalence_alone_is_not_equivalence_among_many():
    # Standard error 0.003: ± 0.0063 at 5 %, ± 0.012 at a seventh of it, against a margin of 0.01.
    close = score(-0.0085, -0.004, 0.0, 0.004, 0.0085)
    assert comparison.judge({"a": close})["a"].verdict == "equivalent"
    many = comparison.judge(dict.fromkeys(range(7), close))
    assert {d.verdict for d in many.values()} == {"undecided"}


def test_without_a_spread_nothing_is_said():
    found = comparison.judge({"one": score(0.3), "same": score(0.2, 0.2, 0.2), "none": score()})
    assert set(found) == {"one", "same"}
    assert {d.verdict for d in found.values()} == {"no interval"}
    assert all(d.detectable is None and d.seeds is None for d in found.values())
    assert found["one"].family == 0


def test_equal_runs_are_not_called_equivalent():
    assert comparison.judge({"a": score(0.0, 0.0, 0.0)})["a"].verdict == "undecided"


def test_overall_differences_pair_seed_and_task():
    rows = make_matrix(cells=[LORA, ADALORA, QLORA, HEAD], seeds=range(3))
    found = comparison.against_reference(built(rows))
    assert set(found) == {ADALORA, QLORA, HEAD}
    by_task = {
        task: [
            a.outcome.metric_value - b.outcome.metric_value
            for a in rows
            for b in rows
            if (a.job.cell, b.job.cell) == (HEAD, LORA)
            and (a.job.task, b.job.task, a.job.seed) == (task, task, b.job.seed)
        ]
        for task in ("sst2", "stsb")
    }
    assert found[HEAD].comparison == compare(list(by_task.values()))
    assert found[HEAD].verdict == "lower"
    assert found[HEAD].comparison.n == 3


def test_tasks_are_one_family():
    rows = make_matrix(cells=[LORA, ADALORA, QLORA], seeds=range(3))
    found = comparison.by_task(built(rows))
    assert set(found) == {(c, t) for c in (ADALORA, QLORA) for t in ("sst2", "stsb")}
    assert {d.family for d in found.values()} == {4}


def test_ranks_hold_every_place_that_is_possible():
    rows = rows_of(
        lora=[0.80, 0.81, 0.82, 0.80],
        adalora=[0.80, 0.812, 0.82, 0.801],
        full=[0.90, 0.911, 0.921, 0.90],
        bitfit=[0.5, 0.512, 0.52, 0.50],
    )
    found = built(rows)
    pairs = comparison.pairwise(found)
    assert len(pairs) == 6
    ranks = {c.method: r for c, r in comparison.ranks(found, pairs).items()}
    assert ranks == {"full": (1, 1), "lora": (2, 3), "adalora": (2, 3), "bitfit": (4, 4)}


def test_a_pair_has_one_verdict_whoever_asks():
    rows = rows_of(
        lora=[0.80, 0.81, 0.82, 0.80],
        adalora=[0.78, 0.795, 0.797, 0.782],
        full=[0.81, 0.811, 0.824, 0.803],
        bitfit=[0.5, 0.512, 0.52, 0.50],
    )
    found = built(rows)
    pairs, alone = comparison.pairwise(found), comparison.against_reference(found)
    turned = {"higher": "lower", "lower": "higher"}
    for cell, judged in alone.items():
        pair = pairs[LORA, cell]
        assert pair.adjusted == pytest.approx(judged.adjusted)
        assert turned.get(pair.verdict, pair.verdict) == judged.verdict
        assert comparison.shown_higher(found, LORA, cell) == (judged.verdict == "lower")
        assert comparison.pair_of(found, cell, LORA) is comparison.pair_of(found, LORA, cell)
    # Three pairs with the reference, three without it.
    assert {d.family for d in pairs.values()} == {3}


def test_above_the_limit_only_pairs_with_the_reference_are_judged(monkeypatch):
    monkeypatch.setattr(comparison, "MOST_CELLS", 2)
    found = built(rows_of(lora=[0.8, 0.81], adalora=[0.7, 0.712], full=[0.5, 0.513]))
    _, adalora, full = found.cells
    assert comparison.pair_of(found, LORA, full) is not None
    assert comparison.pair_of(found, adalora, full) is None
    assert not comparison.shown_higher(found, adalora, full)


def test_too_many_cells_are_not_compared_in_pairs(monkeypatch):
    monkeypatch.setattr(comparison, "MOST_CELLS", 2)
    rows = make_matrix(cells=[LORA, ADALORA, QLORA], seeds=range(2))
    assert comparison.pairwise(built(rows)) == {}
    assert comparison.ranks(built(rows), {}) == {}


# --- noise of rows -------------------------------------------------------------------------------


def predicted(method, seed, found, wanted, metric="accuracy", **changes):
    outcome = make_outcome(predictions=numbers(found), references=numbers(wanted))
    return make_record(job=make_job(method=method, seed=seed, metric=metric), outcome=outcome)


def test_row_error_of_accuracy_by_hand():
    wanted = [0, 1, 0, 1]
    rows = [
        predicted("lora", 0, [0, 1, 0, 1], wanted),
        predicted("adalora", 0, [1, 1, 0, 1], wanted),  # differs in one of four rows
    ]
    # differences -1, 0, 0, 0: sd 0.5, over sqrt(4)
    assert comparison.row_error(built(rows), ADALORA, "sst2") == pytest.approx(0.25)


@pytest.mark.parametrize(
    "change", [{"references": numbers([1, 1, 0, 1])}, {"predictions": numbers([1])}]
)
def test_row_error_needs_the_same_rows(change):
    wanted = [0, 1, 0, 1]
    other = predicted("adalora", 0, [1, 1, 0, 1], wanted)
    other = replace(other, outcome=replace(other.outcome, **change))
    rows = [predicted("lora", 0, wanted, wanted), other]
    assert comparison.row_error(built(rows), ADALORA, "sst2") is None
    assert comparison.overall_row_error(built(rows), ADALORA) is None


def test_rows_without_predictions_have_no_row_error():
    assert comparison.row_error(built(rows_of(lora=[0.8], adalora=[0.7])), ADALORA, "sst2") is None


@pytest.mark.parametrize("metric", ["exact_match", "rouge_l"])
def test_row_error_of_written_answers_is_that_of_what_each_row_adds(metric):
    ones = [1] * 4
    rows = [
        predicted("lora", 0, [1.0, 0.5, 0.0, 1.0], ones, metric),
        predicted("adalora", 0, [0.0, 0.5, 0.0, 1.0], ones, metric),
    ]
    # differences -1, 0, 0, 0, as for accuracy
    assert comparison.row_error(built(rows), ADALORA, "sst2") == pytest.approx(0.25)


def test_the_log_likelihood_of_drawn_rows_weighs_tokens():
    found, tokens = np.array([-1.0, -4.0, -2.0]), np.array([10.0, 30.0, 20.0])
    weights = np.array([[1, 1, 1], [2, 0, 1], [0, 0, 3]])
    values = comparison.WEIGHTED["log_likelihood"](found, tokens, weights)
    # (-10 - 120 - 40) / 60, (-20 - 40) / 40, -2
    assert values == pytest.approx([-170 / 60, -1.5, -2.0])


def test_row_error_of_a_log_likelihood_is_that_of_new_draws():
    """Against the spread of differences over texts that are truly drawn anew."""
    rng = np.random.default_rng(7)

    def draw(n):
        tokens = rng.integers(5, 60, n)
        good = rng.normal(-3, 0.5, n)
        return tokens, good, good - rng.gamma(2, 0.2, n)

    tokens, good, poor = draw(300)
    rows = [
        predicted("lora", 0, good, tokens, "log_likelihood"),
        predicted("adalora", 0, poor, tokens, "log_likelihood"),
    ]
    error = comparison.row_error(built(rows), ADALORA, "sst2")
    anew = (draw(300) for _ in range(400))
    truth = np.std([np.average(p, weights=t) - np.average(g, weights=t) for t, g, p in anew])
    assert error == pytest.approx(truth, rel=0.2)


def test_rows_of_other_tokenizers_or_lengths_are_not_paired():
    first, second = make_causal([LORA, ADALORA], ["chatterbot"], [0])
    assert comparison.row_error(built([first, second]), ADALORA, "chatterbot") is not None
    for job in (
        replace(second.job, model_identity="0" * 64),
        replace(second.job, recipe=replace(second.job.recipe, max_length=32)),
        replace(second.job, causal=replace(second.job.causal, prompt="2:f")),
    ):
        rows = [first, replace(second, job=job)]
        assert comparison.row_error(built(rows), ADALORA, "chatterbot") is None


def test_over_tasks_the_error_is_in_the_unit_that_is_averaged():
    rows = make_causal([LORA, ADALORA], ["chatterbot", "reviews"], [0, 1])
    found = built(rows)
    answers, text = (comparison.row_error(found, ADALORA, t) for t in found.tasks)
    # Baselines 0.1 of 1 and -6.5 of 0.
    expected = math.hypot(answers / 0.9, text / 6.5) / 2
    assert comparison.overall_row_error(found, ADALORA) == pytest.approx(expected)
    alone = built(make_causal([LORA, ADALORA], ["chatterbot"], [0, 1]))
    assert comparison.overall_row_error(alone, ADALORA) == pytest.approx(answers)


@pytest.mark.parametrize("metric", sorted({*comparison.WEIGHTED} - {"log_likelihood"}))
def test_weighted_metrics_agree_with_the_reported_ones(metric):
    rng = np.random.default_rng(3)
    wanted = rng.integers(0, 2, 200).astype(float)
    found = np.where(rng.random(200) < 0.8, wanted, 1 - wanted)
    if metric in ("pearson", "spearmanr"):
        found, wanted = rng.normal(size=200), rng.normal(size=200)
        found += wanted
    plain = np.ones((1, 200), dtype=np.int64)
    value = comparison.WEIGHTED[metric](found, wanted, plain)
    assert value[0] == pytest.approx(metrics.score((metric,), found, wanted)[metric], abs=1e-9)
    twice = rng.integers(0, 3, size=(1, 200))
    drawn = np.repeat(np.arange(200), twice[0])
    again = comparison.WEIGHTED[metric](found, wanted, twice)
    if metric != "spearmanr":  # whose ranks are those among all rows
        expected = metrics.score((metric,), found[drawn], wanted[drawn])[metric]
        assert again[0] == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    "metric", ["matthews_correlation", "macro_f1", "weighted_f1", "balanced_accuracy"]
)
def test_weighted_metrics_of_several_classes_agree_with_the_reported_ones(metric):
    rng = np.random.default_rng(4)
    wanted = rng.integers(0, 4, 200).astype(float)
    found = np.where(rng.random(200) < 0.6, wanted, rng.integers(0, 4, 200))
    value = comparison.WEIGHTED[metric](found, wanted, np.ones((1, 200), dtype=np.int64))
    assert value[0] == pytest.approx(metrics.score((metric,), found, wanted)[metric], abs=1e-9)


def test_row_error_of_other_metrics_is_that_of_new_draws():
    """Against the spread of MCC differences over rows that are truly drawn anew."""
    rng = np.random.default_rng(5)

    def draw(n):
        wanted = rng.integers(0, 2, n)
        good = np.where(rng.random(n) < 0.9, wanted, 1 - wanted)
        poor = np.where(rng.random(n) < 0.7, wanted, 1 - wanted)
        return wanted, good, poor

    wanted, good, poor = draw(400)
    rows = [
        predicted("lora", 0, good, wanted, "matthews_correlation"),
        predicted("adalora", 0, poor, wanted, "matthews_correlation"),
    ]
    error = comparison.row_error(built(rows), Cell("adalora", 8, "none"), "sst2")
    truth = np.std(
        [
            np.corrcoef(w, p)[0, 1] - np.corrcoef(w, g)[0, 1]  # of two classes that is MCC
            for w, g, p in (draw(400) for _ in range(400))
        ]
    )
    assert error == pytest.approx(truth, rel=0.25)

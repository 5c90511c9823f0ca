"""The quality floor, by hand: the guess of the made rows is 0.5."""

from dataclasses import replace

import pytest

from factory import ADALORA, FULL, HEAD, LORA, make_job, make_outcome, make_record
from peftmark.analysis.floor import below_floor, guess, why_below
from peftmark.analysis.table import build


def table(base=0.5, metric="accuracy", **scores):
    cells = {"lora": LORA, "full": FULL, "head": HEAD, "adalora": ADALORA}
    rows = []
    for name, values in scores.items():
        method, size, quantization, _ = cells[name]
        for seed, value in enumerate(values):
            job = make_job(
                method=method, size=size, quantization=quantization, seed=seed, metric=metric
            )
            outcome = make_outcome(metric_value=value, baseline_value=base)
            rows.append(replace(make_record(), job=job, outcome=outcome))
    return build(rows, [r.job for r in rows], LORA)


def test_less_than_half_of_the_way_from_the_guess_to_the_best_is_below():
    # Half of the way from 0.5 to 0.9 is 0.7.
    found = table(lora=[0.89, 0.9, 0.91], full=[0.71, 0.70, 0.711], head=[0.69, 0.70, 0.701])
    assert guess(found) == 0.5
    assert below_floor(found) == {HEAD}


def test_what_is_not_shown_above_the_guess_is_below_though_its_mean_is_high():
    assert below_floor(table(lora=[0.6, 0.61, 0.62], full=[0.4, 0.6, 0.8])) == {FULL}
    assert below_floor(table(lora=[0.5, 0.5, 0.49], full=[0.45, 0.5, 0.51])) == {LORA, FULL}


def test_one_seed_is_held_by_its_mean_alone():
    assert below_floor(table(lora=[0.9], full=[0.8], head=[0.6])) == {HEAD}


def test_seeds_all_alike_are_held_by_their_mean_and_seeds_apart_by_their_rows():
    """Half of the way from 0.5 to 1 is 0.75; an interval of (0.8, 1) reaches from -0.37 to 2.17."""
    assert below_floor(table(lora=[1.0] * 3, full=[0.8] * 3, head=[0.74] * 3)) == {HEAD}
    assert below_floor(table(lora=[0.5] * 3, full=[0.5] * 3)) == {LORA, FULL}
    assert below_floor(table(lora=[0.8, 1.0])) == frozenset()
    untold = table(0.0, "matthews_correlation", lora=[1.0] * 3, full=[0.8] * 3, head=[0.4] * 3)
    assert below_floor(untold) == {HEAD}


def test_why_a_cell_is_below_is_said_and_not_shown_is_not_too_little():
    found = why_below(table(lora=[0.9, 0.91], full=[0.52, 0.99], head=[0.55, 0.56]))
    assert found == {FULL: "not shown above a constant guess", HEAD: "learned too little"}


def test_without_a_recorded_guess_nothing_is_called_below():
    found = table(base=None, lora=[0.9, 0.91], head=[0.1, 0.12])
    assert guess(found) is None and below_floor(found) == frozenset()


@pytest.mark.parametrize("values", [[], [0.9]])
def test_cells_without_a_score_are_not_below(values):
    assert below_floor(table(lora=[0.9, 0.91], full=values)) <= {LORA}

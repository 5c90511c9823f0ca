"""Times that bind: interleaved rounds of an exclusive machine, beyond its own noise."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from factory import HEAD, LORA, make_environment
from gated import by_new_code, make_side
from gated import declared as judge
from peftmark.catalog.methods import Cell
from peftmark.core.errors import Exit
from peftmark.gate.costs import hodges_lehmann
from peftmark.gate.policy import Policy
from peftmark.gate.run_lines import Round

EXCLUSIVE = Policy(runner="exclusive", timings="binding")
CELLS = (LORA, HEAD)
START = datetime(2030, 1, 1)


def stamp(minutes: float) -> str:
    return (START + timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def rounds(rng, offset: int, factor: float, noise: float, count: int, apart: int = 2):
    """Rounds of one side of one job: a minute each, every `apart` minutes."""
    return tuple(
        Round(
            stamp(apart * i + offset),
            stamp(apart * i + offset + 0.9),
            0.1 * factor * float(np.exp(rng.normal(0, noise))),
        )
        for i in range(count)
    )


def sides(factor: float, noise: float = 0.02, count: int = 12, apart: int = 2, offset: int = 1):
    """Two sides made in turns, the second slower by a factor on LoRA."""
    rng = np.random.default_rng(7)

    def before(line):
        return replace(line, rounds=rounds(rng, 0, 1.0, noise, count, apart))

    def after(line):
        slow = factor if line.cell == LORA else 1.0
        made = rounds(rng, offset, slow, noise, count, apart)
        return by_new_code(line, rounds=made, step_seconds=0.1 * slow)

    return make_side(CELLS, seeds=3, change=after), make_side(CELLS, seeds=3, change=before)


def test_thirty_percent_slower_is_a_regression_on_an_exclusive_runner():
    gate = judge(*sides(1.3), EXCLUSIVE)
    assert gate.code == Exit.REGRESSION
    (found,) = gate.findings
    assert (found.check, found.cell) == ("time.step", "LoRA r8")
    assert "a training step takes 30 % longer; 12 interleaved rounds" in found.sentence
    assert {c.cell: c.verdict for c in gate.cells}["LoRA r8"] == "slower"


def test_the_same_is_a_note_on_a_shared_runner():
    gate = judge(*sides(1.3), Policy())
    assert gate.code == Exit.OK
    assert "1.30× as long (advisory" in gate.findings[0].sentence


@pytest.mark.parametrize("factor", [1.0, 1.05, 0.7])
def test_equal_slightly_slower_and_faster_pass(factor):
    assert judge(*sides(factor), EXCLUSIVE).code == Exit.OK


def test_a_machine_that_varies_by_itself_shows_nothing():
    rng = np.random.default_rng(1)

    def drifting(offset, factor):
        def change(line):
            made = rounds(rng, offset, factor, 0.01, 12)
            slow = [replace(r, step_seconds=r.step_seconds * 1.02**i) for i, r in enumerate(made)]
            return by_new_code(line, rounds=tuple(slow))

        return change

    before = make_side(CELLS, change=drifting(0, 1.0))
    after = make_side(CELLS, change=drifting(1, 1.12))
    gate = judge(after, before, EXCLUSIVE)
    assert gate.code == Exit.UNDECIDED  # twelve per cent more, on a machine that drifts by 26
    assert not [f for f in gate.findings if f.check == "time.step" and f.kind == "regression"]


@pytest.mark.parametrize(
    ("after_before", "words"),
    [
        (lambda: sides(1.3, count=4), "4 rounds of both sides, 10 are needed"),
        (lambda: sides(1.3, offset=60), "not made in turns"),
    ],
)
def test_too_few_rounds_or_one_side_after_the_other_is_undecided(after_before, words):
    gate = judge(*after_before(), EXCLUSIVE)
    assert gate.code == Exit.UNDECIDED
    assert words in gate.findings[0].sentence


def test_another_machine_can_t_bind_and_its_memory_is_not_compared():
    after, before = sides(1.3)
    other = make_environment(machine={"cpu": "Other CPU"}, sources={"peftmark": "new"})
    moved = tuple(replace(x, environment=other) for x in after.lines)
    gate = judge(replace(after, lines=moved), before, EXCLUSIVE)
    assert gate.code == Exit.UNDECIDED
    assert "different machines" in gate.findings[0].sentence
    assert {c.time for c in gate.cells} == {None}


def test_a_regression_of_resident_memory_is_found_and_a_small_one_is_not():
    def grown(factor):
        def change(line):
            memory = {"vmhwm_train_bytes": int(900 * 2**20 * factor)}
            return by_new_code(line, memory=memory)

        return judge(make_side(change=change), make_side(), Policy())

    assert grown(1.08).code == Exit.OK
    gate = grown(1.5)
    assert gate.code == Exit.REGRESSION
    expected = "resident memory in training is 1.50× that of the baseline (+450 MiB)"
    assert expected in gate.findings[0].sentence


@pytest.mark.heavy
def test_no_interleaved_noise_makes_an_alarm():
    codes = []
    for seed in range(60):
        rng = np.random.default_rng(seed)
        luck = {i: float(np.exp(rng.normal(0, 0.15))) for i in range(12)}

        def change(offset, rng=rng, luck=luck):
            def made(line):
                base = rounds(rng, offset, 1.0, 0.05, 12)
                noisy = [
                    replace(r, step_seconds=r.step_seconds * luck[i]) for i, r in enumerate(base)
                ]
                return by_new_code(line, rounds=tuple(noisy))

            return made

        gate = judge(
            make_side(CELLS, change=change(1)), make_side(CELLS, change=change(0)), EXCLUSIVE
        )
        codes += [f for f in gate.findings if f.check == "time.step" and f.kind == "regression"]
    assert codes == []


def test_hodges_lehmann_by_hand():
    assert hodges_lehmann([1.0, 2.0, 9.0]) == pytest.approx(3.5)
    assert hodges_lehmann([4.0]) == 4.0


def test_ten_rounds_can_t_decide_for_many_cells_and_that_is_said():
    rng = np.random.default_rng(3)
    cells = [Cell("lora", rank, "none") for rank in range(1, 13)]

    def side(offset, factor, change):
        return make_side(
            cells,
            ("sst2",),
            3,
            lambda x: change(x, rounds=rounds(rng, offset, factor, 0.02, 10)),
        )

    after, before = side(1, 3.0, by_new_code), side(0, 1.0, replace)
    gate = judge(after, before, EXCLUSIVE)
    assert gate.code == Exit.UNDECIDED
    assert "10 rounds can't decide for 12 cells; 11 can" in gate.findings[0].sentence

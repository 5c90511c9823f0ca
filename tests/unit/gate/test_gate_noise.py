"""How often the gate is wrong where the truth is known: simulated suites with noise of seeds.

docs/gate.md has the figures that it prints:

    PYTHONPATH=tests/support python tests/unit/gate/test_gate_noise.py
"""

from __future__ import annotations

import sys

import numpy as np
import pytest

from factory import LORA
from gated import CELLS, EIGHT, make_side, noisy
from gated import declared as judge
from peftmark.core.errors import Exit
from peftmark.gate.policy import Policy

pytestmark = pytest.mark.heavy

SD = 0.01


def alarms(
    suites: int, drop: float, where=lambda task: True, shared=0.0, seed=0, cells=CELLS
) -> int:
    """Simulated suites, of five seeds and eight tasks, that fail.

    Args:
        drop: of LoRA's true score, in SD of a paired difference on one task.
        where: task -> whether it drops there.
        shared: part of the variance that a seed has in common over tasks.
    """
    rng = np.random.default_rng(seed)
    found = 0
    for _ in range(suites):
        first, second = noisy(
            rng,
            SD,
            shared,
            lambda cell, task, _: drop * SD if cell == LORA and where(task) else 0.0,
        )
        before = make_side(cells, EIGHT, 5, first)
        gate = judge(make_side(cells, EIGHT, 5, second), before, Policy())
        found += gate.code == Exit.REGRESSION
    return found


@pytest.mark.slow
def test_false_alarms_stay_below_five_in_a_hundred():
    assert alarms(100, 0.0, shared=0.3, seed=2) <= 5


@pytest.mark.slow
def test_false_alarms_stay_below_five_in_a_hundred_of_seeds_that_share_nothing():
    assert alarms(100, 0.0, seed=1) <= 5


@pytest.mark.slow
def test_true_drops_of_one_and_a_half_sd_are_caught():
    assert alarms(100, 1.5, seed=3) >= 80
    assert alarms(100, 1.5, shared=0.3, seed=4) >= 65


def main() -> None:
    """The table of the document."""
    suites = int(sys.argv[1]) if len(sys.argv) > 1 else 1000
    for shared in (0.0, 0.3):
        for drop in (0.0, 0.5, 1.0, 1.5, 2.0):
            everywhere = alarms(suites, drop, shared=shared)
            one = alarms(suites, drop, lambda task: task == "rte", shared) if drop else everywhere
            print(
                f"| {shared} | {drop} | {100 * everywhere / suites:.1f} % | "
                f"{100 * one / suites:.1f} % |",
                flush=True,
            )


if __name__ == "__main__":
    main()

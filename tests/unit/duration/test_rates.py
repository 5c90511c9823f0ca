"""What operations cost here: fitted, kept, and what they say of a step."""

from __future__ import annotations

import json

import pytest

from peftmark.core.errors import UserError
from peftmark.duration import rates as module
from peftmark.duration.rates import Rates, calibrated, fitted, known

MIB = 2**20


def measured(call, flop, byte, sizes):
    """Calls of these (operations, bytes) that cost exactly that."""
    return [[9, f, b, call + flop * f + byte * b] for f, b in sizes]


PRODUCT = measured(2e-5, 1e-11, 1e-10, [(10**7, MIB), (10**8, 3 * MIB), (10**9, 8 * MIB)])
ADDED = measured(1e-5, 0.0, 2e-10, [(0, 1000), (0, 2 * MIB), (0, 40 * MIB)])
SMALL = measured(4e-6, 0.0, 5e-8, [(0, 40), (0, 400)])


def test_a_fit_finds_the_costs_that_made_the_times():
    found = fitted({"mm float32": PRODUCT, "add float32": ADDED})
    assert found.costs["mm float32"] == pytest.approx((2e-5, 1e-11, 1e-10), rel=1e-3)
    assert found.costs["add float32"] == pytest.approx((1e-5, 0.0, 2e-10), rel=1e-3)
    assert found.other == pytest.approx((1.5e-5, 0.0, 1.5e-10), rel=1e-3)


def test_no_cost_is_below_zero_and_small_calls_tell_nothing_of_a_byte():
    noisy = [[3, 0, MIB, 3e-4], [3, 0, 2 * MIB, 2e-4], [3, 0, 4 * MIB, 1e-4]]
    found = fitted({"add float32": ADDED, "sum float32": noisy, "norm float32": SMALL})
    assert all(cost >= 0 for costs in found.costs.values() for cost in costs)
    assert found.costs["norm float32"][2] == found.other[2] < 5e-8


def test_seconds_are_of_one_part_and_grow_with_the_rows_but_for_the_calls():
    found = Rates({"mm float32": (1.0, 0.1, 0.01)}, (5.0, 0.0, 0.5))
    work = {"forward mm float32": [2, 10, 100], "backward mm float32": [4, 0, 0]}
    assert found.seconds(work, "forward") == pytest.approx(2 + 1 + 1)
    assert found.seconds(work, "forward", 3.0) == pytest.approx(2 + 3 + 3)
    assert found.seconds(work, "backward") == 4
    assert found.seconds(work, "update") == 0


def test_what_nobody_measured_costs_as_its_like_or_as_most_others():
    found = Rates({"mm float32": (1.0, 0.0, 0.0)}, (5.0, 0.0, 0.5))
    assert found.seconds({"forward mm bfloat16": [1, 9, 9]}, "forward") == 1.0
    assert found.seconds({"forward new float32": [1, 9, 4]}, "forward") == 7.0
    assert found.seconds({"forward view -": [2, 0, 0]}, "forward") == 5.0


def test_a_large_new_tensor_costs_more_than_the_same_bytes_that_are_there():
    large = measured(0.0, 0.0, 9e-10, [(0, 94 * MIB), (0, 200 * MIB)])
    found = fitted({"add float32": ADDED, "sqrt float32+": large})
    assert found.fresh == pytest.approx(9e-10)
    assert found.other[2] == pytest.approx(2e-10), "of those that make none"
    work = {"update add float32+": [1, 0, 10**8], "update add float32": [1, 0, 10**8]}
    assert found.seconds(work, "update") == pytest.approx(2e-5 + 0.09 + 0.02, rel=1e-3)


@pytest.fixture
def told(tmp_path, monkeypatch):
    """Processes that measure, in place of ours: what they print is given."""
    # What names the file is computed once, in a process where other tests act another machine.
    module._made_by.cache_clear()
    said = []

    class Process:
        def __init__(self, command, **options):
            assert command[-2:] == ["peftmark.lab.duration.reference_steps", "fp32"]
            assert options["env"]["OMP_NUM_THREADS"] == "1"
            self.text = said.pop(0)

        def communicate(self):
            return self.text, None

        def kill(self):
            pass

        def wait(self):
            pass

    monkeypatch.setattr(module.subprocess, "Popen", Process)
    monkeypatch.setattr(module, "precisions_here", lambda: ["fp32"])
    yield said
    module._made_by.cache_clear()


def test_what_is_measured_is_kept_for_the_next_process(told, tmp_path):
    assert known(tmp_path) is None
    told += [json.dumps({"mm float32": PRODUCT}), json.dumps({"add float32": ADDED})]
    found = calibrated(tmp_path, at_once=2)
    assert found.costs.keys() == {"mm float32", "add float32"}
    again = known(tmp_path)
    assert again.costs == {k: list(v) for k, v in found.costs.items()}
    (file,) = (tmp_path / "calibration").iterdir()
    raw = bytearray(file.read_bytes())
    raw[-10] ^= 1
    file.write_bytes(raw)
    assert known(tmp_path) is None, "a bit that flips makes it nothing"


def test_another_machine_or_library_knows_nothing(told, tmp_path, monkeypatch):
    told.append(json.dumps({"mm float32": PRODUCT, "add float32": ADDED}))
    calibrated(tmp_path, at_once=1)
    module._made_by.cache_clear()
    monkeypatch.setattr(module, "machine", lambda: {"cpu": "another"})
    assert known(tmp_path) is None
    monkeypatch.undo()
    module._made_by.cache_clear()
    assert known(tmp_path) is not None


def test_processes_that_say_nothing_are_one_message(told, tmp_path):
    told += ["", "no JSON"]
    with pytest.raises(UserError, match="ended without a word"):
        calibrated(tmp_path, at_once=2)
    assert not (tmp_path / "calibration").exists()

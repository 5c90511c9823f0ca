"""The tool that measures the meters: it sees a slow meter and prints what it found."""

from __future__ import annotations

import json

import pytest

import tiny
from peftmark.catalog.models import MODELS
from peftmark.catalog.tasks import TASKS
from peftmark.core.errors import AssetError
from peftmark.lab.measure import overhead
from peftmark.lab.measure.meters import Meters
from peftmark.sources.assets import Places, default_cache, model_files
from peftmark.sources.task_data import load_task
from waiting import Clock

STEP_SECONDS = 0.020


@pytest.fixture
def clock(monkeypatch):
    """The tool's clock, on which a training step takes 20 ms and all else nothing."""
    made = Clock()
    plain = overhead.Step.__call__

    def step(*arguments):
        made.now += STEP_SECONDS
        return plain(*arguments)

    monkeypatch.setattr(overhead.Step, "__call__", step)
    monkeypatch.setattr(overhead, "time", made)
    return made


def job_of(pairs: int, steps: int):
    return tiny.job("lora", steps=(2 * pairs + overhead.WARM_UP_BLOCKS) * steps)


def test_a_slow_meter_is_seen_and_a_fast_one_is_not_taken_for_it(tmp_path, monkeypatch, clock):
    """With real clocks and real meters it is `make overhead`."""

    class Slow(Meters):
        """Meters that take ten milliseconds a step."""

        def step(self) -> None:
            clock.now += 0.010
            super().step()

    tiny.install(tmp_path / "mirror", monkeypatch)
    places = Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")
    slow = overhead.measure(job_of(8, 2), places, 8, 2, make=Slow)
    fast = overhead.measure(job_of(8, 2), places, 8, 2)
    assert (slow.low, slow.median, slow.high) == pytest.approx((0.5, 0.5, 0.5))
    assert (fast.low, fast.median, fast.high) == pytest.approx((0.0, 0.0, 0.0), abs=1e-6)
    assert slow.step_seconds == pytest.approx(STEP_SECONDS), "of the bare steps"
    assert fast.step_seconds == pytest.approx(STEP_SECONDS)
    assert (slow.pairs, slow.steps, slow.device) == (8, 2, "cpu")


def test_too_few_pairs_give_no_interval(tmp_path, monkeypatch):
    tiny.install(tmp_path / "mirror", monkeypatch)
    places = Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")
    found = overhead.measure(job_of(2, 1), places, 2, 1)
    assert (found.low, found.high) == (None, None)
    assert "no interval, too few pairs" in overhead.line(found)


@pytest.mark.real
def test_the_tool_prints_one_line_and_json(capsys):
    try:
        model_files(MODELS["minilm-l6"], Places(None, ("package",), default_cache()))
        load_task(TASKS["trec"], Places(None, ("package",), default_cache()))
    except AssetError as error:
        pytest.skip(f"the packaged model and rows can't be had here: {error}")
    overhead.main(["--pairs", "2", "--steps", "1", "--json"])
    line, figures = capsys.readouterr().out.splitlines()
    assert line.startswith("meters add ") and "2 pairs of 1 steps on " in line
    assert json.loads(figures)["step_seconds"] > 0


@pytest.mark.parametrize("wrong", ["0", "-3", "x"])
def test_a_number_that_makes_no_sense_is_refused(wrong, capsys):
    with pytest.raises(SystemExit) as left:
        overhead.main(["--pairs", wrong])
    assert left.value.code == 2
    assert "--pairs" in capsys.readouterr().err

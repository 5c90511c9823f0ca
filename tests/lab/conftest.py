"""What most tests of the lab start from, and what of a job they can do without.

A tiny job takes a second: a fifth trains, and half predicts its peak.
"""

from __future__ import annotations

import pytest
from peft import PeftModel

import tiny
from peftmark.lab import after_training, recipe
from peftmark.lab.measure import meters
from peftmark.lab.measure.to_outcome import DEPLOYED, PREDICTED, PROBED, SAVED, without
from peftmark.lab.memory.fake_step import NotSymbolic
from peftmark.sources.assets import Places

_outcomes = {}


@pytest.fixture(autouse=True)
def small_product(monkeypatch):
    """Every job measures the machine's rate anew, with a large product: here with a small one."""
    monkeypatch.setitem(meters.GEMM_SIZE, "cpu", 128)
    monkeypatch.setattr(meters, "GEMM_SECONDS", 0.001)


@pytest.fixture(autouse=True)
def no_model_card(monkeypatch):
    """PEFT writes a README beside every adapter, which takes it as long as the adapter does."""
    monkeypatch.setattr(PeftModel, "create_or_update_model_card", lambda *_: None)


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A mirror with the tiny model and its tasks, and an empty cache."""
    tiny.install(tmp_path / "mirror", monkeypatch)
    return Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache")


@pytest.fixture
def outcome(places):
    """What a job of the installed model gives, run once for all tests that only read it."""

    def run(job):
        # What a fixture below leaves out is left out here too, and is another outcome.
        key = job.to_json(), recipe.deployed, recipe.probed, after_training.predicted_peak
        if key not in _outcomes:
            _outcomes[key] = recipe.run(job, places, lambda message: None)
        return _outcomes[key]

    return run


@pytest.fixture
def unpredicted(monkeypatch):
    """A job's peak isn't predicted."""
    monkeypatch.setattr(after_training, "predicted_peak", _refuse)


def _refuse(*_):
    raise NotSymbolic("left out by the test")


@pytest.fixture
def unprobed(monkeypatch):
    """Nothing of a job's step is measured apart, nor predicted."""
    monkeypatch.setattr(recipe, "probed", _not_probed)


def _not_probed(outcome, *_):
    return without(outcome, (*PROBED, *PREDICTED), "left out by the test")


@pytest.fixture
def training_alone(monkeypatch, unprobed):
    """Nothing follows a job's training."""
    monkeypatch.setattr(recipe, "deployed", _not_deployed)


def _not_deployed(outcome, *_):
    return without(outcome, (*SAVED, *DEPLOYED), "left out by the test")

"""The profiles next in size, and what each would take."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from peftmark.duration.estimates import Estimate, key_of
from peftmark.run import neighbours as module
from peftmark.run.neighbours import Neighbour, neighbours_text
from peftmark.run.runner import Selection, make_plan


@pytest.fixture
def plan(tmp_path):
    return make_plan(Selection("glue", "offline", results=tmp_path))


def test_the_next_larger_and_smaller_are_told_with_what_they_ask_for(plan):
    told = neighbours_text(plan)
    assert told.startswith("Next larger: ") and "Next smaller" not in told
    gpu = make_plan(Selection("glue", "gpu", results=plan.store.folder))
    told = neighbours_text(gpu)
    assert "Next larger: full (" in told and "from the hub or a mirror, only with --yes)" in told
    assert "Next smaller: gpu-offline (0." in told and "times the work, for a GPU)." in told


def test_a_profile_of_as_much_work_is_neither_larger_nor_smaller(tmp_path):
    told = neighbours_text(make_plan(Selection("glue", "offline-chosen", results=tmp_path)))
    assert told.startswith("Next larger: offline-tuned (2.")
    assert "offline (" not in told


def test_a_time_stands_where_the_cache_tells_all_of_it(plan, monkeypatch):
    monkeypatch.setattr(module, "costs_here", lambda plan: None)
    monkeypatch.setattr(
        module, "estimates", lambda jobs, *_, **__: {key_of(j): Estimate({"a": 60.0}) for j in jobs}
    )
    tuned = make_plan(Selection("glue", "offline-tuned", results=plan.store.folder, jobs=1))
    assert "Next larger: cpu (about 3:01:00, from the hub or a mirror)" in neighbours_text(tuned)


def test_how_it_reads():
    assert Neighbour("x", 12.34, None, "").text == "x (12 times the work)"
    assert Neighbour("x", 0.25, None, "for a GPU").text == "x (0.25 times the work, for a GPU)"
    assert Neighbour("x", 0.25, 90.0, "").text == "x (about 1:30)"


def test_a_suite_of_one_profile_has_none(tmp_path):
    one = make_plan(Selection("perf", "offline", results=tmp_path))
    assert neighbours_text(one) == ""
    nothing = SimpleNamespace(jobs=[], waits=[])
    assert module._work(one, nothing) == 0

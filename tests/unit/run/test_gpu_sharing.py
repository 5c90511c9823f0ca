"""What jobs that share a GPU are taken to need, and which seeds of a profile are timed there."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from factory import make_job, make_outcome, make_record
from peftmark.executors.contract import needs_of
from peftmark.executors.slots import Slot
from peftmark.machine.gpus import ALLOCATOR_SHARE, CONTEXT_BYTES, WORKSPACE_BYTES, room
from peftmark.memory.forecast import Forecast
from peftmark.run import admission
from peftmark.run.gpu_sharing import gpu_needs, on_device, process_bytes, untimed

GIB = 2**30
JOB = make_job(device="cuda", task="trec")
OTHER = make_job(device="cuda", task="trec", method="full", size=None)
OWN = replace(JOB, model="nobody-knows")


@pytest.fixture
def predicted(monkeypatch):
    """Steps of LoRA take 10 GiB, of which 1 GiB may be paged out; no other is predicted."""

    def told(requests, cache):
        known = Forecast(allocated=9 * GIB, paged=GIB)
        return [known if r.job.method == "lora" else Forecast(reason="no") for r in requests]

    monkeypatch.setattr(admission, "forecasts", told)


def row(job, process=None, reserved=None):
    outcome = make_outcome(torch_reserved_bytes=reserved)
    return make_record(job=job, outcome=outcome, nvml_process_bytes=process)


def test_a_process_takes_what_its_step_is_predicted_to_and_what_cuda_adds():
    took = process_bytes(Forecast(allocated=9 * GIB, paged=GIB))
    assert took == round(10 * GIB * (1 + ALLOCATOR_SHARE)) + WORKSPACE_BYTES + CONTEXT_BYTES
    assert abs(room(took) - 10 * GIB) <= 1, "as much of a GPU as leaves these tensors room"


def test_needs_are_predicted_or_what_earlier_jobs_took_where_that_is_more(predicted):
    jobs = [JOB, replace(JOB, seed=1), OTHER, OWN]
    own = process_bytes(Forecast(allocated=9 * GIB, paged=GIB))
    assert gpu_needs(jobs, [], None, {}) == {needs_of(JOB): own}
    rows = [row(JOB, process=3 * GIB), row(OTHER, reserved=2 * GIB), row(OTHER, process=GIB)]
    found = gpu_needs(jobs, rows, None, {})
    assert found == {needs_of(JOB): own, needs_of(OTHER): 2 * GIB + CONTEXT_BYTES}
    more = gpu_needs(jobs, [row(JOB, process=40 * GIB)], None, {})
    assert more == {needs_of(JOB): 40 * GIB}
    assert gpu_needs(jobs, [row(make_job(task="trec"))], None, {}) == {needs_of(JOB): own}


def test_nothing_is_predicted_where_no_gpu_is_shared(monkeypatch):
    monkeypatch.setattr(admission, "forecasts", lambda *_: pytest.fail("predicted"))
    assert on_device(SimpleNamespace(slots=[Slot("GPU-a"), Slot()]), [JOB]) == {}


def test_a_profile_may_have_its_first_seed_timed_alone():
    jobs = [make_job(seed=seed) for seed in (3, 4, 5)]

    def left_out(timed_seeds):
        profile = SimpleNamespace(timed_seeds=timed_seeds, seeds=[4, 3])
        suite = SimpleNamespace(profiles={"quick": profile})
        found = untimed(SimpleNamespace(suite=suite, profile="quick"), jobs)
        return [job.seed for job in jobs if job.job_id in found]

    assert left_out("all") == []
    assert left_out("first") == [3, 5]

"""Twenty jobs in one process against twenty processes: the same bits, the same live bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest

import tiny
import tiny_worker
from peftmark.executors import process
from peftmark.executors.contract import Order
from peftmark.executors.in_turn import OF_A_PROCESS
from peftmark.executors.local import run_jobs
from peftmark.executors.slots import Slot
from peftmark.record.fields import FIELDS
from peftmark.sources.assets import Places

CELLS = (("lora", "none"), ("adalora", "nf4"), ("lora", "int8"), ("full", "none"), ("lora", "nf4"))
MODEL = "minilm-l6"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run jobs with so many a process; returns the outcomes in their order."""
    tiny.install(tmp_path / "mirror", monkeypatch)
    names = {"tiny-class": "tiny-class", "tiny-score": "tiny-score"}
    tiny_worker.name_as(tmp_path / "mirror", monkeypatch, MODEL, **names)
    # The server that processes are forked from loads torch once for all of them.
    monkeypatch.setattr(process, "WORKER", "tiny_worker:main")

    def start(jobs, most, worker="main"):
        order = Order(
            jobs=[(job, 1) for job in jobs],
            places=Places(tmp_path / "mirror", ("mirror",), tmp_path / "cache"),
            logs=tmp_path / f"logs-{most}",
            retries=0,
            worker=f"tiny_worker:{worker}",
        )
        found = list(run_jobs(order, [Slot()], jobs_per_process=most))
        for one in found:
            log = tmp_path / f"logs-{most}" / f"{one.job.job_id}.1.log"
            assert "takes no other job" not in log.read_text()
        return [one.outcome for one in found]

    return start


def jobs(seeds):
    return [
        replace(tiny.job(method, quantization, seed=seed), model=MODEL)
        for seed in range(seeds)
        for method, quantization in CELLS
    ]


def bits(outcome):
    """All that no clock decides, and no process as a whole."""
    found = {
        key: getattr(outcome, key)
        for key, field in FIELDS.items()
        if (field.deterministic or field.exact) and hasattr(outcome, key)
    }
    curve = [replace(point, seconds=0.0) for point in outcome.curve]
    found["final_weights_hash"] = outcome.final_weights_hash
    return {**found, "curve": curve, "predictions": list(outcome.predictions)}


@pytest.mark.slow
def test_twenty_jobs_in_one_process_are_those_of_twenty_processes(run):
    asked = jobs(4)
    fresh, turned = run(asked, 1), run(asked, 20)
    assert [one.jobs_before for one in fresh] == [0] * 20
    assert [one.jobs_before for one in turned] == list(range(20))
    assert {one.status for one in (*fresh, *turned)} == {"ok"}
    for number, (own, shared) in enumerate(zip(fresh, turned, strict=True)):
        assert bits(own) == bits(shared), f"job {number}"
        assert own.live_bytes and own.final_weights_hash
    assert all(getattr(one, name) for one in fresh for name in OF_A_PROCESS)


@pytest.mark.slow
@pytest.mark.parametrize(("way", "status"), [("raises", "crashed"), ("dies", "crashed")])
def test_the_end_of_the_seventh_harms_no_other(run, way, status):
    asked = jobs(2)[:9]
    whole = run(asked, 20)
    broken = run(asked, 19, f"seventh_{way}")
    assert [one.status for one in broken] == ["ok"] * 6 + [status] + ["ok"] * 2
    assert [one.jobs_before for one in broken] == [0, 1, 2, 3, 4, 5, 6, 0, 1]
    for number in (0, 1, 2, 3, 4, 5, 7, 8):
        assert bits(whole[number]) == bits(broken[number]), f"job {number}"

"""Where jobs run on GPUs that torch doesn't call `cuda`: here, on a node, and not at all."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest

from factory import make_job, make_record
from peftmark.cli import parser
from peftmark.core.errors import UserError
from peftmark.executors import local, node, ray, select
from peftmark.executors.select import HERE, Where, choose
from peftmark.executors.slots import Slot
from peftmark.gate.snapshot import machine_class
from peftmark.machine.visible import Devices, Gpu
from peftmark.machine.xpu import XPU
from peftmark.memory.plan_estimates import outlooks
from peftmark.report import measures
from peftmark.run.expected import costs_here, expected, measured_costs, unpredicted

FOUND = Devices((Gpu("xpu:0", "Example GPU", 2**34),), None, "1.6", told="one of two", device="xpu")


@pytest.fixture
def intel(monkeypatch):
    """A machine with a GPU of Intel's, as torch tells of it."""
    for module in (select.nvml, node.nvml):
        monkeypatch.setattr(module, "devices", lambda: FOUND)
        monkeypatch.setattr(module, "near_cores", lambda uuid: frozenset())


def test_here_jobs_run_on_it_one_at_a_time(intel):
    venue = choose(HERE, None)
    assert (venue.device, venue.gpus, venue.at_once, venue.told) == ("xpu", 1, 1, "one of two")
    assert venue.slots == [Slot("xpu:0", memory=2**34)]
    with pytest.raises(UserError, match="--jobs 2: there are 1 GPUs"):
        choose(HERE, 2)
    with pytest.raises(UserError, match="--jobs-per-gpu says nothing of Intel's GPUs") as caught:
        choose(Where(jobs_per_gpu=2), None)
    assert XPU.alone in caught.value.what
    job = make_job(device="xpu")
    over_two = replace(job, recipe=replace(job.recipe, devices=2))
    with pytest.raises(UserError, match=r"asks for 2 GPUs a job .* places for 1 processes"):
        local._check_devices([over_two], venue.slots)


def test_without_one_jobs_run_on_the_cpu_and_a_node_refuses_those_for_it(monkeypatch):
    monkeypatch.setattr(select.nvml, "devices", lambda: Devices((), "torch sees no GPU"))
    assert choose(HERE, 1).device == "cpu"
    with pytest.raises(UserError, match="the job needs a GPU: torch sees no GPU"):
        node._slots(make_job(device="xpu"))


def test_a_node_has_the_device_of_the_job_or_refuses_it(intel):
    assert node._slots(make_job(device="xpu")) == [Slot("xpu:0")]
    with pytest.raises(UserError, match="torch calls cuda: there are Intel's GPUs") as caught:
        node._slots(make_job(device="cuda"))
    assert caught.value.remedy == "Say so by --node-device xpu."


def test_a_cluster_is_asked_for_gpus_whatever_torch_calls_them(monkeypatch):
    words = ["run", "smoke", "--executor", "ray", "--ray-address", "a:1", "--node-device", "xpu"]
    options = parser._parser().parse_args(words)
    monkeypatch.setattr(select.ray, "resources", lambda address: (8, 2))
    venue = choose(Where("ray", "a:1", device=options.device), None)
    assert (venue.device, venue.at_once) == ("xpu", 2)
    nodes = [{"Alive": True, "Resources": {"CPU": 8.0, "GPU": 1.0}}]
    with pytest.raises(UserError, match="largest node has 1 GPUs"):
        ray._check_nodes(nodes, "xpu", 2)


def test_nothing_is_predicted_of_its_jobs(intel, tmp_path):
    job = make_job(device="xpu")
    plan = SimpleNamespace(
        venue=choose(HERE, None),
        places=SimpleNamespace(cache=tmp_path),
        jobs=[job],
        expanded=SimpleNamespace(waits=[]),
    )
    assert unpredicted(plan) == XPU.unpredicted
    assert costs_here(plan) is None
    assert [one.reason for one in expected(plan, None).values()] == [XPU.unpredicted]
    with pytest.raises(UserError, match="is not predicted: steps are predicted as"):
        measured_costs(plan)
    [one] = outlooks([job], None)
    assert (one.forecast.reason, one.fits) == (XPU.unpredicted, None)


def test_its_rows_are_of_a_machine_class_of_their_own_and_of_its_energy():
    machine = {"gpus": ["Intel(R) Arc(TM) B580"], "cpu": "a processor"}
    line = SimpleNamespace(device="xpu", environment=SimpleNamespace(machine=machine))
    assert machine_class(line) == "intel-r-arc-tm-b580"
    record = make_record(job=make_job(device="xpu"))
    assert measures.ENERGY.field(record) == "energy_gpu_joules"

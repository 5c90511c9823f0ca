"""GPUs that torch sees and NVML doesn't, without a GPU, torch or NVML."""

from __future__ import annotations

import json
import subprocess
from types import SimpleNamespace

import pytest

from peftmark.machine import nvml, torch_gpus
from peftmark.machine.nvml import DeviceMeter, EnergyCounter
from peftmark.machine.torch_gpus import or_seen_by_torch
from peftmark.machine.visible import Devices, Gpu

GIB = 2**30
WITHOUT = Devices((), "NVML: NVML Shared Library Not Found")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine whose torch sees these devices; tells how often it was asked."""
    made = SimpleNamespace(asked=0, prints="[]", fails=None, dev=tmp_path / "dev", build="'13.0'")
    made.dev.mkdir()
    monkeypatch.setattr(torch_gpus, "_DEV", made.dev)
    for name in torch_gpus.VARIABLES:
        monkeypatch.delenv(name, raising=False)

    def run(command, **options):
        made.asked += 1
        if made.fails:
            raise made.fails
        return SimpleNamespace(stdout=f"a warning\n{made.prints}\n")

    package = tmp_path / "torch" / "__init__.py"
    package.parent.mkdir()
    made.version = package.with_name("version.py")
    made.version.write_text("__version__ = '2.13.0'\ncuda: Optional[str] = '13.0'\nhip = None\n")
    monkeypatch.setattr(torch_gpus.subprocess, "run", run)
    monkeypatch.setattr(
        torch_gpus.util, "find_spec", lambda name: SimpleNamespace(origin=str(package))
    )
    torch_gpus._seen.cache_clear()
    yield made
    torch_gpus._seen.cache_clear()


@pytest.mark.parametrize("node", ["nvidia0", "kfd", "dxg"])
def test_a_gpu_that_nvml_does_not_know_is_used(machine, node):
    (machine.dev / node).touch()
    machine.prints = json.dumps([["Example GPU", 192 * GIB], ["Example GPU", 192 * GIB]])
    found = or_seen_by_torch(WITHOUT)
    assert found.found == (
        Gpu("0", "Example GPU", 192 * GIB),
        Gpu("1", "Example GPU", 192 * GIB),
    )
    assert or_seen_by_torch(WITHOUT) == found
    assert machine.asked == 1, "torch takes seconds to load"


def test_nothing_is_asked_where_nothing_speaks_for_a_gpu(machine):
    (machine.dev / "nvidiactl").touch()
    assert or_seen_by_torch(WITHOUT) is WITHOUT
    (machine.dev / "nvidia0").touch()
    machine.version.write_text("cuda: Optional[str] = None\nhip: Optional[str] = None\n")
    assert or_seen_by_torch(WITHOUT) == WITHOUT
    assert machine.asked == 0


def test_torch_for_amd_is_asked_too(machine):
    (machine.dev / "kfd").touch()
    machine.version.write_text("cuda = None\nhip = '6.4'\n")
    machine.prints = json.dumps([["Example GPU", GIB]])
    assert or_seen_by_torch(WITHOUT).found == (Gpu("0", "Example GPU", GIB),)


@pytest.mark.parametrize("variable", torch_gpus.VARIABLES)
def test_a_worker_is_given_the_name_that_the_variable_has_for_its_device(
    machine, monkeypatch, variable
):
    """Torch counts the devices that the variable leaves; a worker's variable counts all again."""
    machine.prints = json.dumps([["Example GPU", GIB], ["Other GPU", GIB]])
    monkeypatch.setenv(variable, "3, 2,9")
    assert or_seen_by_torch(WITHOUT).found == (
        Gpu("3", "Example GPU", GIB),
        Gpu("2", "Other GPU", GIB),
    )


@pytest.mark.parametrize("visible", ["", "-1", "NoDevFiles"])
def test_hidden_gpus_are_left_alone(machine, monkeypatch, visible):
    (machine.dev / "kfd").touch()
    monkeypatch.setenv("HIP_VISIBLE_DEVICES", visible)
    assert or_seen_by_torch(WITHOUT) == WITHOUT
    assert machine.asked == 0


@pytest.mark.parametrize(
    ("fails", "why"),
    [
        (None, "torch sees no GPU"),
        (subprocess.TimeoutExpired("python", 1), "torch could not be asked: TimeoutExpired"),
        (subprocess.CalledProcessError(1, "python"), "torch could not be asked: CalledProcess"),
        (OSError("no room"), "torch could not be asked: OSError"),
    ],
)
def test_a_gpu_that_was_asked_for_and_is_not_there_is_told(machine, monkeypatch, fails, why):
    machine.fails = fails
    (machine.dev / "nvidia0").touch()
    assert or_seen_by_torch(WITHOUT) == WITHOUT, "nobody asked for it"
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    found = or_seen_by_torch(WITHOUT)
    assert (found.found, found.reason) == ((), WITHOUT.reason)
    assert found.told.startswith(
        f"CUDA_VISIBLE_DEVICES=0 asks for a GPU and there is none ({WITHOUT.reason}; {why}"
    )


def test_nvmls_columns_are_null_with_the_reason_on_such_a_device(machine, monkeypatch):
    def missing():
        raise OSError("no library")

    monkeypatch.setattr(nvml, "_open", missing)
    (machine.dev / "kfd").touch()
    machine.prints = json.dumps([["Example GPU", GIB]])
    (gpu,) = nvml.devices().found
    with DeviceMeter(gpu.uuid) as meter:
        pass
    assert (meter.device_bytes, meter.process_bytes) == (None, None)
    assert meter.reason == "NVML: no library"
    assert EnergyCounter(gpu.uuid).read() == (None, "NVML: no library")
    assert nvml.near_cores(gpu.uuid) == frozenset()
    assert nvml.lost(gpu.uuid) is False

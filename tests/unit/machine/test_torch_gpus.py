"""GPUs that torch sees and NVML doesn't, without a GPU, torch or NVML."""

from __future__ import annotations

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

from peftmark.machine import accelerators, environment, nvml, torch_gpus
from peftmark.machine.mps import MPS
from peftmark.machine.nvml import DeviceMeter, EnergyCounter
from peftmark.machine.torch_gpus import or_seen_by_torch
from peftmark.machine.visible import VARIABLES, Devices, Gpu
from peftmark.machine.xpu import XPU
from peftmark.record.job import Environment
from peftmark.record.machine_kind import kind_of

GIB = 2**30
WITHOUT = Devices((), "NVML: NVML Shared Library Not Found")


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine whose torch sees these devices; tells how often it was asked."""
    made = SimpleNamespace(asked=0, prints="[]", fails=None, dev=tmp_path / "dev", build="'13.0'")
    made.dev.mkdir()
    monkeypatch.setattr(torch_gpus, "_DEV", made.dev)
    for name in (*VARIABLES, *XPU.variables):
        monkeypatch.delenv(name, raising=False)

    def run(command, **options):
        made.asked += 1
        made.code = command[-1]
        if made.fails:
            raise made.fails
        return SimpleNamespace(stdout=f"a warning\n{made.prints}\n")

    package = tmp_path / "torch" / "__init__.py"
    package.parent.mkdir()
    made.version = package.with_name("version.py")
    made.version.write_text("__version__ = '2.13.0'\ncuda: Optional[str] = '13.0'\nhip = None\n")
    monkeypatch.setattr(torch_gpus.subprocess, "run", run)
    monkeypatch.setattr(
        accelerators.util, "find_spec", lambda name: SimpleNamespace(origin=str(package))
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


@pytest.fixture
def amd(machine):
    """The machine with torch for AMD's GPUs, and one of them."""
    (machine.dev / "kfd").touch()
    machine.version.write_text("cuda: Optional[str] = None\nhip: Optional[str] = '6.4.43483'\n")
    machine.prints = json.dumps([["Example GPU", GIB, None]])
    return machine


@pytest.fixture
def intel(machine):
    """The machine with torch for Intel's GPUs, and two of them."""
    (machine.dev / "dri").mkdir()
    (machine.dev / "dri" / "renderD128").touch()
    machine.version.write_text(
        "cuda: Optional[str] = None\nhip: Optional[str] = None\nxpu: Optional[str] = '20250201'\n"
    )
    machine.prints = json.dumps([["First GPU", 16 * GIB, "1.6.3"], ["Other GPU", GIB, "1.6.3"]])
    return machine


def test_torch_for_amd_is_asked_too(amd):
    assert nvml.devices() == Devices(
        (Gpu("0", "Example GPU", GIB),), None, "hip 6.4.43483", device="cuda"
    )
    assert "torch.cuda" in amd.code
    amd.version.write_text("cuda = None\nhip = '6.4.43483'\nrocm = '6.4.1'\n")
    assert nvml.devices().driver == "rocm 6.4.1"


def test_of_several_gpus_of_intel_the_first_is_used(intel):
    found = nvml.devices()
    assert (found.found, found.driver, found.device) == (
        (Gpu("xpu:0", "First GPU", 16 * GIB),),
        "1.6.3",
        "xpu",
    )
    assert "torch.xpu" in intel.code
    assert found.told == (
        "torch sees 2 of Intel's GPUs (XPU), and jobs run on the first of them, First GPU: "
        + XPU.alone
    )
    torch_gpus._seen.cache_clear()
    intel.prints = json.dumps([["First GPU", 16 * GIB, "1.6.3"]])
    assert nvml.devices().told == ""


def test_a_gpu_of_intel_that_was_asked_for_and_is_not_there_is_told(intel, monkeypatch):
    intel.prints = "[]"
    why = "NVML was not asked: torch is built for Intel's GPUs (XPU)"
    assert nvml.devices() == Devices((), why), "nobody asked for it"
    monkeypatch.setenv("ZE_AFFINITY_MASK", "1")
    assert nvml.devices().told == (
        f"ZE_AFFINITY_MASK=1 asks for a GPU and there is none ({why}; torch sees no GPU): jobs run "
        "on the CPU"
    )
    monkeypatch.setenv("ZE_AFFINITY_MASK", "")
    assert nvml.devices() == Devices((), why)


def test_without_a_device_file_torch_for_intel_is_not_asked(intel):
    (intel.dev / "dri" / "renderD128").unlink()
    (intel.dev / "nvidia0").touch()
    assert nvml.devices().found == ()
    assert intel.asked == 0


def test_a_card_of_nvidias_is_nothing_to_torch_for_others(intel, monkeypatch):
    monkeypatch.setattr(nvml, "_listed_devices", lambda: pytest.fail("NVML was asked"))
    assert nvml.devices().device == "xpu"


@pytest.mark.parametrize("maker", ["amd", "intel"])
def test_what_is_not_metered_has_the_reason_where_nvml_would_be_asked(maker, request, monkeypatch):
    request.getfixturevalue(maker)
    monkeypatch.setitem(sys.modules, "pynvml", None)  # whether it is installed makes no difference
    (gpu,) = nvml.devices().found
    why = accelerators.here().unmetered
    assert why.startswith(f"not metered on {maker.replace('amd', 'AMD').replace('i', 'I', 1)}'s")
    with DeviceMeter(gpu.uuid) as meter:
        pass
    assert (meter.device_bytes, meter.process_bytes, meter.reason) == (None, None, why)
    assert EnergyCounter(gpu.uuid).read() == (None, why)
    assert nvml.near_cores(gpu.uuid) == frozenset()
    assert nvml.lost(gpu.uuid) is False


def test_the_kind_of_a_machine_has_the_gpu_and_its_driver(intel):
    facts = kind_of(Environment({}, None, None, environment.machine()))
    assert (facts["gpus"], facts["driver"]) == ("['First GPU']", "1.6.3")


def test_on_apples_gpu_no_job_runs_and_the_reason_is_told(machine, monkeypatch):
    monkeypatch.setattr(accelerators.sys, "platform", "darwin")
    monkeypatch.setattr(accelerators.platform, "machine", lambda: "arm64")
    assert nvml.devices() == Devices((), MPS.unused)
    assert machine.asked == 0
    monkeypatch.setattr(accelerators.platform, "machine", lambda: "x86_64")
    assert accelerators.here() is accelerators.NVIDIA


@pytest.mark.parametrize("variable", VARIABLES)
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

"""Device counters and facts of the machine, without a device."""

from __future__ import annotations

import sys
import threading
import types
from pathlib import Path

import pytest

from bench import environment, nvml
from bench.nvml import Gpu, PeakMemory

GIB = 2**30


class FakeError(Exception):
    """Stands in for pynvml.NVMLError."""


def fake_binding(used=(), names=("Example GPU",), **changes):
    """A pynvml with these devices; `used` are the readings of used memory, then the device is lost.

    The event `lost` of the module is set when there was nothing left to read.
    """
    binding = types.ModuleType("pynvml")
    readings = iter(used)
    binding.lost = threading.Event()

    def memory(handle):
        value = next(readings, None)
        if used and value is None:
            binding.lost.set()
            raise FakeError("GPU is lost")
        return types.SimpleNamespace(total=80 * GIB, used=value)

    binding.NVMLError = FakeError
    binding.nvmlInit = lambda: None
    binding.nvmlShutdown = lambda: None
    binding.nvmlDeviceGetCount = lambda: len(names)
    binding.nvmlDeviceGetHandleByIndex = lambda index: index
    binding.nvmlDeviceGetHandleByUUID = lambda uuid: 0
    binding.nvmlDeviceGetUUID = lambda handle: f"GPU-{handle}".encode()
    binding.nvmlDeviceGetName = lambda handle: names[handle]
    binding.nvmlSystemGetDriverVersion = lambda: "555.1"
    binding.nvmlDeviceGetMemoryInfo = memory
    for name, value in changes.items():
        setattr(binding, name, value)
    return binding


@pytest.fixture
def install(monkeypatch):
    """Put a made-up binding in place of the real one."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def put(binding):
        monkeypatch.setitem(sys.modules, "pynvml", binding)
        return binding

    return put


def fails(*arguments):
    raise FakeError("Driver Not Loaded")


# --- devices ------------------------------------------------------------------------------------


@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="this machine has a driver")
def test_the_real_binding_without_a_driver_gives_no_device_and_a_reason():
    found = nvml.devices()
    assert found.found == ()
    assert found.reason.startswith("NVML: ")
    assert len(found.reason) > len("NVML: ")


def test_devices_have_names_memory_and_the_id_that_cuda_takes(install):
    install(fake_binding(names=("Example GPU", b"Other GPU")))
    found = nvml.devices()
    assert found.found == (
        Gpu("GPU-0", "Example GPU", 80 * GIB),
        Gpu("GPU-1", "Other GPU", 80 * GIB),
    )
    assert (found.reason, found.driver) == (None, "555.1")


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        ("1,0", ["Other GPU", "Example GPU"]),
        ("GPU-1", ["Other GPU"]),
        (" 0 ", ["Example GPU"]),
        ("1,7,0", ["Other GPU"]),
        ("", []),
        ("-1", []),
        ("GPU-", []),
    ],
)
def test_hidden_devices_are_left_alone(install, monkeypatch, visible, names):
    install(fake_binding(names=("Example GPU", "Other GPU")))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = nvml.devices()
    assert [gpu.name for gpu in found.found] == names
    assert (found.reason is None) == bool(names)


def test_a_device_that_hides_its_memory_is_still_a_device(install):
    install(fake_binding(nvmlDeviceGetMemoryInfo=fails))
    assert nvml.devices().found == (Gpu("GPU-0", "Example GPU", None),)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"nvmlInit": fails}, "NVML: Driver Not Loaded"),
        ({"nvmlDeviceGetCount": fails}, "NVML: Driver Not Loaded"),
        ({"nvmlDeviceGetName": fails}, "NVML: Driver Not Loaded"),
        ({"nvmlShutdown": fails}, None),
        ({"nvmlDeviceGetCount": lambda: 0}, "NVML lists no device"),
        ({"nvmlInit": lambda: [][0]}, "NVML: list index out of range"),
        ({"nvmlDeviceGetUUID": None}, "NVML: 'NoneType' object is not callable"),
    ],
)
def test_a_broken_driver_is_a_reason_and_never_an_error(install, changes, reason):
    install(fake_binding(**changes))
    found = nvml.devices()
    assert found.reason == reason
    assert bool(found.found) == (reason is None)


def test_a_missing_binding_is_a_reason(install):
    install(None)
    assert "not installed" in nvml.devices().reason
    with PeakMemory("GPU-0") as meter:
        pass
    assert meter.peak_bytes is None


# --- peak memory --------------------------------------------------------------------------------


def test_the_peak_is_the_highest_rise_over_the_first_reading(install):
    read = threading.Event()
    values = iter([5 * GIB, 9 * GIB, 7 * GIB])

    def memory(handle):
        value = next(values, None)
        if value is None:
            read.set()
        return types.SimpleNamespace(used=value or 6 * GIB)

    install(fake_binding(nvmlDeviceGetMemoryInfo=memory))
    with PeakMemory("GPU-0", period_seconds=0.001) as meter:
        assert read.wait(10)
    assert meter.peak_bytes == 4 * GIB


def test_a_device_lost_on_the_way_leaves_no_number(install):
    binding = install(fake_binding(used=[5 * GIB, 9 * GIB]))
    with PeakMemory("GPU-0", period_seconds=0.001) as meter:
        assert binding.lost.wait(10)
    assert meter.peak_bytes is None


@pytest.mark.parametrize("name", ["nvmlInit", "nvmlDeviceGetHandleByUUID"])
def test_a_meter_that_cannot_start_leaves_no_number(install, name):
    install(fake_binding(used=[1], **{name: fails}))
    with PeakMemory("GPU-0", period_seconds=0.001) as meter:
        pass
    assert meter.peak_bytes is None


def test_a_job_on_the_cpu_is_not_metered(install):
    install(None)
    with PeakMemory(None) as meter:
        assert meter.peak_bytes is None


# --- versions and the machine -------------------------------------------------------------------

OLD = {"torch": "2.12.0", "peft": "0.21.0", "pandas": "3.0", "numpy": "2.1"}


@pytest.mark.parametrize(
    ("new", "text"),
    [
        (OLD, ""),
        (OLD | {"pandas": "3.1"}, ""),
        (OLD | {"torch": "2.13.0"}, "torch 2.12.0 -> 2.13.0"),
        (OLD | {"bitsandbytes": "0.50"}, "bitsandbytes none -> 0.50"),
        ({"torch": "2.12.0", "numpy": "2.2"}, "peft 0.21.0 -> none, numpy 2.1 -> 2.2"),
    ],
)
def test_only_versions_that_can_change_numbers_count(new, text):
    assert environment.changed_versions(OLD, new) == text


def test_the_environment_is_captured_with_the_versions_that_matter():
    found = environment.capture()
    assert set(environment.NUMERIC) <= set(found.versions)
    assert found.versions["peftmark"]
    assert found.machine["cores"] >= 1
    assert found.machine["memory_bytes"] > 2**28
    assert found.machine["gpu_note"] or found.machine["gpus"]


def test_a_package_that_is_not_installed_is_left_out(monkeypatch):
    monkeypatch.setattr(environment, "PACKAGES", ("numpy", "no-such-package-here"))
    assert list(environment.versions()) == ["numpy"]


def test_a_folder_without_a_checkout_has_no_commit(tmp_path):
    assert environment._checkout(tmp_path) == (None, None)
    (tmp_path / ".git").mkdir()
    assert environment._checkout(tmp_path) == (None, None)

"""Device counters, without a device.

The scenarios drive the real binding against a stub of the driver's library; the made-up bindings
below them do what no library does.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import types

import pytest

from peftmark.machine import nvml
from peftmark.machine.nvml import DeviceMeter, EnergyCounter, Gpu, contention
from places import SOURCE, SUPPORT
from waiting import PATIENCE

GIB = 2**30
LIBRARY = "libnvidia-ml.so.1"
COMPILER = shutil.which("gcc") or shutil.which("cc")
GPU_A, GPU_B = "GPU-11111111-aaaa", "GPU-22222222-bbbb"

# --- the real binding against a stub of its library ---------------------------------------------


@pytest.fixture(scope="session")
def stub(tmp_path_factory):
    """Folder with the stub, built as the driver's library."""
    if COMPILER is None:
        pytest.skip("no C compiler (gcc or cc) to build the stub of NVML")
    folder = tmp_path_factory.mktemp("stub")
    subprocess.run(
        [
            COMPILER,
            "-Wall",
            "-Wextra",
            "-Werror",
            "-shared",
            "-fPIC",
            f"-Wl,-soname,{LIBRARY}",
            "-o",
            folder / LIBRARY,
            SUPPORT / "nvml_stub.c",
        ],
        check=True,
    )
    return folder


@pytest.fixture
def play(tmp_path):
    """Play a scenario in a process of its own and return what it found."""

    def start(library, fault="", uuid=GPU_A, **variables):
        variables = {
            "LD_LIBRARY_PATH": str(library),
            "PYTHONPATH": str(SOURCE),
            "STUB_NVML": fault,
            **variables,
        }
        kept = {k: v for k, v in os.environ.items() if k != "CUDA_VISIBLE_DEVICES"}
        done = subprocess.run(
            [sys.executable, SUPPORT / "nvml_scenario.py", tmp_path, *([uuid] if uuid else [])],
            env=kept | variables,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert found["job"].pop("status") == "ok", "a meter never stops a job"
        assert found["job"].pop("at_once") == "1"
        return found["devices"], found["alone"], found["job"]

    return start


BOTH = [
    {"uuid": GPU_A, "name": "Stub GPU A", "memory_bytes": 80 * GIB},
    {"uuid": GPU_B, "name": "Stub GPU B", "memory_bytes": 24 * GIB},
]
MEMORY = {"process_bytes": 3 * GIB, "device_bytes": 4 * GIB, "reason": ""}
NO_MEMORY = {"process_bytes": None, "device_bytes": None}
ENERGY = [[1000.0, ""], [1250.5, ""], [1501.0, ""]]
JOB_ENERGY = {"joules": 501.0, "energy_reason": ""}


def nothing(reason):
    """What the meters say where NVML can't be opened, alone and around a job."""
    alone = {**NO_MEMORY, "reason": reason, "others": 0, "energy": [[None, reason]] * 3}
    job = {**NO_MEMORY, "reason": reason, "joules": None, "energy_reason": reason}
    return alone | {"contention": None}, job | {"flags": []}


@pytest.mark.heavy
@pytest.mark.parametrize("uuid", [GPU_A, GPU_B])
def test_a_device_gives_its_numbers(stub, play, uuid):
    devices, alone, job = play(stub, uuid=uuid)
    assert devices == {"found": BOTH, "reason": None, "driver": "575.01"}
    assert alone == {**MEMORY, "others": 0, "energy": ENERGY, "contention": None}
    assert job == {**MEMORY, **JOB_ENERGY, "flags": []}


@pytest.mark.heavy
def test_a_missing_library_is_a_reason(tmp_path, play):
    """A file that is no library stands in its place, so that a real one isn't found either."""
    (tmp_path / LIBRARY).touch()
    devices, *meters = play(tmp_path)
    reason = "NVML: NVML Shared Library Not Found"
    assert devices == {"found": [], "reason": reason, "driver": None}
    assert meters == list(nothing(reason))


@pytest.mark.heavy
def test_a_driver_that_is_not_loaded_is_a_reason(stub, play):
    devices, *meters = play(stub, "no_driver")
    assert devices == {"found": [], "reason": "NVML: Driver Not Loaded", "driver": None}
    assert meters == list(nothing("NVML: Driver Not Loaded"))


@pytest.mark.heavy
def test_a_device_that_is_not_there_is_a_reason(stub, play):
    _, *meters = play(stub, uuid="GPU-33333333")
    assert meters == list(nothing("NVML: Not Found"))


@pytest.mark.heavy
def test_a_device_lost_midway_leaves_no_part_of_a_peak(stub, play):
    devices, alone, job = play(stub, "lost")
    assert devices["found"] == BOTH
    lost = {**NO_MEMORY, "reason": "NVML lost the device midway: GPU is lost"}
    energy = [*ENERGY[:2], [None, "NVML: GPU is lost"]]
    assert alone == {**lost, "others": 0, "energy": energy, "contention": None}
    assert job == {
        **lost,
        "joules": None,
        "energy_reason": "NVML: GPU is lost",
        "flags": [],
    }


@pytest.mark.heavy
def test_a_device_without_an_energy_counter_still_has_memory(stub, play):
    _, alone, job = play(stub, "no_energy")
    reason = "NVML: Not Supported"
    assert alone == {**MEMORY, "others": 0, "energy": [[None, reason]] * 3, "contention": None}
    assert job == {**MEMORY, "joules": None, "energy_reason": reason, "flags": []}


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("fault", "reason", "rise"),
    [
        ("unknown_memory", "process memory: not available from the driver", 4 * GIB),
        ("unlisted", "process memory: the driver did not list the worker", 4 * GIB),
        ("other_numbers", "process memory: the driver did not list the worker", 4 * GIB),
        ("old_driver", "process memory: Unversioned function called and the ", 3 * GIB),
    ],
)
def test_without_the_process_memory_the_devices_rise_is_known(stub, play, fault, reason, rise):
    """A container hides processes or lists them under the host's numbers."""
    _, alone, job = play(stub, fault)
    for found in (alone, job):
        assert found.pop("reason").startswith(reason)
    memory = {"process_bytes": None, "device_bytes": rise}
    assert alone == {**memory, "others": 0, "energy": ENERGY, "contention": None}
    assert job == {**memory, **JOB_ENERGY, "flags": []}


@pytest.mark.heavy
def test_other_processes_on_the_device_are_told(stub, play):
    _, alone, job = play(stub, "others")
    flag = "contended: 2 other processes on the device"
    assert alone == {**MEMORY, "others": 2, "energy": ENERGY, "contention": flag}
    assert job == {**MEMORY, **JOB_ENERGY, "flags": [flag]}, "told once, though seen twice"


@pytest.mark.heavy
def test_a_hidden_device_is_left_alone(stub, play):
    devices, *meters = play(stub, uuid=None, CUDA_VISIBLE_DEVICES="")
    assert (devices["found"], devices["reason"]) == ([], "CUDA_VISIBLE_DEVICES leaves none")
    assert meters == list(nothing("the job ran on the CPU"))
    devices, _, job = play(stub, uuid=GPU_B, CUDA_VISIBLE_DEVICES=GPU_B)
    assert devices["found"] == BOTH[1:]
    assert job == {**MEMORY, **JOB_ENERGY, "flags": []}


# --- made-up bindings ---------------------------------------------------------------------------


class FakeError(Exception):
    """Stands in for pynvml.NVMLError."""


def fake_binding(names=("Example GPU",), **changes):
    """A pynvml with these devices."""
    binding = types.ModuleType("pynvml")
    binding._nvmlGetFunctionPointer = None
    binding.NVMLError = FakeError
    binding.NVMLError_FunctionNotFound = binding.NVMLError_ArgumentVersionMismatch = FakeError
    binding.nvmlMemory_v2 = 2
    binding.nvmlInit = lambda: None
    binding.nvmlShutdown = lambda: None
    binding.nvmlDeviceGetCount = lambda: len(names)
    binding.nvmlDeviceGetHandleByIndex = lambda index: index
    binding.nvmlDeviceGetHandleByUUID = lambda uuid: 0
    binding.nvmlDeviceGetUUID = lambda handle: f"GPU-{handle}".encode()
    binding.nvmlDeviceGetName = lambda handle: names[handle]
    binding.nvmlSystemGetDriverVersion = lambda: "555.1"
    binding.nvmlDeviceGetMemoryInfo = lambda handle, version=None: types.SimpleNamespace(
        total=80 * GIB, used=GIB
    )
    binding.nvmlDeviceGetComputeRunningProcesses = lambda handle: []
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


def fails(*arguments, **options):
    raise FakeError("Driver Not Loaded")


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


def divided(names):
    """A binding whose second GPU is in MIG mode, with slices of these names and a place for one
    more."""

    def at(handle, place):
        if place == len(names):
            raise FakeError("Not Found")
        return f"slice-{place}"

    title = {0: "Example GPU", 1: "Other GPU"} | {f"slice-{i}": n for i, n in enumerate(names)}
    return fake_binding(
        names=("Example GPU", "Other GPU"),
        nvmlDeviceGetName=title.__getitem__,
        nvmlDeviceGetUUID=lambda handle: f"{'MIG' if 'slice' in str(handle) else 'GPU'}-{handle}",
        nvmlDeviceGetMigMode=lambda handle: [int(handle == 1), 0],
        nvmlDeviceGetMaxMigDeviceCount=lambda handle: len(names) + 1,
        nvmlDeviceGetMigDeviceHandleByIndex=at,
    )


def test_the_slices_of_a_gpu_are_devices_in_its_place(install, monkeypatch):
    install(divided(["Other GPU MIG 3g", "Other GPU MIG 1g"]))
    found = [gpu.uuid for gpu in nvml.devices().found]
    assert found == ["GPU-0", "MIG-slice-0", "MIG-slice-1"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "MIG-slice-1")
    assert nvml.devices().found == (Gpu("MIG-slice-1", "Other GPU MIG 1g", 80 * GIB),)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1")
    assert "names 2 of them (MIG-slice-0, MIG-slice-1)" in nvml.devices().refused


def test_gpus_that_could_be_divided_and_are_not_in_slices_are_refused(install):
    binding = install(divided([]))
    binding.nvmlDeviceGetMigMode = lambda handle: [1, 1]
    found = nvml.devices()
    assert found.found == ()
    assert found.refused.startswith("2 GPUs are in MIG mode and none has a slice")


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


@pytest.mark.parametrize(
    ("binding", "reason"),
    [
        (None, "nvidia-ml-py is not installed (import of pynvml halted; None in sys.modules)"),
        (
            types.ModuleType("pynvml"),
            "nvidia-ml-py is not installed (another package provides the module pynvml)",
        ),
    ],
)
def test_a_missing_binding_and_its_impostor_are_a_reason(install, binding, reason):
    install(binding)
    assert nvml.devices() == nvml.Devices((), reason)
    with DeviceMeter("GPU-0") as meter:
        pass
    assert (meter.process_bytes, meter.device_bytes, meter.reason) == (None, None, reason)
    assert EnergyCounter("GPU-0").read() == (None, reason)
    assert contention("GPU-0", 1) is None


def test_a_device_that_hides_its_memory_gives_a_meter_only_a_reason(install):
    install(fake_binding(nvmlDeviceGetMemoryInfo=fails))
    with DeviceMeter("GPU-0") as meter:
        pass
    assert (meter.device_bytes, meter.reason) == (None, "NVML: Driver Not Loaded")


def test_one_reading_is_no_peak(install):
    install(fake_binding())
    with DeviceMeter("GPU-0", period_seconds=60) as meter:
        pass
    assert (meter.device_bytes, meter.reason) == (None, "the job ended before a second reading")


@pytest.mark.parametrize(
    ("before", "during", "others"),
    [([8], [8], 1), ([8], [8, 9], 1), ([8], [8, 7], 1), ([8], [7, 8, 9], 2), ([], [9], 0)],
)
def test_a_process_from_before_the_job_is_never_taken_for_the_worker(
    install, before, during, others
):
    """The worker, 7, isn't listed before it touches the device, nor under a host's number."""
    asked = threading.Event()
    listed = iter([before, during, during])

    def processes(handle):
        now = next(listed, None)
        if now is None:
            asked.set()
        return [types.SimpleNamespace(pid=pid, usedGpuMemory=1) for pid in now or ()]

    install(fake_binding(nvmlDeviceGetComputeRunningProcesses=processes))
    with DeviceMeter("GPU-0", period_seconds=0.001) as meter:
        meter.pid = 7
        assert asked.wait(PATIENCE)
    assert meter.others == others


def test_workers_that_share_the_device_are_no_strangers(install):
    started, asked = threading.Event(), threading.Event()
    listed = iter([[7, 8, 9, 10], [7, 8, 9, 10]])

    def processes(handle):
        now = next(listed, None) if started.is_set() else [8]
        if now is None:
            asked.set()
        return [types.SimpleNamespace(pid=pid, usedGpuMemory=pid) for pid in now or ()]

    install(fake_binding(nvmlDeviceGetComputeRunningProcesses=processes))
    ours = {8}
    with DeviceMeter("GPU-0", period_seconds=0.001, ours=ours) as meter:
        meter.pid = 7
        ours |= {7, 9}  # started later
        started.set()
        assert asked.wait(PATIENCE)
    assert (meter.others, meter.process_bytes) == (1, 7), "10 is a stranger"


def test_a_driver_that_does_not_answer_holds_nothing_up(install, monkeypatch):
    monkeypatch.setattr(nvml, "ANSWER_SECONDS", 0.05)
    asked, answer = threading.Event(), threading.Event()
    binding = install(fake_binding())
    meter = DeviceMeter("GPU-0", period_seconds=0.001)

    def hangs(handle, version=None):
        asked.set()
        answer.wait(PATIENCE)
        raise FakeError("late")

    with meter:
        binding.nvmlDeviceGetMemoryInfo = hangs
        assert asked.wait(PATIENCE)
    answer.set()
    assert (meter.device_bytes, meter.reason) == (None, "NVML does not answer")


def test_the_energy_counter_opens_once_and_again_after_its_close(install):
    opened = []
    binding = fake_binding(nvmlInit=lambda: opened.append("open"))
    binding.nvmlShutdown = lambda: opened.append("close")
    binding.nvmlDeviceGetTotalEnergyConsumption = lambda handle: 2500
    install(binding)
    counter = EnergyCounter("GPU-0")
    assert opened == []
    assert [counter.read() for _ in range(2)] == [(2.5, "")] * 2
    counter.close()
    counter.close()
    assert opened == ["open", "close"]
    assert counter.read() == (2.5, "")


@pytest.mark.parametrize(
    ("listed", "flag"),
    [
        ({}, None),
        ({7}, None),
        ({7, 8}, "contended: 1 other process on the device"),
        ({8, 9, 7}, "contended: 2 other processes on the device"),
        ({8}, None),
        ({8, 9}, "contended: 1 other process on the device"),
    ],
)
def test_contention_counts_all_but_the_worker_under_whatever_number(install, listed, flag):
    processes = [types.SimpleNamespace(pid=pid, usedGpuMemory=1) for pid in listed]
    install(fake_binding(nvmlDeviceGetComputeRunningProcesses=lambda handle: processes))
    assert contention("GPU-0", 7) == flag
    assert contention(None, 7) is None

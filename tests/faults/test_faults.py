"""Faults of processes, memory, signals, devices and clocks, as docs/faults.md numbers them."""

from __future__ import annotations

import ast
import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pynvml
import pytest

from factory import make_job
from peftmark.executors import process
from peftmark.executors.contract import Order
from peftmark.executors.slots import Slot
from peftmark.machine import nvml
from peftmark.machine.nvml import DeviceMeter, EnergyCounter
from peftmark.sources.assets import Places
from peftmark.storage.store import Store
from places import ROOT, SUPPORT, TESTS
from waiting import PATIENCE, wait_for
from watched import Watched

GROUPS = Path("/sys/fs/cgroup")
FAKE = f"""
import sys
sys.path.insert(0, {str(SUPPORT)!r})
import stand_ins
stand_ins.load_early()
from functools import partial
from peftmark.executors import local, process
from peftmark.run import runner
process.GRACE_SECONDS = float(sys.argv[2])
leave = local.kill

def kill(running):
    # What ends workers when a run is left: they have a grace then too, here a short one.
    if running:
        process.GRACE_SECONDS = 0.5
    leave(running)

local.kill = kill
runner.fetch = lambda plan: {{}}
runner.execute = partial(runner.execute, worker=sys.argv[1])
from peftmark.cli.parser import main
main(["run", "smoke", "--jobs", "2", "--no-report"])
"""


@pytest.fixture(autouse=True)
def short_grace(monkeypatch):
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.5)


def order_of(folder, worker, seeds=(0,), limit=None):
    """Jobs of these seeds for a worker of `fault_worker`, or of another module where it says so."""
    return Order(
        jobs=[(make_job(seed=seed), 1) for seed in seeds],
        places=Places(None, ("package",), folder / "cache"),
        logs=folder / "logs",
        seconds_limit=limit,
        retries=0,
        worker=worker if ":" in worker else f"fault_worker:{worker}",
    )


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run jobs with a fake worker; returns the last outcome of each by seed."""
    watched = Watched()
    monkeypatch.setattr(process, "time", watched.clock)

    def start(worker, slots=(None,), retries=0, **options):
        (tmp_path / "logs").mkdir(exist_ok=True)
        order = replace(order_of(tmp_path, worker, **options), retries=retries)
        return {done.job.seed: done.outcome for done in watched.run(order, [*map(Slot, slots)])}

    start.clock = watched.clock
    return start


@pytest.fixture
def command(tmp_path, monkeypatch):
    """Start `peftmark run smoke` with a fake worker in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    started = []

    def start(worker, grace=0.5):
        process = subprocess.Popen(
            [sys.executable, "-c", FAKE, worker, str(grace)],
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        started.append(process)
        return process

    yield start
    for one in started:
        one.kill()
    for path in tmp_path.rglob("*.pid"):  # workers that are stopped see no supervisor's end
        with suppress(ProcessLookupError, ValueError):
            os.kill(int(path.read_text()), signal.SIGKILL)
    for one in started:
        one.communicate()


def numbers_of(folder, count):
    """Process ids that this many workers wrote down."""

    def whole():
        texts = [path.read_text() for path in folder.glob("*.pid")]
        return [int(text) for text in texts] if len(texts) == count and all(texts) else None

    return wait_for(whole)


def stopped(folder, count):
    """Process ids of this many workers that have stopped themselves: before that, each signal is
    heard, and a worker whose supervisor is gone ends."""
    pids = numbers_of(folder, count)
    wait_for(lambda: all(psutil.Process(pid).status() == psutil.STATUS_STOPPED for pid in pids))
    return pids


# --- 1: what a row says of a job that failed ----------------------------------------------------


def test_a_job_that_raised_says_in_which_step_or_phase(run):
    outcome = run("runs_out_of_memory")[0]
    assert outcome.status == "out_of_memory"
    assert outcome.status_reason == "CUDA out of memory, at step 7 of 120"


# --- 3, 4: memory of the host -------------------------------------------------------------------


@pytest.mark.slow
def test_host_memory_that_torch_cannot_have_is_out_of_memory(run):
    outcome = run("short_of_address_space")[0]
    assert outcome.status == "out_of_memory"
    assert "can't allocate memory" in outcome.status_reason


@pytest.fixture
def small_group(tmp_path):
    """A memory control group of 64 MB, where this process may make one."""
    old = (GROUPS / "memory").is_dir()
    parent = GROUPS / "memory" if old else GROUPS
    group = parent / f"peftmark-{os.getpid()}"
    try:
        group.mkdir()
        limits = {"memory.limit_in_bytes": 2**26} if old else {"memory.max": 2**26}
        limits |= {"memory.memsw.limit_in_bytes": 2**26} if old else {"memory.swap.max": 0}
        for name, value in limits.items():
            with suppress(FileNotFoundError if "sw" in name else ()):
                (group / name).write_text(str(value))
    except OSError as error:
        with suppress(OSError):
            group.rmdir()
        pytest.skip(f"control groups can't be made here: {error}")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "group").write_text(str(group))
    yield group
    group.rmdir()


def test_a_kill_by_the_kernel_for_memory_is_told_from_any_other(run, small_group):
    killed = run("fills_its_group")[0]
    assert killed.status == "out_of_memory"
    assert killed.status_reason.startswith("killed by the kernel's out-of-memory killer, at step 7")
    assert run("fake_worker:dies")[0].status == "crashed", "that kill was counted before"


def test_a_library_that_ends_the_worker_for_memory_is_told_from_any_other_abort(run):
    found = run("aborts", seeds=(0, 1))
    assert (found[0].status, found[0].status_reason) == (
        "out_of_memory",
        "a library ended the worker: its log has the words, in phase train",
    )
    assert (found[1].status, found[1].status_reason) == (
        "crashed",
        "the worker was killed by SIGABRT, in phase train",
    )


# --- 5: a worker killed at any point ------------------------------------------------------------


@pytest.mark.parametrize(
    ("worker", "status", "reason"),
    [
        ("dies_before_a_word", "crashed", "the worker was killed by SIGKILL, in phase start"),
        ("dies_in_a_message", "crashed", "the worker was killed by SIGKILL, in phase train"),
        ("dies_after_its_outcome", "ok", ""),
    ],
)
def test_a_worker_killed_at_any_point_has_its_outcome(run, worker, status, reason):
    outcome = run(worker)[0]
    assert (outcome.status, outcome.status_reason) == (status, reason)


@pytest.mark.parametrize("worker", ["hangs_in_a_message", "sends_rubbish"])
def test_a_broken_message_costs_no_job_but_its_own(tmp_path, worker):
    """In a process of its own: a supervisor that waits for the other half would wait for ever."""
    code = f"""
import sys; sys.path[:0] = [{str(SUPPORT)!r}, {str(TESTS / "faults")!r}]
from pathlib import Path
from test_faults import Slot, Watched, order_of, process
process.GRACE_SECONDS = 0.5
watched = Watched()
process.time = watched.clock
folder = Path({str(tmp_path)!r})
(folder / "logs").mkdir()
for done in watched.run(order_of(folder, {worker!r}, limit=1.0), [Slot()]):
    print(done.outcome.status)
"""
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        pytest.fail("the time limit of the job did not hold")
    assert done.stdout.decode().split() in (["timed_out"], ["crashed"]), done.stderr.decode()


@pytest.mark.slow
def test_what_a_killed_worker_kept_for_a_moment_is_gone_after_the_next_run(
    command, tmp_path, monkeypatch
):
    scratch = tmp_path / "tmp"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    first = command("fault_worker:dies_with_files")
    first.communicate(timeout=PATIENCE)
    assert first.returncode == 6
    again = command("fake_worker:ok")
    again.communicate(timeout=PATIENCE)
    assert again.returncode == 0
    assert list(scratch.glob("peftmark-*")) == []
    assert not (tmp_path / "results" / "smoke" / "scratch").exists()


# --- 6, 14: a supervisor killed, and its lock ---------------------------------------------------


@pytest.mark.slow
def test_after_a_killed_supervisor_the_next_run_goes_on_and_doubles_nothing(command, tmp_path):
    store = Store(tmp_path / "results", "smoke")
    store.logs.mkdir(parents=True)
    (store.logs / "ways").write_text('{"1": "hangs_with_its_number"}')
    first = command("fake_worker:by_seed")
    pids = numbers_of(store.logs, 2)
    first.kill()
    first.communicate()
    wait_for(lambda: not any(map(psutil.pid_exists, pids)))
    assert sorted(r.outcome.status for r in store.read().records.values()) == ["ok"] * 4
    again = command("fake_worker:ok")
    output, errors = again.communicate(timeout=PATIENCE)
    assert (again.returncode, errors) == (0, "")
    assert "4 already done, 5 to run" in output
    assert len(list(store.parts.glob("*.parquet"))) == store.read().attempts == 9


@pytest.mark.slow
def test_a_worker_that_outlives_its_supervisor_does_not_keep_the_lock(command, tmp_path):
    """Stopped workers can't end themselves; the next run must not wait for them."""
    store = Store(tmp_path / "results", "smoke")
    first = command("fault_worker:is_stopped")
    pids = stopped(store.logs, 2)
    first.kill()
    first.wait()
    try:
        assert all(psutil.pid_exists(pid) for pid in pids)
        with store.lock():
            pass
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)


def test_no_process_of_a_run_but_the_supervisor_holds_the_lock(run, tmp_path):
    with Store(tmp_path / "results", "demo").lock():
        held = json.loads(run("lists_its_files")[0].data_source)
        servers = psutil.Process().children(recursive=True)
        others = [file.path for child in servers for file in child.open_files()]
    assert any(name.endswith(".1.log") for name in held), "it can see files"
    assert not [name for name in [*held, *others] if name.endswith("run.lock")]


# --- 7: signals ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_signal_ends_workers_that_ignore_it(command, tmp_path):
    one = command("fault_worker:is_stopped")  # SIGTERM does nothing to it
    pids = stopped(Store(tmp_path / "results", "smoke").logs, 2)
    one.send_signal(signal.SIGTERM)
    output, _ = one.communicate(timeout=PATIENCE)
    assert one.returncode == 143
    assert "9 jobs: 2 interrupted, 7 not run" in output
    assert not any(map(psutil.pid_exists, pids))


def is_pending(number, pid):
    """Whether a process was sent a signal that it has not taken yet, as one that is stopped."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (pending,) = [line.split()[1] for line in lines if line.startswith("ShdPnd:")]
    return bool(int(pending, 16) >> (number - 1) & 1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow),
    ],
)
def test_a_second_signal_ends_the_run_at_once(command, tmp_path, number, code):
    """The first one waits, here for ever, for workers to end that were asked to."""
    one = command("fault_worker:is_stopped", grace=10 * PATIENCE)
    pids = stopped(Store(tmp_path / "results", "smoke").logs, 2)
    one.send_signal(number)
    wait_for(lambda: all(is_pending(signal.SIGTERM, pid) for pid in pids))
    one.send_signal(number)
    output, _ = one.communicate(timeout=PATIENCE)
    assert "interrupted" not in output, "a run that was left tells nothing"
    wait_for(lambda: not any(map(psutil.pid_exists, pids)))
    assert one.returncode == code


# --- 8: hanging ---------------------------------------------------------------------------------


@pytest.mark.parametrize("worker", ["hangs_in_c", "is_stopped"])
def test_no_way_to_hang_outlasts_the_limit(run, worker):
    outcome = run(worker, limit=1.0)[0]
    assert outcome.status == "timed_out"
    assert outcome.status_reason.endswith("at step 3 of 120")


def test_a_job_that_hangs_below_python_says_where(run, tmp_path):
    log = tmp_path / "logs" / f"{make_job().job_id}.1.log"
    run.clock.at_sleep = lambda: wait_for(lambda: "hangs_in_c" in log.read_text())
    run("hangs_in_c", limit=1.0)
    assert run.clock.slept == [process.STACK_SECONDS], "it is given the time to write"
    assert "most recent call first" in log.read_text()


# --- 15 to 18: counters of the device -----------------------------------------------------------

NVML_FAULTS = {
    pynvml.NVML_ERROR_DRIVER_NOT_LOADED: "Driver Not Loaded",
    pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: "NVML Shared Library Not Found",
    pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: "RM has detected an NVML/RM version mismatch.",
    pynvml.NVML_ERROR_UNKNOWN: "Unknown Error",
}


@pytest.mark.parametrize("code", NVML_FAULTS)
def test_every_way_nvml_fails_to_start_is_a_reason_and_no_error(monkeypatch, code):
    def fails():
        raise pynvml.NVMLError(code)

    monkeypatch.setattr(pynvml, "nvmlInit", fails)
    reason = f"NVML: {NVML_FAULTS[code]}"
    assert nvml.devices() == nvml.Devices((), reason)
    with DeviceMeter("GPU-0") as meter:
        pass
    assert (meter.device_bytes, meter.process_bytes, meter.reason) == (None, None, reason)
    assert EnergyCounter("GPU-0").read() == (None, reason)


class OddDevice:
    """A device whose driver does what no driver should."""

    def __init__(self, uuid):
        self.asked = 0

    def processes(self):
        return {}

    def used_bytes(self):
        self.asked += 1
        if self.asked > 1:
            raise TypeError("no number")
        return 0

    def close(self):
        return None


def test_a_job_outlives_the_thread_that_samples_its_device(run, monkeypatch):
    monkeypatch.setattr(nvml, "_Device", OddDevice)
    meter = DeviceMeter("GPU-0", period_seconds=0.001)
    with meter:
        wait_for(lambda: not meter._thread.is_alive())
    assert (meter.device_bytes, meter.reason) == (None, "NVML lost the device midway: no number")


# --- 19: a device broken for good ---------------------------------------------------------------


@pytest.mark.slow
def test_a_device_broken_for_a_process_is_whole_for_the_next(run):
    """CUDA never recovers from some errors in the process that met them."""
    outcomes = run("with_a_broken_device", seeds=range(2))
    assert [o.status for o in outcomes.values()] == ["crashed", "ok"]
    assert "device-side assert triggered" in outcomes[0].status_reason
    numbers = {outcome.data_source for outcome in run("says_its_number", seeds=range(4)).values()}
    assert len(numbers) == 4


# --- 21: clocks ---------------------------------------------------------------------------------

CLOCKS = {
    ("time", "time"),
    ("datetime", "now"),
    ("datetime", "utcnow"),
    ("datetime", "today"),
    ("time", "localtime"),
    ("date", "today"),
}


@pytest.mark.slow
def test_durations_are_taken_from_clocks_that_nobody_sets():
    """The wall clock gives the time stamps of a row, in UTC, and nothing else."""
    found = []
    for path in sorted((ROOT / "bench").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if called and isinstance(node.func.value, ast.Name):
                name = (node.func.value.id, node.func.attr)
                utc = [a for a in node.args if isinstance(a, ast.Name) and a.id == "UTC"]
                if name in CLOCKS and not utc:
                    found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert found == []


def test_a_clock_set_back_in_a_run_leaves_durations_and_outcomes(tmp_path, monkeypatch):
    stamps = iter(["2030-10-27T00:59:59Z", "2030-10-27T00:00:00Z"])
    monkeypatch.setattr(process, "utc_now", lambda: next(stamps))
    watched = Watched()
    monkeypatch.setattr(process, "time", watched.clock)
    (tmp_path / "logs").mkdir()

    def takes_seven_seconds(job, message):
        watched.clock.now += 7 * (message.get("step") == 20)

    order = replace(order_of(tmp_path, "steady"), listener=takes_seven_seconds)
    (done,) = watched.run(order, [Slot()])
    assert done.outcome.status == "ok"
    assert done.wall_seconds == 7
    assert done.finished_at < done.started_at

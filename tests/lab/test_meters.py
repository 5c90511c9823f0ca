"""Clocks, memory and energy of phases, with made-up clocks and counters."""

from __future__ import annotations

import mmap
from types import SimpleNamespace

import pytest
import torch

from peftmark.lab.measure import meters
from peftmark.lab.measure.meters import (
    Meters,
    Reading,
    gemm_peak,
    high_water_mark,
    reset_high_water_mark,
)

CPU = torch.device("cpu")


class Counter:
    """An energy counter of so many watts on the made-up clock, or none for a reason."""

    def __init__(self, clock, watts, reason=""):
        self.clock, self.watts, self.reason = clock, watts, reason

    def read(self):
        if self.reason:
            return None, self.reason
        return 1000 + self.watts * self.clock.now, ""

    def start(self):
        self.before = self.read()

    def stop(self):
        (before, told), (after, reason) = self.before, self.read()
        return (None, told or reason) if told or reason else (after - before, "")


@pytest.fixture
def clock(monkeypatch):
    """Wall and CPU time that move only when a test says so; two CPU seconds a second."""
    made = SimpleNamespace(now=100.0)
    fake = SimpleNamespace(perf_counter=lambda: made.now, process_time=lambda: 2 * made.now)
    monkeypatch.setattr(meters, "time", fake)
    monkeypatch.setattr(meters, "Rapl", lambda: Counter(made, 5.0))
    monkeypatch.delenv("PEFTMARK_JOBS_AT_ONCE", raising=False)
    return made


def train(found, clock, seconds, steps=1, phase="train"):
    with found.phase(phase):
        for _ in range(steps):
            clock.now += seconds / steps
            found.step()


# --- time ---------------------------------------------------------------------------------------


def test_phases_are_kept_apart_and_an_error_still_counts(clock):
    found = Meters(CPU)
    train(found, clock, 3.0)
    with found.phase("evaluate"):
        clock.now += 2.0
    with pytest.raises(KeyError), found.phase("train"):
        clock.now += 1.0
        raise KeyError
    assert found.seconds == {"train": 4.0, "evaluate": 2.0}
    assert found.cpu_seconds == 8.0, "of the timed steps alone"
    found.book("other", 1.5, "train")
    found.book("earlier", 7.0, None)
    assert found.seconds == {"train": 2.5, "evaluate": 2.0, "other": 1.5, "earlier": 7.0}


def test_steps_are_timed_in_timed_phases_alone(clock):
    found = Meters(CPU)
    assert found.step_percentiles() is None
    train(found, clock, 50.0, steps=5, phase="warm_up")
    train(found, clock, 10.0, steps=2)
    clock.now += 99.0  # an evaluation between two stretches is no step
    train(found, clock, 1.0)
    found.step()
    assert found.step_seconds() == [5.0, 5.0, 1.0]
    assert found.step_percentiles() == pytest.approx((1.8, 5.0, 5.0))


# --- energy -------------------------------------------------------------------------------------


def test_energy_is_counted_over_timed_steps_alone(clock):
    found = Meters(CPU)
    train(found, clock, 7.0, phase="warm_up")
    train(found, clock, 8.0)
    with found.phase("evaluate"):
        clock.now += 100.0
    train(found, clock, 4.0)
    gpu, cpu, flags = found.energy()
    assert cpu == Reading(5.0 * 12.0)
    assert gpu == Reading(None, "the job ran on the CPU")
    assert flags == ()


def test_too_short_a_window_has_no_energy_and_a_short_one_a_flag(clock):
    found = Meters(CPU)
    train(found, clock, 0.5)
    assert found.energy()[1] == Reading(None, "the timed steps took 0.50 s, too short to meter")
    assert found.energy()[2] == ()
    train(found, clock, 5.5)
    _, cpu, flags = found.energy()
    assert cpu == Reading(30.0)
    assert flags == ("short window: 6.0 s",)
    assert found.energy()[2] == flags, "reading twice flags once"


def test_no_counter_is_a_null_with_the_counters_reason(clock, monkeypatch):
    monkeypatch.setattr(meters, "Rapl", lambda: Counter(clock, 5.0, "RAPL is for root"))
    monkeypatch.setenv("PEFTMARK_JOBS_AT_ONCE", "2")
    found = Meters(CPU)
    train(found, clock, 20.0)
    _, cpu, flags = found.energy()
    assert cpu == Reading(None, "RAPL is for root")
    assert flags == (), "nothing was measured, so nothing weakens it"


def test_a_counter_lost_midway_leaves_no_half_a_sum(clock, monkeypatch):
    counter = Counter(clock, 5.0)
    monkeypatch.setattr(meters, "Rapl", lambda: counter)
    found = Meters(CPU)
    train(found, clock, 20.0)
    counter.reason = "gone"
    train(found, clock, 20.0)
    counter.reason = ""
    train(found, clock, 20.0)
    assert found.energy()[1] == Reading(None, "gone")


def test_jobs_side_by_side_share_the_counter_of_the_machine(clock, monkeypatch):
    monkeypatch.setenv("PEFTMARK_JOBS_AT_ONCE", "3")
    found = Meters(CPU)
    train(found, clock, 20.0)
    _, cpu, flags = found.energy()
    assert cpu.value == 100.0
    assert flags == ("contended: 3 jobs at once on this machine",)


@pytest.fixture
def gpu(clock, monkeypatch):
    """A made-up device: its clock is the same, its events take the time, its memory is fixed."""

    class Event:
        def __init__(self, enable_timing):
            assert enable_timing

        def record(self):
            self.at = clock.now

        def elapsed_time(self, other):
            return 1000 * (other.at - self.at)

    made = SimpleNamespace(allocated=[300, 200], reserved=[400, 500], watts=200.0, others=None)
    for name, value in {
        "Event": Event,
        "synchronize": lambda device: None,
        "reset_peak_memory_stats": lambda device: None,
        "max_memory_allocated": lambda device: made.allocated.pop(0),
        "max_memory_reserved": lambda device: made.reserved.pop(0),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    asked = made.asked = []

    def counter(uuid):
        asked.append(uuid)
        return Counter(clock, made.watts)

    monkeypatch.setattr(meters.nvml, "EnergyCounter", counter)
    monkeypatch.setattr(meters.nvml, "contention", lambda uuid, pid: made.others)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-7")
    return made


def test_a_device_is_timed_by_its_events_and_metered_by_its_counter(clock, gpu):
    found = Meters(torch.device("cuda"))
    train(found, clock, 4.0, steps=2, phase="warm_up")
    train(found, clock, 20.0, steps=4)
    device, cpu, flags = found.energy()
    assert gpu.asked == ["GPU-7"]
    assert (device, cpu) == (Reading(4000.0), Reading(100.0))
    assert flags == ()
    assert found.step_seconds() == [5.0] * 4
    assert (found.allocated, found.reserved) == (300, 500), "the most of all training phases"


def test_others_on_the_device_and_on_the_machine_are_both_flagged(clock, gpu, monkeypatch):
    monkeypatch.setenv("PEFTMARK_JOBS_AT_ONCE", "2")
    gpu.others = "contended: one more process on the device"
    found = Meters(torch.device("cuda"))
    train(found, clock, 4.0)
    gpu.allocated, gpu.reserved = [1], [1]
    train(found, clock, 4.0)
    assert found.energy()[2] == (
        "contended: one more process on the device",
        "short window: 8.0 s",
        "contended: 2 jobs at once on this machine",
    )


# --- memory -------------------------------------------------------------------------------------


def touch(mebibytes):
    """Fresh pages from the kernel: a malloc may reuse what the process already holds."""
    block = mmap.mmap(-1, mebibytes * 2**20)
    for start in range(0, len(block), mmap.PAGESIZE):
        block[start] = 1
    return block


def test_memory_of_training_is_kept_apart_from_that_of_loading():
    found = Meters(CPU)
    block = touch(96)
    block.close()
    with found.phase("train"):
        block = touch(32)
        block.close()
    assert 30 * 2**20 < found.vmhwm_train - found.noted["rss_before_train_bytes"] < 64 * 2**20
    with found.phase("evaluate"):
        block = touch(64)
        block.close()
    assert found.life_peak() >= found.noted["rss_before_train_bytes"] + 80 * 2**20


def test_a_peak_is_never_below_what_was_held_when_it_began(monkeypatch):
    """The kernel's counters lag: under load VmHWM was seen 28 pages below VmRSS of before."""
    told = {"VmHWM": 1_103_552_512, "VmRSS": 1_103_667_200}
    monkeypatch.setattr(meters, "status_bytes", lambda *names: tuple(told[n] for n in names))
    monkeypatch.setattr(meters, "reset_high_water_mark", lambda: None)
    found = Meters(CPU)
    with found.phase("train"):
        pass
    assert found.vmhwm_train == found.noted["rss_before_train_bytes"] == 1_103_667_200
    assert found.life_peak() == 1_103_667_200


def test_what_is_held_when_training_begins_is_read_after_the_peak_starts_anew(monkeypatch):
    read = []
    monkeypatch.setattr(meters, "status_bytes", lambda *names: read.extend(names) or (1,))
    monkeypatch.setattr(meters, "reset_high_water_mark", lambda: read.append("reset"))
    with Meters(CPU).phase("train"):
        pass
    assert read == ["VmHWM", "reset", "VmRSS", "VmHWM"]


def test_the_high_water_mark_starts_anew():
    reset_high_water_mark()
    before = high_water_mark()
    block = touch(64)
    assert high_water_mark() - before > 32 * 2**20
    block.close()
    reset_high_water_mark()
    assert high_water_mark() - before < 32 * 2**20


# --- the machine's own rate ---------------------------------------------------------------------


def test_the_peak_rate_is_positive_and_takes_nothing_from_the_jobs_stream():
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    rate = gemm_peak(CPU, "fp32")
    assert torch.equal(torch.rand(4), wanted)
    assert 1e8 < rate < 1e14

"""RAPL's counters, read from a made-up powercap folder."""

from __future__ import annotations

import shutil
import threading
from pathlib import Path

import pytest

from peftmark.machine import rapl as rapl_module
from peftmark.machine.rapl import Rapl
from waiting import PATIENCE

RANGE = 262_143_328_850
AMD = 65_532_610_987
"""Ranges in microjoules that machines have: 262 and 65.5 kJ."""


@pytest.fixture
def zone(tmp_path):
    """Make a zone, or set its counter in microjoules."""

    def put(microjoules, name="intel-rapl:0", title="package-0", limit=RANGE):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "name").write_text(f"{title}\n")
        (folder / "energy_uj").write_text(f"{microjoules}\n")
        (folder / "max_energy_range_uj").write_text(f"{limit}\n")
        return folder

    return put


class Clock:
    """A clock that moves when a test says so, or when the reading thread waits on it."""

    def __init__(self):
        self.now = 100.0
        self.waits = []

    def __call__(self):
        return self.now


def stands_still(seconds):
    """The thread is told at once that the stretch is over, so that only edges are read."""
    return True


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def rapl(tmp_path, clock):
    """The counters of the folder, read at the edges alone."""
    return Rapl(tmp_path, clock, stands_still)


def stretch(rapl, *changes):
    """Joules of a stretch in which these things happen."""
    rapl.start()
    for change in changes:
        change()
    return rapl.stop()


def test_joules_of_a_stretch(rapl, zone):
    zone(5_000_000)
    assert stretch(rapl, lambda: zone(17_500_000)) == (12.5, "")
    assert stretch(rapl, lambda: zone(18_500_000)) == (1.0, "")


def test_packages_are_added_and_nothing_is_counted_twice(tmp_path, zone, rapl):
    def set_all(package, other):
        zone(package)
        zone(2 * package, "intel-rapl:1", "package-1-die-0")
        zone(other, "intel-rapl:2", "psys")
        zone(other, "intel-rapl:0:0", "core")
        zone(other, "intel-rapl:0:1", "dram")
        zone(other, "intel-rapl-mmio:0", "package-0")

    set_all(1_000_000, 40_000_000)
    (tmp_path / "intel-rapl").mkdir()
    (tmp_path / "intel-rapl:3").symlink_to(tmp_path / "gone")
    assert stretch(rapl, lambda: set_all(3_000_000, 90_000_000)) == (6.0, "")


def test_a_counter_that_starts_again_is_counted_on(rapl, zone, clock):
    def later(first, second):
        clock.now += 20
        zone(first)
        zone(second, "intel-rapl:1", "package-1", limit=AMD)

    zone(RANGE - 3_000_000)
    zone(7_000_000, "intel-rapl:1", "package-1", limit=AMD)
    found, reason = stretch(rapl, lambda: later(2_000_000, 8_500_000))
    assert (found, reason) == (pytest.approx(3.0 + 2.0 + 1.5), "")
    zone(AMD - 1_000_000, "intel-rapl:1", "package-1", limit=AMD)
    found, reason = stretch(rapl, lambda: later(2_500_000, 4_000_000))
    assert (found, reason) == (pytest.approx(0.5 + 1.0 + 4.0), "")


def powered(zone, clock, watts, until, skips=(), limit=None, joules=0.0):
    """A wait in whose time the package takes so many watts; it ends where the clock does.

    Args:
        skips: times at which the thread is kept from running for three minutes.
    """
    limit = limit or AMD
    begin = clock.now

    def wait(seconds):
        late = 180 if clock.now - begin in skips else 0
        seconds = min(seconds + late, begin + until - clock.now)
        clock.waits.append(seconds)
        clock.now += seconds
        used = int((joules + watts * (clock.now - begin)) * 1e6)
        zone(used % limit, limit=limit)
        return clock.now >= begin + until

    return wait


def test_ten_minutes_at_280_watts_are_168_kilojoules(tmp_path, zone, clock):
    """In which a counter of 65.5 kJ starts again twice: its edges alone say 37 kJ."""
    zone(0, limit=AMD)
    rapl = Rapl(tmp_path, clock, powered(zone, clock, 280, 600))
    rapl.start()
    rapl._thread.join()
    assert rapl.stop() == (168_000.0, "")
    assert clock.waits == [30.0] * 20
    assert (168_000_000_000 % AMD) // 10**9 == 36


def test_a_counter_of_a_small_range_is_read_more_often(tmp_path, zone, clock):
    small = 4_294_967_296  # 4.3 s of 1000 W
    zone(0, limit=small)
    rapl = Rapl(tmp_path, clock, powered(zone, clock, 900, 10, limit=small))
    rapl.start()
    rapl._thread.join()
    assert rapl.stop() == (9_000.0, "")
    assert max(clock.waits) == pytest.approx(2.147, abs=0.001)


def test_a_thread_that_came_too_late_leaves_no_figure(tmp_path, zone, clock):
    """At 60 s a wrap is certain, since 65 s of 1000 W would make one; after 210 s it is not."""
    zone(0, limit=AMD)
    rapl = Rapl(tmp_path, clock, powered(zone, clock, 280, 600, skips=(120,)))
    rapl.start()
    rapl._thread.join()
    joules, reason = rapl.stop()
    assert joules is None
    assert reason == (
        "RAPL was not read for 210 s, in which its counter may have started again twice "
        "(range 65533 J)"
    )


@pytest.mark.parametrize(("seconds", "certain"), [(65.5, True), (65.54, False)])
def test_a_gap_is_certain_up_to_the_range_at_the_most_plausible_power(
    rapl, zone, clock, seconds, certain
):
    def later():
        clock.now += seconds
        zone(9_000_000, limit=AMD)

    zone(5_000_000, limit=AMD)
    assert (stretch(rapl, later)[0] == 4.0) is certain


def test_what_happened_between_two_stretches_is_nobodys_doubt(rapl, zone, clock):
    zone(5_000_000, limit=AMD)
    assert stretch(rapl) == (0.0, "")
    clock.now += 3600
    zone(1_000_000, limit=AMD)
    assert stretch(rapl, lambda: zone(2_000_000, limit=AMD)) == (1.0, "")


def test_a_fall_that_is_no_start_at_the_range_is_a_reason(rapl, zone, clock):
    def reset():
        clock.now += 10
        zone(1_000_000)

    zone(100_000_000_000)
    joules, reason = stretch(rapl, reset)
    assert joules is None
    assert reason == "RAPL's counter fell in 10 s, and not by starting again at its range"


def test_a_reading_that_failed_midway_leaves_no_figure(tmp_path, zone, clock):
    package = zone(0, limit=AMD)
    goes_on = powered(zone, clock, 280, 300)

    def wait(seconds):
        over = goes_on(seconds)
        if clock.now == 190:
            (package / "energy_uj").unlink()
        return over

    rapl = Rapl(tmp_path, clock, wait)
    rapl.start()
    rapl._thread.join()
    zone(90_000_000)
    assert rapl.stop() == (None, "a RAPL zone vanished midway")
    assert clock.now == 190 + 30, "nothing is read after that"


@pytest.mark.parametrize("sibling", [False, True])
def test_a_counter_for_root_alone_is_a_reason(rapl, zone, monkeypatch, sibling):
    zone(1_000_000)
    secret = zone(2_000_000, *(("intel-rapl:1", "package-1") if sibling else ()))
    read = Path.read_text

    def guarded(path, *arguments, **options):
        if path == secret / "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", guarded)
    assert [stretch(rapl) for _ in range(2)] == [(None, "RAPL is readable by root only")] * 2


def test_a_zone_that_vanishes_is_a_reason_every_time(rapl, zone):
    zone(1_000_000)
    second = zone(2_000_000, "intel-rapl:1", "package-1")
    assert stretch(rapl) == (0.0, "")
    shutil.rmtree(second)
    assert [stretch(rapl) for _ in range(2)] == [(None, "a RAPL zone vanished midway")] * 2


def test_a_machine_without_counters_is_a_reason(tmp_path, rapl):
    none = (None, "no RAPL counters on this machine")
    assert stretch(rapl) == none
    assert stretch(Rapl(tmp_path / "absent")) == none


def test_a_counter_that_is_no_number_is_a_reason(rapl, zone):
    zone("")
    value, reason = stretch(rapl)
    assert value is None
    assert reason.startswith("RAPL: invalid literal")


def test_a_thread_that_hangs_holds_nothing_up(tmp_path, zone, clock, monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(rapl_module, "ANSWER_SECONDS", 0.01)
    zone(0)
    rapl = Rapl(tmp_path, clock, lambda seconds: over.wait(PATIENCE))
    rapl.start()
    assert rapl.stop() == (None, "RAPL does not answer")
    over.set()


def test_without_room_for_a_thread_there_is_a_reason(rapl, zone, monkeypatch):
    def full(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", full)
    zone(0)
    assert stretch(rapl) == (None, "RAPL: can't start new thread")


def test_the_real_machine_gives_joules_or_a_reason():
    value, reason = stretch(Rapl())
    assert (value is None) == bool(reason)

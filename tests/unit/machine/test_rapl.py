"""RAPL's counters, read from a made-up powercap folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from peftmark.machine.rapl import Rapl

RANGE = 262_143_328_850


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


def test_joules_between_two_readings(tmp_path, zone):
    zone(5_000_000)
    rapl = Rapl(tmp_path)
    assert rapl.read() == (5.0, "")
    zone(17_500_000)
    assert rapl.read() == (17.5, "")


def test_packages_are_added_and_nothing_is_counted_twice(tmp_path, zone):
    zone(1_000_000)
    zone(2_000_000, "intel-rapl:1", "package-1-die-0")
    zone(40_000_000, "intel-rapl:2", "psys")
    zone(400_000, "intel-rapl:0:0", "core")
    zone(500_000, "intel-rapl:0:1", "dram")
    zone(1_000_000, "intel-rapl-mmio:0", "package-0")
    (tmp_path / "intel-rapl").mkdir()
    (tmp_path / "intel-rapl:3").symlink_to(tmp_path / "gone")
    assert Rapl(tmp_path).read() == (3.0, "")


def test_a_counter_that_starts_again_is_counted_on(tmp_path, zone):
    zone(RANGE - 3_000_000)
    zone(7_000_000, "intel-rapl:1", "package-1", limit=65_000_000)
    rapl = Rapl(tmp_path)
    start, _ = rapl.read()
    zone(2_000_000)
    assert rapl.read()[0] - start == pytest.approx(5.0)
    zone(1_000_000)
    zone(1_000_000, "intel-rapl:1", "package-1", limit=65_000_000)
    assert rapl.read()[0] - start == pytest.approx(5.0 + RANGE / 1e6 - 1.0 + 59.0)


@pytest.mark.parametrize("sibling", [False, True])
def test_a_counter_for_root_alone_is_a_reason(tmp_path, zone, monkeypatch, sibling):
    zone(1_000_000)
    secret = zone(2_000_000, *(("intel-rapl:1", "package-1") if sibling else ()))
    read = Path.read_text

    def guarded(path, *arguments, **options):
        if path == secret / "energy_uj":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", guarded)
    rapl = Rapl(tmp_path)
    assert [rapl.read() for _ in range(2)] == [(None, "RAPL is readable by root only")] * 2


def test_a_zone_that_vanishes_is_a_reason_every_time(tmp_path, zone):
    zone(1_000_000)
    second = zone(2_000_000, "intel-rapl:1", "package-1")
    rapl = Rapl(tmp_path)
    assert rapl.read() == (3.0, "")
    shutil.rmtree(second)
    assert [rapl.read() for _ in range(2)] == [(None, "a RAPL zone vanished midway")] * 2


def test_a_machine_without_counters_is_a_reason(tmp_path):
    none = (None, "no RAPL counters on this machine")
    assert Rapl(tmp_path).read() == none
    assert Rapl(tmp_path / "absent").read() == none


def test_a_counter_that_is_no_number_is_a_reason(tmp_path, zone):
    zone("")
    value, reason = Rapl(tmp_path).read()
    assert value is None
    assert reason.startswith("RAPL: invalid literal")


def test_the_real_machine_gives_joules_or_a_reason():
    value, reason = Rapl().read()
    assert (value is None) == bool(reason)

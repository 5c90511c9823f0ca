"""The locks of a device that jobs share: stretches alone, none that waits for ever, none kept by
the dead."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

import sharing
from peftmark.machine.shared_device import SharedDevice, file_of
from waiting import PATIENCE, wait_for

pytestmark = pytest.mark.heavy


@pytest.fixture
def places(tmp_path):
    """The file of the locks, that of events, and one that tells processes that all is over."""
    return tmp_path / "x.lock", tmp_path / "events", tmp_path / "over"


@pytest.fixture
def start():
    """Starts processes, and ends those that are left."""
    found = []

    def one(function, *arguments):
        found.append(sharing.start(function, *arguments))
        return found[-1]

    yield one
    for process in found:
        process.kill()
        process.join()


def ended(process):
    process.join(PATIENCE)
    return process.exitcode


def waits_for_a_lock(process):
    """Wait until it does; it must not get through."""
    wait_for(lambda: sharing.blocked(process.pid) or not process.is_alive())
    assert process.is_alive(), "it was let in"


def lines(events: Path):
    return events.read_text().splitlines() if events.exists() else []


def test_nothing_of_others_is_inside_a_timed_stretch_and_none_waits_for_ever(start, places):
    file, events, over = places
    others = [start(sharing.steps, file, events, number, over) for number in range(3)]
    wait_for(lambda: len({line for line in lines(events) if line.startswith("step")}) == 3)
    timed = [start(sharing.stretches, file, events, number) for number in (7, 8)]
    assert [ended(process) for process in timed] == [0, 0], "others never stopped to take steps"
    last = len(lines(events))  # whether one gets in between two stretches is the scheduler's
    wait_for(lambda: len({line for line in lines(events)[last:] if line.startswith("step")}) == 3)
    over.touch()
    assert [ended(process) for process in others] == [0, 0, 0], "they go on"
    told = lines(events)
    begins = [place for place, line in enumerate(told) if line.startswith("begin")]
    assert len(begins) == 2 * sharing.ROUNDS
    for place in begins:
        assert told[place + 1] == told[place].replace("begin", "end")


@pytest.mark.parametrize("alone", [True, False])
def test_a_process_that_is_killed_gives_the_device_back(start, places, alone):
    file, events, over = places
    dies = start(sharing.holds, file, events, over, alone)
    wait_for(lambda: lines(events) == ["holds"])
    waits = start(sharing.wants, file, events)
    waits_for_a_lock(waits)
    os.kill(dies.pid, signal.SIGKILL)
    assert ended(waits) == 0
    assert lines(events) == ["holds", "had it"]


def test_one_that_is_killed_while_it_waits_leaves_nothing_to_wait_for(start, places):
    file, events, over = places
    holds = start(sharing.holds, file, events, over, False)
    wait_for(lambda: lines(events) == ["holds"])
    dies = start(sharing.wants, file, events)
    waits_for_a_lock(dies)
    comes = start(sharing.comes, file, events)
    waits_for_a_lock(comes)  # whoever wants it alone goes first
    os.kill(dies.pid, signal.SIGKILL)
    assert ended(comes) == 0
    over.touch()
    assert ended(holds) == 0
    assert lines(events) == ["holds", "came in"]


def test_who_comes_later_waits_for_one_that_wants_it_alone(start, places):
    file, events, over = places
    holds = start(sharing.holds, file, events, over, False)
    wait_for(lambda: lines(events) == ["holds"])
    wants = start(sharing.wants, file, events)
    waits_for_a_lock(wants)
    comes = start(sharing.comes, file, events)
    waits_for_a_lock(comes)
    over.touch()
    assert [ended(process) for process in (holds, wants, comes)] == [0, 0, 0]
    assert lines(events) == ["holds", "had it", "came in"]


def test_looking_whether_it_is_wanted_takes_no_lock(start, places, monkeypatch):
    file, _, _ = places
    with SharedDevice(file) as device:
        monkeypatch.setattr(device, "_take", lambda *_: pytest.fail("took a lock"))
        monkeypatch.setattr(device, "_give_back", lambda *_: pytest.fail("gave one back"))
        device.pause()
    other = start(sharing.stretches, file, file.with_name("events"), 0)
    assert ended(other) == 0


def test_the_device_has_done_its_work_before_others_may_have_it(places, monkeypatch):
    told = []
    device = SharedDevice(places[0])
    device.settle = lambda: told.append("settled")
    with device:
        plain = device._give_back
        monkeypatch.setattr(device, "_give_back", lambda one: (told.append(one), plain(one)))
        with device.alone():
            told.append("alone")
            device.pause()  # of one that is alone: nobody to pause for
        told.append("over")
        monkeypatch.setattr(device, "_wanted", lambda: True)
        device.pause()
    room, turn = 1, 0
    assert told == [
        "settled", room, "alone", "settled", turn, "over", "settled", room, turn, "settled"
    ]  # fmt: skip


def test_a_device_that_failed_is_given_back_too(start, places):
    file, events, _ = places
    device = SharedDevice(file)

    def fails():
        raise RuntimeError("the device is gone")

    with pytest.raises(KeyError), device:
        device.settle = fails
        raise KeyError
    assert ended(start(sharing.wants, file, events)) == 0


def test_a_device_of_one_job_has_no_locks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with SharedDevice() as device:
        assert not device.shared
        device.pause()
        with device.alone():
            device.pause()
    assert list(tmp_path.iterdir()) == []


def test_what_a_worker_is_told_of_it_survives_json(tmp_path):
    file = file_of(tmp_path, "GPU-0/1 x")
    assert file == tmp_path / "GPU-0_1_x.lock"
    told = json.loads(json.dumps(SharedDevice(file, timed=False).as_told()))
    again = SharedDevice.told(told)
    assert (again.shared, again.timed, again.as_told()) == (True, False, told)
    assert SharedDevice().as_told() == {}
    assert not SharedDevice.told({"mirror": None}).shared

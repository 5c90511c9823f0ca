"""Which rows are due, and what becomes of those that a tracker doesn't take."""

from __future__ import annotations

import pytest

from factory import make_failure, make_job, make_record
from peftmark.record.kept import Kept
from peftmark.storage.store import Store
from peftmark.track.send import Sender, report_of


class Tracker:
    """Notes what it gets."""

    where = "here"

    def __init__(self, refuses=()):
        self.refuses, self.tried, self.there, self.got = set(refuses), [], set(), []

    def job(self, entry):
        self.tried.append(entry.job_id)
        if entry.job_id in self.refuses:
            raise ConnectionError("refused\nby http://me:secret@host")
        if entry.key in self.there:
            return False
        self.there.add(entry.key)
        return True

    def adapter(self, entry, folder):
        if "adapter" in self.refuses:
            raise OSError("no")
        self.got.append((entry.key, folder.name))
        return True

    def report(self, suite, profile, files):
        self.got.append((suite, profile, [file.name for file in files]))

    def end(self, ending):
        self.got.append(ending)


@pytest.fixture
def store(tmp_path):
    found = Store(tmp_path, "demo")
    with found.lock():
        for seed in range(5):
            time = f"2030-01-01T00:0{5 - seed}:00Z"
            found.append(make_record(job=make_job(seed=seed), finished_at=time))
    return found


def ids(*seeds):
    return [make_job(seed=seed).job_id for seed in seeds]


def test_rows_go_in_the_order_in_which_jobs_ended_and_once(store):
    tracker = Tracker()
    sender = Sender(tracker, store, None)
    for _ in range(2):
        sender.send(sender.rows())
    assert tracker.tried == ids(4, 3, 2, 1, 0)
    assert (sender.result.sent, sender.result.there, sender.result.faults) == (5, 0, {})


def test_what_the_tracker_has_already_is_counted_apart(store):
    tracker = Tracker()
    for _ in range(2):
        sender = Sender(tracker, store, None)
        sender.send(sender.rows())
    assert (sender.result.sent, sender.result.there) == (0, 5)


def test_one_row_that_is_refused_stops_no_other_and_is_tried_again(store):
    tracker = Tracker(ids(3))
    sender = Sender(tracker, store, None)
    sender.send(sender.rows())
    name = f"{ids(3)[0]}.1"
    assert sender.result.sent == 4
    assert sender.result.faults == {name: "ConnectionError: refused by http://host"}
    tracker.refuses.clear()
    sender.send(sender.rows())
    assert (sender.result.sent, sender.result.faults) == (5, {})


def test_a_tracker_that_is_down_is_asked_twice_and_not_for_every_row(store):
    tracker = Tracker(ids(*range(5)))
    sender = Sender(tracker, store, None)
    sender.send(sender.rows())
    assert tracker.tried == ids(4, 3)
    assert len(sender.result.faults) == 5
    assert sender.result.faults[f"{ids(0)[0]}.1"] == "not tried, since others before it failed"


def test_only_rows_of_the_profile_and_the_attempt_that_counts(store):
    with store.lock():
        store.append(make_record(job=make_job(profile="full")))
        failed = make_record(job=make_job(seed=0), attempt=2, outcome=make_failure())
        store.append(failed)
    tracker = Tracker()
    sender = Sender(tracker, store, "quick")
    sender.send(sender.rows())
    assert tracker.there == {(job_id, 1) for job_id in ids(*range(5))}


def test_adapters_and_the_report_follow_at_the_end(store, tmp_path):
    for seed, attempt in ((1, 1), (2, 7)):  # of the second there is no row
        left = tmp_path / "left"
        left.mkdir()
        store.adapters.take(left, Kept(job=make_job(seed=seed), attempt=attempt), "card")
    tracker = Tracker()
    sender = Sender(tracker, store, None)
    sender.send(sender.rows())
    sender.finish({"quick": [tmp_path / "report.md"], "other": [tmp_path / "x.md"]}, "stopped")
    [adapter, report, end] = tracker.got
    assert adapter[0] == (ids(1)[0], 1)
    assert report == ("demo", "quick", ["report.md"])
    assert end == "stopped"
    assert sender.result.adapters == 1


def test_an_adapter_that_is_refused_is_told_and_ends_nothing(store, tmp_path):
    left = tmp_path / "left"
    left.mkdir()
    store.adapters.take(left, Kept(job=make_job(seed=1), attempt=1), "card")
    tracker = Tracker(["adapter"])
    sender = Sender(tracker, store, None)
    sender.send(sender.rows())
    sender.finish({}, "finished")
    assert sender.result.faults == {f"adapter of {ids(1)[0]}.1": "OSError: no"}
    assert tracker.got == ["finished"]


def test_a_report_is_of_the_profile_that_its_title_names(tmp_path):
    folder = tmp_path / "demo_1"
    assert report_of(folder) == {}
    folder.mkdir()
    (folder / "report.md").write_text("# demo\\_1, profile cpu\\_small\n\nwords\n")
    assert report_of(folder) == {"cpu_small": [folder / "report.md"]}
    (folder / "index.html").touch()
    assert [p.name for p in report_of(folder)["cpu_small"]] == ["index.html", "report.md"]
    (folder / "report.md").write_text("# another, profile cpu\n")
    assert report_of(folder) == {}
    (folder / "report.md").write_bytes(b"\xff\xfe")
    assert report_of(folder) == {}

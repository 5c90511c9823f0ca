"""Whatever a worker sends ends its own job alone."""

from __future__ import annotations

import json
import struct

import pytest

from factory import make_job, make_record
from peftmark.executors import process
from peftmark.executors.contract import Order
from peftmark.executors.local import run_jobs
from peftmark.executors.slots import Slot
from peftmark.record.outcome import Outcome
from peftmark.sources.assets import Places
from peftmark.storage.store import Store

pytestmark = pytest.mark.heavy


@pytest.fixture(autouse=True)
def short_grace(monkeypatch):
    monkeypatch.setattr(process, "GRACE_SECONDS", 0.5)


@pytest.fixture
def run(tmp_path):
    """Run seeds 0, 1 and 2 with a fake worker, two at once; returns the outcomes by seed."""
    (tmp_path / "logs").mkdir()

    def start(worker, sent=b""):
        (tmp_path / "logs" / "sent").write_bytes(sent)
        order = Order(
            jobs=[(make_job(seed=seed), 1) for seed in range(3)],
            places=Places(None, ("package",), tmp_path / "cache"),
            logs=tmp_path / "logs",
            retries=0,
            worker=f"fault_worker:{worker}",
        )
        return {done.job.seed: done.outcome for done in run_jobs(order, [Slot(), Slot()])}

    return start


def framed(message):
    raw = message if isinstance(message, bytes) else json.dumps(message).encode()
    return struct.pack("!i", len(raw)) + raw


def outcome(**changes):
    """An outcome with other values of JSON in some columns."""
    good = json.loads(Outcome("ok", metric_value=0.5, steps=20).to_json())
    return framed({"outcome": json.dumps({**good, **changes})})


SENT = {
    "nested lists": (framed(b"[" * 100_000), "lists in lists without end"),
    "an outcome of nested lists": (framed({"outcome": "[" * 90_000}), "without end"),
    "10**30 steps": (outcome(steps=10**30), "steps can't be 1000000"),
    "10**30 steps on the way": (framed({"step": 1, "steps": 10**30}), "steps can't be 1000000"),
    "a number of 5,000 digits": (framed(b'{"step": ' + b"9" * 5000 + b"}"), "Exceeds the limit"),
    "a word for a step": (framed({"step": "one"}), "step can't be 'one'"),
    "an unknown column": (outcome(glory=1), "'glory' is no column"),
    "no UTF-8": (framed(b'{"phase": "\xff"}'), "can't decode byte"),
    "two outcomes": (outcome() + outcome(metric_value=0.75), "a second outcome"),
    "a text of 100 MB": (struct.pack("!i", 10**8) + b'{"phase": "', "a length of 100,000,000"),
}


@pytest.mark.parametrize("case", SENT)
def test_whatever_a_worker_sends_ends_its_own_job_alone(run, tmp_path, case):
    sent, told = SENT[case]
    ended = run("sends_what_the_file_says", sent)
    assert [ended[seed].status for seed in range(3)] == ["crashed", "ok", "ok"]
    assert ended[0].status_reason.startswith("the worker sent what is no message of ours (")
    assert told in ended[0].status_reason
    store = Store(tmp_path / "results", "demo")
    with store.lock():
        for seed, one in ended.items():
            store.append(make_record(job=make_job(seed=seed), outcome=one))
    assert store.read().attempts == 3


def test_a_message_that_never_ends_is_left_at_once(run):
    ended = run("sends_without_end")
    assert [ended[seed].status for seed in range(3)] == ["crashed", "ok", "ok"]
    assert "(a length of 2,147,483,647 bytes)" in ended[0].status_reason


def test_one_that_never_stops_telling_holds_no_other_up(run):
    assert {one.status for one in run("floods_until_the_others_end").values()} == {"ok"}

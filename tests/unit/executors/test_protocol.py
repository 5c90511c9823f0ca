"""The supervisor's end of a worker's pipe takes anything without waiting and without growing."""

from __future__ import annotations

import json
import os
import struct
from multiprocessing import Pipe

import pytest

from peftmark.executors import protocol
from peftmark.executors.protocol import Broken, Inbox, progress
from peftmark.record.outcome import Outcome


@pytest.fixture
def pipe():
    """An inbox, and what writes bytes to it."""
    ours, theirs = Pipe()
    yield Inbox(ours), lambda raw: os.write(theirs.fileno(), raw)
    ours.close()
    theirs.close()


def framed(text):
    """A message as `multiprocessing` frames it."""
    raw = text if isinstance(text, bytes) else text.encode()
    return struct.pack("!i", len(raw)) + raw


def test_whole_messages_come_in_their_order_and_half_a_one_waits(pipe):
    inbox, write = pipe
    outcome = Outcome("ok", metric_value=0.5)
    last = framed('{"step": 2}')
    write(framed('{"step": 1}') + framed(json.dumps({"outcome": outcome.to_json()})) + last[:7])
    assert list(inbox.take()) == [{"step": 1}, outcome]
    write(last[7:])
    assert list(inbox.take()) == [{"step": 2}]


BROKEN = {
    "no JSON": (framed("step one"), "Expecting value"),
    "no UTF-8": (framed(b'{"phase": "\xff"}'), "can't decode byte 0xff"),
    "UTF-16": (framed('{"step": 1}'.encode("utf-16")), "can't decode byte 0xff"),
    "nested": (framed("[" * 100_000), "lists in lists without end"),
    "a huge number": (framed('{"step": ' + "9" * 5000 + "}"), "Exceeds the limit"),
    "a list": (framed("[1, 2]"), "no object"),
    "a word": (framed('"outcome"'), "no object"),
    "nothing": (framed(""), "Expecting value"),
    "an outcome that is no text": (framed('{"outcome": {"status": "ok"}}'), "is no text"),
    "an outcome that is none": (framed('{"outcome": "{}"}'), "is missing"),
    "an outcome that is nested": (
        framed(json.dumps({"outcome": "[" * 50_000})),
        "lists in lists without end",
    ),
    "a length below zero": (struct.pack("!i", -1) + bytes(8), "a length of -1 bytes"),
    "a length of 100 MB": (struct.pack("!i", 10**8), "a length of 100,000,000 bytes"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_message_is_told_and_nothing_is_taken_after_it(pipe, case):
    inbox, write = pipe
    raw, told = BROKEN[case]
    write(framed('{"step": 1}') + raw + framed('{"step": 2}'))
    taking = inbox.take()
    assert next(taking) == {"step": 1}, "what came before it counts"
    with pytest.raises(Broken, match=told):
        next(taking)
    assert inbox.closed
    assert list(inbox.take()) == []


def test_little_is_read_at_once_so_that_others_have_their_turn(pipe):
    inbox, write = pipe
    one = framed('{"step": 1}')
    write(one * 6000)
    assert 6000 * len(one) > protocol._PIECE
    assert len(list(inbox.take(most=1))) == protocol._PIECE // len(one)


def test_progress_has_four_keys_and_no_more():
    """What is kept of a worker would grow with every other key."""
    told = {"phase": "train", "step": 1, "steps": 20, "metric": 1}
    assert progress({**told, "note": "x" * 10**6}) == told


@pytest.mark.parametrize(
    "message",
    [
        {"step": "1"},
        {"step": True},
        {"step": -1},
        {"step": 1.0},
        {"steps": 10**30},
        {"steps": None},
        {"metric": "0.5"},
        {"metric": False},
        {"metric": 10**400},
        {"metric": [1]},
        {"phase": 3},
        {"phase": "x" * 10**6},
    ],
)
def test_progress_of_another_type_is_refused(message):
    with pytest.raises(ValueError, match=f"^{next(iter(message))} can't be "):
        progress(message)


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_nobody_can_draw_is_passed_over(score):
    assert progress({"step": 3, "metric": score}) == {"step": 3}


def test_a_phase_is_one_that_a_terminal_can_show():
    assert progress({"phase": "a\x1b[2Jb\u202ec"}) == {"phase": "a\ufffd[2Jb\ufffdc"}

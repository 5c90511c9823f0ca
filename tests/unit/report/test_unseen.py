"""No character that acts on a terminal or a page, or that nobody sees, is in anything we show."""

from __future__ import annotations

import io
import os
import re
import unicodedata
from dataclasses import fields, replace

import pytest

from factory import HEAD, LORA, make_job, make_matrix
from gated import by_new_code, make_side
from peftmark.analysis.table import build
from peftmark.catalog.methods import Cell
from peftmark.cli.run import console_on
from peftmark.cli.terminal import _Patient, _Shown
from peftmark.core.shown import MARK, visible
from peftmark.executors.contract import Finished
from peftmark.gate import show as gate
from peftmark.gate.judge import judge
from peftmark.gate.policy import Policy
from peftmark.record.outcome import Outcome
from peftmark.render.live import Curves, Line, LivePage
from peftmark.render.live import render as live
from peftmark.report.paper_table import FORMATS, rendered
from peftmark.run.progress import Board
from shown import fail, write

ODD = (
    "\x00\x07\x08\x0b\x1b\x7f\x85\x9b\xad\u061c\u200b\u200c\u200d\u200e\u200f\u2028\u2029"
    "\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff\U000e0041"
)
HOSTILE = f"evil{ODD}\x1b[2J\x1b]0;title\x07<b>@here"
OURS = re.compile(r"(?<=@)\u200b(?=\w)|(?<=:)\u200b(?=//)|(?<=www)\u200b(?=\.)")
"""What Markdown has of ours: behind what would be a mention or an address."""


def unseen(text):
    """Characters that no output may hold."""
    left = set(OURS.sub("", text)) - {*"\n\t"}
    return {c for c in left if c in ODD or unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")}


def poisoned(value):
    """A value whose texts are hostile, in lists and mappings too."""
    if isinstance(value, str):
        return HOSTILE
    if isinstance(value, tuple) and all(isinstance(one, str) for one in value):
        return (HOSTILE,)
    if isinstance(value, dict) and value:
        return {**value, HOSTILE: poisoned(next(iter(value.values())))}
    return value


def with_poison(one, *kept):
    return replace(
        one,
        **{f.name: poisoned(getattr(one, f.name)) for f in fields(one) if f.name not in kept},
    )


@pytest.fixture(scope="module")
def rows():
    """Rows whose every text is hostile; the first has failed."""
    made = make_matrix(cells=[LORA, HEAD, Cell(f"m{HOSTILE}", 8, "none")], tasks=["sst2", "trec"])
    bad = [
        replace(
            with_poison(one, "started_at", "finished_at"),
            job=replace(one.job, suite=HOSTILE, profile=HOSTILE, rates=HOSTILE),
            outcome=with_poison(one.outcome, "status"),
            environment=with_poison(one.environment),
        )
        for one in made
    ]
    return [fail(bad[0], "crashed", HOSTILE), *bad[1:]]


def test_a_text_of_any_script_stays_and_what_nobody_sees_does_not():
    said = "a b\u00a0c\u202fd\n\té 語 ق 🙂 − × ±"
    assert visible(said) == said
    assert visible(ODD) == MARK * len(ODD)
    assert unseen(visible("".join(map(chr, range(0x3100))))) == set()


@pytest.mark.slow
def test_no_report_holds_them(rows, tmp_path):
    files = write(tmp_path, rows, summary=HOSTILE, notes=[HOSTILE])
    shown = {name: text for name, text in files.items() if name != "rows.csv"}  # data as they are
    assert {name: unseen(text) for name, text in shown.items() if unseen(text)} == {}
    assert {"index.html", "report.md"} < shown.keys()
    assert all(MARK in shown[name] and "<b>" not in shown[name] for name in shown)


@pytest.mark.parametrize("form", sorted({*FORMATS} - {"csv"}))
def test_no_table_of_a_paper_holds_them(rows, form):
    text = rendered(build(rows, [one.job for one in rows], LORA), form)
    assert "evil" in text
    assert unseen(text) == set()


def test_no_page_of_a_run_that_is_going_holds_them():
    line = Line(HOSTILE, "lora", [(1, 0.5), (2, 0.6)])
    curves = Curves(HOSTILE, 2, [line], "0.5", "0.6")
    board = [(HOSTILE, [HOSTILE])]
    text = live(LivePage(HOSTILE, 2, HOSTILE, [HOSTILE], board, [HOSTILE], [curves], [HOSTILE]))
    assert text.count("evil") >= 8
    assert unseen(text) == set()


def test_no_text_of_a_gate_holds_them():
    def worse(line):
        return by_new_code(line, status="crashed", status_reason=HOSTILE, task=line.task)

    before = make_side(seeds=3, where=HOSTILE, suite=HOSTILE, profile=HOSTILE, model=HOSTILE)
    after = make_side(seeds=3, change=worse, where=HOSTILE, suite=HOSTILE, profile=HOSTILE)
    found = judge(after, before, Policy(), declared=HOSTILE)
    for text in (gate.markdown(found), gate.comment(found), gate.junit(found)):
        assert "evil" in text
        assert unseen(text) == set()
    assert unseen(on_terminal(lambda out: out.write(gate.text(found)))) == set()
    assert unseen(on_terminal(lambda out: out.write(gate.to_json(found)))) == set()


def on_terminal(draw):
    """What reaches a terminal that a command prints to."""
    here, there = os.pipe()
    with _Patient(there, "w") as file:
        stream = _Shown(io.BufferedWriter(file), encoding="utf-8", errors="backslashreplace")
        draw(stream)
        stream.flush()
    with open(here, encoding="utf-8") as read:
        return read.read()


def test_no_line_of_a_run_holds_them():
    job = make_job(task=HOSTILE, method=HOSTILE)
    done = Finished(job, 1, Outcome("crashed", HOSTILE), "", "", 1.0, None, None, "", HOSTILE)

    def draw(stream):
        with Board(console_on(stream), [job], 1) as board:
            board.event(job, {"phase": "train"})
            board.tell_running()
            board.finished(replace(done, again=HOSTILE))
            board.finished(done)

    text = on_terminal(draw)
    assert text.count("evil") >= 6
    assert unseen(text) == set()

"""The page of a run that is going: from the first job on, until it leads to the report."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from factory import LORA, make_matrix
from peftmark.core.errors import StoreError
from peftmark.render.live import Curves, Line, polyline
from peftmark.report import live_file
from peftmark.report.live import Going, live_page
from peftmark.report.live_file import LiveFile, lead_on

MATRIX = make_matrix()
PLANNED = [record.job for record in MATRIX]


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def page_of(ended=(), going=()):
    records = {record.job.job_id: record for record in ended}
    runs = {job.job_id: Going(job, step, points) for job, step, points in going}
    return live_page("demo", PLANNED, records, runs, LORA, "state")


def live(path, clock=None, **facts):
    return LiveFile(path, "demo, profile quick", PLANNED, {}, LORA, clock=clock or Clock(), **facts)


def signs(page):
    return "".join(text for _, marks in page.board for text in marks).replace(" ", "")


def test_before_the_first_job_every_job_is_to_come_and_nothing_can_be_said():
    page = page_of()
    assert set(signs(page)) == {"○"} and len(signs(page)) == len(PLANNED)
    assert page.curves == [] and page.running == []
    assert all("nothing can be said yet (0 of" in text for text in page.said[:-1])


def test_a_job_that_runs_is_told_with_its_step_and_its_scores_so_far():
    job = PLANNED[3]
    page = page_of(going=[(job, 40, [(20, 0.5), (40, 0.6)])])
    assert signs(page).count("◐") == 1
    (told,) = page.running
    assert told.endswith(f"on {job.task}, seed {job.seed}, step 40 of {job.recipe.steps}")
    (curves,) = page.curves
    assert curves.lines[0].points == [(20, 0.5), (40, 0.6)]
    assert (curves.low, curves.high) == ("0.500", "0.600")


def test_what_ended_well_and_what_failed_have_signs_of_their_own():
    failed = replace(MATRIX[1], outcome=replace(MATRIX[1].outcome, status="crashed"))
    page = page_of(ended=[MATRIX[0], failed])
    assert (signs(page).count("●"), signs(page).count("✕")) == (1, 1)


def test_what_was_interrupted_is_to_come(tmp_path):
    outcome = replace(MATRIX[1].outcome, status="interrupted")
    page = page_of(ended=[MATRIX[0], replace(MATRIX[1], outcome=outcome)])
    assert (signs(page).count("●"), signs(page).count("✕")) == (1, 0)


def test_verdicts_are_words_that_decide_nothing_until_all_is_in():
    page = page_of(ended=MATRIX)
    assert set(signs(page)) == {"●"}
    assert page.said[-1].startswith("The report at the end decides")
    assert all("so far" in text or "nothing can be said yet" in text for text in page.said[:-1])


def test_a_curve_fills_the_picture_from_its_lowest_to_its_highest_score():
    line = Line("a", "lora", [(10, 0.2), (20, 0.6)])
    curves = Curves("t", 20, [line], "", "")
    assert polyline(curves, line) == "160.0,112.0 312.0,8.0"
    flat = Line("a", "lora", [(20, 0.6)])
    assert polyline(Curves("t", 20, [flat], "", ""), flat) == "312.0,8.0"


def test_the_file_is_there_from_the_start_and_reads_itself_again_without_a_server(tmp_path):
    path = tmp_path / "reports" / "demo" / "live.html"
    live(path).begin()
    text = path.read_text(encoding="utf-8")
    assert '<meta http-equiv="refresh" content="5">' in text
    assert "0 of" in text and "script" not in text and "http:" not in text.replace("http-equiv", "")
    assert not re.search(r'(src|href)="', text)


def test_it_is_written_at_most_every_two_seconds(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(live_file, "write_all", written.append)
    clock = Clock()
    page = live(tmp_path / "live.html", clock)
    page.begin()
    for now in (0.5, 1.9, 2.0, 2.5, 3.9, 4.1):
        clock.now = now
        page.event(PLANNED[0], {"step": int(10 * now), "steps": 120})
    assert len(written) == 3
    clock.now = 9.0
    page.finished(MATRIX[0])
    assert "1 of" in next(iter(written[-1].values()))


def test_a_folder_without_room_stops_no_run(tmp_path, monkeypatch):
    tries = []

    def full(files):
        tries.append(files)
        raise StoreError("no space left")

    monkeypatch.setattr(live_file, "write_all", full)
    clock = Clock()
    page = live(tmp_path / "live.html", clock)
    page.begin()
    clock.now = 9.0
    page.finished(MATRIX[0])
    lead_on(tmp_path / "live.html", "index.html")
    assert len(tries) == 2, "once for the page, which is then left alone, and once at the end"


def test_in_the_end_it_leads_to_the_report(tmp_path):
    lead_on(tmp_path / "live.html", "index.html")
    text = (tmp_path / "live.html").read_text(encoding="utf-8")
    assert 'content="0; url=index.html"' in text and 'href="index.html"' in text


def test_of_a_run_that_was_stopped_the_page_stays_as_it_is_and_says_so(tmp_path):
    clock = Clock()
    page = live(tmp_path / "live.html", clock)
    page.begin()
    page.event(PLANNED[2], {"step": 10, "steps": 120})
    page.finished(MATRIX[0])
    page.finished(replace(MATRIX[1], outcome=replace(MATRIX[1].outcome, status="interrupted")))
    page.stopped()
    text = (tmp_path / "live.html").read_text(encoding="utf-8")
    assert f"Stopped. The same command goes on. 1 of {len(PLANNED)} jobs have ended." in text
    assert 'http-equiv="refresh"' not in text and "running ·" not in text and "Now:" not in text
    assert text.count("●") == 2, "one job, and the legend"


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", "a&b"])
def test_names_are_escaped(tmp_path, name):
    path = tmp_path / "live.html"
    LiveFile(path, name, PLANNED, {}, LORA, clock=Clock()).begin()
    text = path.read_text(encoding="utf-8")
    assert name not in text

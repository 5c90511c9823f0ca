"""The command `alarms`: counts over rows, every value of one job, and one message where none is."""

from __future__ import annotations

import json

import pytest

from peftmark.analysis.alarms import count, read
from peftmark.catalog.alarms import ALARMS
from peftmark.cli import parser
from peftmark.storage.rows_file import read_rows_file
from places import DOCS, ROOT

ROWS = DOCS / "example" / "rows.parquet"
JOB = "94885d1b1eba2dd2"


@pytest.fixture
def alarms(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    def run(*words):
        with pytest.raises(SystemExit) as left:
            parser.main(["alarms", str(ROWS), *words])
        return left.value.code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def rows():
    return list(read_rows_file(ROWS).records.values())


def test_it_counts_every_alarm_over_the_rows(alarms, rows):
    code, text, errors = alarms()
    assert (code, errors) == (0, "")
    lines = text.splitlines()
    assert len(lines) == 2 + len(ALARMS)
    for line, found in zip(lines[2:], count(rows), strict=True):
        assert line.startswith(f"| `{found.alarm.key}` | {found.measured} of 72 | ")
        assert line.endswith(f" | {found.verdict} |")


@pytest.mark.slow
def test_of_several_sources_each_is_held_to_its_own_seeds_and_no_job_counts_twice(alarms):
    assert alarms(str(ROWS)) == alarms()
    published = ROOT / "results" / "published" / "adalora-tuned"
    told = {one["alarm"]: one for one in json.loads(alarms(str(published), "--json")[1])}
    alone = count(list(read_rows_file(published / "rows.parquet").records.values()))
    [gap] = [one for one in alone if one.alarm.key == "gap"]
    assert told["gap"]["measured"] == 72 + gap.measured and gap.measured


def test_json_has_the_counts_and_why_a_figure_is_missing(alarms):
    code, text, _ = alarms("--json")
    told = {one["alarm"]: one for one in json.loads(text)}
    assert code == 0 and list(told) == list(ALARMS)
    assert told["conflict"]["unmeasured"] == {"the method is of one part": 72}
    assert told["gap"]["measured"] == 72 and told["gap"]["threshold"] == 0.0


def test_one_job_has_every_value_or_why_there_is_none(alarms, rows):
    code, text, _ = alarms("--job", JOB)
    [row] = [r for r in rows if r.job.job_id == JOB]
    assert code == 0 and text.startswith(f"{JOB}: head, trec, seed 0\n")
    for reading in read(row):
        assert f"{reading.alarm.key}: {reading.text}" in text
    assert "?     conflict: not measured: the method is of one part" in text
    assert len(json.loads(alarms("--job", JOB, "--json")[1])[JOB]) == len(ALARMS)


def test_a_raised_alarm_says_what_to_do(alarms, rows):
    row = next(r for r in rows if r.job.method == "adalora" and any(a.raised for a in read(r)))
    _, text, _ = alarms("--job", row.job.job_id)
    raised = [a for a in read(row) if a.raised]
    assert text.count("ALARM ") == len(raised)
    assert all(a.alarm.action in text for a in raised)


def test_an_unknown_job_is_one_message(alarms):
    code, text, errors = alarms("--job", "nope")
    assert (code, text) == (2, "")
    assert "no row of these is of that job" in errors

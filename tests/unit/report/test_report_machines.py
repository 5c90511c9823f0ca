"""A report of rows from several machines says what is pooled, at the place of the numbers."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest

from factory import HEAD, LORA, make_environment, make_matrix
from peftmark.advice.answer import tables_of
from peftmark.record.fields import title
from peftmark.record.machine_kind import machine_of
from shown import column, grid, row, section, show, write

THERE = make_environment(
    machine={"cpu": "Other CPU"}, versions={"torch": "2.9.0", "peft": "0.20.0"}
)
CELLS = [LORA, HEAD]


def on_there(records, **changes):
    """The same jobs on another machine, slower by a factor of 100."""
    return [
        replace(
            r,
            environment=THERE,
            outcome=replace(
                r.outcome, step_seconds_p50=100 * (r.outcome.step_seconds_p50 or 0), **changes
            ),
        )
        for r in records
    ]


@pytest.fixture(scope="module")
def rows():
    """Seeds 0 and 1 here, seeds 1 and 2 there; the repeated seed gave other bits there."""
    here = make_matrix(cells=CELLS, tasks=["sst2"], seeds=[0, 1])
    both = [replace(r.outcome, metrics={"accuracy": 0.1}) for r in here if r.job.seed == 1]
    again = on_there([r for r in here if r.job.seed == 1])
    again = [
        replace(r, outcome=replace(r.outcome, metrics=o.metrics, metric_value=o.metric_value))
        for r, o in zip(again, both, strict=True)
    ]
    return [*here, *again, *on_there(make_matrix(cells=CELLS, tasks=["sst2"], seeds=[2]))]


@pytest.fixture(scope="module")
def shown(rows):
    planned = list({r.job.job_id: r.job for r in rows}.values())
    return show(rows, planned)


def test_the_top_says_it_and_so_do_the_tables_of_costs(shown):
    assert any("Rows of 2 machines" in note for note in shown.notes)
    for caption in ("Costs relative", "Time and work", "other meters", "to deploy"):
        assert "of Example CPU @ 2 GHz alone" in grid(shown, caption).note


def test_scores_have_every_seed_once_and_times_those_of_one_machine(shown):
    entry = row(shown, "Score after", "LoRA r8")[1]
    assert "n = 3" in f"{entry.text} {entry.note}"
    times = grid(shown, "Time and work")
    first = next(r for r in times.rows if r[0].text == "LoRA r8")
    assert float(column(times, first, title("step_seconds_p50")).text) < 1000
    assert "n = 2/3" in column(times, first, title("step_seconds_p50")).note
    live = grid(shown, "by part")
    assert "n = " not in column(live, live.rows[0], "peak").note


def test_the_machines_have_a_section_of_what_ran_and_what_agrees(shown):
    assert section(shown, "machines").lead.startswith("Rows of 2 machines")
    where = grid(shown, "What ran where")
    assert [r[0].text for r in where.rows] == ["Example CPU @ 2 GHz", "Other CPU"]
    assert [r[1].text for r in where.rows] == ["4 of 4", "4 of 4"]
    assert "seeds 1 and 2" in where.rows[1][2].text
    [agrees] = grid(shown, "What agrees").rows
    assert [e.text for e in agrees[1:]] == ["2", "0", "2", "0.0000"]
    assert agrees[1].note == "2 made with other versions"


def test_times_of_each_machine_stand_apart_in_the_section(shown):
    apart = grid(shown, "Times and meters by machine")
    found = {
        (r[0].text, r[1].text): column(apart, r, title("step_seconds_p50")) for r in apart.rows
    }
    slow, fast = found["LoRA r8", "Other CPU"], found["LoRA r8", "Example CPU @ 2 GHz"]
    assert slow.sort is not None and fast.sort is not None
    assert 90 < slow.sort / fast.sort < 110
    assert (slow.note, fast.note) == ("n = 2", "n = 2")


def test_one_machine_has_no_such_section(rows):
    alone = show([r for r in rows if r.environment is not THERE])
    assert "machines" not in [s.key for s in alone.sections]
    assert not any("machines" in note for note in alone.notes)
    assert "GHz alone" not in grid(alone, "Time and work").note


@pytest.mark.slow
@pytest.mark.heavy
def test_the_rows_beside_the_page_are_all_there_and_say_their_machine(tmp_path, rows):
    planned = list({r.job.job_id: r.job for r in rows}.values())
    files = write(tmp_path, rows, planned)
    found = list(csv.DictReader(files["rows.csv"].splitlines()))
    assert len(found) == 8
    assert {r["machine"] for r in found} == {machine_of(r.environment) for r in rows}
    assert all(r["step_seconds_p50"] for r in found)
    assert "On which machines" in files["report.md"]


def test_advice_says_whose_times_they_are(rows):
    [table], notes = tables_of(rows)
    assert len(table.slots) == 6 and table.strays == 0
    assert len(notes) == 1 and notes[0].startswith("Rows of 2 machines")

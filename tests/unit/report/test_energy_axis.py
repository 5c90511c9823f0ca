"""The axis of energy: what a meter counted, or the processor's seconds under their own name."""

from dataclasses import replace

import pytest

from factory import LORA, QLORA, REPORT_OPTIONS, make_matrix
from peftmark.analysis.table import build
from peftmark.catalog.methods import cell_title
from peftmark.core.amounts import parse_watts
from peftmark.core.errors import UserError
from peftmark.record.job import RadarAxis
from peftmark.render import chart_specs
from peftmark.report import axes, energy, radar
from peftmark.report.stars import AXES
from peftmark.suite.load import load_suite, suite_names
from places import ROOT
from shown import grid, row, section, show

ANCHORS = RadarAxis(4.0, 0.25, "log")
OPTIONS = replace(REPORT_OPTIONS, radar={**REPORT_OPTIONS.radar, "energy": ANCHORS})
STAND_IN = "processor time (stands in for energy)"


def rows(read, device="cpu"):
    """LoRA and QLoRA; `read` gives what to change of an outcome from a cell and a seed."""
    made = make_matrix([LORA, QLORA], ["sst2"], range(3))
    return [
        replace(
            r,
            job=replace(r.job, device=device),
            outcome=replace(r.outcome, **read(r.job.cell, r.job.seed)),
        )
        for r in made
    ]


def table_of(records):
    return build(records, [r.job for r in records], LORA)


def joules(cell, seed):
    return {"energy_cpu_joules": (100.0 if cell == LORA else 50.0) + seed, "cpu_seconds": 1.0}


def seconds(cell, _):
    return {"cpu_seconds": 10.0 if cell == LORA else 20.0}


def of_radar(records, cell, options=OPTIONS):
    """The entry of a cell in the radar's column of energy, with the column's title."""
    table = table_of(records)
    name = axes.named(table, "energy", options)[0]
    one = next(c for c in table.cells if cell_title(*c) == cell)
    entry = axes.entry(table, one, "energy", options)
    shown = grid(show(records, options=options), "numbers of the radar")
    texts = [e.text for r in shown.rows for e in r if r[0].text == cell]
    assert entry.text in texts or entry.note in shown.note
    return name, entry


def test_counted_joules_are_called_energy():
    name, entry = of_radar(rows(joules), "QLoRA r8")
    assert name == "energy"
    assert (entry.text, entry.sort) == ("0.50×", pytest.approx(0.5, abs=0.01))
    (point,) = radar.points(
        table_of(rows(joules)), QLORA, replace(OPTIONS, radar={"energy": ANCHORS})
    )
    assert point.position == pytest.approx(0.75, abs=0.01)


def test_what_weakens_a_meter_stands_beside_its_figure():
    flagged = rows(lambda c, s: {**joules(c, s), "energy_flags": ("contended",)})
    assert of_radar(flagged, "QLoRA r8")[1].note == "contended"


def test_without_a_meter_processor_time_stands_in_and_says_so():
    name, entry = of_radar(rows(seconds), "QLoRA r8")
    assert (name, entry.text, entry.note) == (STAND_IN, "2.00×", "")
    shown = show(rows(seconds), options=OPTIONS)
    (drawn,) = [f.drawing for f in shown.figures() if isinstance(f.drawing, chart_specs.Radar)]
    assert STAND_IN in drawn.axes
    (finding,) = [f.finding for f in shown.figures() if f.drawing is drawn]
    assert "inside in speed and processor time." in finding
    anchors = section(shown, "glance").blocks[0]
    told = (
        "processor time (stands in for energy; CPU time of the timed steps, ratio to the reference)"
    )
    assert told in anchors.text


def test_stated_watts_are_in_the_name_give_joules_and_leave_the_ratio():
    name, entry = of_radar(rows(seconds), "QLoRA r8", replace(OPTIONS, watts=15.0))
    assert name == "processor seconds × 15 W (stands in for energy)"
    assert (entry.text, entry.note) == ("2.00×", "300 J")
    assert "stated, not measured" in energy.basis(table_of(rows(seconds)), 15.0).meaning
    counted, entry = of_radar(rows(joules), "QLoRA r8", replace(OPTIONS, watts=15.0))
    assert (counted, entry.note) == ("energy", "")


def test_a_gpus_energy_has_no_stand_in():
    def unknown(cell, seed):
        return {**seconds(cell, seed), "null_reasons": {"energy_gpu_joules": "no such counter"}}

    name, entry = of_radar(rows(unknown, "cuda"), "QLoRA r8", replace(OPTIONS, watts=15.0))
    assert (name, entry.text, entry.note) == ("energy", "n/a", "no such counter")


def test_one_counted_cell_makes_energy_of_it_and_the_others_unknown():
    half = rows(lambda c, s: joules(c, s) if c == LORA else seconds(c, s))
    name, entry = of_radar(half, "QLoRA r8")
    assert (name, entry.text, entry.note) == ("energy", "n/a", "no RAPL counters on this machine")


def test_rows_without_either_have_no_energy_and_say_why():
    name, entry = of_radar(rows(lambda *_: {"cpu_seconds": None}), "QLoRA r8")
    assert (name, entry.text, entry.note) == ("energy", "n/a", "no RAPL counters on this machine")


def test_stars_of_the_stand_in_bear_its_name():
    stars = row(show(rows(seconds), options=OPTIONS), "In stars", "QLoRA r8")
    assert (stars[4].text, stars[4].note) == ("★", "2.00×")
    table = grid(show(rows(seconds), options=OPTIONS), "In stars")
    assert table.columns[4].title == "processor time"
    assert table.columns[4].hint == "stands in for energy"
    assert "processor time 1.59× and 0.63×" in table.note


@pytest.mark.parametrize("text", ["0", "-3", "15V", "1e5", "100000", "", "15 W per core"])
def test_what_is_no_number_of_watts_is_refused(text):
    with pytest.raises(UserError, match="--watts: found") as told:
        parse_watts("--watts", text)
    assert "such as 15 or 15W" in str(told.value.remedy)


@pytest.mark.parametrize(("text", "value"), [("15", 15.0), ("7.5W", 7.5), ("280 W", 280.0)])
def test_watts_are_read(text, value):
    assert parse_watts("--watts", text) == value


@pytest.mark.parametrize("name", suite_names(ROOT / "suites"))
def test_every_suite_of_ours_has_anchors_of_energy(name):
    options = load_suite(name, ROOT / "suites").report
    assert options.radar["energy"] == ANCHORS and options.watts is None
    assert set(AXES) - set(options.radar) <= {"ease_of_use"}


def test_an_axis_nobody_knows_has_no_value():
    assert axes.axis_value(table_of(rows(seconds)), LORA, "beauty").reason == "unknown axis"


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["a", "b"], "a and b"),
        (["a", "b", "c"], "a, b and c"),
        (["b", "c", "d", "e"], "all but a and f"),
        (["a", "b", "c", "d", "e", "f"], "all"),
    ],
)
def test_many_axes_are_named_by_those_left_out(names, text):
    assert radar._most(names, list("abcdef")) == text

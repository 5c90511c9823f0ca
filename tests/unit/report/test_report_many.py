"""Pages of many cells: what pictures leave out, long tables, looks, and cells that can't run."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from factory import (
    ADALORA,
    FULL,
    HEAD,
    LORA,
    QLORA,
    make_failure,
    make_job,
    make_matrix,
    make_outcome,
    make_recipe,
    make_record,
    make_trials,
)
from peftmark.advice import plain_lines
from peftmark.analysis import table
from peftmark.catalog.methods import METHODS, Cell, all_methods
from peftmark.render import chart_specs, page, words
from peftmark.render import style as canvas
from peftmark.render.series import OTHER, SERIES
from peftmark.report import cell_selection, summary
from seen import seen
from shown import column, fail, grid, paragraphs, row, section, show, write


def cells(n):
    """Reference lines first, then named methods, then ranks of LoRA."""
    named = [Cell(key, 8 if m.size else None, "none") for key, m in METHODS.items()]
    ranks = [Cell("lora", rank, "none") for rank in range(100, 200)]
    return list(dict.fromkeys([LORA, FULL, HEAD, QLORA, *named, *ranks]))[:n]


def built(rows):
    return table.build(rows, [r.job for r in rows], LORA)


@pytest.fixture(scope="module")
def many():
    return make_matrix(cells=cells(80), tasks=["sst2"], seeds=[0, 1])


@pytest.fixture(scope="module")
def shown(many):
    return show(many)


# --- pictures ------------------------------------------------------------------------------------


def test_few_cells_are_all_drawn():
    few = built(make_matrix(cells=cells(20), seeds=[0]))
    assert cell_selection.picks(few) == few.cells
    assert cell_selection.left_out(few, 20, "a table") == ""


def test_of_many_cells_the_reference_the_lines_and_the_best_of_each_kind_are_drawn(many):
    found = built(many)
    drawn = cell_selection.picks(found)
    assert len(drawn) == cell_selection.MOST
    assert {LORA, FULL, HEAD} <= set(drawn)
    assert list(drawn) == [cell for cell in found.cells if cell in drawn]
    look = page.marks(found.cells)
    assert {look[c].series for c in found.cells} == {look[c].series for c in drawn}
    best = {}
    for cell in found.cells:
        score = table.overall_score(found, cell).estimate.mean
        best.setdefault(look[cell].series, []).append((score, cell))
    assert all(max(ranked)[1] in drawn for ranked in best.values())


def test_the_reference_is_drawn_however_bad_it_is(many):
    bad = [replace(r, outcome=make_failure("diverged")) if r.job.cell == LORA else r for r in many]
    assert LORA in cell_selection.picks(built(bad))


@pytest.mark.slow
@pytest.mark.heavy
def test_every_picture_that_leaves_cells_out_says_so(shown, many):
    for figure in shown.figures():
        if isinstance(figure.drawing, chart_specs.Strip | chart_specs.Stack | chart_specs.Dots):
            # The best cell is the line that the others are held against.
            assert len(figure.drawing.rows) == 20 - (figure.name == "to-the-best"), figure.name
            assert "Drawn: 20 of 80 cells" in figure.note, figure.name
        if isinstance(figure.drawing, chart_specs.Curves):
            assert len(figure.drawing.lines) <= 6
    # The untouched base learns nothing, and two lines are fitted.
    assert "Drawn: 20 of 77 cells" in paragraphs(shown, "learning")
    (radar,) = [f for f in shown.figures() if isinstance(f.drawing, chart_specs.Radar)]
    assert len(radar.drawing.drawn) == 3 and len(radar.drawing.outlines) == 40
    numbers = grid(shown, "numbers of the radar")
    assert len(numbers.rows) == 80 and numbers.folded
    for caption in ("Every cell against", "Score after", "Costs relative"):
        assert len(grid(shown, caption).rows) >= 80
    assert len(grid(shown, "Steps to the target").rows) == 77


@pytest.mark.slow
def test_curves_of_a_task_stay_in_panels_with_the_reference(shown):
    panels = [f.drawing for f in shown.figures() if isinstance(f.drawing, chart_specs.Curves)]
    assert len(panels) == 4
    assert {panel.lines[0].mark.label for panel in panels} == {"LoRA r8"}
    names = [line.mark.label for panel in panels for line in panel.lines[1:]]
    assert len(names) == len(set(names)) == 19


def test_rates_of_many_cells_stay_in_panels(tmp_path):
    rows = make_trials(cells=cells(30), tasks=["sst2"])
    found = show(rows)
    panels = [f for f in found.figures() if isinstance(f.drawing, chart_specs.Sweep)]
    assert [len(f.drawing.lines) for f in panels] == [6, 6, 6, 5]
    assert all(f.finding.count("e-3") == len(f.drawing.lines) for f in panels)
    assert "Drawn: 20 of 30 cells" in paragraphs(found, "tuning")


# --- sentences and tables ------------------------------------------------------------------------


def lowered(record, by):
    outcome = replace(record.outcome, metric_value=record.outcome.metric_value - by)
    return replace(record, outcome=outcome)


@pytest.mark.heavy
def test_many_cells_are_counted_and_the_furthest_named(shown):
    rows = make_matrix(cells=cells(80), tasks=["sst2"], seeds=range(5))
    low = set(cells(80)[10:])
    found = built([lowered(r, 0.1) if r.job.cell in low else r for r in rows])
    text = summary.finding(found).removeprefix(plain_lines.sentence(found))
    assert len(plain_lines.sentence(found)) < 300
    assert re.search(r"\d+ cells, furthest .+, scored lower", text)
    assert len(text) < 600
    assert len(section(shown, "costs").blocks[1].text) < 400


def test_some_names_the_first_and_counts_the_rest():
    assert words.some(["a", "b"]) == "a and b"
    assert words.some(list("abcdefg"), 7) == "a, b, c, d, e, f and g"
    assert words.some(list("abcdefg")) == "a, b, c and 4 more"


@pytest.mark.slow
@pytest.mark.heavy
def test_a_page_of_ninety_cells_opens_as_short_as_one_of_six(tmp_path):
    every = [Cell(key, 8 if m.size else None, "none") for key, m in all_methods().items()]
    ranks = [Cell("lora", rank, "none") for rank in range(100, 120)]
    most = list(dict.fromkeys([LORA, FULL, HEAD, QLORA, *every, *ranks]))[:90]
    page = write(tmp_path, make_matrix(cells=most, tasks=["sst2"], seeds=[0, 1]))["index.html"]
    found = seen(page)
    assert len(most) == 90
    assert len(found.words) <= 1200
    assert 1 <= len(found.tables) <= 4


@pytest.mark.slow
def test_long_tables_scroll_on_the_page_and_fold_in_markdown(tmp_path, many):
    files = write(tmp_path, many)
    assert 'class="scroll tall"' in files["index.html"]
    assert "<summary>Score after the last step" in files["report.md"]
    few = write(tmp_path, make_matrix(cells=cells(5), tasks=["sst2"]))
    assert 'class="scroll tall"' not in few["index.html"]


# --- looks ---------------------------------------------------------------------------------------


def test_families_have_looks_of_their_own():
    found = page.marks(tuple(cells(len(all_methods()))))
    series = {cell.method: mark.series for cell, mark in found.items() if cell != QLORA}
    assert series["dora"] == series["lora"] == "lora"
    assert (series["adapter"], series["bitfit"], series["p-tuning"]) == (
        "adapter",
        "selective",
        "prompt",
    )
    assert found[LORA].variant == 0
    assert page.marks((Cell("dora", 8, "int8"),))[Cell("dora", 8, "int8")].series == "lora-nf4"
    everything = tuple(Cell(key, None, "none") for key in all_methods())
    kinds = {mark.series for mark in page.marks(everything).values()}
    assert kinds == set(SERIES) - {"lora-nf4", "adalora-nf4", OTHER}


@pytest.mark.parametrize(
    "series",
    [["lora"] * 6, ["lora"] * 3 + ["adalora"] * 3, ["mixed"] * 4 + ["full", "other"], ["peft"] * 6],
)
def test_lines_of_one_picture_differ(series):
    marks = [chart_specs.Mark(str(i), name, 4 * i) for i, name in enumerate(series)]
    found = canvas.looks(marks)
    looks = {(s["color"], str(s["linestyle"]), s["marker"], s["fillstyle"]) for s in found}
    assert len(looks) == len(marks)
    if series.count(series[0]) > canvas.MOST_ALIKE:
        assert len({style["color"] for style in found}) == len(marks)
    assert found[0]["color"] == canvas.COLOURS[series[0]]


def test_a_long_name_keeps_its_end():
    name = "two-stage LoRA → AdaLoRA + NF4 r16"
    assert canvas.label(chart_specs.Mark(name, "mixed")).replace("\n", " ") == name
    both = canvas.label(chart_specs.Mark(f"{name}, budget 0.1%, bf16", "mixed"))
    assert both == f"{name}\nbudget 0.1%, bf16"


# --- cells that can't run ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.heavy
def test_a_cell_that_cannot_run_stands_in_one_table_with_its_reason(tmp_path):
    rows = make_matrix(cells=[LORA, ADALORA, QLORA], tasks=["sst2", "stsb"])
    rows = [fail(r, "unsupported", "no 4-bit\ncode") if r.job.cell == QLORA else r for r in rows]
    found = show(rows)
    [entry] = grid(found, "can't run here").rows
    assert [e.text for e in entry] == ["QLoRA r8", "no 4-bit code", "6 of 6"]
    assert "1 cell can't run here at all." in section(found, "coverage").lead
    assert "1 cell that can't run here stand" in grid(found, "one mark a seed").note
    text = write(tmp_path, rows)["report.md"]
    before, after = text.split("## Run it again")
    assert before.count("QLoRA r8") == 1
    assert after.count("QLoRA r8") == 6


def test_a_cell_that_runs_somewhere_and_the_reference_stay_in_every_table():
    rows = make_matrix(cells=[LORA, QLORA], tasks=["sst2", "stsb"])
    partly = [fail(r, "unsupported") if r.job.cell == QLORA and r.job.seed else r for r in rows]
    assert built(partly).unsupported == ()
    assert len(grid(show(partly), "Failures").rows) == 4
    none = [fail(r, "unsupported") if r.job.cell == LORA else r for r in rows]
    assert built(none).unsupported == ()
    assert row(show(none), "Score after", "LoRA r8")[1].text == "unsupported ×3"


# --- sizes and budgets ---------------------------------------------------------------------------


def test_a_budget_is_shown_with_what_it_gave():
    job = make_job(size=None, variant="budget 0.1%", recipe=make_recipe(budget="0.1%"))
    outcome = make_outcome(
        solved_size=7,
        budget_parameters=75_000,
        adapter_parameters=90_000,
        head_parameters=149_378,
        active_parameters=149_378 + 74_250,
    )
    found = show([make_record(), make_record(job=job, outcome=outcome)])
    parameters = grid(found, "Parameters")
    lora, budget = parameters.rows
    assert column(parameters, lora, "size").text == "8"
    assert column(parameters, lora, "budget").note == "the suite gives the size, not a budget"
    assert column(parameters, lora, "adapter parameters").text == "73,728"
    size, wanted = (column(parameters, budget, title) for title in ("size", "budget"))
    assert (size.text, size.note) == ("7", "from the budget")
    assert (wanted.text, wanted.note) == ("75,000", "has 74,250, −1.0\u00a0%")
    assert "matched by their adapter's parameters" in paragraphs(found, "costs")
    plain = grid(
        show([make_record(), make_record(job=make_job(method="bitfit", size=None))]), "Par"
    )
    assert "budget" not in [c.title for c in plain.columns]
    assert column(plain, plain.rows[1], "size").note == "the method has no size"

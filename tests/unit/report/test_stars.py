"""Stars: thirds between the anchors, one number for cells that no verdict tells apart."""

import random
from dataclasses import replace

import pytest

from factory import ADALORA, FULL, HEAD, LORA, QLORA, REPORT_OPTIONS, make_matrix
from peftmark.analysis.table import build
from peftmark.record.job import RadarAxis
from peftmark.render import html, markdown, page
from peftmark.report import stars
from shown import column, fail, grid, on, paragraphs, row, show

OPTIONS = replace(
    REPORT_OPTIONS,
    radar={
        "energy": RadarAxis(4.0, 0.25, "log"),
        "ease_of_use": RadarAxis(0.0, 1.0, "linear"),
        **REPORT_OPTIONS.radar,
    },
)


def noise(job):
    return random.Random(f"{job.cell} {job.seed}").gauss(0, 0.001)


def rows(values, cells=(LORA, ADALORA, QLORA, FULL), seeds=range(5)):
    """One task on which a perfect score is 1 and a constant guess has 0.

    Args:
        values: cell -> its level; seeds differ by about a thousandth.
    """
    return [
        replace(
            r,
            outcome=replace(
                r.outcome,
                metric_value=values[r.job.cell] + noise(r.job),
                baseline_value=0.0,
            ),
        )
        for r in make_matrix(cells, ["sst2"], seeds)
    ]


def quality(records, options=OPTIONS):
    """Cell -> stars of quality, and the figure beside them."""
    found = grid(show(records, options=options), "In stars")
    return {r[0].text: (r[1].text, r[1].note.partition(";")[0]) for r in found.rows}


@pytest.mark.parametrize(
    ("position", "count"),
    [(0.0, 1), (0.333, 1), (1 / 3, 2), (0.5, 2), (0.666, 2), (2 / 3, 3), (1.0, 3)],
)
def test_stars_are_thirds_and_a_cut_is_the_upper_one(position, count):
    assert stars.stars_of(position) == count


def test_thirds_of_a_log_axis_are_said_and_kept():
    found = grid(show(rows(dict.fromkeys((LORA, ADALORA, QLORA, FULL), 0.8))), "In stars")
    cuts = "quality 0.333 and 0.667; speed 0.63× and 1.59×; memory 1.59× and 0.63×."
    assert f"Two and three begin at: {cuts}" in found.note
    memory = {r[0].text: column(found, r, "memory") for r in found.rows}
    assert (memory["LoRA r8"].text, memory["LoRA r8"].note) == ("★★", "1.00×")
    assert (memory["QLoRA r8"].text, memory["QLoRA r8"].note) == ("★★★", "0.58×")
    assert (memory["full fine-tuning"].text, memory["full fine-tuning"].note) == ("★", "1.75×")


def test_cells_that_are_told_apart_have_stars_of_their_own():
    found = quality(rows({LORA: 0.2, ADALORA: 0.5, QLORA: 0.8, FULL: 0.9}))
    assert [text for text, _ in found.values()] == ["★", "★★★", "★★", "★★★"]
    assert found["LoRA r8"][1].startswith("0.20")


def test_cells_that_no_verdict_tells_apart_share_their_stars():
    near = quality(rows({LORA: 0.667, ADALORA: 0.667, QLORA: 0.3, FULL: 0.9}))
    sides = {float(near[name][1]) < 0.667 for name in ("LoRA r8", "AdaLoRA r8")}
    assert sides == {True, False}  # the figures lie on both sides of the cut
    assert near["LoRA r8"][0] == near["AdaLoRA r8"][0] == "★★ to ★★★"
    assert (near["QLoRA r8"][0], near["full fine-tuning"][0]) == ("★", "★★★")


def test_what_hangs_together_through_another_shares_too(monkeypatch):
    table = build(
        made := rows({LORA: 0.2, ADALORA: 0.5, QLORA: 0.8, FULL: 0.9}), [r.job for r in made], LORA
    )
    apart = {(ADALORA, LORA), (QLORA, LORA), (FULL, LORA), (FULL, ADALORA)}
    monkeypatch.setattr(stars, "shown_higher", lambda _, a, b: (a, b) in apart)
    found = {r[0].text: r[1].text for r in stars.grid(table, OPTIONS).rows}
    assert found["LoRA r8"] == "★"
    assert {found[name] for name in ("AdaLoRA r8", "QLoRA r8", "full fine-tuning")} == {"★★ to ★★★"}


def test_one_seed_tells_nothing_apart():
    found = quality(rows({LORA: 0.2, ADALORA: 0.5, QLORA: 0.8, FULL: 0.9}, seeds=[0]))
    assert {text for text, _ in found.values()} == {"★ to ★★★"}


def test_a_verdict_against_the_axis_gives_nobody_more_stars(monkeypatch):
    made = rows({LORA: 0.2, ADALORA: 0.5}, (LORA, ADALORA))
    table = build(made, [r.job for r in made], LORA)
    monkeypatch.setattr(stars, "shown_higher", lambda _, a, b: (a, b) == (LORA, ADALORA))
    assert {r[1].text for r in stars.grid(table, OPTIONS).rows} == {"★ to ★★"}


def test_failed_cells_and_unknown_figures_have_no_stars_and_say_why():
    made = rows(dict.fromkeys((LORA, ADALORA, QLORA, FULL), 0.8))
    broken = [fail(r) if r in on(made, FULL) else r for r in made]
    unmetered = [
        replace(r, outcome=replace(r.outcome, peak_memory_source="other"))
        if r.job.cell == QLORA
        else r
        for r in broken
    ]
    shown = show(unmetered, options=OPTIONS)
    failed = row(shown, "In stars", "full fine-tuning")
    assert failed[1].note == "sst2: out of memory ×5"
    assert {e.kind for e in failed[1:]} <= {"missing", "failed"}
    assert not any("★" in e.text for e in failed[1:])
    found = grid(shown, "In stars")
    memory = column(found, row(shown, "In stars", "QLoRA r8"), "memory")
    assert (memory.text, memory.note) == ("n/a", "measured differently from the reference")
    assert "ease of use" not in [c.title for c in found.columns]


def test_ease_of_use_is_left_out_where_nothing_was_tuned_and_no_axis_makes_no_table():
    shown = show(rows(dict.fromkeys((LORA, HEAD), 0.8), (LORA, HEAD)), options=OPTIONS)
    titles = [c.title for c in grid(shown, "In stars").columns]
    assert titles == ["cell", "quality", "speed", "memory", "processor time"]
    bare = replace(OPTIONS, radar={"parameters": RadarAxis(4.0, 0.25, "log")})
    none = show(rows(dict.fromkeys((LORA, HEAD), 0.8), (LORA, HEAD)), options=bare)
    assert "In stars" not in [g.caption for s in none.sections for g in s.grids()]


def test_a_sentence_says_what_stars_hide_and_the_figures_are_those_of_the_radar():
    shown = show(rows({LORA: 0.2, ADALORA: 0.5, QLORA: 0.8, FULL: 0.9}), options=OPTIONS)
    assert "Stars hide how large a difference is" in grid(shown, "In stars").note
    assert "Anchors" in paragraphs(shown, "glance")
    numbers = {r[0].text: r for r in grid(shown, "numbers of the radar").rows}
    for entries in grid(shown, "In stars").rows:
        mine = {e.note.partition(";")[0] for e in entries[1:]}
        assert mine <= {e.text for e in numbers[entries[0].text][1:]}


def test_an_unusual_amount_of_training_is_said_beside_the_stars_of_quality():
    made = rows(dict.fromkeys((LORA, FULL), 0.8), (LORA, FULL))
    longer = [
        replace(r, outcome=replace(r.outcome, steps=240)) if r.job.cell == FULL else r for r in made
    ]
    entry = row(show(longer, options=OPTIONS), "In stars", "full fine-tuning")[1]
    assert "saw 2.00× the rows of LoRA r8" in entry.note


def test_a_figure_that_is_not_above_zero_has_no_third_of_a_log_axis():
    axis = {"quality": RadarAxis(0.1, 1.0, "log")}
    found = quality(rows({LORA: 0.5, HEAD: -0.5}, (LORA, HEAD)), replace(OPTIONS, radar=axis))
    assert found["head only"] == ("n/a", "−0.500 is not above 0")


def test_stars_are_read_out_as_numbers_and_sort_by_the_figure():
    entries = (page.Entry("a"), page.Entry("★ to ★★★", "0.7", "stars", 0.7))
    table = page.Grid("In stars", (page.Column("cell"), page.Column("q", numeric=True)), (entries,))
    section = page.Section("glance", "t", "lead", (table,))
    shown = page.Page("t", (), "finding", (), "", (), (), (section,))
    text = html.render(shown, {})
    assert 'role="img" aria-label="1 to 3 stars">★ to ★★★</span>' in text
    assert 'data-sort="0.7"' in text
    assert "| a | ★ to ★★★<br>0.7 |" in markdown.render(shown)

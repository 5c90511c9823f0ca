import base64
import hashlib
import os
import random
import re
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from factory import (
    ADALORA,
    FULL,
    HEAD,
    LORA,
    QLORA,
    REPORT_OPTIONS,
    make_job,
    make_matrix,
    make_outcome,
    make_record,
)
from peftmark.analysis import table
from peftmark.catalog.methods import Cell
from peftmark.core.errors import StoreError
from peftmark.record.job import RadarAxis
from peftmark.render import chart_specs, markdown, page, words
from peftmark.render import draw as charts
from peftmark.report import axes, missing, summary
from peftmark.report import radar as glance
from shown import fail, grid, on, row, show, write

HOSTILE = "</script><b>|\n`@here` & <img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def matrix():
    """Three cells with a failed, a diverged and a missing job among them."""
    rows = make_matrix(cells=[LORA, ADALORA, QLORA, FULL])
    rows = [fail(r) if r in on(rows, FULL, "stsb") else r for r in rows]
    return [fail(r, "diverged", "NaN") if r is on(rows, ADALORA, "sst2")[0] else r for r in rows]


@pytest.mark.heavy
def test_same_rows_same_bytes_in_any_order(tmp_path, matrix, pictures_are_drawn):
    shuffled = random.Random(1).sample(matrix, len(matrix))
    planned = [r.job for r in matrix]
    first = write(tmp_path / "a", matrix, planned)
    assert write(tmp_path / "b", shuffled, planned) == first
    assert any(name.startswith("figures/") for name in first)


def test_one_self_contained_page(tmp_path, matrix):
    text = write(tmp_path, matrix)["index.html"]
    addresses = set(re.findall(r"https?://[^\"'\s<)]*", text))
    papers = {a for a in addresses if re.fullmatch(r"https://arxiv\.org/abs/\d{4}\.\d{5}", a)}
    assert addresses - papers <= {"http://www.w3.org/2000/svg"}
    assert all(text.count(a) == text.count(f'<a href="{a}">') for a in papers)
    assert "@import" not in text
    links = re.findall(r"(?:src|href)=\"(?!#)([^\"]*)", text)
    assert [x for x in links if x not in papers] == ["rows.parquet", "rows.csv", "report.md"]
    assert all((tmp_path / link).is_file() for link in links if link not in papers)
    script = re.search(r"<script>(.*?)</script>", text, re.S)[1]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src" in text
    assert f"script-src 'sha256-{digest}'" in text


def test_ids_are_unique_and_references_resolve(tmp_path, matrix):
    text = write(tmp_path, matrix)["index.html"]
    ids = Counter(re.findall(r'\bid="([^"]+)"', text))
    assert [name for name, n in ids.items() if n > 1] == []
    used = set(re.findall(r"url\(#([^)]+)\)", text)) | set(re.findall(r'href="#([^"]+)"', text))
    assert used <= set(ids)


def test_every_element_is_closed(tmp_path, matrix):
    class Checker(HTMLParser):
        def __init__(self):
            super().__init__()
            self.open = []

        def handle_starttag(self, tag, attributes):
            if tag not in ("meta", "br", "input"):
                self.open.append(tag)

        def handle_endtag(self, tag):
            assert self.open.pop() == tag

    checker = Checker()
    checker.feed(write(tmp_path, matrix)["index.html"])
    assert checker.open == []


def test_hostile_strings_are_escaped_everywhere(tmp_path):
    rows = make_matrix(cells=[LORA, HEAD])
    bad = replace(fail(rows[0], "crashed", HOSTILE), command=HOSTILE)
    source = replace(rows[1], outcome=replace(rows[1].outcome, data_source=HOSTILE))
    files = write(tmp_path, [bad, source, *rows[2:]], summary=HOSTILE, notes=[HOSTILE])
    html, text = files["index.html"], files["report.md"]
    assert html.count("</script>") == 1
    assert "<b>" not in html and "<img" not in html
    assert html.count("&lt;/script&gt;&lt;b&gt;|") >= 5
    assert "</script>" not in text and "<b>" not in text and "<img" not in text
    assert "&lt;/script&gt;&lt;b&gt;\\|" in text
    assert not re.search(r"(?<![\\])`", text)
    assert "@here" not in text
    line = next(line for line in text.splitlines() if line.startswith("| LoRA r8 | sst2 | 0 |"))
    assert len(re.findall(r"(?<!\\)\|", line)) == 7


@pytest.mark.slow
def test_hostile_names_do_not_break_pictures(tmp_path):
    rows = make_matrix(cells=[LORA, Cell(HOSTILE + "$x_$ --> #010203", 8, "none")])
    files = write(tmp_path, rows)
    assert "<b>" not in files["index.html"]
    assert "<b>" not in files["figures/summary.svg"]


def test_failed_cells_are_visible_and_never_zero_or_blank(matrix):
    shown = show(matrix)
    scores = row(shown, "Score after the last step", "full fine-tuning")
    assert (scores[2].text, scores[2].kind) == ("out of memory ×3", "failed")
    assert (scores[3].text, scores[3].note) == ("n/a", "stsb: out of memory ×3")
    costs = [r for r in grid(shown, "Time and work").rows if r[0].text == "full fine-tuning"]
    assert {e.text for e in costs[1][2:]} == {"out of memory ×3"}
    assert len(grid(shown, "Failures").rows) == 4
    grids = [b for s in shown.sections for b in s.blocks if isinstance(b, page.Grid)]
    assert all(entry.text.strip() for g in grids for entries in g.rows for entry in entries)


def test_a_cell_with_failures_is_marked_incomplete(matrix):
    scores = row(show(matrix), "Score after the last step", "AdaLoRA r8")
    assert scores[1].note == "n = 2/3 incomplete: diverged"
    assert scores[3].note == "n = 2/3 incomplete"


def test_a_null_is_printed_with_the_reason_of_its_row():
    null = {"tokens_per_second": "the clock stood still", "adapter_bytes": "nothing was saved"}
    bare = make_outcome(**dict.fromkeys(null), null_reasons=null)
    shown = show([make_record(outcome=bare), make_record(job=make_job(method="adalora"))])
    for caption, name, reason in (
        ("Time and work", "training tokens a second", null["tokens_per_second"]),
        ("to deploy", "adapter on disk", null["adapter_bytes"]),
    ):
        found = grid(shown, caption)
        entry = found.rows[0][[c.title for c in found.columns].index(name)]
        assert (entry.text, entry.note, entry.kind) == ("n/a", reason, "missing")


def test_a_column_without_any_value_becomes_a_sentence_with_its_reason():
    shown = show(make_matrix(cells=[LORA, HEAD]))
    time = grid(shown, "Time and work")
    assert "energy" not in [c.title for c in time.columns]
    assert "Without a value in any row: energy (no RAPL counters on this machine)." in time.note
    meters = grid(shown, "other meters")
    names = (
        "memory allocated by torch, memory reserved by torch, process memory by NVML and device "
        "memory by NVML"
    )
    assert f"{names} (the job ran on the CPU)" in meters.note
    nothing = page.Grid(
        "x", (page.Column("a"), page.Column("b")), ((page.Entry("y"), words.missing("z")),)
    )
    assert missing.fold_missing(nothing, 1) == nothing
    failed = (page.Entry("y"), page.Entry("out of memory", kind="failed"), page.Entry("1"))
    broken = page.Grid("x", tuple(page.Column(c) for c in "abc"), (failed,))
    assert missing.fold_missing(broken, 1) == broken


def test_coverage_counts_every_planned_job(tmp_path, matrix):
    planned = [r.job for r in matrix]
    stray = make_record(job=make_job(profile="other"))
    text = write(tmp_path, [*matrix[:-6], stray], planned)["index.html"]
    assert "24 jobs planned: 17 ok, 1 failed, 6 not run yet. Failed: diverged 1." in text
    assert "1 stored row belongs to no job of this profile" in text


def test_nothing_ran_is_still_a_report(tmp_path):
    files = write(tmp_path, [], [make_job()])
    assert "Nothing has run yet" in files["index.html"]
    assert "1 job planned: 0 ok, 0 failed, 1 not run yet." in files["report.md"]
    assert "Nothing planned" in write(tmp_path, [], [])["index.html"]


def test_everything_failed_is_still_a_report(tmp_path):
    rows = [fail(r) for r in make_matrix()]
    assert "No run finished" in write(tmp_path, rows)["index.html"]


@pytest.mark.slow
def test_profile_model_and_scale_stand_at_the_top(tmp_path, matrix):
    text = write(tmp_path, matrix)["report.md"].splitlines()
    assert text[0] == "# demo, profile quick"
    assert "on all-MiniLM-L6-v2 (encoder), cpu" in text[2]
    assert "- **model:** all-MiniLM-L6-v2 (encoder)" in text
    caveat = "runs failed, reduced scale (120 steps) and only 3 seeds: a longer run may order"
    assert any(caveat in line for line in text[:8])
    assert any(line.startswith("> **Reduced scale: profile quick, 120 optimizer") for line in text)
    full = write(tmp_path, make_matrix(cells=[LORA], profile="full"))["report.md"]
    assert "Reduced scale" not in full


def scores(**by_cell):
    """One task; the values of each cell by seed."""
    rows = [
        make_record(
            job=make_job(method=method, seed=seed), outcome=make_outcome(metric_value=value)
        )
        for method, values in by_cell.items()
        for seed, value in enumerate(values)
    ]
    return table.build(rows, [r.job for r in rows], LORA)


def test_the_finding_claims_a_difference_only_where_the_paired_interval_excludes_zero():
    apart = summary.finding(scores(lora=[0.80, 0.84, 0.88], adalora=[0.75, 0.788, 0.832]))
    assert "AdaLoRA r8 (−0.050 ± 0.005) scored lower" in apart
    close = summary.finding(scores(lora=[0.80, 0.84, 0.88], adalora=[0.81, 0.82, 0.89]))
    assert "undecided: AdaLoRA r8 (0.000 ± 0.0" in close
    single = summary.finding(scores(lora=[0.80], adalora=[0.50]))
    assert "not judged, for lack of a usable interval: AdaLoRA r8 (−0.300)" in single
    assert "scored lower" not in single


def test_unreached_targets_get_no_number():
    never = make_outcome(target_reached=False, steps_to_target=None)
    rows = [
        make_record(job=make_job(seed=0), outcome=make_outcome(steps_to_target=60)),
        make_record(job=make_job(seed=1), outcome=never),
        make_record(job=make_job(method="adalora"), outcome=never),
    ]
    shown = show(rows)
    lora, adalora = row(shown, "Steps to", "LoRA r8"), row(shown, "Steps to", "AdaLoRA r8")
    assert (lora[1].text, lora[1].note, lora[2].text) == ("60", "", "1 of 2")
    assert (adalora[1].text, adalora[1].sort, adalora[2].text) == ("not reached", None, "0 of 1")
    radar = grid(shown, "numbers of the radar")
    assert "steps to target (1/2 pairs; 0/1 pairs)" in radar.note


def test_radar_points_do_not_depend_on_the_cohort():
    few, many = make_matrix(cells=[LORA, QLORA]), make_matrix(cells=[LORA, QLORA, FULL, HEAD])
    few_table = table.build(few, [r.job for r in few], LORA)
    many_table = table.build(many, [r.job for r in many], LORA)
    for cell in (LORA, QLORA):
        before = glance.points(few_table, cell, REPORT_OPTIONS)
        assert glance.points(many_table, cell, REPORT_OPTIONS) == before


@pytest.mark.parametrize(
    ("value", "axis", "expected"),
    [
        (1.0, RadarAxis(4.0, 0.25, "log"), (0.5, False)),
        (2.0, RadarAxis(4.0, 0.25, "log"), (0.25, False)),
        (8.0, RadarAxis(4.0, 0.25, "log"), (0.0, True)),
        (0.1, RadarAxis(4.0, 0.25, "log"), (1.0, True)),
        (0.75, RadarAxis(0.0, 1.0, "linear"), (0.75, False)),
        (-0.2, RadarAxis(0.0, 1.0, "linear"), (0.0, True)),
    ],
)
def test_radar_position_by_hand(value, axis, expected):
    point = axes.position(value, axis)
    assert (point.position, point.clipped) == (pytest.approx(expected[0]), expected[1])


def test_a_radar_axis_without_a_value_is_a_gap():
    mark = chart_specs.Mark("X", "lora")
    known, gap = chart_specs.RadarPoint(0.5), chart_specs.RadarPoint(None)

    def draw(points):
        outline = chart_specs.Outline(mark, points)
        drawing = chart_specs.Radar(("a", "b", "c"), (outline,))
        return charts.render(page.Figure("radar", "finding", drawing))

    assert ">n/a<" in draw((known, gap, known))
    assert ">n/a<" not in draw((known, known, known))
    assert "opacity: 0.12" in draw((known, known, known))
    assert "opacity: 0.12" not in draw((known, gap, known))


def test_pictures_follow_the_theme_and_keep_text(tmp_path, matrix):
    files = write(tmp_path, matrix)
    for name, text in files.items():
        if not name.endswith(".svg"):
            continue
        assert not set(re.findall(r"#01020[3-6]", text)), name
        assert 'role="img"' in text and "<title>" in text
        assert "prefers-color-scheme" in text
        assert "DejaVu" not in text
        assert "<text" in text
    assert "var(--c-lora,#0072b2)" in files["figures/summary.svg"]


@pytest.mark.slow
def test_a_failed_write_keeps_the_old_report(tmp_path, matrix, monkeypatch):
    old = write(tmp_path, make_matrix(cells=[LORA]))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreError, match="No space left"):
        write(tmp_path, matrix)
    monkeypatch.undo()
    assert {name: (tmp_path / name).read_text("utf-8") for name in old} == old
    assert list(tmp_path.rglob("*.tmp")) == []


def test_an_unwritable_folder_is_the_users_error(tmp_path, matrix):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StoreError):
        write(tmp_path / "taken", matrix)


def test_at_most_six_curves_a_picture():
    cells = [Cell("lora", rank, "none") for rank in (2, 4, 8, 16, 32, 64, 128, 256)]
    shown = show(make_matrix(cells=cells, tasks=["sst2"], seeds=[0]))
    panels = [f.drawing for f in shown.figures() if isinstance(f.drawing, chart_specs.Curves)]
    assert [len(p.lines) for p in panels] == [6, 3]
    assert all(p.lines[0].mark.label == "LoRA r8" for p in panels)
    assert panels[0].span == panels[1].span


def test_same_method_same_colour_and_ranks_differ_in_variant():
    marks = page.marks((LORA, Cell("lora", 16, "none"), QLORA, Cell("novel", 4, "none")))
    assert [marks[LORA].series, marks[LORA].variant] == ["lora", 0]
    assert marks[Cell("lora", 16, "none")] == chart_specs.Mark("LoRA r16", "lora", 1)
    assert marks[QLORA].series == "lora-nf4"
    assert marks[Cell("novel", 4, "none")].series == "other"


def test_folded_tables_of_markdown_open_and_close(tmp_path, matrix):
    text = write(tmp_path, matrix)["report.md"]
    assert text.count("<details>") == text.count("</details>") > 0
    assert all((tmp_path / path).is_file() for path in re.findall(r"\]\((figures/[^)]+)\)", text))


@pytest.mark.parametrize(
    ("raw", "safe"),
    [
        ("a|b", "a\\|b"),
        ("a\nb", "a b"),
        ("`x`", "\\`x\\`"),
        ("@team a@b.c", "@\u200bteam a@b.c"),
        ("- item", "\\- item"),
        ("12. item", "12\\. item"),
        ("&lt;", "&amp;lt;"),
        ("[x](y)", "\\[x\\](y)"),
    ],
)
def test_markdown_escape(raw, safe):
    assert markdown.escape(raw) == safe


def test_numbers_in_words():
    assert words.number(-0.0004) == "0.000"
    assert words.number(-0.05, signed=True) == "−0.050"
    assert words.number(0.05, signed=True) == "+0.050"
    assert words.number(1234567, 0) == "1,234,567"
    assert [words.times(v) for v in (0.0123, 0.58, 1.0, 24.5, 204.3)] == [
        "0.012×",
        "0.58×",
        "1.00×",
        "24.5×",
        "204×",
    ]


def test_a_baseline_far_from_the_scores_breaks_the_axis():
    near, far = chart_specs.Mark("X", "lora"), chart_specs.Mark("Y", "head")

    def breaks(baseline, *values):
        rows = tuple(
            chart_specs.DotRow(m, (v,), table.t_interval([v]))
            for m, v in zip((near, far), values, strict=True)
        )
        text = charts.render(page.Figure("dots", "finding", chart_specs.Dots(rows, "F1", baseline)))
        return text.count('<g id="dots-axes_') == 2

    assert breaks(0.5, 0.86, 0.87)
    assert not breaks(0.5, 0.55, 0.87)
    assert not breaks(None, 0.86, 0.87)


def test_memory_measured_by_different_meters_is_not_compared():
    rows = make_matrix(cells=[LORA, QLORA], seeds=[0])
    other = {"peak_memory_source": "torch_allocated_bytes"}
    rows = [
        replace(r, outcome=replace(r.outcome, **other)) if r.job.cell == QLORA else r for r in rows
    ]
    entry = row(show(rows), "Every cell against", "QLoRA r8")[5]
    assert (entry.text, entry.note) == ("n/a", "measured differently from the reference")


# --- Markdown of a size that a pull request takes -------------------------------------------------


@pytest.mark.slow
@pytest.mark.heavy
def test_markdown_stays_short_and_keeps_the_worst_news():
    cells = [LORA, *(Cell("lora", rank, "none") for rank in range(100, 160))]
    rows = make_matrix(cells=cells, seeds=[0, 1])
    rows = [fail(r) if r.job.size == 159 else r for r in rows]
    shown = show(rows)
    whole = markdown.render(shown, 10**9)
    text = markdown.render(shown)
    assert len(text) <= 60_000 < len(whole)
    assert "asked for 2 GiB" in text
    assert escaped(shown.finding) in text
    assert re.search(r"\d+ tables and pictures are left out to keep this short", text)
    assert "left out to keep" not in whole
    for title in (s.title for s in shown.sections):
        assert f"## {markdown.escape(title)}" in text
    assert len(markdown.render(shown, 3000)) <= 3000


def escaped(text):
    return markdown.escape(text)


def test_a_long_table_is_cut_in_markdown_and_says_so():
    rows = tuple((page.Entry(str(i)),) for i in range(130))
    text = markdown.render(empty_page(page.Grid("many", (page.Column("n"),), rows)))
    assert "30 more rows are in index.html" in text
    assert "\n| 99 |" in text and "\n| 100 |" not in text


def empty_page(*blocks):
    section = page.Section("quality", "title", "lead", blocks)
    return page.Page("t", (), "finding", (), "", (), (), (section,))

"""A paper's table: the report's own figures, what is bold, and four formats of it."""

from __future__ import annotations

import csv
import io
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser

import pytest

import peftmark
from factory import (
    ADALORA,
    HEAD,
    LORA,
    QLORA,
    make_failure,
    make_job,
    make_matrix,
    make_outcome,
    make_record,
    make_repeat,
)
from peftmark.analysis.table import build
from peftmark.catalog.methods import Cell
from peftmark.core.errors import UserError
from peftmark.render import latex
from peftmark.report.paper_table import FORMATS, facts, paper_table, rendered
from places import DOCS

EXAMPLE = DOCS / "example"


def table_of(records, reference=LORA):
    return build(records, [r.job for r in records], reference)


def rows_on(task, metric, **cells):
    """Rows of cells on a task: method -> scores by seed."""
    return [
        make_record(
            job=make_job(task=task, metric=metric, method=method.replace("_", "-"), seed=seed),
            outcome=make_outcome(metric_value=value),
        )
        for method, values in cells.items()
        for seed, value in enumerate(values)
    ]


def bold(records, reference=LORA):
    found = paper_table(table_of(records, reference))
    return {(f.cell, f.task) for row in found.lines for f in row if f.best}


# --- figures ------------------------------------------------------------------------------------


def test_every_figure_of_the_example_stands_in_its_report():
    report = (EXAMPLE / "report.md").read_text("utf-8")
    start = report.index("**Score after the last step, mean")
    lines = [line for line in report[start:].split("\n")[2:12] if line.startswith("| ")]
    told = [[cell.partition("<br>")[0] for cell in line[2:-2].split(" | ")][:6] for line in lines]
    made = peftmark.table(EXAMPLE).split("\n\n")[0].split("\n")
    mine = [line[2:-2].split(" | ") for line in made]
    assert [row[0] for row in mine[2:]] == [row[0] for row in told[2:]]
    assert mine[2:] == told[2:]
    heads = "cell", "sts-b", "movie", "trec", "sts-pairs", "mean over tasks"
    assert tuple(cell.partition("<br>")[0] for cell in mine[0]) == heads


def test_the_caption_says_what_the_numbers_are_and_what_the_report_warns_of():
    caption = peftmark.table(EXAMPLE).split("\n\n")[1]
    for words in (
        "mean ± half of the 95 % t-interval over n = 3 seeds",
        "does not cover the choice of rows",
        "Suite glue version 2, profile offline-chosen; all-MiniLM-L6-v2, cpu.",
        "↑ higher is better",
        "sts-b and sts-pairs share evaluation rows",
        "Learning rates: fixed in the suite: chosen by the trials of offline-tuned",
        "Reduced scale: profile offline-chosen, 60 to 140 optimizer steps.",
    ):
        assert words in caption.replace("\u00a0", " ")


def test_a_figure_of_fewer_seeds_says_so_and_one_that_is_missing_says_why():
    rows = make_matrix([LORA, HEAD], ["sst2"])
    rows[2] = replace(rows[2], outcome=make_failure("out_of_memory"))
    rows[3:] = [replace(row, outcome=make_failure("crashed", "x")) for row in rows[3:]]
    table = table_of(rows)
    lora, head = paper_table(table).rows
    assert (lora[0].n, lora[0].planned, lora[0].note) == (2, 3, "n = 2 of 3")
    assert (head[0].mean, head[0].text) == (None, "crashed ×3")
    text = rendered(table, "latex")
    assert " & \\multicolumn{2}{c}{--}" in text
    assert "no figure (head only on sst2: crashed $\\times$3)." in text
    assert "n = 2 seeds" in text


def test_what_cannot_run_is_left_out_and_named():
    rows = make_matrix([LORA, QLORA], ["sst2"])
    rows[3:] = [replace(row, outcome=make_failure("unsupported", "no")) for row in rows[3:]]
    made = paper_table(table_of(rows))
    assert [row[0].cell for row in made.rows] == ["LoRA r8"]
    assert "Left out, since they can't run there: QLoRA r8." in made.caption


def test_a_repeat_with_other_numbers_is_told_in_the_caption():
    rows = make_matrix([LORA, HEAD], ["sst2"])
    other = make_repeat(rows[0], metrics={"accuracy": 0.1})
    [alarm] = [s for s in paper_table(table_of([*rows, other])).caption if "repeatable" in s]
    assert "gave different numbers when it ran twice" in alarm


# --- bold ---------------------------------------------------------------------------------------

HIGH = (0.901, 0.902, 0.900, 0.901, 0.902)
LOW = (0.701, 0.703, 0.700, 0.702, 0.701)
LOWER = (0.501, 0.502, 0.503, 0.501, 0.500)
LIKE_HIGH = (0.902, 0.900, 0.901, 0.902, 0.901)


def test_a_reference_that_is_above_every_other_is_bold():
    rows = rows_on("sst2", "accuracy", lora=HIGH, adalora=LOW, dora=LOWER)
    assert bold(rows) == {("LoRA r8", "sst2")}


def test_the_only_cell_above_the_reference_is_bold_where_the_reference_is_above_the_rest():
    rows = rows_on("sst2", "accuracy", lora=LOW, adalora=HIGH, dora=LOWER)
    assert bold(rows) == {("AdaLoRA r8", "sst2")}


def test_nothing_is_bold_where_two_are_above_the_reference_or_one_is_undecided():
    rows = rows_on("sst2", "accuracy", lora=LOW, adalora=HIGH, dora=LIKE_HIGH)
    assert bold(rows) == set()
    rows = rows_on("sst2", "accuracy", lora=HIGH, adalora=LIKE_HIGH, dora=LOWER)
    assert bold(rows) == set()
    assert "Nothing is bold" in " ".join(paper_table(table_of(rows)).caption)


def test_the_lower_score_is_bold_where_lower_is_better():
    rows = rows_on("mine", "rmse", lora=LOW, adalora=HIGH, dora=HIGH)
    rows = [replace(r, outcome=replace(r.outcome, baseline_value=1.5)) for r in rows]
    assert ("LoRA r8", "mine") in bold(rows)
    made = paper_table(table_of(rows))
    assert made.columns[0] == ("mine", "RMSE ↓")
    assert "↓ lower is better." in made.caption


def test_the_mean_is_bold_where_one_cell_alone_may_be_first():
    rows = rows_on("sst2", "accuracy", lora=HIGH, dora=LOW)
    rows += rows_on("rte", "accuracy", lora=LIKE_HIGH, dora=LOWER)
    assert bold(rows) == {("LoRA r8", task) for task in ("sst2", "rte", "")}


def test_one_task_has_no_mean_beside_it_and_a_mean_that_is_none_has_its_reason():
    one = paper_table(table_of(rows_on("sst2", "accuracy", lora=HIGH, dora=LOW)))
    assert [title for title, _ in one.columns] == ["sst2"]
    rows = rows_on("sst2", "accuracy", lora=HIGH) + rows_on("mine", "costs:euros", lora=HIGH)
    assert [t for t, _ in paper_table(table_of(rows)).columns][:2] == ["sst2", "mine"]


def test_one_cell_alone_and_single_seeds_are_never_bold():
    assert bold(rows_on("sst2", "accuracy", lora=HIGH)) == set()
    assert bold(rows_on("sst2", "accuracy", lora=HIGH[:1], dora=LOW[:1])) == set()


def test_without_a_reference_no_task_has_a_best():
    rows = rows_on("sst2", "accuracy", lora=HIGH, dora=LOW)
    assert ("LoRA r8", "sst2") not in bold(rows, Cell("", None, "none"))


# --- formats ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def table():
    rows = make_matrix([LORA, ADALORA, HEAD], seeds=(0, 1, 2))
    rows += make_matrix([Cell("two-stage", 8, "none", "50%_a&b")], seeds=(0, 1, 2))
    return table_of(rows)


def test_latex_has_booktabs_rules_escaped_names_and_a_column_of_two_for_each_number(table):
    text = rendered(table, "latex")
    assert "\\begin{tabular}{l r@{}l r@{}l r@{}l}" in text
    body = text[text.index("\\toprule") : text.index("\\bottomrule")]
    assert body.count("\\midrule") == 1 and body.count("\\cmidrule(lr)") == 3
    assert "two-stage LoRA $\\to$ AdaLoRA r8, 50\\%\\_a\\&b & 0 & ." in text
    for line in body.split("\n"):
        if line.endswith("\\\\"):
            spans = sum(2 for _ in re.findall(r"\\multicolumn\{2\}", line))
            single = len(re.split(r"(?<!\\)&", line)) - spans // 2
            assert single + spans == 7, line
    assert re.search(r"LoRA r8 & 0 & \.\d{3} \$\\pm\$ 0\.\d{3} & 0 & \.\d{3}", text)
    assert text.count("{") - text.count("\\{") == text.count("}") - text.count("\\}")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a_b & 5% $x$ #1 {y}", r"a\_b \& 5\% \$x\$ \#1 \{y\}"),
        (r"\input{x}", r"\textbackslash{}input\{x\}"),
        ("a~b^c", r"a\textasciitilde{}b\textasciicircum{}c"),
        ("one\ntwo\x1b[0m", "one two?[0m"),
        ("− 0.5 ± 1 × 2 → é", r"$-$ 0.5 $\pm$ 1 $\times$ 2 $\to$ é"),
    ],
)
def test_text_cannot_be_a_command_of_latex(text, shown):
    assert latex.escape(text) == shown


@pytest.mark.parametrize(
    ("text", "columns"),
    [
        ("0.840 ± 0.023", r"0 & .840 $\pm$ 0.023"),
        ("−0.41 ± 0.02", r"$-$0 & .41 $\pm$ 0.02"),
        ("1,234.5", "1,234 & .5"),
        ("12", "12 & "),
        ("0.98, 0.95 to 1.00", "0 & .98, 0.95 to 1.00"),
    ],
)
def test_numbers_meet_at_their_decimal_point(text, columns):
    assert latex.number(text) == columns


def test_what_is_bold_is_bold_in_every_format():
    rows = rows_on("sst2", "accuracy", lora=HIGH, adalora=LOW)
    table = table_of(rows)
    assert re.search(r"\\textbf\{0\} & \\textbf\{\.901", rendered(table, "latex"))
    assert re.search(r"\| LoRA r8 \| \*\*0\.901", rendered(table, "markdown"))
    assert "<strong>0.901" in rendered(table, "html")
    assert [f["best"] for f in facts(table)["figures"]] == [True, False, False]


def test_csv_has_a_line_a_cell_and_task_with_figures_unrounded(table):
    lines = list(csv.DictReader(io.StringIO(rendered(table, "csv"))))
    assert len(lines) == (4 + 1) * 3
    first = lines[0]
    assert (first["cell"], first["task"], first["n"], first["planned"]) == (
        "LoRA r8",
        "sst2",
        "3",
        "3",
    )
    mean, half = float(first["mean"]), float(first["half_width"])
    assert float(first["low"]) == pytest.approx(mean - half)
    assert f"{mean:.3f}" == first["text"].split(" ± ")[0]
    assert lines[-1]["cell"] == "baseline predictor" and lines[-1]["half_width"] == ""


class _Balanced(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.cells = [], 0

    def handle_starttag(self, tag, attrs):
        if tag != "br":
            self.open.append(tag)
        self.cells += tag == "td"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_html_is_one_table_with_its_text_escaped(table):
    reader = _Balanced()
    reader.feed(text := rendered(table, "html"))
    assert reader.open == [] and reader.cells == 5 * 3
    assert text.startswith("<table>") and "50%_a&amp;b" in text


def test_another_format_is_refused_with_those_there_are(table):
    with pytest.raises(UserError, match="format 'word' is unknown") as caught:
        rendered(table, "word")
    assert "Formats: markdown, latex, csv, html." in str(caught.value)
    assert set(FORMATS) == {"markdown", "latex", "csv", "html"}


@pytest.mark.heavy
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_latex_compiles(table, tmp_path):
    start = "\\documentclass{article}\\usepackage{booktabs}\\begin{document}\n"
    (tmp_path / "a.tex").write_text(start + rendered(table, "latex") + "\\end{document}\n")
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


@pytest.mark.parametrize(
    ("text", "rare"),
    [
        ("Spearman ρ ↑ ± 0.1 × 10³ · µ", ""),
        ("Zürich, çà et là, Łódź, smørrebrød, Straße, œuvre, Škoda, ő", ""),
        ("分類 и ☃", "и☃分類"),
        ("\u1ec7", "\u1ec7"),  # two accents on one letter
    ],
)
def test_what_pdflatex_knows_nothing_of_is_told(text, rare):
    assert latex.beyond(text) == rare


@pytest.mark.heavy
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no LaTeX here")
def test_whatever_is_not_told_compiles(tmp_path):
    every = [chr(code) for code in range(0x20, 0x3000) if chr(code).isprintable()]
    known = [c for c in every if not latex.beyond(c)]
    assert len(known) > 250
    body = "\n\n".join(latex.escape(c) for c in known)
    (tmp_path / "a.tex").write_text(
        f"\\documentclass{{article}}\\begin{{document}}{body}\\end{{document}}"
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-600:]

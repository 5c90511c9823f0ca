"""Five questions of a notebook, each in at most three lines of pandas, on the example's rows.

The right values were worked out from the columns of docs/example/rows.parquet with plain Python.
"""

from __future__ import annotations

import inspect

import pytest
from pytest import approx

import peftmark
from factory import LORA, QLORA, make_matrix, make_trials
from places import DOCS

EXAMPLE = DOCS / "example"
MIB = 2**20


@pytest.fixture(scope="module")
def runs():
    return peftmark.load_results(EXAMPLE)


def means(runs):
    return runs.pivot_table(index="cell", columns="task", values="metric_value")


def curve_of_one_cell(points):
    mine = points[(points.cell == "LoRA r8") & (points.task == "trec")]
    return mine.pivot(index="step", columns="seed", values="metric")


def memory_by_part(runs):
    parts = list(runs.filter(regex="^live_.+_bytes$"))
    return runs.groupby("cell")[parts].mean() / MIB


def rates_tried(runs):
    trials = runs[runs.purpose == "tuning"]
    return trials.pivot_table(
        index=["cell", "task"], columns="learning_rate", values="metric_value"
    )


def paired_differences(runs):
    wide = runs.pivot(index=["task", "seed"], columns="cell", values="metric_value")
    return wide.sub(wide["LoRA r8"], axis=0)


@pytest.mark.parametrize(
    "question", [means, curve_of_one_cell, memory_by_part, rates_tried, paired_differences]
)
def test_each_takes_three_lines_at_most(question):
    source = inspect.getsource(question)
    assert source.count(";") == 0
    statements = [
        line for line in source.split("\n")[1:] if line.startswith("    ") and line[4] not in " )"
    ]
    assert 1 <= len(statements) <= 3


def test_a_table_of_means_in_the_reports_order(runs):
    table = means(runs)
    assert list(table.index) == [
        "LoRA r8",
        "QLoRA r8",
        "AdaLoRA r8",
        "AdaLoRA + NF4 r8",
        "full fine-tuning",
        "head only",
    ]
    assert list(table.columns) == ["sts-b", "movie", "trec", "sts-pairs"]
    assert table.loc["LoRA r8", "sts-b"] == approx(0.8345883970329909)
    assert table.loc["QLoRA r8", "trec"] == approx((0.882 + 0.904 + 0.906) / 3)
    assert table.loc["head only", "trec"] == approx((0.494 + 0.488 + 0.498) / 3)


def test_the_curve_of_one_cell():
    table = curve_of_one_cell(peftmark.curves(EXAMPLE))
    assert list(table.index) == [20, 40, 60, 80]
    assert table[0].tolist() == [0.782, 0.884, 0.858, 0.892]
    assert table[1].tolist() == [0.752, 0.81, 0.878, 0.914]
    assert table[2].tolist() == [0.812, 0.858, 0.896, 0.906]


def test_memory_by_part(runs):
    table = memory_by_part(runs)
    assert "live_bytes" not in table and len(table.columns) == 7
    assert table.loc["LoRA r8", "live_weight_bytes"] == approx(86.65589427947998)
    assert table.loc["LoRA r8", "live_optimizer_bytes"] == approx(3.6675472259521484)
    assert table.loc["full fine-tuning", "live_optimizer_bytes"] == approx(173.29656410217285)
    assert table.loc["LoRA r8", "live_activation_bytes"] == approx(429.2195332845052)
    assert table.loc["head only", "live_activation_bytes"] == approx(0.053802490234375)


def test_all_learning_rates_tried(runs, stored):
    used = runs.groupby("cell").learning_rate.unique()
    assert {cell: sorted(rates) for cell, rates in used.items()} == {
        "LoRA r8": [0.001, 0.002],
        "QLoRA r8": [0.001, 0.002, 0.005],
        "AdaLoRA r8": [0.004, 0.008],
        "AdaLoRA + NF4 r8": [0.004, 0.008],
        "full fine-tuning": [0.0001, 0.0002, 0.0005],
        "head only": [0.001, 0.002, 0.005],
    }
    trials = make_trials([LORA, QLORA], ["stsb"])
    stored([*make_matrix([LORA, QLORA], ["stsb"], (0,)), *trials])
    table = rates_tried(peftmark.load_results("demo", trials=True))
    assert list(table.columns) == [5e-4, 1e-3, 2e-3, 5e-3]
    assert table.shape == (2, 4)
    assert table.loc[("QLoRA r8", "stsb")].tolist() == [
        t.outcome.metric_value for t in trials if t.job.cell == QLORA
    ]


def test_paired_differences(runs):
    table = paired_differences(runs)
    full = table.loc["sts-b", "full fine-tuning"]
    assert full.tolist() == approx(
        [0.002455013886082713, 0.02359816097899803, -0.02019313971735115]
    )
    assert full.mean() == approx(0.001953345049243197)
    assert (table["LoRA r8"] == 0).all()
    assert table.groupby("task").mean().shape == (4, 6)


@pytest.mark.heavy
def test_the_code_of_the_page_runs(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    page = (DOCS / "python.md").read_text("utf-8")
    code = page[page.index("## Five questions") :].split("```python\n")[1].split("```")[0]
    assert code.count('"glue"') == 2
    found: dict = {"peftmark": peftmark}
    exec(code.replace('"glue"', repr(str(EXAMPLE))), found)
    assert found["wide"].shape == (12, 6) and len(found["mine"]) == 12

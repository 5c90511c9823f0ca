"""docs/time.md says how far predicted steps are from published ones, and the code says the same."""

from __future__ import annotations

import pytest

from peftmark.docgen.time_page import END, START, table
from peftmark.duration.cards import CARDS, OF_MODELS
from peftmark.duration.published_steps import GROUPS, PLAIN_LAUNCH, scenario_of, step_seconds
from peftmark.memory.forecast import Forecast
from places import DOCS

PAGE = DOCS / "time.md"
ROWS = [row for group in GROUPS for row in group.rows]


@pytest.mark.parametrize("row", ROWS, ids=[row.what for row in ROWS])
def test_every_published_step_is_a_step_that_can_be_asked_for(row):
    asked = scenario_of(row).request()
    assert asked.job.device == "cuda" and row.card in CARDS
    assert asked.tokens == row.scenario["length"] and asked.rows == row.scenario["batch"]
    assert 0.01 < row.seconds < 10


def test_what_a_compiler_fuses_counts_no_bytes_and_no_launch():
    card = CARDS["a100-80"]
    product, moved = OF_MODELS * card.bf16, card.bandwidth
    told = Forecast(
        work={
            "forward mm bfloat16": [10, product, moved],
            "forward mul bfloat16": [1000, 0, 3 * moved],
            "backward gemm_4bit bfloat16": [10, 0, moved],
        }
    )
    assert step_seconds(told, card, compiled=True) == pytest.approx(1 + 1)
    assert step_seconds(told, card, compiled=False) == pytest.approx(1 + 3 + 1)
    launched = Forecast(work={"forward mul bfloat16": [1000, 0, 1]})
    assert step_seconds(launched, card, compiled=False) == pytest.approx(1000 * PLAIN_LAUNCH)


def test_the_page_has_a_line_for_each_and_a_reason_for_what_is_far_off():
    page = PAGE.read_text(encoding="utf-8")
    lines = page.split(START)[1].split(END)[0].strip().splitlines()
    assert len(lines) == 2 + len(GROUPS) + len(ROWS)
    for row in ROWS:
        line = next(line for line in lines if line.startswith(f"| {row.what} |"))
        off = line.split("|")[4].strip()
        near = abs(int(off.split("%")[0].replace("−", "-"))) <= 25
        assert near or (row.reason and row.reason in off)


@pytest.mark.slow
def test_the_table_is_what_the_code_makes_of_it(tmp_path):
    page = PAGE.read_text(encoding="utf-8")
    assert page.split(START)[1].split(END)[0].strip() == "\n".join(table(tmp_path))

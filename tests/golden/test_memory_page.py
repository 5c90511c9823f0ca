"""docs/memory-tables.md: its text from made-up forecasts, and the one that is committed."""

from __future__ import annotations

import re

import pytest

from peftmark.claims.memory_figures import judge
from peftmark.claims.memory_ledger import load_figures
from peftmark.docgen import memory_page
from peftmark.docgen.memory_page import GPUS, LENGTHS, SETTINGS, SIZES, page, scenarios
from peftmark.memory.forecast import Forecast
from peftmark.record.field import LIVE_PARTS
from places import DOCS

GB = 10**9
PAGE = DOCS / "memory-tables.md"
MODELS = [model for models in SIZES.values() for model in models]
LIVE = {part.key: 10**8 for part in LIVE_PARTS}


def made_up(gigabytes: float = 23.0) -> dict:
    return {
        key: Forecast(
            live={**LIVE, "weights": round(gigabytes * GB) - 6 * 10**8},
            allocated=round(gigabytes * GB),
            paged=3 * 10**7,
            parameters=7_000_000_001,
        )
        for key in scenarios()
    }


def verdicts():
    return [
        judge(one, [[Forecast(allocated=GB, live=LIVE)] * len(pair) for _, pair in one.readings])
        for one in load_figures()
    ]


@pytest.fixture(scope="module")
def text() -> str:
    return page(made_up(), verdicts(), {"torch": "1.2.3"})


def rows(text: str) -> list[list[str]]:
    found = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [row for row in found if row[0] != "---"]


def test_it_has_every_scenario_once():
    keys = list(scenarios())
    assert len(keys) == len(set(keys)) == len(MODELS) * len(SETTINGS) * 2 * len(LENGTHS)
    # No two of them are the same step.
    assert len({one.text() for one in scenarios().values()}) == len(keys)


def test_scope_and_limits_come_before_any_number_of_a_run(text):
    start = text[: text.index("## 7B")]
    for words in (
        "Scope: one training step on one GPU",
        "no sharding",
        "fragmentation",
        "transformers' own model code",
        "1 GB is 1e9 bytes",
        "torch 1.2.3",
    ):
        assert words in start, words


def test_peaks_components_and_what_fits(text):
    peaks = [row for row in rows(text) if row[0] == "QLoRA" and len(row) == 6]
    assert peaks == [
        ["QLoRA", on, "23.0", "23.0", "RTX 4090 24GB", "RTX 4090 24GB"]
        for _ in MODELS
        for on in ("off", "on")
    ]
    parts = [row for row in rows(text) if row[0] == "full" and len(row) == 10]
    assert parts[0][2:] == ["22.40", *["0.10"] * 6, "0.03"]
    assert "### llama-2-7b, 7,000,000,001 parameters" in text


@pytest.mark.parametrize(
    ("gigabytes", "fits"),
    [(25.5, "RTX A6000 48GB"), (60.0, "H100 80GB"), (100.0, "H200 141GB"), (200.0, "none of them")],
)
def test_the_smallest_that_fits(gigabytes, fits):
    found = rows(page(made_up(gigabytes), [], {}))
    assert {row[4] for row in found if row[0] == "LoRA" and len(row) == 6} == {fits}


def test_the_context_is_counted_in_what_fits():
    total = memory_page.DEVICES[GPUS[0]].memory_bytes
    left = memory_page.room(total)
    assert left < total - memory_page.CONTEXT_BYTES
    assert memory_page._smallest(Forecast(allocated=left + 1)) == "RTX A6000 48GB"
    assert memory_page._smallest(Forecast(allocated=left)) == "RTX 4090 24GB"


def test_a_refused_step_is_no_zero():
    told = {key: Forecast(reason="no such layer") for key in scenarios()}
    text = page(told, [], {})
    assert {value for row in rows(text) if row[0] == "LoRA" for value in row[2:]} == {"n/a"}
    assert "n/a: no such layer." in text


def test_every_published_figure_is_there_with_its_source(text):
    for one in load_figures():
        assert f"### {one.id}\n" in text
        assert f"{one.says} Source: {one.source}." in text


def test_it_is_the_same_each_time_and_has_no_date(text):
    assert page(made_up(), verdicts(), {"torch": "1.2.3"}) == text
    assert not re.search(r"\b20[2-9]\d-\d\d-\d\d\b", text)


def test_the_committed_page_has_every_scenario_and_figure():
    text = PAGE.read_text(encoding="utf-8")
    lines = text.splitlines()
    for model in MODELS:
        start = next(i for i, line in enumerate(lines) if line.startswith(f"### {model},"))
        ends = [i for i, line in enumerate(lines) if line.startswith("#") and i > start]
        mine = rows("\n".join(lines[start : ends[0]]))
        for setting in SETTINGS:
            for checkpointing in ("off", "on"):
                found = [row for row in mine if row[:2] == [setting.title, checkpointing]]
                assert [len(row) for row in found] == [6, 10]
                assert all(re.fullmatch(r"\d+\.\d|n/a", value) for value in found[0][2:4])
    for one in load_figures():
        assert f"### {one.id}\n" in text


def test_the_committed_page_holds_together():
    """Components add up to the peak, more tokens never take less, checkpointing never more."""
    found = rows(PAGE.read_text(encoding="utf-8"))
    peaks = [row for row in found if len(row) == 6 and row[1] in ("on", "off")]
    parts = [row for row in found if len(row) == 10 and row[1] in ("on", "off")]
    assert len(peaks) == len(parts) == len(MODELS) * len(SETTINGS) * 2
    for peak, part in zip(peaks, parts, strict=True):
        assert sum(map(float, part[2:9])) == pytest.approx(float(peak[2]), abs=0.1)
        assert float(peak[2]) <= float(peak[3])
    for off, on in zip(peaks[::2], peaks[1::2], strict=True):
        assert float(on[3]) <= float(off[3])

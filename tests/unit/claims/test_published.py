"""Published figures that need no run: what their ledger may say, and the verdict on each."""

from __future__ import annotations

import copy
import json

import pytest

from peftmark.claims import published as module
from peftmark.claims.memory_ledger import LEDGER as MEMORY
from peftmark.claims.part import KINDS
from peftmark.claims.published import (
    SUBJECTS,
    count_of,
    equal,
    memory_of,
    published,
    sum_of,
    time_of,
)
from peftmark.claims.published_ledger import LEDGER, Ledger, first_place, load_ledger
from peftmark.claims.published_text import published_facts, published_text
from peftmark.cli.parser import main
from peftmark.core.errors import Exit, SuiteError
from peftmark.duration.published_steps import GROUPS, Timed
from peftmark.memory import adapter_counts
from peftmark.memory.adapter_counts import Adapter, Count, counts
from peftmark.memory.forecast import NOT_YET
from places import SUITES, SUPPORT

LORA = {
    "name": "lora-r8",
    "type": "lora",
    "options": {"r": 8},
    "trains": 1008,
    "source": "lora.json",
    "date": "2025-06-19",
    "peft": "0.15.2",
}
BYTES = {
    "name": "bytes-a-parameter",
    "says": "A parameter takes 16 bytes.",
    "arithmetic": {"expression": "32 / 2", "claimed": 16.0, "tolerance": 0.1, "unit": "bytes"},
    "source": "two files",
    "date": "2025-06-19",
}
FILE = {"folder": "a project", "model": "llama-3.2-1b", "counts": [LORA], "sums": [BYTES]}


def ledger(*rows: dict, **fields) -> Ledger:
    given = {"counts": list(rows)} if rows else {}
    return Ledger.model_validate({**copy.deepcopy(FILE), **given, **fields})


def row(**fields) -> dict:
    return {**LORA, **fields}


def write(folder, content: dict):
    path = folder / LEDGER
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


# --- the ledger ---------------------------------------------------------------------------------


def test_the_shipped_ledger_is_read_and_every_type_it_names_once_or_more():
    shipped = load_ledger(SUITES / LEDGER)
    assert len(shipped.counts) >= 50 and shipped.model == "llama-3.2-3b"
    kinds = {one.type for one in shipped.counts}
    assert len(kinds) >= 40 and {None, "lora", "vera", "boft", "bone"} <= kinds
    assert all(one.source.endswith(".json") for one in shipped.counts)
    assert len({one.source for one in shipped.counts}) == len(shipped.counts)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"trains": 0}, "lora-r8: counts[0].trains: found 0"),
        ({"trains": "many"}, "lora-r8: counts[0].trains"),
        ({"type": "LoRA"}, "lora-r8: counts[0].type"),
        ({"date": "June"}, "lora-r8: counts[0].date"),
        ({"colour": "red"}, "lora-r8: counts[0].colour: unknown key"),
    ],
)
def test_a_fault_is_one_message_that_names_the_row(tmp_path, capsys, change, says):
    write(tmp_path, {**FILE, "counts": [row(**change)]})
    with pytest.raises(SystemExit) as left:
        main(["claims", "--published", "--suites", str(tmp_path)])
    assert left.value.code == Exit.USAGE
    told = capsys.readouterr().err
    assert "one fault" in told and says in told and "docs/claims.md" in told


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({**FILE, "model": "llama-9"}, "model: found 'llama-9'"),
        ({**FILE, "counts": []}, "counts: found []; at least 1"),
        ({**FILE, "counts": [LORA, LORA]}, "lora-r8: the name stands here 2 times"),
        ({**FILE, "sums": [{**BYTES, "arithmetic": {}}]}, "bytes-a-parameter: sums[0].arithmetic"),
    ],
)
def test_other_faults(tmp_path, content, says):
    with pytest.raises(SuiteError) as caught:
        load_ledger(write(tmp_path, content))
    assert says in str(caught.value)


def test_a_ledger_of_your_own_takes_the_place_of_the_shipped_one(tmp_path):
    assert first_place(tmp_path, LEDGER).parent.parent != tmp_path
    assert first_place(tmp_path, MEMORY).samefile(SUITES / MEMORY)
    path = write(tmp_path, FILE)
    assert first_place(tmp_path, LEDGER) == path


def test_it_takes_no_suite(capsys):
    with pytest.raises(SystemExit) as left:
        main(["claims", "--published", "glue"])
    assert left.value.code == Exit.USAGE
    assert "of no suite, but 'glue'" in capsys.readouterr().err


# --- verdicts -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("told", "kind", "reason"),
    [
        (Count(1008, 5000), "confirmed on paper", ""),
        (Count(1009, 5000), "refuted on paper", "+1 with the installed PEFT; the run had 0.15.2"),
        (Count(absent="no type LORA"), "not comparable", "no type LORA; the run had 0.15.2"),
        (Count(reason="no weights"), "untestable", "no weights"),
    ],
)
def test_the_verdict_on_a_count(told, kind, reason):
    found = count_of(ledger(), ledger().counts[0], told)
    assert (found.kind, found.reason) == (kind, reason)
    assert found.ours == ("" if told.trainable is None else f"{told.trainable:,}")
    assert found.source == "a project/lora.json" and found.date == "2025-06-19"


def test_a_count_with_frozen_tensors_says_so():
    given = ledger(row(frozen="lora_A"))
    assert given.adapter(given.counts[0]).frozen == "lora_A"
    assert "lora_A was frozen" in count_of(given, given.counts[0], Count(1008, 5000)).reason


@pytest.mark.parametrize(
    ("expression", "kind"),
    [("32.2 / 2", "confirmed on paper"), ("32.3 / 2", "refuted on paper")],
)
def test_a_sum_holds_within_its_tolerance(expression, kind):
    given = ledger(
        sums=[{**BYTES, "arithmetic": {**BYTES["arithmetic"], "expression": expression}}]
    )
    found = sum_of(given, given.sums[0])
    assert found.kind == kind and expression in found.reason and found.claimed == "16 bytes"


def test_a_step_time_is_confirmed_within_a_quarter_and_never_refuted():
    step = GROUPS[0].rows[0]
    assert time_of(Timed(step, GROUPS[0], 1.24 * step.seconds)).kind == "confirmed on paper"
    assert time_of(Timed(step, GROUPS[0], 0.74 * step.seconds)).kind == "undecided"
    missing = time_of(Timed(step, GROUPS[0], None, NOT_YET))
    assert (missing.kind, missing.ours, missing.reason) == ("undecided", "", NOT_YET)


# --- all of them --------------------------------------------------------------------------------


@pytest.fixture
def asked(tmp_path, monkeypatch):
    """A stand-in counts; calling it says what it was asked for."""
    log = tmp_path / "asked"
    log.touch()
    monkeypatch.setattr(adapter_counts, "WORKER", "fake_counts")
    monkeypatch.setenv("PYTHONPATH", str(SUPPORT))
    monkeypatch.setenv("FAKE_COUNTS", str(log))
    return lambda: log.read_text().split()


ROWS = (
    LORA,
    row(name="full", type=None, options={}, trains=1000),
    row(name="other", options={"r": 9}),
    row(name="bone", type="bone"),
    row(name="boft", type="boft"),
)


def test_the_listing_has_counts_first_and_every_row_once(asked, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "timed_steps", lambda *_, **__: [])
    write(tmp_path, {**FILE, "counts": list(ROWS)})
    heard = []
    found = published(tmp_path, tmp_path / "cache", counting=lambda *told: heard.append(told))
    assert heard[0] == (0, 5) and heard[-1] == (5, 5)
    assert asked() == ["lora", "None", "lora", "bone", "boft"]
    assert equal(found) == (2, 5)
    text = published_text(found)
    first, second, *rest = text.splitlines()
    assert first.startswith(f"{len(found)} published figures: ")
    assert second == "Parameter counts: 2 of 5 equal."
    assert "peftmark claims --published --memory-figures predicts them" in rest[-1]
    assert all(sum(line.split()[:1] == [one["name"]] for line in rest) == 1 for one in ROWS)
    facts = json.loads(json.dumps(published_facts(found)))
    assert facts["counts_equal"] == 2 and facts["counts"] == 5
    assert set(facts["verdicts"]) == set(KINDS)
    assert sum(facts["verdicts"].values()) == facts["figures"] == len(facts["published"])
    assert {one["verdict"] for one in facts["published"]} <= set(KINDS)
    assert {one["subject"] for one in facts["published"]} <= set(SUBJECTS)
    other = next(one for one in facts["published"] if one["name"] == "other")
    assert (other["claimed"], other["ours"], other["verdict"]) == (
        1008,
        [1009, 1009],
        "refuted on paper",
    )


def test_counts_are_kept_and_asked_for_once(asked, tmp_path):
    wanted = [Adapter({}, "lora", {"r": 3}), Adapter({}, "lora", {"r": 3}), Adapter({}, "boft")]
    told = counts(wanted, tmp_path)
    assert [one.trainable for one in told] == [1003, 1003, None] and "weights" in told[2].reason
    assert counts(wanted, tmp_path) == told and asked() == ["lora", "boft"]
    assert counts([Adapter({}, "vera")], tmp_path, only_kept=True)[0].reason
    for file in (tmp_path / "adapter-counts").iterdir():
        file.write_text("{damaged")
    assert counts(wanted, tmp_path) == told and asked() == ["lora", "boft"] * 2


def test_a_process_that_ends_is_a_reason_and_is_asked_again(asked, tmp_path):
    wanted = [Adapter({}, "poly"), Adapter({}, "lora")]
    told = counts(wanted, tmp_path)
    assert "it fell over" in told[0].reason and told[1].trainable == 1000
    counts(wanted, tmp_path)
    assert asked() == ["poly", "lora", "poly"]


def test_memory_figures_are_those_of_the_memory_ledger():
    from peftmark.claims.memory_figures import judge
    from peftmark.claims.memory_ledger import load_figures
    from peftmark.memory.forecast import Forecast

    figure = next(one for one in load_figures() if one.id == "litgpt-llama-1b-qlora-over-lora")
    sizes = [5_215_827_968, 4_700_846_080, 3_302_103_040]
    found = memory_of(judge(figure, [[Forecast(allocated=size) for size in sizes]]))
    assert (found.subject, found.claimed, found.ours) == ("memory", "1.23", "1.11")
    assert found.kind == "not comparable"
    assert "batch 2 against 1; with batch 1 on both sides 0.70 is predicted" in found.reason
    unknown = memory_of(judge(figure, [[Forecast(reason=NOT_YET)] * 3]))
    assert unknown.kind == "not comparable" and NOT_YET in unknown.reason

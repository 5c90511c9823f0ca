"""The ledger of published memory figures: what it refuses, and how a figure is judged."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import pytest

from peftmark.claims.ledger import load_claims
from peftmark.claims.memory_figures import KINDS, judge, memory_verdicts
from peftmark.claims.memory_ledger import MOST_READINGS, Figure, load_figures
from peftmark.claims.memory_text import memory_facts, memory_text
from peftmark.core.errors import SuiteError
from peftmark.machine.gpus import CONTEXT_BYTES
from peftmark.memory.forecast import Forecast, forecasts
from peftmark.memory.published_run import Scenario
from peftmark.suite.checks import suite_folders

GB = 10**9
RUN = {
    "model": "llama-7b",
    "method": "lora",
    "rank": 8,
    "targets": "all-linear",
    "dropout": 0.1,
    "quantization": "none",
    "weights": "bf16",
    "autocast": True,
    "batch": 1,
    "length": 512,
    "checkpointing": True,
    "optimizer": "adamw",
    "accumulation": 1,
    "attention": "sdpa",
}
FIGURE = {
    "id": "a-figure",
    "claim": "C04",
    "says": "It takes 20 GB.",
    "source": "a paper",
    "figure": 20.0,
    "unit": "GB",
    "kind": "is",
    "meter": "allocated",
    "scenario": RUN,
}


def without(run: dict, *names: str) -> dict:
    return {name: value for name, value in run.items() if name not in names}


def figure(**fields) -> Figure:
    return Figure.model_validate({**copy.deepcopy(FIGURE), **fields})


def took(gigabytes: float, paged: float = 0, **live: float) -> Forecast:
    return Forecast(
        live={name: round(size * GB) for name, size in live.items()},
        allocated=round(gigabytes * GB),
        paged=round(paged * GB),
    )


def kind(one: Figure, *gigabytes: float) -> str:
    return judge(one, [[took(size)] for size in gigabytes]).kind


def two_readings(**fields) -> Figure:
    return figure(scenario=without(RUN, "length"), unstated={"length": [512, 1024]}, **fields)


# --- the shipped ledger -------------------------------------------------------------------------


def test_the_shipped_ledger_is_read_and_its_claims_exist():
    figures = load_figures()
    claims = load_claims(suite_folders(None))
    assert 20 <= len(figures) <= 40
    assert {one.claim for one in figures} >= {"C04", "C09", "C26"}
    assert all(one.claim is None or one.claim in claims for one in figures)
    assert all(1 <= len(one.readings) <= MOST_READINGS for one in figures)


@pytest.mark.heavy
def test_reading_it_loads_no_torch():
    code = "import sys, peftmark.claims.memory_figures, peftmark.claims.memory_text\n"
    code += "import peftmark.docgen.memory_page, peftmark.docgen.data_types_page\n"
    code += "import peftmark.claims.paper, peftmark.claims.text\n"
    code += "import peftmark.claims.published, peftmark.claims.published_text\n"
    code += "peftmark.claims.memory_figures.load_figures(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


# --- what a ledger may say ----------------------------------------------------------------------


def refusal(tmp_path, *figures: dict) -> str:
    path = tmp_path / "memory.yaml"
    path.write_text(json.dumps({"figures": figures}))
    with pytest.raises(SuiteError) as caught:
        load_figures(path)
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"unit": "TB"}, "unit"),
        ({"figure": 0}, "figure: found 0"),
        ({"claim": "four"}, "claim"),
        ({"meter": "guessed"}, "meter"),
        ({"colour": "red"}, "colour: unknown key"),
        ({"kind": "ratio"}, "a ratio, and nothing else"),
        ({"over": RUN}, "a ratio, and nothing else"),
        ({"kind": "fits", "of": ["weights"]}, "`of` and `parts`"),
        ({"of": ["weight"]}, "unknown component (did you mean weights?)"),
        ({"parts": {"all": {"figure": 3.0, "of": []}}}, "parts.all.of"),
        ({"scenario": {**RUN, "model": "llama-8b"}}, "unknown model"),
        ({"scenario": {**RUN, "batch": 0}}, "batch: found 0"),
        ({"scenario": {**RUN, "method": "full"}}, "means nothing for full"),
        ({"scenario": without(RUN, "rank")}, "rank must be stated"),
        ({"scenario": without(RUN, "length")}, "scenario: length"),
        ({"scenario": {**RUN, "quantization": "nf4"}}, "double_quantization must be stated"),
        (
            {
                "scenario": {
                    **RUN,
                    "method": "pissa",
                    "quantization": "nf4",
                    "double_quantization": True,
                }
            },
            "can't sit on nf4",
        ),
        ({"unstated": {"length": [512, 1024]}}, "length is stated"),
        ({"unstated": {"colour": ["red"]}}, "colour is no field"),
        ({"scenario": without(RUN, "length"), "unstated": {"length": []}}, "unstated.length"),
        ({"scenario": without(RUN, "length"), "unstated": {"length": [8, 8]}}, "a value twice"),
        ({"scenario": without(RUN, "length"), "unstated": {"length": ["long"]}}, "length: found"),
        (
            {"scenario": without(RUN, "length"), "unstated": {"length": list(range(1, 26))}},
            "25 combinations; at most 24",
        ),
    ],
)
def test_a_fault_is_refused_with_the_figure_it_is_in(tmp_path, change, says):
    message = refusal(tmp_path, {**FIGURE, **change})
    assert says in message
    assert "a-figure: figures[0]" in message


def test_every_fault_is_told_at_once(tmp_path):
    message = refusal(tmp_path, {**FIGURE, "unit": "TB"}, {**FIGURE, "id": "B", "figure": -1.0})
    assert "2 faults" in message or "3 faults" in message
    assert "a-figure" in message and "B: figures[1]" in message


def test_an_id_stands_once(tmp_path):
    assert "a-figure stands here twice" in refusal(tmp_path, FIGURE, FIGURE)


def test_what_is_unstated_fills_only_where_it_means_something():
    one = figure(
        kind="ratio",
        unit="ratio",
        scenario={**RUN, "quantization": "nf4"},
        over=without({**RUN, "method": "full"}, "rank", "targets", "dropout"),
        unstated={"double_quantization": [True, False]},
    )
    assert [pair[0].double_quantization for _, pair in one.readings] == [True, False]
    assert [pair[1].double_quantization for _, pair in one.readings] == [None, None]


# --- verdicts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("meter", ["allocated", "estimate"])
@pytest.mark.parametrize(
    ("sizes", "verdict"),
    [
        ((18.0, 22.0), "confirmed on paper"),
        ((17.9, 22.1), "refuted on paper"),
        ((20.0, 22.1), "undecided"),
        ((17.9, 20.0), "undecided"),
    ],
)
def test_a_figure_that_a_run_takes(meter, sizes, verdict):
    assert kind(two_readings(meter=meter), *sizes) == verdict


def test_undecided_names_what_it_depends_on_and_what_fits():
    found = judge(two_readings(), [[took(20)], [took(30)]])
    assert "depends on what the source doesn't say: length" in found.reason
    assert [one.chosen for one in found.fitting] == [{"length": 512}]
    assert found.span == (20.0, 30.0)


@pytest.mark.parametrize("meter", ["reserved", "nvidia-smi"])
def test_a_meter_that_shows_the_cache_can_refute_but_not_confirm(meter):
    one = figure(meter=meter)
    assert kind(one, 20) == kind(one, 2) == "undecided"
    assert kind(one, 22.1) == "refuted on paper"
    assert meter in judge(one, [[took(20)]]).reason


def test_nvidia_smi_shows_the_context_too():
    edge = 22.0 - CONTEXT_BYTES / GB
    assert kind(figure(meter="nvidia-smi"), edge - 0.01) == "undecided"
    assert kind(figure(meter="nvidia-smi"), edge + 0.01) == "refuted on paper"
    assert kind(figure(meter="reserved"), edge + 0.01) == "undecided"


def test_an_unnamed_meter_shows_tensors_at_least():
    one = figure(meter="unknown")
    assert kind(one, 20) == "confirmed on paper"
    assert kind(one, 21.9) == "undecided"  # not with the context
    assert kind(one, 10) == "undecided"  # the rest may be the allocator's cache
    assert kind(one, 22.1) == "refuted on paper"


def test_what_fits_leaves_room_for_the_context():
    one = figure(kind="fits", meter="unknown")
    edge = 20 - CONTEXT_BYTES / GB
    assert kind(one, edge - 0.01) == "confirmed on paper"
    assert kind(one, edge + 0.01) == "refuted on paper"
    assert kind(two_readings(kind="fits"), 10, 30) == "undecided"


def test_what_is_needed_is_a_bound_from_below():
    one = figure(kind="needs", meter="estimate")
    assert kind(one, 20) == "confirmed on paper"
    assert kind(one, 19.99) == "refuted on paper"


def ratio(meter: str) -> Figure:
    return figure(
        kind="ratio",
        unit="ratio",
        figure=0.5,
        meter=meter,
        scenario=RUN,
        over={**RUN, "batch": 2},
    )


def test_a_ratio_is_of_two_runs():
    def verdict(meter: str, first: float, second: float) -> str:
        return judge(ratio(meter), [[took(first), took(second)]]).kind

    assert verdict("allocated", 10, 20) == "confirmed on paper"
    assert verdict("allocated", 10, 16) == "refuted on paper"
    assert verdict("unknown", 10, 20) == "confirmed on paper"
    assert verdict("unknown", 0.5, 1.0) == "undecided"  # the context decides
    assert verdict("nvidia-smi", 0.5, 1.0) == "refuted on paper"
    assert verdict("reserved", 10, 16) == "undecided"


def test_without_a_prediction_it_is_unknown_and_says_why():
    found = judge(two_readings(), [[took(20)], [Forecast(reason="no such layer")]])
    assert found.kind == "unknown" and found.reason == "no such layer" and found.span is None


def test_other_model_code_is_not_comparable():
    found = judge(figure(code="other"), [[took(20)]])
    assert found.kind == "not comparable" and "code of its own" in found.reason
    assert found.span == (20.0, 20.0)


def test_parts_are_judged_alone_and_the_worst_counts():
    one = figure(
        meter="estimate",
        parts={
            "weights": {"figure": 15.0, "of": ["weights"]},
            "states": {"figure": 5.0, "of": ["optimizer", "paged"]},
        },
    )

    def verdict(**live):
        return judge(one, [[took(20, paged=2, **live)]])

    right = verdict(weights=15, optimizer=3)
    assert right.kind == "confirmed on paper"
    wrong = verdict(weights=15, optimizer=5)
    assert wrong.kind == "refuted on paper" and "1 of 2 parts" in wrong.reason
    assert [part.kind for part in wrong.parts] == ["confirmed on paper", "refuted on paper"]
    assert wrong.parts[1].span == (7.0, 7.0)


def test_a_component_holds_no_context():
    one = figure(meter="unknown", of=["weights"])
    assert judge(one, [[took(30, weights=21.9)]]).kind == "confirmed on paper"


# --- what is shown ------------------------------------------------------------------------------


def verdicts_to_show():
    whole = figure(meter="estimate", parts={"weights": {"figure": 15.0, "of": ["weights"]}})
    return [
        judge(whole, [[took(20, weights=30)]]),
        judge(two_readings(id="another", claim=None), [[took(20)], [took(30)]]),
    ]


def test_text_has_figure_prediction_verdict_conditions_and_what_fits():
    text = memory_text(verdicts_to_show())
    assert text.startswith("C04  1 refuted on paper")
    assert "No claim  1 undecided" in text
    for words in (
        "a-figure",
        "20.00 GB",
        "Weights: 15.00 GB, predicted 30.00 GB, refuted on paper.",
        "20.00 to 30.00 GB",
        "Fits with length 512.",
        "Not stated: tried length 512 or 1024.",
        "llama-7b, lora, r 8, on all-linear, bf16 weights",
        "meter: allocated",
        "a paper.",
    ):
        assert words in text, words


def test_facts_survive_json():
    facts = json.loads(json.dumps(memory_facts(verdicts_to_show())))
    assert facts[0]["verdict"] == "refuted on paper"
    assert facts[0]["parts"][0]["predicted"] == [30.0, 30.0]
    assert facts[1]["readings"][1] == {
        "chosen": {"length": 1024},
        "predicted": 30.0,
        "holds": "impossible",
        "reason": "",
    }


# --- one real prediction ------------------------------------------------------------------------


@pytest.mark.heavy
@pytest.mark.slow
@pytest.mark.real
def test_a_small_run_is_predicted(tmp_path):
    """Weights, gradients and both states of an encoder in fp32 are 16 bytes a parameter."""
    run = {
        "model": "minilm-l6",
        "method": "full",
        "quantization": "none",
        "weights": "fp32",
        "autocast": False,
        "batch": 1,
        "length": 8,
        "checkpointing": False,
        "optimizer": "adamw",
        "accumulation": 1,
        "attention": "sdpa",
    }
    (told,) = forecasts([Scenario.model_validate(run).request()], tmp_path)
    assert not told.reason
    ledger = tmp_path / "memory.yaml"
    states = {
        **FIGURE,
        "scenario": run,
        "unit": "MB",
        "figure": 16 * told.trainable / 1e6,
        "of": ["adapter", "gradients", "optimizer"],
    }
    ledger.write_text(json.dumps({"figures": [states]}))
    (found,) = memory_verdicts(ledger, tmp_path)
    assert found.kind == "confirmed on paper" and found.kind in KINDS
    assert found.span is not None and found.span[0] == pytest.approx(found.claimed, rel=0.001)


# --- unfair ratios ------------------------------------------------------------------------------


def of_two_methods(**over) -> Figure:
    nf4 = {**RUN, "quantization": "nf4", "double_quantization": False}
    return figure(
        kind="ratio", unit="ratio", figure=1.2, scenario={**nf4, "batch": 2}, over={**RUN, **over}
    )


def test_a_ratio_of_methods_at_another_batch_is_unfair_and_never_confirmed():
    unfair = of_two_methods()
    assert unfair.unfair == ("batch",)
    scenarios = unfair.readings[0][1]
    assert [one.batch for one in scenarios] == [2, 1, 1]
    assert scenarios[2].quantization == "nf4"
    verdict = judge(unfair, [[took(6), took(5), took(3)]])
    assert verdict.kind == "not comparable" and verdict.readings[0].fair == pytest.approx(0.6)
    assert "batch 2 against 1; with batch 1 on both sides 0.60 is predicted" in verdict.reason


def test_a_ratio_at_one_batch_or_of_one_method_is_fair():
    assert of_two_methods(batch=2).unfair == ()
    assert kind_of_ratio(of_two_methods(batch=2)) == "confirmed on paper"
    same = figure(
        kind="ratio", unit="ratio", figure=1.2, scenario={**RUN, "batch": 2}, over=dict(RUN)
    )
    assert same.unfair == () and kind_of_ratio(same) == "confirmed on paper"


def kind_of_ratio(one: Figure) -> str:
    return judge(one, [[took(6), took(5)]]).kind

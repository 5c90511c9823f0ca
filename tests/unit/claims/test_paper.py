"""Claims that need no run: counts, errors of data types, and predictions of memory figures."""

from __future__ import annotations

import pytest

from claimed import A, B, build, claim, difference, rows
from peftmark.catalog.methods import Cell
from peftmark.claims import paper as claims_paper
from peftmark.claims.ledger import load_claims
from peftmark.claims.memory_figures import MemoryVerdict, Reading
from peftmark.claims.memory_ledger import load_figures
from peftmark.claims.paper import PREDICT, Paper, gather, on_paper
from peftmark.claims.standing import Ledger, Line
from peftmark.claims.text import claims_facts, claims_text
from peftmark.claims.verdicts import verdicts, without_rows
from peftmark.claims.weight_errors import WeightErrors, load_errors
from peftmark.core.errors import SuiteError
from peftmark.memory.forecast import NOT_YET, Forecast
from places import SUITES

OURS = load_claims([SUITES])
FIGURES = {f.id: f for f in load_figures(SUITES / "claims" / "memory.yaml")}
ONE, OTHER = Cell("lora", 8, "none"), Cell("lora", 32, "none")


def counted(**limits):
    cells = {"of": {"method": "lora", "rank": 8}, "to": {"method": "lora", "rank": 32}}
    return {"part": "fewer", "counted": {"suite": "demo", "profile": "full", **cells, **limits}}


def weighed(of="nf4", to="int4", **limits):
    return {"part": "error", "weights": {"model": "minilm-l6", "of": of, "to": to, **limits}}


def predicted(*ids):
    return {"part": "fits", "figures": list(ids)}


def verdict_of(name, kind, reason=""):
    reading = (Reading({}, 5.0, "fits"),)
    return MemoryVerdict(FIGURES[name], FIGURES[name].figure, kind, reason, reading)


def kind_of(test, paper):
    part = on_paper(claim(test).tests[0], paper)
    assert part is not None
    return part.kind


# --- counts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "kind"),
    [(49, "refuted on paper"), (50, "confirmed on paper"), (71, "refuted on paper")],
)
def test_a_count_is_held_against_its_limits_ends_included(one, kind):
    paper = Paper(counts={("demo", "full", ONE): one, ("demo", "full", OTHER): 100})
    test = counted(within=[0.5, 0.7])
    part = on_paper(claim(test).tests[0], paper)
    assert (part.kind, part.effect) == (kind, one / 100)
    assert part.notes == (f"LoRA r8 has {one} adapter parameters, LoRA r32 100",)


def test_what_was_not_counted_is_undecided():
    part = on_paper(claim(counted(at_most=1.0)).tests[0])
    assert (part.kind, part.reason) == ("undecided", "the parameters were not counted")
    assert without_rows(claim(counted(at_most=1.0))).settle == ("peftmark claims",)
    failed = Paper(counts={("demo", "full", ONE): 1, ("demo", "full", OTHER): "no such layer"})
    part = on_paper(claim(counted(at_most=1.0)).tests[0], failed)
    assert (part.kind, part.reason) == ("undecided", "no such layer")


def test_the_mixed_scheme_is_counted_on_the_stated_model_with_the_real_architecture(monkeypatch):
    """1.02 times the high scheme and 0.61 times LoRA of rank 32 are this suite's own counts."""
    asked = []

    def told(requests, cache, **rest):
        asked.extend(requests)
        return [Forecast(trainable=100 * (i % 2 == 0) + 7) for i, _ in enumerate(requests)]

    monkeypatch.setattr(claims_paper, "forecasts", told)
    found = gather([OURS["C15"]], [SUITES], SUITES, None)
    assert set(found.counts.values()) == {100}  # what trains less what the head alone trains
    assert len(found.counts) == 3
    assert {one.config["hidden_size"] for one in asked} == {768}
    assert [one.job.method for one in asked] == ["hybrid", "head", "hybrid", "head", "lora", "head"]
    assert all(one.job.recipe.alpha is None for one in asked if one.job.method == "head")
    assert {t.part for t in OURS["C15"].tests if t.counted} == {
        "mixed trains fewer than high scheme",
        "mixed trains fewer than LoRA r32",
    }


# --- errors of data types -----------------------------------------------------------------------


def test_an_error_is_held_against_another():
    errors = WeightErrors(
        weights=10, block=64, nf4=0.09, fp4=0.12, int4=0.1, nf4_double=0.09, fp4_double=0.12,
        largest={}, constants=1e-4,
    )  # fmt: skip
    paper = Paper(errors={("minilm-l6", False): errors})
    assert kind_of(weighed(at_most=1.0), paper) == "confirmed on paper"
    assert kind_of(weighed(at_most=0.8), paper) == "refuted on paper"
    assert kind_of(weighed("fp4", "int4", at_most=1.0), paper) == "refuted on paper"
    assert kind_of(weighed(at_most=1.0), Paper()) == "undecided"
    tuned = Paper(errors={("minilm-l6", True): errors})
    assert kind_of(weighed(at_most=1.0), tuned) == "undecided"
    assert kind_of(weighed(at_most=1.0, fine_tuned=True), tuned) == "confirmed on paper"


def test_nf4_has_the_smallest_error_on_every_packaged_encoder():
    found = gather([OURS["C08"]], [SUITES], SUITES, None)
    assert without_rows(OURS["C08"], paper=found).kind == "confirmed on paper"
    assert set(found.errors) == {
        ("minilm-l6", False), ("mpnet-base", False), ("minilm-l6", True)
    }  # fmt: skip
    read = {(t.weights.model, t.weights.fine_tuned) for t in OURS["C08"].tests if t.weights}
    assert read == set(found.errors)


def test_a_faulty_file_of_errors_names_itself(tmp_path):
    (tmp_path / "claims").mkdir()
    (tmp_path / "claims" / "weight-errors.yaml").write_text("models: {minilm-l6: {nf4: 0.1}}\n")
    with pytest.raises(SuiteError, match=r"weight-errors\.yaml") as caught:
        load_errors([tmp_path])
    assert "data_types_page" in caught.value.remedy
    assert load_errors([tmp_path / "claims"]) == {}


# --- published memory figures -------------------------------------------------------------------

FITS, NEEDS = "article-llama-7b-fits-6gb", "guide-llama-7b-full"


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ("confirmed on paper", "confirmed on paper", "confirmed on paper"),
        ("confirmed on paper", "refuted on paper", "refuted on paper"),
        ("confirmed on paper", "undecided", "undecided"),
        ("confirmed on paper", "not comparable", "not comparable"),
        ("confirmed on paper", "unknown", "undecided"),
    ],
)
def test_a_part_of_several_figures_holds_only_if_all_do(one, other, kind):
    found = [verdict_of(FITS, one), verdict_of(NEEDS, other)]
    paper = Paper(figures={v.figure.id: v for v in found})
    assert kind_of(predicted(FITS, NEEDS), paper) == kind


def test_what_was_not_predicted_is_undecided_and_says_what_predicts_it():
    part = on_paper(claim(predicted(FITS)).tests[0])
    assert (part.kind, part.reason, part.settle) == ("undecided", NOT_YET, PREDICT)
    waiting = Paper(figures={FITS: verdict_of(FITS, "unknown", NOT_YET)})
    part = on_paper(claim(predicted(FITS)).tests[0], waiting)
    assert (part.kind, part.settle) == ("undecided", PREDICT)


def test_every_figure_that_a_claim_rests_on_is_one_of_its_own():
    for one in OURS.values():
        for test in one.tests or []:
            for name in test.figures or []:
                assert FIGURES[name].claim == one.id


def test_a_claim_shows_the_verdicts_of_the_memory_ledger_that_are_its_own():
    own = [name for name, figure in FIGURES.items() if figure.claim == "C09"]
    assert len(own) == 18
    found = {name: verdict_of(name, "confirmed on paper") for name in own}
    found[NEEDS] = verdict_of(NEEDS, "undecided", "it depends")
    found["other"] = verdict_of("article-65b-qlora", "refuted on paper")
    line = Line(OURS["C09"], (), (), Paper(figures=found))
    text = claims_text(Ledger((line,)))
    counts = "17 confirmed on paper, 1 undecided"
    assert f"18 published memory figures, compared with predictions: {counts}" in text
    assert all(name in text for name in own)
    assert "article-65b-qlora" not in text
    assert line.paper.kind == "undecided"
    facts = claims_facts(Ledger((line,)))["claims"][0]
    assert {one["id"] for one in facts["memory_figures"]} == set(own)


def test_figures_that_were_not_predicted_are_counted_in_one_line():
    found = {FITS: verdict_of(FITS, "unknown", NOT_YET)}
    text = claims_text(Ledger((Line(OURS["C09"], (), (), Paper(figures=found)),)))
    assert f"1 published memory figure, {NOT_YET}: {PREDICT}" in text


def test_nothing_is_predicted_where_only_the_ledger_is_shown(monkeypatch):
    kept = {}

    def told(ledger, cache, **rest):
        kept.update(rest)
        return [verdict_of(FITS, "unknown", NOT_YET), verdict_of("article-65b-qlora", "undecided")]

    monkeypatch.setattr(claims_paper, "memory_verdicts", told)
    found = gather([OURS["C09"]], [SUITES], SUITES, None)
    assert kept == {"only_kept": True}
    assert list(found.figures) == [FITS]


def test_verdicts_from_rows_take_what_was_computed():
    table = build([*rows(A, [0.85, 0.86, 0.89]), *rows(B, [0.80, 0.82, 0.83])])
    both = claim(difference("better", at_least=0.0), counted(within=[0.5, 0.7]))
    paper = Paper(counts={("demo", "full", ONE): 60, ("demo", "full", OTHER): 100})
    (found,) = verdicts(table, [both], paper)
    assert [p.kind for p in found.parts] == ["reproduced", "confirmed on paper"]
    assert found.kind == "reproduced"
    assert verdicts(table, [both])[0].kind == "undecided"

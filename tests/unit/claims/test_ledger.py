"""The ledger: what a claim may be, what is refused and how, and that the shipped ones fit."""

from __future__ import annotations

import copy
import math
import re
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

import small_suite
from claimed import A, B, best_rate, claim, difference, interaction, order, paper, ratio, spread
from peftmark.catalog.models import MODELS
from peftmark.catalog.quantizations import QUANTIZATIONS
from peftmark.catalog.tasks import TASKS
from peftmark.claims.arithmetic import calculate
from peftmark.claims.ledger import LEDGER, MEASURES, load_claims
from peftmark.core.errors import SuiteError
from peftmark.record.job import Job
from peftmark.record.outcome import OUTCOME_FIELDS
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite, suite_names
from places import DOCS, ROOT, SUITES

LEDGER_OF_OURS = load_claims([SUITES])
LOADED = {name: load_suite(name, SUITES) for name in suite_names(SUITES)}


@cache
def jobs_of(suite: str, profile: str) -> list[Job]:
    return expand(LOADED[suite], profile, "cpu").jobs


BASE: dict[str, Any] = {
    "id": "C01",
    "statement": "A is better than B.",
    "sources": [{"title": "an article", "where": "table 1"}],
    "setting": {
        "model": "BERT",
        "tasks": "GLUE",
        "budget": "0.1 %",
        "selection": "not stated",
        "scale": "full",
    },
    "tests": [difference(at_least=0.02)],
}


def write(folder: Path, *claims: Any) -> Path:
    path = folder / LEDGER
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({"claims": list(claims)}, sort_keys=False), "utf-8")
    return folder


def refusal(folder: Path, *claims: Any) -> str:
    with pytest.raises(SuiteError) as caught:
        load_claims([write(folder, *claims)])
    assert str(folder / LEDGER) in caught.value.what
    assert "docs/claims.md" in caught.value.remedy
    return caught.value.what


def changed(**changes: Any) -> dict[str, Any]:
    found = copy.deepcopy(BASE) | changes
    return {k: v for k, v in found.items() if v is not None}


# --- the shipped ledger -------------------------------------------------------------------------


def test_all_the_claims_are_there_and_each_has_a_test_or_a_reason():
    assert list(LEDGER_OF_OURS) == [f"C{n:02}" for n in range(1, 93)]
    for one in LEDGER_OF_OURS.values():
        assert (one.tests is None) != (one.untestable is None)


@pytest.mark.parametrize("one", LEDGER_OF_OURS.values(), ids=lambda c: c.id)
def test_a_shipped_claim_finds_its_cells_and_tasks_in_every_profile_it_names(one):
    for test in one.tests or []:
        if not test.measured:
            continue
        suite = LOADED[test.suite]
        profiles = test.profiles or list(suite.profiles)
        assert set(profiles) <= set(suite.profiles), test.part
        for name in profiles:
            cells = {job.cell for job in jobs_of(test.suite, name)}
            assert set(test.cells) <= cells, f"{test.part} in {test.suite}, {name}"
            assert set(test.tasks or []) <= set(suite.profiles[name].tasks), test.part


@pytest.mark.parametrize("one", LEDGER_OF_OURS.values(), ids=lambda c: c.id)
def test_cells_whose_scores_a_shipped_claim_compares_train_on_equally_many_rows(one):
    for test in one.tests or []:
        if test.suite is None or not any(m.of_training for m in test.measures()):
            continue
        suite = LOADED[test.suite]
        for name in test.profiles or suite.profiles:
            rows: dict[str, set[int]] = {}
            for job in jobs_of(test.suite, name):
                if job.cell in test.cells and job.task in (test.tasks or [job.task]):
                    rows.setdefault(job.task, set()).add(job.recipe.steps * job.recipe.batch_size)
            assert rows and all(len(found) == 1 for found in rows.values()), (test.part, name, rows)


def test_every_cell_of_the_full_glue_profile_trains_on_equally_many_rows():
    rows: dict[str, set[tuple[int, int]]] = {}
    for job in jobs_of("glue", "full"):
        rows.setdefault(job.task, set()).add((job.recipe.steps, job.recipe.batch_size))
    assert len(rows) == 8
    assert all(len(found) == 1 for found in rows.values())
    # MNLI: 392,702 rows less 1,000 that are kept back, 32 a step, seven times.
    assert rows["mnli"] == {(7 * math.ceil(391_702 / 32), 32)}


def test_every_profile_that_tests_a_claim_says_where_its_learning_rates_come_from():
    silent = {
        (suite.name, name)
        for suite in LOADED.values()
        for name, profile in suite.profiles.items()
        if suite.claims and not profile.rates and profile.tuning is None
    }
    assert silent == set()


def test_a_suite_names_exactly_the_claims_that_its_rows_test():
    for name, suite in LOADED.items():
        tested = [one.id for one in LEDGER_OF_OURS.values() if name in one.suites]
        assert list(suite.claims) == tested, name


def test_every_part_of_a_claim_is_tested_by_every_suite_that_tests_the_claim():
    for one in LEDGER_OF_OURS.values():
        for suite in one.suites:
            parts = {t.part for t in one.tests or [] if t.suite == suite or not t.measured}
            assert parts == set(one.parts), f"{one.id} in {suite}"


def test_measures_are_fields_of_a_row():
    plain = {key for key, measure in MEASURES.items() if measure.derived is None}
    assert plain <= set(OUTCOME_FIELDS)
    assert not (set(MEASURES) - plain) & set(OUTCOME_FIELDS)


def test_the_document_on_claims_names_tests_that_are_there():
    named = set(re.findall(r"`(test_\w+)`", (DOCS / "claims.md").read_text("utf-8")))
    files = (ROOT / "tests").rglob("test_*.py")
    there = {name for f in files for name in re.findall(r"^def (test_\w+)", f.read_text(), re.M)}
    assert named and named <= there, named - there


def test_the_document_on_claims_names_every_measure():
    text = (DOCS / "claims.md").read_text("utf-8")
    assert [key for key in MEASURES if f"`{key}`" not in text] == []


@pytest.mark.parametrize(
    ("suite", "profile", "rows"),
    [
        ("rank-by-rows", "offline", 800),
        ("rank-by-rows", "offline-all", 4866 - 250),
        ("rank-by-rows", "full", 8000),
    ],
)
def test_the_rank_that_is_said_to_be_enough_is_that_for_the_rows_there_are(suite, profile, rows):
    job = next(j for j in expand(LOADED[suite], profile, "cpu").jobs if j.task != "mrpc")
    assert (job.recipe.train_rows or TASKS[job.task].train_rows - job.recipe.selection_rows) == rows
    for part in ("log2(N)/2 is enough", "log2(N)/2 is enough, one scale"):
        tests = [
            t
            for t in LEDGER_OF_OURS["C13"].tests or []
            if t.part == part and t.belongs_to(suite, profile)
        ]
        assert {t.cells[0].size for t in tests} == {int(math.log2(rows) / 2)}
        assert [t.cells[1].size for t in tests] == [16, 32, 64]


@pytest.mark.parametrize("profile", ["offline", "offline-all", "full"])
def test_ranks_are_compared_at_one_scale_too(profile):
    scales: dict[tuple[str, str], set[float]] = {}
    ranks: dict[tuple[str, str], set[int]] = {}
    for job in jobs_of("rank-by-rows", profile):
        if job.size_kind == "rank" and job.purpose == "report":
            power = 0.5 if job.method == "rslora" else 1.0
            key = job.method, job.variant
            scales.setdefault(key, set()).add(job.recipe.alpha / job.size**power)
            ranks.setdefault(key, set()).add(job.size)
    assert scales["lora", "alpha 2r"] == {2.0}
    assert ranks["lora", "alpha 2r"] == {4, 6, 16, 32, 64}
    assert scales["lora", ""] == {8.0, 4.0, 16 / 6, 2.0, 1.0, 0.5, 0.25}
    # rsLoRA is at LoRA's scale of rank 8 there, and falls with the root of the rank alone.
    assert sorted(scales["rslora", ""]) == pytest.approx([2 / 8**0.5, 2.0], rel=1e-3)


def test_low_rank_is_held_against_full_fine_tuning_on_the_tasks_it_is_stated_for():
    tests = LEDGER_OF_OURS["C12"].tests or []
    found = {(t.tasks[0], t.cells[0].size) for t in tests if len(t.tasks or []) == 1}
    assert found == {("sst-2", 1), ("qnli", 2), ("rte", 1)}
    assert {tuple(t.profiles) for t in tests} == {("full", "low-ranks")}


def test_the_paged_optimizer_is_held_against_one_that_differs_in_nothing_else():
    for test in LEDGER_OF_OURS["C25"].tests or []:
        if test.suite is None:
            assert "loss of single steps" in test.untestable
            continue
        paged, plain = (
            next(j for j in jobs_of(test.suite, "full") if j.cell == cell) for cell in test.cells
        )
        assert (paged.recipe.optimizer, plain.recipe.optimizer) == (
            "paged_adamw_8bit",
            "adamw_8bit",
        )
        assert replace(paged.recipe, optimizer="adamw_8bit") == plain.recipe


def test_no_reason_says_that_suites_name_encoders_alone():
    for one in LEDGER_OF_OURS.values():
        reasons = [one.untestable, *(t.untestable for t in one.tests or [])]
        assert not any(reason and "encoders alone" in reason for reason in reasons), one.id
    gradients = LEDGER_OF_OURS["C18"].untestable
    assert gradients is not None and "gradient_shares" in gradients


def test_every_claim_says_how_it_is_read_or_is_untestable():
    unread = {one.id for one in LEDGER_OF_OURS.values() if not one.reading and one.tests}
    assert unread == {"C26"}  # a sum of printed figures needs no reading


def exact_profiles(one):
    """Profiles of full scale on the stated model that a claim's rows may come from."""
    return {
        (test.suite, name)
        for test in one.tests or []
        if test.measured
        for name, profile in LOADED[test.suite].profiles.items()
        if (test.profiles is None or name in test.profiles)
        and profile.scale == "full"
        and profile.model in one.setting.models
    }


def test_a_claim_has_a_profile_that_judges_it_as_stated_or_says_what_is_missing_here():
    for one in LEDGER_OF_OURS.values():
        if any(test.measured for test in one.tests or []):
            assert one.not_here or exact_profiles(one), one.id
        # With a profile of its model, what is missing can be its tasks alone.
        assert not one.not_here or not exact_profiles(one) or not one.setting.task_names, one.id


def test_what_is_said_to_be_missing_here_is_missing():
    """Models, tasks and data types that reasons name."""
    reasons = " ".join(
        reason
        for one in LEDGER_OF_OURS.values()
        for reason in (one.not_here, one.untestable, *(t.untestable for t in one.tests or []))
        if reason
    )
    titles = " ".join(model.title for model in MODELS.values())
    for name in ("Qwen3", "Llama-3", "LLaMA", "T5"):
        assert name in reasons and name not in titles
    tasks = " ".join(f"{task.key} {task.title}" for task in TASKS.values()).lower()
    for name in ("BoolQ", "AG News", "XSum", "SciERC", "SuperGLUE", "Tulu", "OpenThoughts"):
        assert name in reasons and name.lower() not in tasks
    assert "int4" in reasons and "int4" not in QUANTIZATIONS
    assert "1.7 billion" in reasons and max(map(billions, MODELS.values())) == 1.7


def billions(model):
    """Weights of a model by its title; encoders are far below one."""
    found = re.search(r"([0-9.]+)B$", model.title)
    return float(found[1]) if found else 0.0


# --- faults of a ledger -------------------------------------------------------------------------


def test_a_good_ledger_loads_and_that_of_the_first_folder_wins(tmp_path):
    mine = write(tmp_path / "mine", changed(statement="Mine is better."), changed(id="C77"))
    other = write(tmp_path / "other", changed(), changed(id="C02"))
    found = load_claims([mine, other])
    assert list(found) == ["C01", "C02", "C77"]
    assert found["C01"].statement == "Mine is better."
    assert load_claims([tmp_path]) == {}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"tests": None}, "either `tests` or `untestable`"),
        ({"untestable": "there is no row"}, "either `tests` or `untestable`"),
        ({"id": "claim 1"}, "claims[0].id: found 'claim 1'"),
        ({"statement": ""}, "claims[0].statement: found ''"),
        ({"tests": []}, "claims[0].tests: found []"),
        ({"colour": "red"}, "claims[0].colour: unknown key"),
        ({"tests": [difference(at_least=0.1, at_most=0.2)]}, "here: at_least, at_most"),
        ({"tests": [difference()]}, "exactly one of at_least, at_most, within; here: none"),
        ({"tests": [difference(within=[0.2, 0.1])]}, "must lie below"),
        ({"tests": [difference(at_least="0.1")]}, "at_least: found '0.1'"),
        ({"tests": [difference(at_least=float("nan"))]}, "finite number"),
        ({"tests": [difference(at_least=0.1, measure="speed")]}, "unknown measure"),
        ({"tests": [ratio(at_least=-1.0)]}, "limits of a ratio are positive"),
        ({"tests": [ratio(at_most=0.0)]}, "limits of a ratio are positive"),
        ({"tests": [spread(at_most=-0.5)]}, "limits of a ratio are positive"),
        ({"tests": [spread(at_most=0.5, measure="adapter_bytes")]}, "has no spread over seeds"),
        ({"tests": [interaction([A, B], [A, B], at_least=0.0)]}, "between two changes"),
        ({"tests": [interaction([A, A], [A, B], at_least=0.0)]}, "between two cells"),
        ({"tests": [interaction([A], [A, B], at_least=0.0)]}, "interaction.of"),
        ({"tests": [best_rate(within=[20.0, 5.0])]}, "must lie below"),
        ({"tests": [best_rate(at_least=5.0, suite=None)]}, "needs the suite"),
        ({"not_here": "no"}, "not_here"),
        ({"tests": [order(A)]}, "order.cells"),
        ({"tests": [order(A, A)]}, "a cell stands twice"),
        ({"tests": [difference(at_least=0.1, suite=None)]}, "needs the suite"),
        ({"tests": [{**paper("1 + 1", 2), "suite": "demo"}]}, "needs no rows"),
        ({"tests": [{**paper("1 + 1", 2), "untestable": "no row has it"}]}, "exactly one of"),
        ({"tests": [{"part": "x"}]}, "exactly one of difference"),
        ({"tests": [difference(at_least=0.1, tasks=["mlni"])]}, "did you mean mnli?"),
        ({"tests": [paper("__import__('os')", 2)]}, "only numbers"),
        ({"sources": [{"title": "x" * 9, "where": "table 1", "arxiv": "abc"}]}, "arxiv"),
        ({"setting": BASE["setting"] | {"models": ["gpt-9"]}}, "unknown model"),
    ],
)
def test_a_faulty_claim_is_refused_with_its_place(tmp_path, fields, message):
    found = refusal(tmp_path, changed(**fields))
    assert message in found


def test_a_size_that_the_method_does_not_have_is_refused(tmp_path):
    cell = {"of": {"method": "adapter", "rank": 64}, "to": {"method": "head", "rank": 1}}
    test = {"part": "x", "suite": "demo", "difference": {**cell, "at_least": 0.0}}
    found = refusal(tmp_path, changed(tests=[test]))
    assert "adapter has no rank; its size is `width`" in found
    assert "head has no rank; it has no size" in found


def test_every_fault_is_told_at_once_with_the_id_of_its_claim(tmp_path):
    found = refusal(tmp_path, changed(statement=""), changed(id="C02", sources=[]))
    assert "2 faults" in found
    assert "C01: claims[0].statement" in found
    assert "C02: claims[1].sources" in found


def test_an_id_may_stand_once(tmp_path):
    assert "the id C01 stands here 2 times" in refusal(tmp_path, changed(), changed())


def test_what_is_no_yaml_names_the_line(tmp_path):
    (tmp_path / LEDGER).parent.mkdir()
    (tmp_path / LEDGER).write_text("claims:\n  - id: [\n")
    with pytest.raises(SuiteError, match="line 3"):
        load_claims([tmp_path])


# --- claims of a suite --------------------------------------------------------------------------


def test_a_suite_names_claims_and_its_jobs_stay_what_they_are(tmp_path):
    write(tmp_path, changed(), changed(id="C02"))
    small_suite.write(tmp_path, small_suite.BASE)
    before = small_suite.reported(load_suite("demo", tmp_path), "quick")
    small_suite.write(tmp_path, small_suite.changed((("claims",), ["C02", "C01"])))
    suite = load_suite("demo", tmp_path)
    assert suite.claims == ("C02", "C01")
    assert [j.job_id for j in small_suite.reported(suite, "quick")] == [j.job_id for j in before]


def test_an_unknown_claim_of_a_suite_is_refused_with_those_there_are(tmp_path):
    write(tmp_path, changed(), changed(id="C02"))
    content = small_suite.changed((("claims",), ["C01", "C0X", "C01"]))
    message = small_suite.refusal(tmp_path, content)
    assert "claims[1]: found 'C0X'; unknown claim (did you mean" in message
    assert "allowed: C01, C02" in message
    assert "claims[2]: found 'C01'; each claim may stand once" in message
    assert "claims: found 'C01'" in small_suite.refusal(
        tmp_path, small_suite.changed((("claims",), "C01"))
    )


def test_an_unknown_claim_is_told_beside_faults_of_shape(tmp_path):
    content = small_suite.changed((("claims",), ["C99"]), (("recipe", "colour"), 1))
    message = small_suite.refusal(tmp_path, content)
    assert "claims[0]: found 'C99'" in message
    assert "recipe.colour: unknown key" in message


# --- arithmetic ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("65e9 * 4 / 8 / 1e9", 32.5),
        ("32 / 64 - (8 / 64 + 32 / (64 * 256))", 0.373046875),
        ("-2 ** 2", -4.0),
        ("+3 - -1", 4.0),
        ("2 ** 0.5", 2**0.5),
        ("  7  ", 7.0),
    ],
)
def test_arithmetic_by_hand(expression, value):
    assert calculate(expression) == pytest.approx(value, rel=1e-15)


@pytest.mark.parametrize(
    "expression",
    [
        "x",
        "abs(1)",
        "__import__('os').getcwd()",
        "[1][0]",
        "'a' * 3",
        "True + 1",
        "1j",
        "1 if 1 else 2",
        "1 < 2",
        "1 // 2",
        "5 % 2",
        "1 << 8",
        "~1",
        "not 1",
        "1; 2",
        "1 and 2",
        "(lambda: 1)()",
        "",
        "1 +",
        "1 / 0",
        "9 ** 9 ** 9",
        "1e308 * 10",
        "(-1) ** 0.5",
        "1 + " * 99 + "1",
        "(" * 190,
    ],
)
def test_anything_else_than_arithmetic_is_refused(expression):
    with pytest.raises(ValueError):
        calculate(expression)


def test_claims_name_their_parts_and_suites_once():
    one = claim(
        difference(at_least=0.0), ratio(at_most=1.0), difference(at_least=0.0), paper("1", 1)
    )
    assert one.parts == ("quality", "costs", "sum")
    assert one.suites == ("demo",)
    assert [t.intervals for t in one.tests] == [1, 1, 1, 0]
    sizes = claim(ratio(at_most=1.0, measure="adapter_bytes"), order(A, B))
    assert [t.intervals for t in sizes.tests] == [0, 1]

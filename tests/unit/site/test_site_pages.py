"""The site's own pages: what they show of made rows, escaped, and what they say is missing."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from claimed import claim, difference
from factory import ADALORA, LORA, QLORA, make_matrix, make_record, make_trials
from peftmark.analysis.table import ratio
from peftmark.catalog.methods import METHODS
from peftmark.catalog.methods import Cell as Trained
from peftmark.claims.part import Part
from peftmark.claims.standing import Line, Standing
from peftmark.claims.verdicts import Verdict
from peftmark.cli.parser import COMMANDS
from peftmark.core.strict import Strict
from peftmark.docgen.methods_page import Counts
from peftmark.render import words
from peftmark.site import reference, text
from peftmark.site.answers import Answer, step_seconds
from peftmark.site.build import HERE
from peftmark.site.cards import cards, verdict
from peftmark.site.carry_over import NOT_MEASURED, carry_over_page, columns, differences, summary
from peftmark.site.claims_page import claims_page, counts, standing_text
from peftmark.site.evidence import EXAMPLE, runs_of, sources
from peftmark.site.front import front
from peftmark.site.run_pages import address, report_of, run_page, suites_page
from peftmark.site.text import Cell
from peftmark.storage.store import Store
from peftmark.suite import schema, schema_runs
from places import ROOT
from site_runs import run_of

COUNTS = Counts(592_130, {"lora": (294_912, 294_912)})


@pytest.fixture(scope="module")
def run():
    return run_of(make_matrix((LORA, ADALORA, QLORA)))


def suite(name, **profiles):
    made = {
        key: SimpleNamespace(model=model, summary="-", scale="reduced")
        for key, model in profiles.items()
    }
    return SimpleNamespace(name=name, summary=f"{name} asks", profiles=made)


# --- text ---------------------------------------------------------------------------------------


def test_nothing_in_a_table_acts_on_the_page():
    hostile = '<script>alert("x")</script>'
    made = text.table([hostile], [[Cell(hostile, hostile, f'a"{hostile}.md')]], hostile)
    assert "<script>" not in made and made.count("&lt;script&gt;") == 5
    assert 'href="a%22' in made


def test_a_link_of_a_table_leads_to_a_page_as_it_is_on_the_site():
    made = text.table(["x"], [[Cell("C01", address="claims.md#c01")]], "-")
    assert 'href="claims.html#c01"' in made


def test_a_verdict_looks_like_one_whatever_follows_it():
    assert text.look_of("contradicted in size and undecided in direction") == "bad"
    assert text.look_of("undecided") == "open"
    assert text.look_of("lowercase") == ""


# --- runs ---------------------------------------------------------------------------------------


def test_the_page_of_a_run_says_its_scale_and_has_its_rows_and_its_report(run):
    made = run_page(run)
    assert "all-MiniLM-L6-v2 of 22.7 million parameters, 2 tasks, 3 seeds" in made
    assert "reduced scale" in made
    assert f"../{report_of(run)}" in made and "rows.parquet" in made
    assert "18 rows" in made
    suite = run.plan.suite
    assert f"{suite.summary} This profile: {suite.profiles[run.profile].summary}" in made
    for cell in ("LoRA r8", "AdaLoRA r8", "QLoRA r8"):
        assert f'<th scope="row">{cell}</th>' in made


def test_a_profile_without_published_rows_says_none(run):
    made = suites_page({"demo": suite("demo", quick="minilm-l6", large="roberta-base")}, [run])
    assert re.search(r">quick<.*?18 rows", made)
    assert re.search(r">large<.*?>none<", made)


@pytest.mark.slow
def test_every_file_of_published_rows_is_read_and_those_without_reported_ones_make_no_run(
    tmp_path,
):
    found = sources(ROOT)
    assert ROOT / EXAMPLE in found
    published = set((ROOT / "results" / "published").glob("*/rows.parquet"))
    assert published <= set(found)
    (example,) = runs_of([ROOT / EXAMPLE], ROOT, tmp_path)
    assert (example.suite, example.sources) == ("glue", (EXAMPLE,))
    (twice,) = runs_of([ROOT / EXAMPLE] * 2, ROOT, tmp_path / "twice")
    assert twice.sources == (EXAMPLE, EXAMPLE) and twice.table.slots == example.table.slots
    assert example.table.slots and not (example.results / "glue" / "logs").exists()


def test_a_file_of_trials_alone_makes_no_run(tmp_path):
    store = Store(tmp_path, "demo")
    with store.lock():
        for row in make_trials((LORA,), ("sst2",)):
            store.append(row)
        store.rebuild()
    file = store.folder / "results.parquet"
    assert file.is_file() and runs_of([file], tmp_path, tmp_path / "work") == []


def test_a_run_of_full_scale_and_of_a_larger_model_comes_first():
    from peftmark.site.evidence import weight

    small = run_of(make_matrix((LORA,)))
    large = run_of(make_matrix((LORA,), model="mpnet-base"))
    full = run_of(make_matrix((LORA,), scale="full"))
    assert sorted((small, large, full), key=weight, reverse=True) == [full, large, small]


# --- the first page -----------------------------------------------------------------------------


def test_the_first_page_has_the_answers_with_scale_and_what_would_decide_them(run):
    told = (
        Answer("A?", "Yes", "It is <b>so</b>.", run),
        Answer("B?", "Undecided", "Not told.", run, "About 9 seeds would decide.", "C06"),
        Answer("C?", "Not measured", "No rows.", None, "Run it."),
    )
    made = front(told, [run], [("decided", 1), ("undecided", 2)])
    assert made.count('class="pm-answer') == 4  # three, in one frame
    assert "<b>so" not in made
    scale = f"Measured at: {run.scale}. Can it be trusted: with care (no job was repeated).</p>"
    assert made.count(scale) == 2
    assert f"Results and report: {run.name}" in made
    assert "So far everything is of one model of 22.7 million parameters" in made
    assert "To decide it: About 9 seeds would decide." in made
    assert "evidence/claims.md#c06" in made and address(run) in made
    assert "of 3 1 decided and 2 undecided" in made


def test_one_model_is_said_to_be_one_only_where_it_is():
    large = run_of(make_matrix((LORA,), model="mpnet-base"))
    small = run_of(make_matrix((LORA,)))
    full = run_of(make_matrix((LORA,), scale="full"))
    assert "So far everything" in front((), [small], [])
    assert "So far everything" not in front((), [small, large], [])
    assert "So far everything" not in front((), [full], [])


def test_without_rows_the_first_page_says_so():
    assert "No rows are published" in front((), (), [])


# --- claims -------------------------------------------------------------------------------------


def line_of(run, kind="undecided", **changes):
    made = claim(difference(at_least=0.01), statement="A is <i>better</i>.")
    shown = {"effect": 0.02, "low": 0.01, "high": 0.03, "seeds": 3, "tasks": ("sst2",)}
    part = Part(made.tests[0], kind, jobs=("j1", "j2"), **(shown | changes))
    found = Verdict(made, kind, "at MiniLM scale", (part,), 0.99, ())
    return Line(made, (Standing(run.suite, run.profile, found),), ())


def test_the_table_of_claims_has_verdict_effect_interval_rows_and_scale(run):
    made = claims_page([line_of(run)], [run])
    assert "<i>better" not in made
    (row,) = re.findall(r"<tr><th.*?</tr>", made)[1:] or [""]
    assert "undecided" in row and "at MiniLM scale" in row
    assert "+0.020 (+0.010 to +0.030; 3 seeds, 1 task)" in row and "level 99" in row
    assert f'<a href="{run.key}.html">2 rows</a>' in row
    assert 'href="#c01"' in row and "### C01" in made


def test_a_claim_that_nothing_tests_yet_is_in_the_table_too(run):
    made = claims_page([replace(line_of(run), standings=(), idle=("demo",))], [])
    assert "no results" in made and "run demo" in made


def test_claims_are_counted_by_how_they_stand(run):
    lines = [line_of(run), line_of(run, "reproduced")]
    assert standing_text(counts(lines)) == "1 decided and 1 undecided"


# --- does it carry over -------------------------------------------------------------------------


def test_a_model_that_packages_hold_is_asked_about_before_anybody_ran_it(run):
    suites = {"demo": suite("demo", other="mpnet-base", hub="roberta-base", quick="minilm-l6")}
    found = {column.key: column for column in columns([run], suites)}
    assert list(found) == ["minilm-l6", "mpnet-base"]
    assert found["mpnet-base"].planned == (("demo", "other"),)
    assert found["minilm-l6"].runs == (run,) and not found["minilm-l6"].planned
    made = carry_over_page([run], suites, [line_of(run)])
    assert made.count(NOT_MEASURED) == 2 + 1  # two cells against the reference, one claim
    assert "make bench SUITE=demo PROFILE=other" in made
    assert "nothing here shows yet whether a verdict carries over" in made


def test_verdicts_at_two_models_are_counted_as_alike_opposite_or_decided_at_one(run):
    def moved(by, model, **changes):
        rows = make_matrix((LORA, ADALORA), seeds=range(6), model=model, **changes)
        return run_of(
            [
                make_record(job=r.job, outcome=replace(r.outcome, metric_value=value))
                for r in rows
                for value in [r.outcome.metric_value + (by if r.job.cell == ADALORA else 0)]
            ]
        )

    low = moved(-0.15, "minilm-l6")
    for by, wanted in (
        (-0.15, "1 with the same verdict everywhere, 0 with opposite ones, 0 decided"),
        (+0.15, "0 with the same verdict everywhere, 1 with opposite ones, 0 decided"),
    ):
        other = moved(by, "mpnet-base", profile="other")
        assert wanted in summary(differences([low, other]), [low, other])


# --- cards --------------------------------------------------------------------------------------


def test_every_method_has_a_card_with_paper_counts_trade_and_verdict(run):
    found = cards(COUNTS, [run])
    assert set(found) == {"methods/index.md"} | {f"methods/{key}.md" for key in METHODS}
    lora = found["methods/lora.md"]
    assert "https://arxiv.org/abs/2106.09685" in lora and "294,912 on roberta" in lora
    assert '<th scope="row">QLoRA r8</th>' in lora and run.scale in lora
    times = ratio(run.table, QLORA, step_seconds).value
    assert f">{words.times(times)}</td>" in lora
    for line in verdict(METHODS["adalora"], [run]):
        assert line in found["methods/adalora.md"].replace("\\", "")
    assert "Not measured in any published run" in found["methods/dora.md"]
    assert verdict(METHODS["dora"], [run]) == ["None yet: no published rows."]


def test_a_verdict_counts_comparisons_and_gives_a_line_a_run_with_its_scale_once():
    """AdaLoRA scores higher in one run and lower in another, and on NF4 lower in both."""
    cells = (LORA, ADALORA, Trained("adalora", 8, "nf4"))
    runs = []
    for by in (0.3, -0.3):
        rows = [
            replace(r, outcome=replace(r.outcome, metric_value=r.outcome.metric_value + by))
            if r.job.cell == ADALORA
            else r
            for r in make_matrix(cells, seeds=range(6))
        ]
        runs.append(run_of(rows))
    first, *lines = verdict(METHODS["adalora"], runs)
    counts = "1 shown higher and 3 shown lower"
    assert first == f"Of 4 comparisons of scores with a run's reference {counts}."
    assert len(lines) == 2 and all(line.count(runs[0].scale) == 1 for line in lines)
    assert "AdaLoRA r8 shown to score higher than LoRA r8 over 6 seeds" in lines[0]
    assert "AdaLoRA r8 and AdaLoRA + NF4 r8 shown to score lower than LoRA r8 over" in lines[1]
    (lora, *_) = verdict(METHODS["lora"], runs[:1])
    assert "LoRA r8 is the reference" in lora


# --- from code ----------------------------------------------------------------------------------


def test_the_command_line_has_every_command_with_its_options():
    made = reference.command_line()
    for command in COMMANDS:
        assert f"## {command.NAME}\n" in made
    assert "--max-drop" in made


def test_every_part_of_a_suite_is_on_the_page_of_keys_with_each_key():
    models = {
        model
        for module in (schema, schema_runs)
        for model in vars(module).values()
        if isinstance(model, type)
        and issubclass(model, Strict)
        and model.__module__ == module.__name__
        and not model.__name__.startswith("_")
    }
    assert {model for _, model in reference.PARTS} == models
    made = reference.suite_keys()
    for model in models:
        for name, field in model.model_fields.items():
            assert f'<th scope="row">{field.alias or name}</th>' in made


def test_the_page_of_how_we_measure_fits_a_screen_and_has_the_numbers_of_the_code():
    made = reference.how_we_measure()
    assert "95 % interval" in made and "within 0.01" in made
    assert len(made.split()) < 300


# --- no network ---------------------------------------------------------------------------------


def test_no_asset_names_a_host_and_the_theme_takes_no_font_from_one():
    config = (HERE / "mkdocs.yml").read_text(encoding="utf-8")
    assert "font: false" in config and "- offline" in config
    for path in [HERE / "mkdocs.yml", *(HERE / "assets").iterdir()]:
        told = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"(https?:)?//[a-z]", told.replace("http(s)", "")), path.name

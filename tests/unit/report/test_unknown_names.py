"""Rows whose names nobody here knows: read, reported, gated and recommended from by their keys."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

import example_plugin
from factory import LORA, make_job, make_matrix, make_outcome, make_record
from own_models import model_folder
from peftmark.analysis.unknown_names import unknown_names
from peftmark.analysis.validity import flags
from peftmark.catalog.methods import Cell
from peftmark.catalog.metrics import metric_of
from peftmark.core.errors import UserError
from peftmark.record.plugin import UsedPlugin
from peftmark.render import words
from peftmark.render.series import OTHER, series_of
from peftmark.run.runner import Selection, make_plan
from peftmark.storage import part_cache
from peftmark.storage.store import Store
from plugged import load, uninstall
from shown import write

GHOST = Cell("ghost", 4, "int3")


def strange(record, way=1.0):
    """The row under names that no table has."""
    job = replace(record.job, task="limbo", metric="vibe", model="phantom")
    value = way * record.outcome.metric_value
    outcome = replace(record.outcome, metrics={"vibe": value}, metric_value=value)
    return replace(record, job=job, outcome=outcome)


@pytest.fixture(scope="module")
def rows():
    return [strange(r) for r in make_matrix(cells=[LORA, GHOST], tasks=["sst2"])]


def store(folder, records):
    kept = Store(folder, "demo")
    with kept.lock():
        for record in records:
            kept.append(record)
    return kept.folder


@pytest.mark.slow
@pytest.mark.heavy
def test_a_report_of_unknown_names_has_their_keys(tmp_path, rows):
    files = write(tmp_path, rows)
    assert "ghost + int3 r4" in files["report.md"] and "limbo" in files["report.md"]
    assert "vibe" in files["report.md"] and "phantom" in files["report.md"]
    assert "higher is better" not in words.direction("vibe")
    assert series_of(GHOST) == OTHER
    assert [*unknown_names([r.job for r in rows])] == [
        "method ghost is one that neither this peftmark nor the row knows: it stands by its name "
        "alone",
        "quantization int3 is one that neither this peftmark nor the row knows: it stands by its "
        "name alone, and reload errors on it can't be judged",
        "metric vibe is one that neither this peftmark nor the row knows: it stands by its name "
        "alone, and more of it is only taken for better",
    ]
    assert not [*unknown_names([make_job()])]


def test_a_reload_error_on_an_unknown_base_is_no_flag():
    def flagged(quantization):
        job = make_job(quantization=quantization)
        row = make_record(job=job, outcome=make_outcome(reload_max_error=0.5))
        return [f.kind for f in flags([job], {job.job_id: row})]

    assert flagged("none") == ["unfaithful"] and flagged("int3") == []


def test_stored_rows_of_unknown_names_are_recommended_from_and_compared(tmp_path, rows, peftmark):
    store(tmp_path / "before", rows)
    store(tmp_path / "after", rows)
    code, said = peftmark("recommend", "--from", "before/demo")
    assert code == 0 and "limbo" in said
    code, said = peftmark("compare", "before/demo", "after/demo")
    assert (
        code == 0
        and "ghost + int3 r4" in said
        and "after gave the same bits as before in all 6 runs" in said
    )


def test_a_change_of_an_unknown_metric_is_undecided(tmp_path, rows, peftmark):
    from peftmark.gate.judge import judge
    from peftmark.gate.policy import Policy
    from peftmark.gate.snapshot import of_folder

    sides = []
    for name, way in (("before", 1.0), ("after", 1.01)):
        made = [strange(r, way) for r in make_matrix([LORA], ["sst2"])]
        sides.append(of_folder(store(tmp_path / name, made), None))
    found = judge(sides[1], sides[0], Policy(), None, "another scale")
    texts = [f.sentence for f in found.findings if f.kind == "undecided"]
    assert any("which way of vibe is better isn't known here" in text for text in texts), texts


# --- a package that was uninstalled ---------------------------------------------------------------


@pytest.fixture
def halves(site, tmp_path, monkeypatch, no_devices):
    """Made-up rows of the suite that docs/plugins.md shows, of two seeds' worth."""
    example_plugin.install(site)
    model_folder(site / example_plugin.PACKAGE / "model")
    load()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PEFTMARK_CACHE", str(tmp_path / "cache"))
    (tmp_path / "suites").mkdir()
    text = example_plugin.shown()["suites/halves.yaml"].replace("seeds: [0]", "seeds: [0, 1]")
    (tmp_path / "suites" / "halves.yaml").write_text(text)
    kept = Store(tmp_path / "results", "halves")
    with kept.lock():
        for job in make_plan(Selection("halves", jobs=1)).jobs:
            value = 0.5 + 0.1 * (job.method == "norms") + 0.01 * job.seed
            outcome = make_outcome(
                metrics={"worst-recall": value}, metric_value=value, completions=()
            )
            kept.append(make_record(job=job, outcome=outcome))
    shutil.copytree(kept.folder, tmp_path / "other" / "halves")
    return tmp_path


def afresh(site):
    """As a new process without the package would find it."""
    uninstall(site, forgetting=True)
    part_cache._read.clear()


@pytest.mark.slow
@pytest.mark.heavy
def test_rows_are_reported_gated_and_compared_without_the_package(halves, peftmark):
    assert peftmark("report", "halves")[0] == 0
    before = (halves / "reports" / "halves" / "report.md").read_text().splitlines()
    afresh(halves / "site")
    assert metric_of("worst-recall") is None
    code, said = peftmark("report", "halves")
    assert code == 0, said
    after = (halves / "reports" / "halves" / "report.md").read_text().splitlines()
    [new] = [line for line in after if line not in before]
    assert "are of the package peftmark-example, which isn't installed here" in new
    assert metric_of("worst-recall").high == 1.0
    for words_ in (
        ("gate", "halves", "--against", "other/halves", "--elsewhere"),
        ("compare", "results/halves", "other/halves"),
    ):
        part_cache._read.clear()
        code, said = peftmark(*words_)
        assert code == 0 and "norm tuning" in said and "LoRA + int8, no outliers r2" in said, said
    assert peftmark("trend", "halves")[0] == 0
    assert peftmark("recommend", "halves")[0] == 0
    code, said = peftmark("plan", "halves")
    assert code == 2 and "Install it: pip install peftmark-example" in said


def test_two_versions_of_a_plug_in_are_compared_as_code_not_as_procedures(halves, peftmark):
    records = Store(halves / "results", "halves").read().records.values()
    newer = Store(halves / "newer", "halves")
    with newer.lock():
        for record in records:
            used = tuple(replace(one, code="f" * 16) for one in record.job.plugins)
            made = replace(record.environment, sources={"peftmark-example": "f" * 16})
            newer.append(replace(record, job=replace(record.job, plugins=used), environment=made))
    code, said = peftmark("compare", "results/halves", "newer/halves", "--json")
    told = json.loads(said)
    assert code == 0 and {cell["verdict"] for cell in told["cells"]} == {"identical"}, said


def test_jobs_have_the_ids_that_their_rows_have_without_the_package(halves, peftmark):
    made = {p.job.job_id for p in make_plan(Selection("halves", jobs=1)).planned}
    afresh(halves / "site")
    Store(halves / "results", "halves").read()
    assert metric_of("worst-recall").title == "worst recall"  # known from the rows alone
    plan = make_plan(Selection("halves", jobs=1), recorded=True)
    assert {p.job.job_id for p in plan.planned} == made
    assert plan.contents.records.keys() == made


def test_a_method_of_a_package_that_is_gone_is_not_run(halves):
    text = "suite: mine\nmodel: minilm-l6\ntasks: [trec]\nrecipe: {steps: 4}\n"
    methods = "methods: [{method: norms, recipe: {learning_rate: 1e-3}}]\n"
    (halves / "suites" / "mine.yaml").write_text(text + methods)
    first = make_plan(Selection("mine", jobs=1)).jobs[0]
    kept = Store(halves / "results", "mine")
    with kept.lock():
        kept.append(make_record(job=first))
    afresh(halves / "site")
    assert make_plan(Selection("mine", jobs=1), recorded=True).jobs[0] == first
    with pytest.raises(UserError, match="method norms is of the package peftmark-example"):
        make_plan(Selection("mine", jobs=1))


def test_what_a_job_says_of_plug_ins_is_told_once(halves):
    jobs = make_plan(Selection("halves", jobs=1)).jobs
    assert not [*unknown_names(jobs)]
    ghost = UsedPlugin("method", "ghost", "ghost-package", "0" * 16)
    [first, second] = unknown_names([replace(j, method="ghost", plugins=(ghost,)) for j in jobs])
    assert first.startswith("method ghost is of the package ghost-package, which isn't installed")
    assert second.startswith("method ghost is one that neither")

"""The identity of a job: what it depends on, and that it stays what it is."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import pytest

from asked_suite import asked
from factory import make_environment, make_job, make_outcome, make_recipe
from peftmark.catalog.methods import Cell
from peftmark.catalog.prompts import PROMPTS
from peftmark.catalog.tasks import TASKS
from peftmark.record.job import Job
from peftmark.record.outcome import Outcome
from peftmark.record.recipe import AdaLoraSchedule, Causal, Recipe
from peftmark.suite.checks import NEW_TOKENS
from peftmark.suite.expand import expand
from peftmark.suite.load import load_suite
from places import SUITES
from small_suite import write

SCHEDULE = AdaLoraSchedule(12, 10, 30, 5, 0.85, 0.9, 0.1)
JOB = make_job(method="adalora", recipe=make_recipe(adalora=SCHEDULE, double_quantization=True))
CAUSAL = Causal(prompt="1:0123456789abcdef", new_tokens=24, unrelated="editorials:" + "0" * 64)


# A change here gives every stored result another key, so nothing that was measured is found again.
# Only with a new version of the suite, or of PROTOCOL (peftmark.record.job).
@pytest.mark.parametrize(
    ("suite", "profile", "device", "cell", "task", "seed", "job_id"),
    [
        ("smoke", "offline", "cpu", Cell("lora", 8, "none"), "trec", 0, "d1fd8dfbfba3e6df"),
        ("glue", "offline", "cpu", Cell("lora", 8, "none"), "movie", 0, "dcbbf04d916733e5"),
        ("glue", "full", "cuda", Cell("adalora", 8, "nf4"), "sts-b", 4, "ebb8b17d1eb184b1"),
    ],
)
def test_jobs_of_shipped_suites_keep_their_ids(suite, profile, device, cell, task, seed, job_id):
    jobs = expand(load_suite(suite, SUITES), profile, device).jobs
    [job] = [j for j in jobs if (j.cell, j.task, j.seed, j.purpose) == (cell, task, seed, "report")]
    assert job.job_id == job_id


def another(value: Any) -> Any:
    """A different value of the same kind."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    return 1  # null


BESIDE = {"scale": "full", "rates": "", "stored_id": ""}


@pytest.mark.parametrize("name", [f.name for f in fields(Job) if f.name not in (*BESIDE, "recipe")])
def test_every_field_of_a_job_is_part_of_its_id(name):
    assert replace(JOB, **{name: another(getattr(JOB, name))}).job_id != JOB.job_id


def test_what_a_profile_is_worth_is_no_part_of_its_id():
    assert (JOB.scale, replace(JOB, scale="full").job_id) == ("reduced", JOB.job_id)
    assert replace(JOB, scale="full") == JOB
    assert not BESIDE.keys() & json.loads(JOB.to_json()).keys()
    assert json.loads(JOB.to_json())["rank"] == JOB.size
    assert replace(JOB, stored_id="0" * 16).job_id == "0" * 16


@pytest.mark.parametrize("name", [f.name for f in fields(Recipe) if f.name != "adalora"])
def test_every_field_of_the_recipe_is_part_of_the_id(name):
    recipe = replace(JOB.recipe, **{name: another(getattr(JOB.recipe, name))})
    assert replace(JOB, recipe=recipe).job_id != JOB.job_id


@pytest.mark.parametrize("name", [f.name for f in fields(AdaLoraSchedule)])
def test_every_field_of_the_schedule_is_part_of_the_id(name):
    schedule = replace(SCHEDULE, **{name: another(getattr(SCHEDULE, name))})
    recipe = replace(JOB.recipe, adalora=schedule)
    assert replace(JOB, recipe=recipe).job_id != JOB.job_id
    assert replace(JOB, recipe=replace(JOB.recipe, adalora=None)).job_id != JOB.job_id


# --- causal language models -----------------------------------------------------------------------


def test_the_job_of_an_encoder_says_nothing_about_causal_language_models():
    assert JOB.causal is None
    assert "causal" not in json.loads(JOB.to_json())
    assert "causal" in json.loads(replace(JOB, causal=CAUSAL).to_json())
    assert replace(JOB, causal=CAUSAL).job_id != JOB.job_id


@pytest.mark.parametrize("name", [f.name for f in fields(Causal)])
def test_every_field_of_how_a_model_is_asked_is_part_of_the_id(name):
    asked = replace(CAUSAL, **{name: another(getattr(CAUSAL, name))})
    assert replace(JOB, causal=asked).job_id != replace(JOB, causal=CAUSAL).job_id
    if name == "new_tokens":
        none = replace(CAUSAL, new_tokens=None)
        assert replace(JOB, causal=none).job_id != replace(JOB, causal=CAUSAL).job_id


TASKS_ASKED = {"trec": {}, "chatterbot": {"new_tokens": 24}, "reviews": {}}


def asked_ids(folder, tasks=TASKS_ASKED, unrelated="editorials"):
    """Task -> ids of its jobs in a profile that asks a causal language model."""
    write(folder, asked(tasks=tasks, unrelated=unrelated))
    jobs = expand(load_suite("demo", folder), "quick", "cpu").jobs
    return {t: {job.job_id for job in jobs if job.task == t} for t in tasks}


@pytest.mark.parametrize("change", [{"text": "Q: {text}\nA:"}, {"version": 2}])
def test_another_wording_of_a_prompt_names_its_tasks_jobs_anew(change, tmp_path, monkeypatch):
    before = asked_ids(tmp_path)
    monkeypatch.setitem(PROMPTS, "chatterbot", replace(PROMPTS["chatterbot"], **change))
    after = asked_ids(tmp_path)
    assert not before["chatterbot"] & after["chatterbot"]
    assert {t for t in before if before[t] == after[t]} == {"trec", "reviews"}


def test_other_words_for_classes_name_their_jobs_anew(tmp_path, monkeypatch):
    before = asked_ids(tmp_path)
    words = ("an acronym", *PROMPTS["trec"].words[1:])
    monkeypatch.setitem(PROMPTS, "trec", replace(PROMPTS["trec"], words=words))
    after = asked_ids(tmp_path)
    assert not before["trec"] & after["trec"]
    assert {t for t in before if before[t] == after[t]} == {"chatterbot", "reviews"}


def test_the_length_of_answers_names_their_jobs_anew(tmp_path):
    before = asked_ids(tmp_path)
    after = asked_ids(tmp_path, {**TASKS_ASKED, "chatterbot": {"new_tokens": 25}})
    assert not before["chatterbot"] & after["chatterbot"]
    assert {t for t in before if before[t] == after[t]} == {"trec", "reviews"}


def test_the_default_length_gives_the_same_jobs_written_or_not(tmp_path):
    written = asked_ids(tmp_path, {"chatterbot": {"new_tokens": NEW_TOKENS}})
    assert written == asked_ids(tmp_path, {"chatterbot": {}})


def test_another_unrelated_text_names_every_job_anew(tmp_path, monkeypatch):
    tasks = {"trec": {}, "chatterbot": {}}
    before = asked_ids(tmp_path, tasks)
    other = asked_ids(tmp_path, tasks, "reviews")
    assert not any(before[t] & other[t] for t in tasks)
    task = replace(TASKS["editorials"], fingerprint="0" * 64)
    monkeypatch.setitem(TASKS, "editorials", task)
    after = asked_ids(tmp_path, tasks)
    assert not any(before[t] & after[t] for t in tasks)
    assert asked_ids(tmp_path, tasks, "reviews") == other


@pytest.mark.parametrize(
    "job",
    [
        JOB,
        make_job(),
        make_job(target=None, size=None, task="naïve, “quoted”\n"),
        make_job(recipe=make_recipe(targets=("query", "value"), train_rows=None, alpha=None)),
        make_job(recipe=make_recipe(learning_rate=1e-4, weight_decay=0.1 + 0.2)),
        make_job(causal=CAUSAL),
        make_job(causal=replace(CAUSAL, prompt="", new_tokens=None)),
    ],
)
def test_a_job_survives_json(job):
    back = Job.from_json(job.to_json())
    assert back == job
    assert back.job_id == job.job_id


def test_an_id_is_16_hex_digits_and_does_not_depend_on_the_process():
    assert len(JOB.job_id) == 16
    assert int(JOB.job_id, 16) >= 0
    assert make_job().job_id == make_job().job_id


def test_a_job_with_a_number_that_is_not_one_has_no_identity():
    with pytest.raises(ValueError, match="JSON"):
        make_job(target=float("nan")).to_json()


@pytest.mark.parametrize("outcome", [make_outcome(), Outcome("crashed", "why"), Outcome("ok")])
def test_an_outcome_survives_json(outcome):
    assert Outcome.from_json(outcome.to_json()) == outcome


def test_an_outcome_with_an_unknown_key_is_an_error():
    text = Outcome("ok").to_json().replace('"steps"', '"stepz"')
    with pytest.raises(TypeError, match="stepz"):
        Outcome.from_json(text)


def test_the_environment_is_not_part_of_the_id():
    assert not {f.name for f in fields(make_environment())} & {f.name for f in fields(Job)}

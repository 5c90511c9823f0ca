"""docs/columns.md against the stored columns, and the reasons for nulls in rows of real jobs."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest

from factory import make_job, make_recipe, make_record
from peftmark.catalog.models import MODELS
from peftmark.catalog.tasks import TASKS
from peftmark.core.errors import AssetError
from peftmark.executors.beside import on_gpu
from peftmark.executors.in_turn import of_process
from peftmark.executors.slots import Slot
from peftmark.record.columns import COLUMNS, JOB_COLUMNS, to_row
from peftmark.record.fields import FIELDS
from peftmark.record.fields_watch import WATCHED
from peftmark.record.job import Job
from peftmark.record.outcome import Outcome
from peftmark.record.recipe import AdaLoraSchedule
from peftmark.run.expected import with_prediction
from peftmark.sources.assets import Places, default_cache, model_files
from peftmark.sources.task_data import load_task
from peftmark.suite.added_seeds import with_look
from places import DOCS

DOCUMENT = DOCS / "columns.md"


def test_every_column_has_one_row_in_the_document_and_no_row_is_of_another():
    rows = re.findall(r"^\| `([^`]*)`", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(COLUMNS), "run: python -m peftmark.docgen.columns_page"


def row_of(method: str, quantization: str, purpose: str = "report") -> dict:
    """The stored row of a short job that really ran."""
    from peftmark.lab import recipe
    from peftmark.lab.worker import quiet_libraries

    places = Places(None, ("package",), default_cache())
    model, task = MODELS["minilm-l6"], TASKS["trec"]
    try:
        model_files(model, places)
        load_task(task, places)
    except AssetError as error:
        pytest.skip(f"the packaged model and rows can't be had here: {error}")
    quiet_libraries()
    adapter = method != "head"
    short = make_recipe(
        steps=4,
        batch_size=4,
        eval_every=2,
        eval_rows=16,
        eval_batch_size=16,
        max_length=16,
        warmup_steps=1,
        selection_rows=16,
        targets="all-linear" if adapter else None,
        alpha=16.0 if adapter else None,
        dropout=0.0 if adapter else None,
        double_quantization=True if quantization == "nf4" else None,
        adalora=AdaLoraSchedule(6, 1, 1, 1, 0.85, 0.85, 0.1) if method == "adalora" else None,
    )
    job = replace(
        make_job(
            model=model.key,
            model_identity=model.weights_sha256,
            task=task.key,
            task_version=task.version,
            data_fingerprint=task.fingerprint,
            metric=task.metric,
            method=method,
            size=4 if adapter else None,
            quantization=quantization,
            purpose=purpose,
            target=0.99,
        ),
        recipe=short,
    )
    return stored(job, recipe.run(job, places, lambda message: None))


def stored(job: Job, outcome: Outcome) -> dict:
    """The row of a job that ended so."""
    # As the supervisor does, which alone knows them.
    outcome = on_gpu(of_process(outcome, 0, 1.5), Slot(), strangers=0)
    record = make_record(job=job, outcome=outcome)
    return to_row(with_look(with_prediction(record, {}), None, None, "", 3))


@pytest.mark.real
@pytest.mark.parametrize(
    ("method", "quantization", "purpose"),
    [
        pytest.param("lora", "none", "report", marks=pytest.mark.slow),
        pytest.param("lora", "nf4", "report", marks=pytest.mark.slow),
        pytest.param("adalora", "none", "report", marks=pytest.mark.slow),
        ("head", "none", "report"),
        ("lora", "none", "tuning"),
    ],
)
def test_every_null_of_a_real_row_has_its_own_reason_and_is_announced(
    method, quantization, purpose
):
    row = row_of(method, quantization, purpose)
    check_nulls(row)
    reasons = json.loads(row["null_reasons"])
    assert reasons["generated_tokens_per_second"] == "no answers are written"
    for name in UNRELATED:
        assert reasons[name] == "an encoder reads no text on"
    assert len(row["completions"]) == 0


UNRELATED = ("unrelated_perplexity_before", "unrelated_perplexity_after")


def spoken():
    """Every kind of task with every kind of job; those whose parts others show only nightly."""
    often = {("adalora", "report"): "tiny-text", ("lora", "tuning"): "tiny-answer"}
    for method, purpose in [*often, ("lora", "report"), ("base", "report")]:
        for task in ("tiny-rank", "tiny-answer", "tiny-text"):
            marks = () if often.get((method, purpose)) == task else pytest.mark.slow
            yield pytest.param(task, method, purpose, marks=marks)


@pytest.mark.parametrize(("task", "method", "purpose"), [*spoken()])
def test_nulls_of_a_language_models_row(task, method, purpose, tmp_path, monkeypatch):
    import tiny_causal
    from peftmark.lab import recipe

    tiny_causal.install(tmp_path / "m", monkeypatch)
    places = Places(tmp_path / "m", ("mirror",), tmp_path / "cache")
    job = tiny_causal.job(method, task, purpose=purpose, selection_rows=16)
    row = stored(job, recipe.run(job, places, lambda message: None))
    check_nulls(row)
    reasons = json.loads(row["null_reasons"])
    if purpose == "tuning":
        assert {reasons[name] for name in UNRELATED} == {"a tuning trial measures quality"}
    else:
        assert all(row[name] > 1 for name in UNRELATED)
    written = task == "tiny-answer"
    assert len(row["completions"]) == (len(row["predictions"]) if written else 0)
    assert (row["generated_tokens_per_second"] is not None) == written
    phases = json.loads(row["phase_seconds"])
    assert ("generate" in phases) == written
    assert ("forget" in phases) == (purpose == "report")
    assert json.loads(row["config"])["causal"]["unrelated"] == "tiny-other:none"
    if method == "base":
        assert reasons["train_seconds"] == reasons["adapter_bytes"] == "nothing trains"


def check_nulls(row: dict) -> None:
    """Every null has a reason of its own, and the document says that there can be one."""
    assert row["status"] in ("ok", "invalid"), row["status_reason"]
    empty = {name for name in WATCHED if row[name] == "{}"}
    nulls = {name for name, value in row.items() if value is None} | empty
    reasons = json.loads(row["null_reasons"])
    assert set(reasons) == nulls
    assert nulls, "a job on the CPU has nulls: has this test gone blind?"
    for name in nulls:
        assert reasons[name] not in ("", "not recorded"), (
            f"{name} is null and nothing says why: set it in lab/measure/to_outcome.py for every "
            "kind of job, or give its reason there (UNTOUCHED where nothing trains)"
        )
        assert "the job ended as" not in reasons[name], name
        if name not in JOB_COLUMNS:
            assert FIELDS[name].null, f"record/fields_*.py, {name}: say when it is null"

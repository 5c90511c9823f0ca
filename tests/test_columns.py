"""docs/columns.md against the stored columns, and the reasons for nulls in rows of real jobs."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from factory import make_environment, make_job, make_recipe

from bench.assets import Places, default_cache, model_files
from bench.catalog import MODELS
from bench.columns import COLUMNS, to_row
from bench.data import load_task
from bench.errors import AssetError
from bench.record import AdaLoraSchedule, Record
from bench.tasks import TASKS

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "columns.md"
CELL = re.compile(r"^\| `(\w+)` \| (.+?) \| (.+?) \| (.+?) \|$", re.MULTILINE)


def documented() -> dict[str, tuple[str, str, str]]:
    """Column -> unit, source, when it is null."""
    return {
        name: (unit, source, null)
        for name, unit, source, null in CELL.findall(DOCUMENT.read_text(encoding="utf-8"))
    }


def test_every_column_has_one_row_in_the_document_and_no_row_is_of_another():
    rows = re.findall(r"^\| `([^`]*)`", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(rows) == sorted(COLUMNS)
    assert set(documented()) == set(COLUMNS), "a row lacks a unit, a source or when it is null"


def test_the_document_names_the_units_that_stand_in_the_names():
    for name, (unit, source, _) in documented().items():
        if re.search(r"_seconds(_p\d\d)?$", name):
            assert unit in ("s", "JSON, s"), name
        for end in ("bytes", "rows"):
            if name.endswith(f"_{end}"):
                assert unit == end, name
        if name.endswith("_joules"):
            assert unit == "J", name
        assert len(source) > 3, name


def row_of(method: str, quantization: str, purpose: str = "report") -> dict:
    """The stored row of a short job that really ran."""
    from bench.lab import recipe
    from bench.lab.worker import quiet_libraries

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
        steps=4, batch_size=4, eval_every=2, eval_rows=16, eval_batch_size=16, max_length=16,
        warmup_steps=1, selection_rows=16, targets="all-linear" if adapter else None,
        alpha=16.0 if adapter else None, dropout=0.0 if adapter else None,
        double_quantization=True if quantization == "nf4" else None,
        adalora=AdaLoraSchedule(6, 1, 1, 1, 0.85, 0.85, 0.1) if method == "adalora" else None,
    )  # fmt: skip
    job = replace(
        make_job(
            model=model.key, model_identity=model.weights_sha256, task=task.key,
            task_version=task.version, data_fingerprint=task.fingerprint, metric=task.metric,
            method=method, rank=4 if adapter else None, quantization=quantization,
            purpose=purpose, target=0.99,
        ),
        recipe=short,
    )  # fmt: skip
    record = Record(
        job=job, outcome=recipe.run(job, places, lambda message: None),
        environment=make_environment(), attempt=1, started_at="2026-01-01T00:00:00Z",
        finished_at="2026-01-01T00:00:09Z", wall_seconds=9.0, nvml_process_bytes=None,
        nvml_device_bytes=None, nvml_reason="the job ran on the CPU", command="peftmark run",
    )  # fmt: skip
    return to_row(record)


@pytest.mark.real
@pytest.mark.parametrize(
    ("method", "quantization", "purpose"),
    [
        ("lora", "none", "report"),
        ("lora", "nf4", "report"),
        ("adalora", "none", "report"),
        ("head", "none", "report"),
        ("lora", "none", "tuning"),
    ],
)
def test_every_null_of_a_real_row_has_its_own_reason_and_is_announced(
    method, quantization, purpose
):
    row = row_of(method, quantization, purpose)
    assert row["status"] in ("ok", "invalid"), row["status_reason"]
    nulls = {name for name, value in row.items() if value is None}
    reasons = json.loads(row["null_reasons"])
    assert set(reasons) == nulls
    assert nulls, "a job on the CPU has nulls: has this test gone blind?"
    for name in nulls:
        assert reasons[name] not in ("", "not recorded"), name
        assert "the job ended as" not in reasons[name], name
        assert documented()[name][2] != "never", f"docs/columns.md says {name} is never null"

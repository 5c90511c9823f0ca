"""A row as trackers get it: as it is stored, with units, and without what is nobody's business."""

from __future__ import annotations

import csv
import io
from dataclasses import replace

import pytest

from factory import make_failure, make_job, make_outcome, make_record
from peftmark.record.fields import FIELDS
from peftmark.record.outcome import CurvePoint
from peftmark.track.entry import CURVE, entry_of


def test_the_curve_is_the_rows_to_the_digit():
    odd = (0.1 + 0.2, 1 / 3, 5e-324)
    curve = tuple(
        CurvePoint(20 * i, loss, 0.7, 3.5 * i, None, 0.25, 1e300) for i, loss in enumerate(odd)
    )
    record = make_record(outcome=make_outcome(curve=curve))
    entry = entry_of(record)
    assert [point.step for point in entry.curve] == [0, 20, 40]
    assert [point.values["loss"] for point in entry.curve] == list(odd)
    for point, stored in zip(entry.curve, curve, strict=True):
        known = {name: getattr(stored, name) for name in CURVE}
        assert point.values == {name: value for name, value in known.items() if value is not None}
    assert entry.curve[2].time - entry.started == 7.0


def test_figures_are_those_of_the_row_and_every_null_has_its_reason():
    outcome = make_outcome(peak_memory_bytes=2**40 + 1)
    entry = entry_of(make_record(outcome=outcome))
    assert entry.figures["peak_memory_bytes"] == 2**40 + 1
    assert entry.figures["train_seconds"] == 12.0
    assert entry.figures["target_value"] == 0.8
    assert entry.figures["metrics.accuracy"] == 0.86
    assert "penalty" not in entry.figures
    lines = {line["column"]: line for line in csv.DictReader(io.StringIO(entry.sheet))}
    assert lines["penalty"]["why it is null"] == "the method adds no term to the loss"
    numbers = [key for key, field in FIELDS.items() if field.type in ("int64", "float64")]
    assert list(lines) == numbers
    for key in numbers:
        line = lines[key]
        assert (line["what it is"], line["unit"]) == (FIELDS[key].title, FIELDS[key].unit)
        assert (key in entry.figures) == bool(line["value"]) != bool(line["why it is null"])


def test_numbers_that_are_none_are_left_out_and_the_fact_says_why():
    points = (CurvePoint(1, float("nan"), 0.5, 1.0), CurvePoint(2, float("inf"), 0.25, 2.0))
    failed = replace(make_failure("diverged", "the loss is NaN\nTraceback: x"), curve=points)
    entry = entry_of(make_record(outcome=failed))
    assert [set(point.values) for point in entry.curve] == [{"metric", "seconds"}] * 2
    assert not entry.ok
    assert (entry.facts["status"], entry.facts["status_reason"]) == ("diverged", "the loss is NaN")


def test_parameters_say_what_was_asked_for():
    job = make_job(quantization="nf4", seed=3)
    given = entry_of(make_record(job=job, attempt=2)).parameters
    wanted = {
        "method": "lora", "rank": "8", "quantization": "nf4", "task": "sst2", "seed": "3",
        "model": "minilm-l6", "recipe.learning_rate": "0.0005", "recipe.targets": "attention",
        "cell": "QLoRA r8", "job": job.job_id, "attempt": "2",
    }  # fmt: skip
    assert wanted.items() <= given.items()
    assert any(name.startswith("version.") for name in given)
    assert "recipe.budget" not in given, "what is null is no setting"


def test_no_path_command_or_control_character_leaves():
    outcome = make_outcome(
        status_reason="\x1b[31mred https://me:secret@host/x\u202e " + "long " * 300,
        data_source="mirror /home/somebody/data",
        model_source="mirror /home/somebody/model",
        completions=("a private text",),
    )
    record = make_record(outcome=outcome, command="peftmark run --mirror /home/somebody")
    entry = entry_of(record)
    everything = repr(entry)
    for private in ("somebody", "secret", "a private text", "\\x1b", "\\u202e"):
        assert private not in everything
    assert len(entry.facts["status_reason"]) == 500


@pytest.mark.parametrize("key", ["curve", "predictions", "completions", "environment", "config"])
def test_what_is_large_or_private_is_neither_figure_nor_fact(key):
    entry = entry_of(make_record())
    assert key not in entry.figures | entry.facts

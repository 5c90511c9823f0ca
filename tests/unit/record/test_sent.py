"""What a worker sends as its outcome is held to the columns, whatever it is."""

from __future__ import annotations

import json
import math
import re

import pyarrow.parquet as pq
import pytest

from factory import make_job, make_record
from peftmark.record.columns import to_row
from peftmark.record.job import SCHEMA_VERSION
from peftmark.record.outcome import CurvePoint, Outcome, numbers
from peftmark.record.sent import MOST_REASON, outcome_of
from peftmark.storage.parquet import parquet_bytes, row_groups
from peftmark.storage.store import record_of
from places import DOCS

GOOD = Outcome(
    "ok",
    metric_value=0.5,
    steps=20,
    curve=(CurvePoint(10, 0.7, 0.4, 1.5, selection_metric=None),),
    predictions=numbers([1.0, 2.5]),
    completions=("a", "b"),
    metrics={"accuracy": 1},
    rank_history={"layer": [8, None]},
    importance_history={"layer": [0.5, None]},
    class_rows={"a": 3},
)


def sent(**changes):
    """The text of GOOD with other values of JSON in some columns."""
    return json.dumps({**json.loads(GOOD.to_json()), **changes})


def test_an_outcome_comes_back_as_it_was():
    assert outcome_of(GOOD.to_json()) == GOOD


def test_outcomes_of_real_jobs_come_back_as_they_were():
    """Nothing that a job measures is refused, cut or made null."""
    table = pq.ParquetFile(DOCS / "example" / "rows.parquet").read(use_threads=False)
    rows = [record_of(row, SCHEMA_VERSION).outcome for row in table.to_pylist()]
    assert len(rows) > 50
    assert [outcome_of(one.to_json()) for one in rows] == rows


POINT = {"step": 1, "loss": 0.5, "metric": 0.5, "seconds": 1.0}
ODD = {
    "a count beyond every column": ({"steps": 10**30}, "steps can't be 1000000"),
    "a count below zero": ({"trainable_parameters": -1}, "trainable_parameters can't be -1"),
    "a time below zero": ({"train_seconds": -0.5}, "train_seconds can't be -0.5"),
    "a word for a count": ({"steps": "20"}, "steps can't be '20'"),
    "a word for a score": ({"metric_value": "0.5"}, "metric_value can't be '0.5'"),
    "a fraction for a count": ({"steps": 20.0}, "steps can't be 20.0"),
    "yes for a count": ({"steps": True}, "steps can't be True"),
    "yes for a score": ({"metric_value": True}, "metric_value can't be True"),
    "a number for yes": ({"collapsed": 1}, "collapsed can't be 1"),
    "a number for words": ({"status_reason": 1}, "status_reason can't be 1"),
    "a whole number that no float is": ({"loss": 2**53 + 1}, "loss can't be 9007199254740993"),
    "a list for a mapping": ({"metrics": [1]}, "metrics can't be [1]"),
    "a mapping for a list": ({"warnings": {"a": 1}}, "warnings can't be {'a': 1}"),
    "a word for a list": ({"completions": "abc"}, "completions can't be 'abc'"),
    "nothing for a list": ({"curve": None}, "curve can't be None"),
    "a word in numbers": ({"predictions": [1.0, "2"]}, "predictions can't be"),
    "a count of a layer": ({"rank_history": {"layer": [10**30]}}, "rank_history can't be"),
    "a point without a loss": ({"curve": [{"step": 1}]}, "curve can't be"),
    "a point with more": ({"curve": [{**POINT, "more": 1}]}, "curve can't be"),
    "a point of words": ({"curve": [{**POINT, "loss": "low"}]}, "curve can't be"),
    "a point that is none": ({"curve": [3]}, "curve can't be [3]"),
    "no status": ({"status": "great"}, "status can't be 'great'"),
    "a status that is a list": ({"status": ["ok"]}, "status can't be ['ok']"),
    "a column of its own": ({"glory": 1}, "'glory' is no column"),
    "a megabyte of source": ({"data_source": "x" * 10**6}, "data_source is a text of 1,000,000"),
}


@pytest.mark.parametrize("case", ODD)
def test_what_fits_no_column_is_refused_by_its_name(case):
    changes, told = ODD[case]
    with pytest.raises(ValueError, match=f"^{re.escape(told)}"):
        outcome_of(sent(**changes))


def test_a_missing_column_is_refused():
    data = json.loads(GOOD.to_json())
    del data["metric_value"]
    with pytest.raises(ValueError, match=r"^'metric_value' is missing$"):
        outcome_of(json.dumps(data))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 100_000 + "]" * 100_000, "lists in lists without end"),
        ("[]", "no object"),
        ('{"steps": ' + "9" * 5000 + "}", "Exceeds the limit"),
        ("{", "Expecting"),
    ],
)
def test_what_is_no_object_of_json_is_refused(text, told):
    with pytest.raises(ValueError, match=told):
        outcome_of(text)


def test_figures_that_are_no_numbers_are_null_with_the_reason():
    got = outcome_of(sent(train_seconds=math.inf, loss=math.nan))
    assert (got.status, got.train_seconds, got.loss) == ("ok", None, None)
    assert got.null_reasons == {
        "train_seconds": "the job gave no finite number but inf",
        "loss": "the job gave no finite number but nan",
    }


@pytest.mark.parametrize("score", [math.nan, math.inf, None])
def test_a_good_end_without_a_score_is_invalid(score):
    got = outcome_of(sent(metric_value=score))
    assert (got.status, got.metric_value) == ("invalid", None)
    assert got.status_reason == "the metric is not a finite number"


def test_long_reasons_are_cut_and_the_row_stays_small():
    """Each null of a row repeats the reason of a job that failed."""
    long = "x" * 10**7
    got = outcome_of(
        sent(status="crashed", status_reason=long, warnings=[long], null_reasons={"steps": long})
    )
    end = f" [{10**7 - MOST_REASON:,} characters cut here]"
    assert got.status_reason == "x" * MOST_REASON + end
    assert (got.warnings, got.null_reasons) == ((got.status_reason,), {"steps": got.status_reason})
    row = to_row(make_record(job=make_job(), outcome=got))
    assert len(json.dumps(row)) < 10**6


def test_whatever_is_let_in_a_file_takes():
    """The supervisor must not fail on a row that it has taken in."""
    edge = outcome_of(
        sent(
            steps=2**63 - 1,
            loss=-(2**53),
            status_reason="half a character \ud800",
            warnings=["\udcff"],
            metrics={"\ud800": 1e308},
            predictions=[1e300, math.nan],
            completions=["\ud800"],
            curve=[{**POINT, "step": 2**63 - 1, "loss": math.inf}],
        )
    )
    assert parquet_bytes(row_groups([make_record(job=make_job(), outcome=edge)]))

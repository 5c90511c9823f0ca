"""What lies beside the page: the rows as Parquet and CSV, and links to them and to the logs."""

from __future__ import annotations

import csv
import gc
import io
import random
import re

import pyarrow.parquet as pq
import pytest

from factory import REPORT_OPTIONS, make_job, make_matrix, make_outcome, make_record
from peftmark.record.columns import COLUMNS
from peftmark.report import rows
from peftmark.report import write as report
from peftmark.report.report_input import ReportInput
from shown import write


def table_of(content):
    return list(csv.DictReader(io.StringIO(content.decode())))


def test_the_same_rows_give_the_same_bytes_in_any_order():
    records = make_matrix(seeds=[0, 1])
    shuffled = random.Random(1).sample(records, len(records))
    assert rows.files(records) == rows.files(shuffled)


@pytest.mark.slow
def test_parquet_has_every_column_and_row_and_csv_the_plain_ones(tmp_path):
    records = make_matrix(seeds=[0, 1])
    write(tmp_path, records)
    table = pq.read_table(tmp_path / "rows.parquet")
    assert table.column_names == list(COLUMNS)
    assert set(table["job_id"].to_pylist()) == {r.job.job_id for r in records}
    found = table_of((tmp_path / "rows.csv").read_bytes())
    assert len(found) == len(records)
    assert set(COLUMNS) - set(found[0]) == set(rows.BULKY)
    [first] = [r for r in records if r.job.job_id == found[0]["job_id"]]
    assert float(found[0]["metric_value"]) == first.outcome.metric_value
    assert found[0]["command"] == first.command


def test_a_spreadsheet_gets_no_formulas():
    bad = make_record(
        job=make_job(suite="=1+1"),
        outcome=make_outcome(status_reason="@SUM(A1)", warnings=("-1", "fine")),
    )
    [row] = table_of(rows.files([bad])["rows.csv"])
    assert (row["suite"], row["status_reason"], row["warnings"]) == (
        "'=1+1",
        "'@SUM(A1)",
        "'-1; fine",
    )


def test_a_negative_number_stays_a_number():
    record = make_record(outcome=make_outcome(metric_value=-0.25))
    [row] = table_of(rows.files([record])["rows.csv"])
    assert float(row["metric_value"]) == -0.25


@pytest.mark.slow
@pytest.mark.heavy
def test_the_logs_are_linked_where_there_are_any(tmp_path):
    records = make_matrix(seeds=[0])
    out, results = tmp_path / "reports" / "demo", tmp_path / "results" / "a b"

    def links():
        given = ReportInput(records, [r.job for r in records], REPORT_OPTIONS, "x", results=results)
        report.write(given, out)
        return re.findall(r'href="(?!#|https://arxiv)([^"]*)"', (out / "index.html").read_text())

    assert links() == ["rows.parquet", "rows.csv", "report.md"]
    (results / "logs").mkdir(parents=True)
    assert links()[-1] == "../../results/a%20b/logs/"
    assert "](<../../results/a%20b/logs/>)" in (out / "report.md").read_text()


@pytest.mark.slow
def test_rows_of_other_jobs_are_in_the_files_too(tmp_path):
    records = make_matrix(seeds=[0])
    stray = make_record(job=make_job(seed=99))
    write(tmp_path, [*records, stray], [r.job for r in records])
    assert len(table_of((tmp_path / "rows.csv").read_bytes())) == len(records) + 1


def test_looking_for_garbage_is_on_again_after_a_report_and_after_a_failed_one(tmp_path):
    assert gc.isenabled()
    write(tmp_path, make_matrix(seeds=[0]))
    assert gc.isenabled()
    with pytest.raises(ValueError, match="two rows for the same job"):
        write(tmp_path, make_matrix(seeds=[0]) * 2)
    assert gc.isenabled()

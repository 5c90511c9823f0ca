"""The rows of one file: a report's `rows.parquet`, or the `results.parquet` of a results folder."""

from __future__ import annotations

from pathlib import Path

from peftmark.core.errors import StoreError
from peftmark.record.job import Record
from peftmark.storage.attempts import counting, jobs_and_machines
from peftmark.storage.migrations import NoMigration
from peftmark.storage.parquet import read_table
from peftmark.storage.store import Contents, record_of, schema_of

GIVE = "Give a Parquet file of rows as peftmark writes it: rows.parquet or results.parquet."


def read_rows_file(path: Path) -> Contents:
    """All readable rows of a file; those that can't be read are named by their place in it.

    Raises:
        StoreError: no file of rows, a damaged one, or one of a newer peftmark.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path} can't be read: {error.strerror or error}", GIVE) from error
    try:
        table = read_table(raw)
    except Exception as error:  # damaged bytes make the reader raise almost anything
        why = " ".join(str(error).split())[:200] or type(error).__name__
        raise StoreError(f"{path} is damaged, or no file of rows: {why}", GIVE) from error
    if not {"job_id", "config", "attempt"} <= set(table.column_names):
        raise StoreError(f"{path} has no rows of peftmark", GIVE)
    version = schema_of(path, table)
    read: list[Record] = []
    damaged: dict[Path, str] = {}
    older: dict[Path, str] = {}
    rows = sorted(enumerate(table.to_pylist()), key=lambda one: (one[1]["attempt"] or 0, one[0]))
    for place, row in rows:
        where = path.with_name(f"{path.name}, row {place + 1}")
        try:
            record = record_of(row, version)
        except NoMigration as error:
            older[where] = str(error)
        except (ValueError, KeyError, TypeError) as error:
            damaged[where] = f"{type(error).__name__}: {error}"
        else:
            read.append(record)
    return Contents(
        counting(read, [record.job.job_id for record in read]),
        len(read),
        damaged,
        older,
        tuple(counting(read, jobs_and_machines(read)).values()),
    )

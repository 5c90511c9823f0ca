"""The rows of a report as files beside it, for those who want to compute on their own."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from typing import Any

from peftmark.record.columns import COLUMNS
from peftmark.record.fields_watch import WATCHED
from peftmark.record.job import Record
from peftmark.record.machine_kind import machine_keys
from peftmark.storage.attempts import in_order
from peftmark.storage.parquet import parquet_bytes, row_groups

PARQUET, CSV = "rows.parquet", "rows.csv"
BULKY: tuple[str, ...] = (
    "curve",
    "predictions",
    "references",
    "config",
    "environment",
    "rank_history",
)
BULKY += ("importance_history", "gate_history", "completions", *WATCHED)
"""Columns that the CSV leaves out; the Parquet file has them."""
MACHINE = "machine"
"""Last column of the CSV where the rows are of several machines: the key of each."""


def files(records: Sequence[Record]) -> dict[str, bytes]:
    """File name -> content: every column as Parquet, the plain ones as CSV."""
    names = [name for name in COLUMNS if name not in BULKY]
    ordered = in_order(records)
    keys = machine_keys([record.environment for record in ordered])
    apart = len(set(keys)) > 1
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*names, MACHINE] if apart else names)

    def groups() -> Iterator[list[dict[str, Any]]]:
        machines = iter(keys)
        for rows in row_groups(ordered):
            for row in rows:
                beside = [next(machines)] if apart else []
                writer.writerow([*(plain_value(row[name]) for name in names), *beside])
            yield rows

    parquet = parquet_bytes(groups())
    return {PARQUET: parquet, CSV: text.getvalue().encode("utf-8", "replace")}


def plain_value(value: object) -> object:
    """A value as text; one that a spreadsheet would run as a formula is kept from it."""
    if isinstance(value, list):
        value = "; ".join(map(str, value))
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return f"'{value}"
    return value

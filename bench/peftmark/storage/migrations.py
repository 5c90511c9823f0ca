"""Rows of older peftmarks as rows of today's: one function a version of the stored columns.

A row is what Parquet gives: column -> value. What a version didn't record is null, with the reason.
The job keeps the id it was stored under. Only `PROTOCOL` makes a job run again: a migrated row
whose configuration is today's counts as done.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from peftmark.catalog.methods import method_of
from peftmark.record.columns import NOT_RECORDED, check_id, without
from peftmark.record.job import SCHEMA_VERSION

Row = dict[str, Any]


class NoMigration(Exception):
    """A row that can't be made one of today's; its text says of which schema it is, and why."""


def migrated(row: Row, schema: int) -> Row:
    """A row of an older schema as one of today's; the row itself stays as it is.

    Raises:
        NoMigration: its schema is too old, or a step failed.
        ValueError: its configuration is not the one that its id hashes, so it is damaged.
    """
    if schema not in MIGRATIONS:
        raise NoMigration(f"schema {schema}")
    check_id(row)
    row = {**row, "schema": schema}
    for version in range(schema, SCHEMA_VERSION):
        try:
            row = MIGRATIONS[version](row)
        except Exception as error:  # whatever it is, the row is left where it lies
            why = " ".join(str(error).split())[:100]
            raise NoMigration(f"schema {schema}, {type(error).__name__}: {why}") from error
    return row


def _from_4(row: Row) -> Row:
    """Schema 5 told the learning rate and the base's format."""
    return _unrecorded(row, "learning_rate_mean", "base_format")


def _from_5(row: Row) -> Row:
    """Schema 6 counts temporaries apart from activations, and predicts the peak."""
    row = _unrecorded(row, "live_temporary_bytes", "predicted_live_bytes", "prediction_error")
    both = row["live_activation_bytes"]
    if both is None:
        return row
    why = f"peftmark's schema {row['schema']} counted temporaries with it: {both} bytes together"
    return without(row, ["live_activation_bytes"], why)


def _from_6(row: Row) -> Row:
    """Schema 7 came with causal language models."""
    return _unrecorded(
        row,
        "completions",
        "unrelated_perplexity_before",
        "unrelated_perplexity_after",
        "generated_tokens_per_second",
    )


PAPERS = {
    ("glue-adalora-paper", "base"),
    ("glue-lora-paper", "base"),
    ("glue-lora-paper", "large"),
    ("instruct", "full-cosine"),
}
"""Suite and profile of the shipped ones that were whole experiments under another name."""


def _from_7(row: Row) -> Row:
    """Schema 8 knows the scale, which was read off the profile's name before, and what a size is.

    A profile named "full" was the whole experiment, and so were those of shipped suites that repeat
    a paper's own recipe; every other one cut something down.
    """
    suite, profile = row["suite"], row["profile"]
    full = profile == "full" or (suite, profile) in PAPERS
    kind = getattr(method_of(row["method"]), "size", None)
    reasons = json.loads(row["null_reasons"])
    if "rank" in reasons:
        reasons["size"] = reasons.pop("rank")
    if kind is None:
        reasons["size_kind"] = "the method has no size"
    rest = {name: value for name, value in row.items() if name != "rank"}
    return rest | {
        "scale": "full" if full else "reduced",
        "size": row["rank"],
        "size_kind": kind,
        "null_reasons": json.dumps(reasons, sort_keys=True),
    }


def _unrecorded(row: Row, *names: str) -> Row:
    return without(row, names, f"{NOT_RECORDED}'s schema {row['schema']}")


MIGRATIONS: dict[int, Callable[[Row], Row]] = {4: _from_4, 5: _from_5, 6: _from_6, 7: _from_7}
"""Schema -> what makes its row one of the next schema."""

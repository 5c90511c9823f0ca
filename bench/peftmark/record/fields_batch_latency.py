"""Rows of `peftmark.record.fields`: latency of batches of 1, 4 and 8 rows."""

from __future__ import annotations

from peftmark.record.field import Field

BATCH_LATENCY = {
    1: "latency_1_row_seconds",
    4: "latency_4_rows_seconds",
    8: "latency_8_rows_seconds",
}
"""Rows of a batch -> column of its latency, adapter apart."""
MERGED_BATCH_LATENCY = {rows: f"merged_{name}" for rows, name in BATCH_LATENCY.items()}
"""The same, adapter merged."""


def _row(key: str, rows: int, merged: bool) -> Field:
    held = "1 row" if rows == 1 else f"{rows} rows"
    null = (
        "tuning trial, job ended early, a line without fine-tuning, too few evaluation rows, GPU "
        "shared and untimed"
    )
    return Field(
        key,
        "float64",
        f"{'merged ' if merged else ''}latency of {held}",
        unit="seconds",
        better="lower",
        phase="deployment",
        meter="clock",
        kind="cost",
        section="Deployment",
        summary=f"median time to score {held}, adapter {'merged' if merged else 'apart'}",
        null=f"{null}, nothing to merge, PEFT can't" if merged else null,
    )


ROWS: tuple[Field, ...] = (
    *(_row(key, rows, False) for rows, key in BATCH_LATENCY.items()),
    *(_row(key, rows, True) for rows, key in MERGED_BATCH_LATENCY.items()),
)

"""The columns of a stored row, and records to rows and back. docs/columns.md explains each."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import fields, replace
from functools import lru_cache
from typing import Any

from peftmark.record.fields import FIELDS
from peftmark.record.identity import identity_of
from peftmark.record.job import SCHEMA_VERSION, Environment, Job, Record
from peftmark.record.outcome import NUMBERS, OUTCOME_FIELDS, CurvePoint, Outcome, numbers
from peftmark.record.plugin import note

# Column name -> Arrow type name; the order is the order in the file. Explicit, because inferred
# schemas drop columns and fail on all-null parts.
JOB_COLUMNS = {
    "suite": "string",
    "suite_version": "int64",
    "schema": "int64",
    "profile": "string",
    "scale": "string",
    "purpose": "string",
    "job_id": "string",
    "attempt": "int64",
    "model": "string",
    "method": "string",
    "size": "int64",
    "size_kind": "string",
    "quantization": "string",
    "variant": "string",
    "task": "string",
    "seed": "int64",
    "device": "string",
    "threads": "int64",
}
OUTCOME_COLUMNS = {field.key: field.type for field in FIELDS.values()}
COLUMNS = {**JOB_COLUMNS, **OUTCOME_COLUMNS}
JSON_COLUMNS = tuple(name for name, kind in COLUMNS.items() if kind == "json")
BEFOREHAND = ("predicted_seconds", "most_seeds", "look", "question", "profile_seeds")
"""Columns of what the supervisor knew before the job ran."""
NULLABLE = {
    "nvml_process_bytes",
    "nvml_device_bytes",
    *BEFOREHAND,
    *(name for name in OUTCOME_FIELDS if name != "status"),
}
"""Columns that a row may lack, as one does that was written before they were added."""
NOT_RECORDED = "not recorded by peftmark"
_EMPTY: dict[str, Any] = {"json": "{}", "strings": (), "numbers": (), "curve": ()}
"""Kind of a column -> what stands in it without a value, where that is no null."""
_POINT = tuple(f.name for f in fields(CurvePoint))
_to_json = json.JSONEncoder(sort_keys=True).encode  # `json.dumps` makes an encoder at every call


def to_row(record: Record) -> dict[str, Any]:
    """The stored row of a record."""
    job, outcome = record.job, record.outcome
    row = {name: getattr(job, name, None) for name in JOB_COLUMNS}
    row |= {name: getattr(outcome, name, None) for name in OUTCOME_COLUMNS}
    row |= {
        "attempt": record.attempt,
        "schema": record.schema,
        "metric_name": job.metric,
        "target_value": job.target,
        "curve": [dict(vars(point)) for point in outcome.curve],
        **{name: getattr(outcome, name).tolist() for name in NUMBERS},
        "warnings": list(outcome.warnings),
        "energy_flags": list(outcome.energy_flags),
        "completions": list(outcome.completions),
        **{name: getattr(record, name) for name in BEFOREHAND},
        "nvml_process_bytes": record.nvml_process_bytes,
        "nvml_device_bytes": record.nvml_device_bytes,
        "wall_seconds": record.wall_seconds,
        "started_at": record.started_at,
        "finished_at": record.finished_at,
        "command": record.command,
        "config": job.to_json(),
        "environment": _to_json(vars(record.environment)),
    }
    row["null_reasons"] = _null_reasons(record, row)
    return row | {name: _to_json(row[name]) for name in JSON_COLUMNS}


def _null_reasons(record: Record, row: dict[str, Any]) -> dict[str, str]:
    """A reason for every null of the row."""
    reasons = {n: record.null_reason(n) for n in OUTCOME_COLUMNS if row[n] is None}
    for name in ("target_value", "target_reached", "steps_to_target"):
        if name in reasons and record.job.target is None:
            reasons[name] = "the suite sets no target for this task"
    if row["size"] is None:
        budget = record.job.recipe.budget is not None
        reasons["size"] = "a budget decides it" if budget else "the method has no size"
    if row["size_kind"] is None:
        reasons["size_kind"] = "the method has no size"
    # What is empty because an earlier peftmark knew nothing of it, or kept back: no null tells.
    known = record.outcome.null_reasons.items()
    return reasons | {
        n: why for n, why in known if why.startswith(NOT_RECORDED) or row.get(n) in ([], {})
    }


def from_row(row: dict[str, Any]) -> Record:
    """The inverse of `to_row`.

    A column that is unknown is passed over, and one that the row lacks is null, with a reason.

    Raises:
        ValueError, KeyError, TypeError: if the row isn't one of ours.
    """
    environment = _environment(row["environment"])
    if absent := sorted(NULLABLE - row.keys()):
        made_by = environment.versions.get("peftmark", "of an unknown version")
        row = without(row, absent, f"{NOT_RECORDED} {made_by}")
    values = {name: row[name] for name in OUTCOME_FIELDS}
    values |= {name: json.loads(row[name]) for name in JSON_COLUMNS}
    nvml = [values["null_reasons"].get(f"nvml_{of}_bytes", "") for of in ("process", "device")]
    values |= {name: numbers(row[name]) for name in NUMBERS}
    values["curve"] = tuple(_point(point) for point in row["curve"])
    values["warnings"] = tuple(row["warnings"])
    values["energy_flags"] = tuple(row["energy_flags"])
    values["completions"] = tuple(row["completions"])
    return Record(
        job=_job(row),
        outcome=Outcome(**values),
        environment=environment,
        attempt=row["attempt"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        wall_seconds=row["wall_seconds"],
        nvml_process_bytes=row["nvml_process_bytes"],
        nvml_device_bytes=row["nvml_device_bytes"],
        nvml_reason=next(filter(None, nvml), ""),
        command=row["command"],
        schema=row["schema"],
        **{name: row[name] for name in BEFOREHAND},
    )


def without(row: dict[str, Any], names: Iterable[str], why: str) -> dict[str, Any]:
    """The row with nothing in some columns, and the reason."""
    names = list(names)
    empty = {name: _EMPTY.get(COLUMNS.get(name, "")) for name in names}
    reasons = json.loads(row.get("null_reasons") or "{}") | dict.fromkeys(names, why)
    return {**row, **empty, "null_reasons": _to_json(reasons)}


def check_id(row: dict[str, Any]) -> None:
    """Raise ValueError if a row's configuration is not the one that its id hashes."""
    found = identity_of(row["config"])
    if found != row["job_id"]:
        raise ValueError(f"job_id {row['job_id']} does not match its config ({found})")


def _job(row: dict[str, Any]) -> Job:
    """The job under the id that it was stored with, whatever today's would be."""
    if row["schema"] == SCHEMA_VERSION:  # of an older row it was checked before its migration
        check_id(row)
    job = replace(Job.from_json(row["config"]), scale=row["scale"])
    note(job.plugins)
    return job if job.job_id == row["job_id"] else replace(job, stored_id=row["job_id"])


def _point(stored: dict[str, Any]) -> CurvePoint:
    return CurvePoint(**{name: stored[name] for name in _POINT if name in stored})


@lru_cache(maxsize=64)
def _environment(text: str) -> Environment:
    """All rows of a run have the same one."""
    return Environment(**json.loads(text))

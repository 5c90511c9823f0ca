"""A stored row as trackers get it: parameters, a curve, final figures, and words about them.

Everything is read from the row. No text of a row of data, no path and no command is sent.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime
from typing import Any

from peftmark.catalog.methods import cell_title
from peftmark.core.shown import plain, short, without_secrets
from peftmark.record.columns import to_row
from peftmark.record.fields import FIELDS
from peftmark.record.job import Job, Record
from peftmark.record.outcome import CurvePoint
from peftmark.run.progress import job_title

Row = Mapping[str, Any]
NUMBERS = ("float64", "int64")
WORDS = ("bool", "string")
LONGEST_TEXT = 500
CURVE = tuple(f.name for f in fields(CurvePoint) if f.name != "step")
"""What the curve has at a step, as the row calls it."""
HEAD = ("column", "value", "unit", "what it is", "why it is null")


@dataclass(frozen=True)
class Point:
    """One evaluation during training.

    Attributes:
        step: optimizer steps taken.
        time: of the job's start, plus the seconds of training steps so far; seconds since 1970.
            Evaluations in between take time too, which no row has by point.
        values: name as the row has it (`CURVE`) -> value, those that are known and finite.
    """

    step: int
    time: float
    values: dict[str, float]


@dataclass(frozen=True)
class Entry:
    """A row as trackers get it.

    Attributes:
        title: cell, task and seed, with the purpose.
        cell: as reports name it.
        ok: whether the job finished and is valid.
        started, finished: seconds since 1970.
        parameters: name -> value as text.
        curve: as the row stores it.
        figures: column -> final value, those that are known and finite.
        facts: column -> text.
        sheet: every figure with its unit and title, and every null with its reason, as CSV.
    """

    job_id: str
    attempt: int
    suite: str
    profile: str
    title: str
    cell: str
    ok: bool
    started: float
    finished: float
    parameters: dict[str, str]
    curve: tuple[Point, ...]
    figures: dict[str, float]
    facts: dict[str, str]
    sheet: str

    @property
    def key(self) -> tuple[str, int]:
        """What tells it from every other: the job's id and the attempt."""
        return self.job_id, self.attempt

    @property
    def name(self) -> str:
        """The same as a name of a file."""
        return f"{self.job_id}.{self.attempt}"


def entry_of(record: Record) -> Entry:
    """A row as trackers get it."""
    job, row = record.job, to_row(record)
    started = seconds_of(record.started_at)
    return Entry(
        job_id=job.job_id,
        attempt=record.attempt,
        suite=job.suite,
        profile=job.profile,
        title=controlled(job_title(job)),
        cell=controlled(cell_title(*job.cell)),
        ok=record.ok,
        started=started,
        finished=seconds_of(record.finished_at),
        parameters=parameters_of(record),
        curve=tuple(_point(point, started) for point in record.outcome.curve),
        figures=dict(_figures(row, record)),
        facts=dict(_facts(row)),
        sheet=_sheet(row),
    )


def controlled(text: str) -> str:
    """A text on one line without control characters, passwords in URLs, or end."""
    return short(plain(without_secrets(" ".join(text.split()))), LONGEST_TEXT)


def seconds_of(time: str) -> float:
    """ISO 8601 in UTC as seconds since 1970."""
    return datetime.fromisoformat(time).timestamp()


def parameters_of(record: Record) -> dict[str, str]:
    """What was asked for: the job, its recipe, and the versions that it ran with."""
    job = record.job
    values: dict[str, Any] = {
        name: getattr(job, name)
        for name in (
            *("suite", "profile", "scale", "purpose", "model", "task", "metric", "target"),
            *("method", "quantization", "variant", "seed", "device", "threads"),
            *("data_fingerprint", "model_identity"),
        )
    }
    values |= {"cell": cell_title(*job.cell), "job": job.job_id, "attempt": record.attempt}
    if job.size_kind is not None:
        values[job.size_kind] = job.size
    values |= {f"recipe.{name}": value for name, value in _recipe(job)}
    values |= {f"version.{name}": text for name, text in record.environment.versions.items()}
    texts = {name: _text(value) for name, value in values.items() if value not in (None, "")}
    return {controlled(name): text for name, text in texts.items()}


def _recipe(job: Job) -> Iterator[tuple[str, Any]]:
    """Settings by dotted names."""
    for name, value in asdict(job.recipe).items():
        if isinstance(value, Mapping):
            yield from ((f"{name}.{key}", one) for key, one in value.items())
        else:
            yield name, value


def _text(value: object) -> str:
    if isinstance(value, str):
        return controlled(value)
    return controlled(json.dumps(value, default=str, ensure_ascii=False))


def _point(point: CurvePoint, started: float) -> Point:
    known = {name: getattr(point, name) for name in CURVE}
    return Point(
        point.step,
        started + (point.seconds if math.isfinite(point.seconds) else 0.0),
        {n: float(v) for n, v in known.items() if v is not None and math.isfinite(v)},
    )


def _figures(row: Row, record: Record) -> Iterator[tuple[str, float]]:
    for key, field in FIELDS.items():
        value = row[key]
        if field.type in NUMBERS and value is not None and math.isfinite(value):
            yield key, float(value)
    for name, value in record.outcome.metrics.items():
        if math.isfinite(value):
            yield f"metrics.{controlled(name)}", float(value)


def _facts(row: Row) -> Iterator[tuple[str, str]]:
    # Of where things came from rows hold paths and commands.
    for key, field in FIELDS.items():
        value = row[key]
        if field.type in WORDS and field.section != "Provenance" and value not in (None, ""):
            first = value.splitlines()[0] if isinstance(value, str) else value
            yield key, _text(first)


def _sheet(row: Row) -> str:
    reasons = json.loads(row["null_reasons"])
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(HEAD)
    for key, field in FIELDS.items():
        if field.type in NUMBERS:
            value = row[key]
            why = controlled(reasons.get(key, "not recorded")) if value is None else ""
            lines.writerow(
                (key, "" if value is None else repr(value), field.unit, field.title, why)
            )
    return text.getvalue()

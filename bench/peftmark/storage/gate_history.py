"""What every run of the gate saw, kept for `peftmark trend`: one Parquet file a run.

    results/history/<suite>/<time>-<run>.parquet     one row a cell and task, sealed (`sealed`)

Values are kept as they were measured, one a seed; means, intervals and steps are computed on
reading. Nothing here is ever rewritten but by the same run itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftmark.catalog.methods import Cell
from peftmark.core.errors import StoreError
from peftmark.core.files import sync, write_all
from peftmark.record.job import PROTOCOL
from peftmark.storage.parquet import read_table, table_bytes

HISTORY_VERSION = 1
"""Version of the columns below; files of a newer one are refused."""

FOLDER = "history"
_VERSION_KEY = b"peftmark_history"
_RUN = re.compile(r"[0-9a-f]{16}")
_AT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.]+(Z|[+-][0-9]{2}:?[0-9]{2})?")


@dataclass(frozen=True)
class Point:
    """One cell on one task in one run of the gate.

    Attributes:
        at: UTC, ISO 8601, when the newest row of the candidate was finished.
        run: id of the gate run: first 16 hex digits of a hash of what it looked at.
        machine: machine class, such as "cpu"; figures of different classes are never compared.
        commit: git commit of peftmark, None for an installed wheel.
        dirty: whether that checkout had uncommitted changes, None if unknown.
        versions: package -> version.
        values: (seed, primary metric) of the runs that are ok, sorted by seed.
        planned: seeds planned.
        memory_bytes: peak memory, highest over seeds; None if unknown, like the next two.
        step_seconds: median over seeds of the median wall seconds of a training step.
        loss: training loss over the last interval of the curve, mean over seeds.
        verdict: the gate's word for this cell and task, such as "same", "worse" or "missing".
        code: exit code of that gate run.
        protocol: version of the measuring procedure.
    """

    at: str
    run: str
    suite: str
    suite_version: int
    profile: str
    machine: str
    commit: str | None
    dirty: bool | None
    versions: dict[str, str]
    cell: Cell
    task: str
    metric: str
    values: tuple[tuple[int, float], ...]
    planned: int
    memory_bytes: int | None
    step_seconds: float | None
    loss: float | None
    verdict: str
    code: int
    protocol: int = PROTOCOL


@dataclass(frozen=True)
class Accepted:
    """A baseline that was accepted.

    Attributes:
        at: UTC, ISO 8601.
        commit: git commit it was accepted at; None if unknown.
        pinned: whether it is a fixed point that later ones don't replace.
        reason: why, in the words of who accepted it.
    """

    at: str
    commit: str | None
    machine: str
    pinned: bool
    reason: str


def append(root: Path, points: Sequence[Point]) -> Path | None:
    """Keep what one run of the gate saw; the same run again replaces its own file.

    Args:
        root: the results folder (`results/`).
        points: of one run; None is returned, and nothing written, if there are none.

    Raises:
        StoreError: if it can't be written; earlier files are untouched.
        ValueError: points of several runs, or an `at` or `run` that can't name a file.
    """
    if not points:
        return None
    if len({(p.at, p.run, p.suite) for p in points}) > 1:
        raise ValueError("points of several gate runs: append each run by itself")
    path = root / FOLDER / points[0].suite / _name(points[0])
    write_all({path: _content(points)})
    try:
        sync(path.parent)
    except OSError as error:
        raise _unreadable(path.parent, error) from error
    return path


def read(root: Path, suite: str) -> tuple[list[Point], dict[Path, str]]:
    """Every point of a suite, sorted by time, and the files that can't be read with the reason.

    Damaged files stay where they are.

    Raises:
        StoreError: if the folder can't be read, or a file was written by a newer peftmark.
    """
    folder = root / FOLDER / suite
    points: list[Point] = []
    damaged: dict[Path, str] = {}
    try:
        files = sorted(p for p in folder.iterdir() if p.suffix == ".parquet")
    except FileNotFoundError:
        return [], {}
    except OSError as error:
        raise _unreadable(folder, error) from error
    for path in files:
        try:
            points += _points(path, path.read_bytes(), suite)
        except FileNotFoundError:  # removed beside this reader
            continue
        except OSError as error:
            raise _unreadable(path, error) from error
        except StoreError:
            raise
        except Exception as error:  # damaged bytes make the reader raise almost anything
            damaged[path] = " ".join(str(error).split())[:200] or type(error).__name__
    return sorted(points, key=_order), damaged


def _unreadable(path: Path, error: OSError) -> StoreError:
    return StoreError(
        f"{path}: {error.strerror or error}",
        "Check the folder and its permissions, or choose another --results folder.",
    )


def _order(point: Point) -> tuple[Any, ...]:
    method, size, quantization, variant = point.cell
    cell = (method, size or 0, quantization, variant)
    return (point.at, point.run, point.profile, point.machine, point.task, *cell)


def _name(point: Point) -> str:
    """File name of a run; Windows and some archives take no colons."""
    if not _AT.fullmatch(point.at) or not _RUN.fullmatch(point.run):
        raise ValueError(f"at {point.at!r} or run {point.run!r} can't name a file")
    return f"{point.at.replace(':', '')}-{point.run}.parquet"


# --- points and rows ----------------------------------------------------------------------------


def _schema() -> Any:
    import pyarrow as pa

    fields = {
        "at": pa.string(),
        "run": pa.string(),
        "suite": pa.string(),
        "suite_version": pa.int64(),
        "protocol": pa.int64(),
        "profile": pa.string(),
        "machine": pa.string(),
        "commit": pa.string(),
        "dirty": pa.bool_(),
        "versions": pa.string(),  # JSON object
        "method": pa.string(),
        "rank": pa.int64(),
        "quantization": pa.string(),
        "variant": pa.string(),
        "task": pa.string(),
        "metric": pa.string(),
        "seeds": pa.list_(pa.int64()),
        "values": pa.list_(pa.float64()),
        "planned": pa.int64(),
        "memory_bytes": pa.int64(),
        "step_seconds": pa.float64(),
        "loss": pa.float64(),
        "verdict": pa.string(),
        "code": pa.int64(),
    }
    return pa.schema(fields.items(), metadata={_VERSION_KEY: str(HISTORY_VERSION).encode()})


_PLAIN = (
    "at",
    "run",
    "suite",
    "suite_version",
    "protocol",
    "profile",
    "machine",
    "commit",
    "dirty",
    "task",
    "metric",
    "planned",
    "memory_bytes",
    "step_seconds",
    "loss",
    "verdict",
    "code",
)
"""Fields of a point that are stored as they are."""


def _row(point: Point) -> dict[str, Any]:
    return {
        **{name: getattr(point, name) for name in _PLAIN},
        **point.cell.stored,
        "versions": json.dumps(point.versions, sort_keys=True),
        "seeds": [seed for seed, _ in point.values],
        "values": [value for _, value in point.values],
    }


def _point(row: dict[str, Any]) -> Point:
    return Point(
        **{name: row[name] for name in _PLAIN},
        cell=Cell(row["method"], row["rank"], row["quantization"], row["variant"]),
        versions=json.loads(row["versions"]),
        values=tuple(zip(row["seeds"], row["values"], strict=True)),
    )


def _content(points: Sequence[Point]) -> bytes:
    """A sealed file; the same points in any order give the same bytes."""
    rows = [_row(point) for point in sorted(points, key=_order)]
    return table_bytes(_schema(), [rows])


def _points(path: Path, raw: bytes, suite: str) -> list[Point]:
    """The points of a file that is whole and in its place."""
    table = read_table(raw)
    version = int((table.schema.metadata or {}).get(_VERSION_KEY, b"0"))
    if version > HISTORY_VERSION:
        raise StoreError(
            f"{path} was written by a newer peftmark (history {version}, known {HISTORY_VERSION})",
            "Update peftmark, or give this command its own --results folder.",
        )
    if version < HISTORY_VERSION:
        raise ValueError("it is no file of a gate's history")
    points = [_point(row) for row in table.to_pylist()]
    if {(_name(p), p.suite) for p in points} != {(path.name, suite)}:
        raise ValueError("the file's name does not match the rows inside")
    return points

"""Results on disk: one Parquet part per job attempt, written whole or not at all.

Layout of `results/<suite>/`:

    run.lock                         held by the one running supervisor (flock)
    parts/<job_id>.<attempt>.parquet the truth: one row an attempt
    logs/<job_id>.<attempt>.log      what the worker printed
    quarantine/                      parts that could not be read
    results.parquet                  derived from the parts, rebuilt at the end of every run
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.columns import COLUMNS, from_row, to_row
from bench.errors import StoreError
from bench.record import SCHEMA_VERSION, Job, Record

PART_NAME = re.compile(r"([0-9a-f]{16})\.(\d+)\.parquet")
FREE_BYTES_NEEDED = 32 * 1024 * 1024
ROW_GROUP = 500


def _schema() -> Any:
    import pyarrow as pa

    types = {
        "string": pa.string(),
        "json": pa.string(),
        "int64": pa.int64(),
        "float64": pa.float64(),
        "bool": pa.bool_(),
        "strings": pa.list_(pa.string()),
        "numbers": pa.list_(pa.float32()),
        "curve": pa.list_(
            pa.struct(
                [
                    ("step", pa.int64()),
                    ("loss", pa.float64()),
                    ("metric", pa.float64()),
                    ("seconds", pa.float64()),
                    ("selection_metric", pa.float64()),
                    ("penalty", pa.float64()),
                    ("gradient_norm", pa.float64()),
                ]
            )
        ),
    }
    fields = [pa.field(name, types[kind]) for name, kind in COLUMNS.items()]
    return pa.schema(fields, metadata={b"peftmark_schema": str(SCHEMA_VERSION).encode()})


@dataclass(frozen=True)
class Contents:
    """What a results folder holds.

    Attributes:
        records: job id -> the record that counts: the last ok attempt, else the last attempt.
        attempts: number of readable attempts over all jobs.
        damaged: unreadable part -> why.
        older: parts of an older schema; they are left where they are and not read.
    """

    records: dict[str, Record]
    attempts: int
    damaged: dict[Path, str]
    older: int = 0


class Store:
    """The results folder of one suite.

    Args:
        root: the results folder (`results/`).
        suite: checked suite name.
    """

    def __init__(self, root: Path, suite: str) -> None:
        self.folder = root / suite
        self.parts = self.folder / "parts"
        self.logs = self.folder / "logs"
        self.aside = self.folder / "quarantine"
        self.derived = self.folder / "results.parquet"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one run; the kernel releases it however the process ends.

        Raises:
            StoreError: if another run holds it, or the folder can't be written.
        """
        with _explained(self.folder):
            self.parts.mkdir(parents=True, exist_ok=True)
            self.logs.mkdir(exist_ok=True)
            handle = os.open(self.folder / "run.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with _explained(self.folder):
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    holder = os.read(handle, 200).decode(errors="replace").strip() or "unknown"
                    raise StoreError(
                        f"{self.folder} is in use by another run ({holder})",
                        "Wait for it to end, or give this run its own --results folder.",
                    ) from None
                self._check_space()
                os.ftruncate(handle, 0)
                os.write(handle, f"process {os.getpid()} on {socket.gethostname()}".encode())
                self._sweep()
            yield
        finally:
            os.close(handle)

    def _check_space(self) -> None:
        free = shutil.disk_usage(self.folder).free
        if free < FREE_BYTES_NEEDED:
            raise StoreError(
                f"{self.folder}: the disk is full ({free // 2**20} MiB free, "
                f"a run needs {FREE_BYTES_NEEDED // 2**20})",
                "Free some space, or choose another --results folder.",
            )

    def _sweep(self) -> None:
        """Remove temporary files a killed run left behind."""
        for leftover in [*self.parts.glob(".*.tmp"), *self.folder.glob(".*.tmp")]:
            leftover.unlink(missing_ok=True)

    def read(self) -> Contents:
        """All readable attempts. A part from a newer peftmark is refused, an older one left out.

        Raises:
            StoreError: if a part can't be read from the disk or was written by a newer schema,
                or if the results folder is no folder.
        """
        there = next(f for f in (self.folder, *self.folder.absolute().parents) if f.exists())
        if not there.is_dir():
            raise StoreError(f"{there} is not a folder", "Choose another --results folder.")
        records: dict[str, Record] = {}
        damaged: dict[Path, str] = {}
        attempts = older = 0
        parts = (path for path in self.parts.glob("*.parquet") if path.is_file())
        for path in sorted(parts, key=_part_key):
            with _explained(path):
                raw = path.read_bytes()
            try:
                record = _read_part(path, raw)
            except StoreError:
                raise
            except _Older:
                older += 1
                continue
            except Exception as error:  # damaged bytes make the reader raise almost anything
                damaged[path] = " ".join(str(error).split())[:200]
                continue
            attempts += 1
            known = records.get(record.job.job_id)
            if known is None or record.ok or not known.ok:
                records[record.job.job_id] = record
        return Contents(records, attempts, damaged, older)

    def quarantine(self, damaged: Iterable[Path]) -> None:
        """Move damaged parts aside, so that their jobs run again and nothing is lost."""
        for path in damaged:
            with _explained(path):
                self.aside.mkdir(exist_ok=True)
                os.replace(path, self.aside / path.name)

    def next_attempt(self, job_id: str) -> int:
        """Number of the next attempt of a job."""
        files = [*self.parts.glob(f"{job_id}.*"), *self.aside.glob(f"{job_id}.*")]
        numbers = [int(m[2]) for p in files if (m := _match(p))]
        return max(numbers, default=0) + 1

    def append(self, record: Record) -> Path:
        """Write one attempt: a temporary file, fsync, rename.

        Raises:
            StoreError: if it can't be written; earlier results are untouched.
        """
        path = self.parts / f"{record.job.job_id}.{record.attempt}.parquet"
        _write(path, [record])
        return path

    def rebuild(self) -> None:
        """Write `results.parquet` anew from the parts."""
        _write(self.derived, in_order(self.read().records.values()))


class _Older(Exception):
    """A part of an older schema."""


def _sort_key(job: Job) -> tuple[Any, ...]:
    return (
        job.profile,
        job.task,
        job.method,
        job.rank or 0,
        job.quantization,
        job.seed,
        job.job_id,
    )


def _match(path: Path) -> re.Match[str] | None:
    return PART_NAME.fullmatch(path.name)


def _part_key(path: Path) -> tuple[str, int]:
    match = _match(path)
    return (match[1], int(match[2])) if match else (path.name, 0)


def _read_part(path: Path, raw: bytes) -> Record:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Not `read_table`, whose threads can outlive the interpreter and abort it at its end.
    file = pq.ParquetFile(pa.BufferReader(raw), page_checksum_verification=True)
    table = file.read(use_threads=False)
    version = int((table.schema.metadata or {}).get(b"peftmark_schema", b"0"))
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} was written by a newer peftmark (schema {version}, known {SCHEMA_VERSION})",
            "Update peftmark, or give this run its own --results folder.",
        )
    if 0 < version < SCHEMA_VERSION:
        raise _Older
    if table.num_rows != 1:
        raise ValueError(f"{table.num_rows} rows where one belongs")
    record = from_row(table.to_pylist()[0])
    match = _match(path)
    if match is None or (record.job.job_id, record.attempt) != (match[1], int(match[2])):
        raise ValueError("the file's name does not match the row inside")
    return record


def in_order(records: Iterable[Record]) -> list[Record]:
    """Records in the order of a derived file."""
    return sorted(records, key=lambda r: _sort_key(r.job))


def row_groups(records: Sequence[Record]) -> Iterator[list[dict[str, Any]]]:
    """Rows, a few at a time: as Python values they take many times the memory of a file."""
    for start in range(0, len(records), ROW_GROUP):
        yield [to_row(record) for record in records[start : start + ROW_GROUP]]


def parquet_bytes(groups: Iterable[list[dict[str, Any]]]) -> bytes:
    """Rows as a Parquet file; the same rows give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema, buffer = _schema(), pa.BufferOutputStream()
    with pq.ParquetWriter(buffer, schema, write_page_checksum=True) as writer:
        for rows in groups:
            writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    content: bytes = buffer.getvalue().to_pybytes()
    return content


def _write(path: Path, records: Sequence[Record]) -> None:
    content = parquet_bytes(row_groups(records))
    temporary = path.with_name(f".{path.name}.tmp")
    with _explained(path):
        try:
            with open(temporary, "wb") as handle:
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn operating-system errors into one clear message."""
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "the disk is full" if full else (error.strerror or str(error))
        raise StoreError(
            f"{path}: {what}; results written before are intact",
            "Free some space and run the same command again: finished jobs are not repeated."
            if full
            else "Check the folder and its permissions, or choose another --results folder.",
        ) from error

"""Results on disk: one Parquet part per job attempt, written whole or not at all.

Layout of `results/<suite>/`:

    run.lock                         held by the one running supervisor (flock)
    parts/<job_id>.<attempt>.parquet the truth: one row an attempt; of a merged folder the first
                                     digits of the file's SHA-256 stand before the ending
    logs/<job_id>.<attempt>.log      what the worker printed
    scratch/                         what workers keep for a moment; emptied at every start
    adapters/                        trained adapters that are kept (`peftmark.storage.adapters`)
    quarantine/                      parts that could not be read
    results.parquet                  derived from the parts, rebuilt at the end of every run
    index/                           the same of the run that goes on or was stopped, 200 parts
                                     a file

Every file carries the SHA-256 of its own bytes (`sealed`).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from peftmark.core.errors import StoreError
from peftmark.core.files import sync
from peftmark.core.hashes import Stamp, stamp_of
from peftmark.record.columns import from_row
from peftmark.record.job import SCHEMA_VERSION, Record
from peftmark.storage import part_cache
from peftmark.storage.adapters import Adapters
from peftmark.storage.attempts import (
    age,
    counting,
    in_order,
    jobs_and_machines,
    match_of,
    part_name,
)
from peftmark.storage.disk_errors import explained, readable
from peftmark.storage.migrations import NoMigration, migrated
from peftmark.storage.parquet import check_seal, parquet_bytes, row_groups
from peftmark.storage.part_cache import NAMES

INDEXED = 200
"""Parts of the run that goes on in a file of its index: reading them one by one takes a second."""
TOLD = 500
"""Parts from which on reading them one by one takes long enough to say how far it is, and writing
them once more too long for somebody who has pressed Ctrl-C."""
FREE_BYTES_NEEDED = 32 * 1024 * 1024


@dataclass(frozen=True)
class Contents:
    """What a results folder holds.

    Attributes:
        records: job id -> the record that counts: the last ok attempt, else the last attempt.
        rows: the same of each kind of machine that a job ran on: one row a job and machine.
        attempts: number of readable attempts over all jobs.
        damaged: unreadable part -> why.
        older: part of an older schema that has no migration -> which, such as "schema 3"; they are
            left where they are. Rows that have one are among the records.
    """

    records: dict[str, Record]
    attempts: int
    damaged: dict[Path, str]
    older: dict[Path, str] = field(default_factory=dict)
    rows: tuple[Record, ...] = ()


class Store:
    """The results folder of one suite.

    Args:
        root: the results folder (`results/`).
        suite: checked suite name.

    Attributes:
        tell: is told how many of how many parts were read, where many are read one by one; of
            every store of a process, as most commands read one somewhere within.
    """

    tell: ClassVar[Callable[[int, int], None] | None] = None

    def __init__(self, root: Path, suite: str) -> None:
        self.folder = root / suite
        self.parts = self.folder / "parts"
        self.logs = self.folder / "logs"
        self.scratch = self.folder / "scratch"
        self.adapters = Adapters(self.folder / "adapters")
        self.aside = self.folder / "quarantine"
        self.derived = self.folder / "results.parquet"
        self.index = self.folder / "index"
        self._fresh: dict[Path, tuple[Stamp, Record]] = {}

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for one run; the kernel releases it however the process ends.

        Raises:
            StoreError: if another run holds it, or the folder can't be written.
        """
        with explained(self.folder):
            self.parts.mkdir(parents=True, exist_ok=True)
        with explained(self.logs):
            self.logs.mkdir(exist_ok=True)
        lock = self.folder / "run.lock"
        with explained(lock):
            handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            with explained(self.folder):
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
        for folder in (self.parts, self.folder, self.index):
            for leftover in folder.glob(".*.tmp"):
                leftover.unlink(missing_ok=True)
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.adapters.sweep()

    def read(self) -> Contents:
        """All readable attempts. A part from a newer peftmark is refused, an older one migrated.

        Raises:
            StoreError: if a part can't be read from the disk or was written by a newer schema,
                or if the results folder is no folder.
        """
        there = next(f for f in (self.folder, *self.folder.absolute().parents) if f.exists())
        if not there.is_dir():
            raise StoreError(f"{there} is not a folder", "Choose another --results folder.")
        with readable(self.parts):
            seen = part_cache.stamps(self.parts)
        notes = [part_cache.Noted(path) for path in (self.derived, *self._indexed())]
        parts = part_cache.known(seen, notes)
        parts |= _read_each(seen.keys() - parts.keys(), Store.tell)
        part_cache.remember(seen, parts)
        found = {path: part.record for path, part in parts.items() if part.record is not None}
        in_time = [found[path] for path in sorted(found, key=lambda p: age(p, found[p]))]
        damaged = {path: part.damage for path, part in parts.items() if part.damage}
        older = {path: part.older for path, part in parts.items() if part.older}
        attempts = len(parts) - len(damaged) - len(older)
        return Contents(
            counting(in_time, [record.job.job_id for record in in_time]),
            attempts,
            dict(sorted(damaged.items())),
            dict(sorted(older.items())),
            tuple(counting(in_time, jobs_and_machines(in_time)).values()),
        )

    def attempts(self) -> dict[str, list[Record]]:
        """Job id -> every readable attempt, from the first on, of the jobs that have several.

        Raises:
            StoreError: as `read`.
        """
        paths: dict[str, list[Path]] = {}
        for path in part_cache.stamps(self.parts):
            if match := match_of(path):
                paths.setdefault(match[1], []).append(path)
        found: dict[str, list[Record]] = {}
        for job_id, several in paths.items():
            read: dict[Path, Record] = {}
            for path in several if len(several) > 1 else ():
                with suppress(FileNotFoundError):  # a run beside this reader has set it aside
                    record = _part(path).record
                    if record is not None:
                        read[path] = record
            if read:
                found[job_id] = [read[p] for p in sorted(read, key=lambda p: age(p, read[p]))]
        return found

    def quarantine(self, damaged: Iterable[Path]) -> None:
        """Move damaged parts aside, so that their jobs run again and nothing is lost."""
        for path in damaged:
            with explained(path):
                self.aside.mkdir(exist_ok=True)
                os.replace(path, self.aside / path.name)

    def last_attempts(self) -> dict[str, int]:
        """Job id -> number of its last attempt, what was set aside included."""
        found: dict[str, int] = {}
        for folder in (self.parts, self.aside):
            for path in folder.glob("*"):
                if match := match_of(path):
                    found[match[1]] = max(found.get(match[1], 0), int(match[2]))
        return found

    def append(self, record: Record) -> Path:
        """Write one attempt: a temporary file, fsync, rename.

        Raises:
            StoreError: if it can't be written; earlier results are untouched.
        """
        while (path := self.parts / part_name(record)).exists():
            # Somebody put a row of the job there meanwhile, by hand: nothing is written over.
            record = replace(record, attempt=record.attempt + 1)
        _write(path, [record])
        # What the file looks like now: another that takes its place is not what was written.
        self._fresh[path] = (stamp_of(path), record)
        if len(self._fresh) >= INDEXED:
            self._write_index()
        return path

    def _indexed(self) -> list[Path]:
        return sorted(self.index.glob("[!.]*.parquet"))

    def _write_index(self) -> None:
        """Note the last parts of the run that goes on: if it is killed, nobody reads each again."""
        if not self._fresh:
            return
        fresh, self._fresh = self._fresh, {}
        seen = {path: stamp for path, (stamp, _) in fresh.items() if path.exists()}
        number = 1 + max((int(p.stem) for p in self._indexed() if p.stem.isdigit()), default=0)
        names = [path.name for path in seen]
        facts = {**part_cache.note(set(names), seen), NAMES: json.dumps(names).encode()}
        with suppress(StoreError, OSError):  # the parts are the truth, and tell of a full disk
            self.index.mkdir(exist_ok=True)
            _write(self.index / f"{number:06d}.parquet", [fresh[path][1] for path in seen], facts)

    def leave(self) -> None:
        """End a run that somebody waits for: many rows are only noted, not written once more."""
        if len(part_cache.stamps(self.parts)) < TOLD:
            self.rebuild()
        else:
            self._write_index()

    def rebuild(self) -> None:
        """Write `results.parquet` anew from the parts, with a note of what they looked like."""
        self._write_index()  # in one piece the last parts are read in a fraction of the time
        seen = part_cache.stamps(self.parts)
        contents = self.read()
        rows = in_order(contents.rows)
        whole = {path: stamp for path, stamp in seen.items() if path not in contents.damaged}
        of_rows = part_cache.names_of(rows, whole)
        note = part_cache.note(set(of_rows), whole)
        _write(self.derived, rows, {**note, NAMES: json.dumps(of_rows).encode()})
        shutil.rmtree(self.index, ignore_errors=True)


def _read_each(
    paths: Collection[Path], tell: Callable[[int, int], None] | None
) -> dict[Path, part_cache.Part]:
    """What parts hold that nothing is known of yet."""
    found = {}
    told = tell if tell is not None and len(paths) >= TOLD else lambda _, __: None
    for done, path in enumerate(paths):
        told(done, len(paths))
        with suppress(FileNotFoundError):  # a run beside this reader has just set it aside
            found[path] = _part(path)
    told(len(paths), len(paths))
    return found


def _part(path: Path) -> part_cache.Part:
    """What a part holds."""
    with explained(path, but=FileNotFoundError):
        raw = path.read_bytes()
    return part_of(path, raw)


def part_of(path: Path, raw: bytes) -> part_cache.Part:
    """What the bytes of a part hold.

    Raises:
        StoreError: a newer peftmark wrote it.
    """
    try:
        return part_cache.Part(_read_part(path, raw))
    except StoreError:
        raise
    except NoMigration as older:
        return part_cache.Part(older=str(older))
    except Exception as error:  # damaged bytes make the reader raise almost anything
        return part_cache.Part(damage=" ".join(str(error).split())[:200] or type(error).__name__)


def _read_part(path: Path, raw: bytes) -> Record:
    import pyarrow as pa
    import pyarrow.parquet as pq

    check_seal(raw)
    # Not `read_table`, whose threads can outlive the interpreter and abort it at its end.
    file = pq.ParquetFile(pa.BufferReader(raw), page_checksum_verification=True)
    table = file.read(use_threads=False)
    version = schema_of(path, table)
    if table.num_rows != 1:
        raise ValueError(f"{table.num_rows} rows where one belongs")
    [row] = table.to_pylist()
    record = record_of(row, version)
    match = match_of(path)
    if match is None or (record.job.job_id, record.attempt) != (match[1], int(match[2])):
        raise ValueError("the file's name does not match the row inside")
    if match[3] and not hashlib.sha256(raw).hexdigest().startswith(match[3]):
        raise ValueError("the file's SHA-256 is not the one in its name")
    return record


def schema_of(path: Path, table: Any) -> int:
    """The schema that a file says its rows have; 0 if it says none.

    Raises:
        StoreError: a newer one than this peftmark knows.
    """
    version = int((table.schema.metadata or {}).get(b"peftmark_schema", b"0"))
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"{path} was written by a newer peftmark (schema {version}, known {SCHEMA_VERSION})",
            "Update peftmark, or give this run its own --results folder.",
        )
    return version


def record_of(row: dict[str, Any], version: int) -> Record:
    """The record of a row of a file.

    Raises:
        NoMigration: of an older schema that can't be read.
        ValueError, KeyError, TypeError: if the row isn't one of ours.
    """
    return _of_older(row, version) if 0 < version < SCHEMA_VERSION else from_row(row)


def _of_older(row: dict[str, Any], version: int) -> Record:
    """The record of an older row; what its migration makes must be a row of today's."""
    made = migrated(row, version)
    try:
        return from_row(made)
    except (ValueError, KeyError, TypeError) as error:
        raise NoMigration(f"schema {version}, {type(error).__name__}: {error}") from error


def _write(
    path: Path, records: Sequence[Record], facts: Mapping[bytes, bytes] | None = None
) -> None:
    content = parquet_bytes(row_groups(records), facts)
    temporary = path.with_name(f".{path.name}.tmp")
    with explained(path):
        try:
            with open(temporary, "wb") as handle:
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
            os.replace(temporary, path)
            sync(path.parent)
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

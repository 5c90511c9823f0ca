"""Attempts of jobs: what their parts are called, which is the older one, and which one counts."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from peftmark.record.job import Record
from peftmark.record.machine_kind import machine_keys

PART_NAME = re.compile(r"([0-9a-f]{16})\.([0-9]+)(?:\.([0-9a-f]{12}))?\.parquet")
"""Job id, attempt and, in a merged folder, the first digits of the SHA-256 of the part's bytes."""
DIGITS = 12

Key = TypeVar("Key", bound=Hashable)


def match_of(path: Path) -> re.Match[str] | None:
    """The pieces of a part's name; None for what is no part."""
    return PART_NAME.fullmatch(path.name)


def part_name(record: Record, digest: str = "") -> str:
    """The name of a part.

    Args:
        digest: SHA-256 of its bytes, for a folder where attempts of several others were brought
            together: they were counted apart, and two of one number may be two rows.
    """
    apart = f".{digest[:DIGITS]}" if digest else ""
    return f"{record.job.job_id}.{record.attempt}{apart}.parquet"


def age(path: Path, record: Record) -> tuple[Any, ...]:
    """What the attempts of a folder sort by, the oldest first.

    Their numbers tell, whatever a clock says. Of those that were brought together only the times
    do, and what ran in the merged folder itself came later.
    """
    match = match_of(path)
    brought = match is not None and match[3] is not None
    ended = record.finished_at if brought else ""
    return record.job.job_id, not brought, ended, record.attempt, path.name


def counting(in_time: Sequence[Record], keys: Sequence[Key]) -> dict[Key, Record]:
    """Of the attempts that share a key the one that counts: the last ok one, else the last.

    Args:
        in_time: the oldest first.
        keys: one for each.
    """
    found: dict[Key, Record] = {}
    for record, key in zip(in_time, keys, strict=True):
        known = found.get(key)
        if known is None or record.ok or not known.ok:
            found[key] = record
    return found


def jobs_and_machines(records: Sequence[Record]) -> list[tuple[str, str]]:
    """What each row is one of: its job on its kind of machine."""
    machines = machine_keys([record.environment for record in records])
    return [(r.job.job_id, machine) for r, machine in zip(records, machines, strict=True)]


def in_order(records: Iterable[Record]) -> list[Record]:
    """Records in the order of a derived file."""
    return sorted(records, key=_sort_key)


def _sort_key(record: Record) -> tuple[Any, ...]:
    job = record.job
    return (
        job.profile,
        job.task,
        job.method,
        job.size or 0,
        job.quantization,
        job.seed,
        job.job_id,
        record.finished_at,
        record.attempt,
    )

"""Reading a folder of many parts: a part is read once, and those of earlier runs in one piece.

Opening ten thousand small Parquet files takes half a minute, one file of ten thousand rows some
seconds. `results.parquet`, and each file of the index that a killed run leaves, notes which parts
its rows came from and what those files looked like; as long as they still look so, its rows stand
for them. The parts stay the truth: with any of them changed or gone, they are all read again.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftmark.core.hashes import Stamp, stamp_of
from peftmark.record.columns import COLUMNS, from_row
from peftmark.record.job import SCHEMA_VERSION, Record
from peftmark.storage.parquet import SEAL, check_seal

INDEX = b"peftmark_parts"
"""Key in the footer of a derived file: what its parts looked like, as JSON."""
NAMES = b"peftmark_row_parts"
"""Key in the footer of a derived file: the part of each of its rows, as JSON."""


@dataclass(frozen=True)
class Part:
    """What a part held when it was read.

    Attributes:
        record: its row; None where there is none, or where another attempt of the job counts.
        older: which older schema it is of, where its row can't be migrated; empty if it can.
        damage: why it can't be read; empty if it can.
    """

    record: Record | None = None
    older: str = ""
    damage: str = ""


_read: dict[Path, tuple[Stamp, Part]] = {}


def stamps(folder: Path) -> dict[Path, Stamp]:
    """The parts of a folder and what their files look like, in no order.

    Raises:
        OSError: the folder is there and can't be listed, so nobody knows what it holds.
    """
    found: dict[Path, Stamp] = {}
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return found
    for path in (folder / name for name in names if name.endswith(".parquet")):
        try:
            if path.is_file():
                found[path.absolute()] = stamp_of(path)
        except FileNotFoundError:  # a run beside this reader has just set it aside
            continue
    return found


def names_of(records: Sequence[Record], seen: Mapping[Path, Stamp]) -> list[str]:
    """The names of the parts that records were just read from, in their order.

    Args:
        seen: the parts of one folder, read and remembered.
    """
    places = {id(part.record): path.name for path in seen if (part := _read[path][1]).record}
    return [places[id(record)] for record in records]


def note(counting: Set[str], seen: Mapping[Path, Stamp]) -> dict[bytes, bytes]:
    """Metadata for a derived file.

    Args:
        counting: names of the parts whose rows are in the file.
        seen: the parts that are not damaged, those of an older schema among them.
    """
    listed = {}
    for path, stamp in seen.items():
        older = _read[path][1].older if path in _read else ""
        kind = "row" if path.name in counting else "older" if older else "superseded"
        listed[path.name] = [kind, list(stamp), older]
    return {INDEX: json.dumps(listed, sort_keys=True).encode()}


@dataclass(frozen=True)
class Noted:
    """A derived file: rows of parts, and a note of what those looked like."""

    path: Path

    def note(self) -> bytes | None:
        """What it notes of the parts; None if it can't be trusted or isn't there.

        It is of no use if a peftmark wrote it that knew fewer columns than this one: its parts may
        have them.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            raw = self.path.read_bytes()
            check_seal(raw)
            found = pq.read_metadata(pa.BufferReader(raw))
            facts = found.metadata or {}
            whole = COLUMNS.keys() <= set(found.schema.to_arrow_schema().names)
        except Exception:  # damaged bytes make the reader raise almost anything
            return None
        same_schema = facts.get(b"peftmark_schema") == str(SCHEMA_VERSION).encode()
        named = same_schema and whole and NAMES in facts
        return facts.get(INDEX) if named and SEAL in facts else None

    def rows(self) -> dict[str, Record]:
        """Its rows by the names of the parts they came from."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        # Not by its name, which pyarrow takes as UTF-8 alone.
        raw = pa.BufferReader(self.path.read_bytes())
        with pq.ParquetFile(raw, page_checksum_verification=True) as file:
            groups = (file.read_row_group(i, use_threads=False) for i in range(file.num_row_groups))
            records = [from_row(row) for group in groups for row in group.to_pylist()]
            names = json.loads(file.metadata.metadata[NAMES])
        return dict(zip(names, records, strict=True))


def known(seen: Mapping[Path, Stamp], files: Iterable[Noted]) -> dict[Path, Part]:
    """The parts that needn't be read: as they were when this process or a derived file read them.

    Args:
        seen: the parts that there are (`stamps`).
        files: the derived files, each with parts of its own.
    """
    before = {path: _read[path] for path in seen.keys() & _read.keys()}
    found = {path: part for path, (stamp, part) in before.items() if stamp == seen[path]}
    here = {path.name: path for path in seen}
    for file in files:
        missing = {path.name for path in seen.keys() - found.keys()}
        note_there = file.note() if len(missing) > 1 else None
        if note_there is None:
            continue
        listed: dict[str, Any] = json.loads(note_there)
        if not missing & listed.keys() or any(
            name not in here or list(seen[here[name]]) != stamp
            for name, (_, stamp, _) in listed.items()
        ):
            continue
        records = file.rows()
        for name in missing & listed.keys():
            kind, _, older = listed[name]
            found[here[name]] = Part(records[name]) if kind == "row" else Part(older=older)
    return found


def remember(seen: Mapping[Path, Stamp], parts: Mapping[Path, Part]) -> None:
    """Keep what was read for the next reading in this process."""
    _read.update({path: (seen[path], part) for path, part in parts.items()})

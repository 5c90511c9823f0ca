"""Reading a folder of many parts: a part is read once, and those of earlier runs in one piece.

Opening ten thousand small Parquet files takes half a minute, one file of ten thousand rows some
seconds. `results.parquet` notes which parts its rows came from and what those files looked like; as
long as they still look so, its rows stand for them. The parts stay the truth: with any of them
changed or gone, all are read again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftmark.core.hashes import Stamp, stamp_of
from peftmark.record.job import Record

INDEX = b"peftmark_parts"


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
    """The parts of a folder and what their files look like, in no order."""
    found = {}
    for path in folder.glob("*.parquet"):
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


def known(
    seen: Mapping[Path, Stamp],
    noted: Callable[[], bytes | None],
    rows: Callable[[], Mapping[str, Record]],
) -> dict[Path, Part]:
    """The parts that needn't be read: as they were when this process or a derived file read them.

    Args:
        seen: the parts that there are (`stamps`).
        noted: reads what `note` gave the derived file; None without one.
        rows: reads the derived file: name of a part -> its record.
    """
    before = {path: _read[path] for path in seen.keys() & _read.keys()}
    found = {path: part for path, (stamp, part) in before.items() if stamp == seen[path]}
    missing = {path.name: path for path in seen.keys() - found.keys()}
    note_there = noted() if len(missing) > 1 else None
    if note_there is None:
        return found
    listed: dict[str, Any] = json.loads(note_there)
    here = {path.name: path for path in seen}
    if not missing.keys() & listed.keys() or any(
        name not in here or list(seen[here[name]]) != stamp
        for name, (_, stamp, _) in listed.items()
    ):
        return found
    records = rows()
    for name in missing.keys() & listed.keys():
        kind, _, older = listed[name]
        found[here[name]] = Part(records[name]) if kind == "row" else Part(older=older)
    return found


def remember(seen: Mapping[Path, Stamp], parts: Mapping[Path, Part]) -> None:
    """Keep what was read for the next reading in this process."""
    _read.update({path: (seen[path], part) for path, part in parts.items()})

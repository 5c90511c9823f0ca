"""A suite's results anywhere else: sent with a manifest, fetched and checked against it.

The manifest lists every file with size and SHA-256 and is written last: without it, or with a file
that is not the one it lists, nothing counts. Only names of the kinds below are ever sent or
fetched, so nothing can leave a folder: rows as Parquet, and logs as text where they are asked for.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from peftmark import __version__
from peftmark.core.errors import UserError
from peftmark.core.files import SUITE_NAME, new_folder
from peftmark.core.hashes import sha256_file
from peftmark.core.shown import plural, quoted
from peftmark.storage.attempts import PART_NAME, in_order
from peftmark.storage.parquet import parquet_bytes, row_groups
from peftmark.storage.remote import Remote
from peftmark.storage.store import Contents, Store

MANIFEST = "peftmark-manifest.json"
FORMAT = 1
"""Version of the manifest; newer ones are refused."""
DERIVED = "results.parquet"
LOG_NAME = re.compile(r"[0-9a-f]{16}\.[0-9]+\.log")
MOST_FILES = 500_000
MOST_MANIFEST_BYTES = 128 * 2**20


@dataclass(frozen=True)
class Listed:
    """A file as the manifest has it."""

    sha256: str
    size: int


@dataclass(frozen=True)
class Bundle:
    """What is to be published.

    Attributes:
        files: name -> the file or its bytes, those first that are never written again.
        contents: what the folder holds; what of it can't be read is left out.
        texts: attempts that hold what a model wrote to rows of the user's own.
        own: attempts of tasks of the user's own.
    """

    suite: str
    files: Mapping[str, Path | bytes]
    contents: Contents
    texts: int
    own: int

    @property
    def sizes(self) -> dict[str, int]:
        """Name -> bytes."""
        return {name: _size(content) for name, content in self.files.items()}


def _size(content: Path | bytes) -> int:
    return len(content) if isinstance(content, bytes) else content.stat().st_size


def _sha256(content: Path | bytes) -> str:
    if isinstance(content, bytes):
        return hashlib.sha256(content).hexdigest()
    return sha256_file(content)


@dataclass
class Sent:
    """What publishing did: names that were written, left as they were there, and removed."""

    written: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)


# --- sending ------------------------------------------------------------------------------------


def bundle(store: Store, logs: bool) -> Bundle:
    """The files of a suite's results that can be published; the derived one is made anew.

    Args:
        logs: whether the workers' logs go with them.

    Raises:
        StoreError: as reading the folder.
    """
    contents = store.read()
    unread = contents.damaged.keys() | contents.older.keys()
    parts = sorted(store.parts.glob("*.parquet")) if store.parts.is_dir() else []
    files: dict[str, Path | bytes] = {
        f"parts/{path.name}": path
        for path in parts
        if PART_NAME.fullmatch(path.name) and path.absolute() not in unread
    }
    if logs:
        found = sorted(store.logs.glob("*.log"))
        files |= {f"logs/{path.name}": path for path in found if LOG_NAME.fullmatch(path.name)}
    if contents.rows:
        files[DERIVED] = parquet_bytes(row_groups(in_order(contents.rows)))
    # A superseded attempt is sent too, so what it holds counts as well.
    several = store.attempts()
    every = [r for r in contents.rows if r.job.job_id not in several]
    every = [r for r in (*every, *chain(*several.values())) if r.job.own is not None]
    texts = sum(bool(r.outcome.completions) for r in every)
    return Bundle(store.folder.name, files, contents, texts, len(every))


def publish(what: Bundle, to: Remote, again: bool = False) -> Sent:
    """Send what is not there yet, the manifest last.

    Args:
        again: send every file anew, also those that the manifest there has with their size.

    Raises:
        UserError: the place can't be written, or holds something else.
    """
    listed = {name: Listed(_sha256(held), _size(held)) for name, held in what.files.items()}
    before = read_manifest(to)
    if before is not None and before[0] != what.suite:
        raise UserError(
            f"{to.shown} holds results of suite {before[0]}, not of {what.suite}",
            "Name another place. Nothing was written.",
        )
    known = before[1] if before is not None else {}
    there = to.sizes()
    sent = Sent()
    for name, entry in listed.items():
        as_it_is = not again and known.get(name) == entry and there.get(name) == entry.size
        (sent.kept if as_it_is else sent.written).append(name)
    sent.removed = sorted(known.keys() - listed.keys())
    if not sent.written and not sent.removed and known:
        return sent
    files: dict[str, Path | bytes] = {name: what.files[name] for name in sent.written}
    files[MANIFEST] = _manifest(what.suite, listed)
    to.write(files, sent.removed, f"Results of suite {what.suite}, by peftmark {__version__}")
    return sent


def _manifest(suite: str, files: Mapping[str, Listed]) -> bytes:
    tree = {
        "peftmark_results": FORMAT,
        "peftmark": __version__,
        "suite": suite,
        "files": {n: {"sha256": e.sha256, "bytes": e.size} for n, e in sorted(files.items())},
    }
    return (json.dumps(tree, indent=1) + "\n").encode()


# --- fetching -----------------------------------------------------------------------------------


def pull(source: Remote, to: Path) -> tuple[str, Contents]:
    """Fetch published results into a new results folder, every file checked.

    Returns:
        the suite, and what its folder holds.

    Raises:
        UserError: nothing was published there, or it is not what its manifest says; nothing is
            written then.
    """
    found = read_manifest(source)
    if found is None:
        raise UserError(
            f"{source.shown} has no {MANIFEST}, so nothing that was published whole",
            "Correct the URL, or publish again: an interrupted `peftmark publish` leaves none.",
        )
    suite, files = found
    with new_folder(to) as made:
        for name, entry in files.items():
            _fetch(source, name, entry, made / suite / name)
        Store(made, suite).rebuild()
    return suite, Store(to, suite).read()


def _fetch(source: Remote, name: str, entry: Listed, path: Path) -> None:
    """One file, whose bytes must be those that the manifest lists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for piece in source.chunks(name):
            size += len(piece)
            if size > entry.size:
                break
            digest.update(piece)
            file.write(piece)
    if (size, digest.hexdigest()) != (entry.size, entry.sha256):
        raise UserError(
            f"{source.shown}: {name} is not the file that its manifest lists",
            "It is damaged, or is being published right now: try again later. Nothing was written.",
        )


def read_manifest(source: Remote) -> tuple[str, dict[str, Listed]] | None:
    """The suite and the files that are published at a place; None if nothing is.

    Raises:
        UserError: what is there can't be used; says why.
    """
    raw = source.read(MANIFEST, MOST_MANIFEST_BYTES)
    if raw is None:
        return None
    try:
        if len(raw) > MOST_MANIFEST_BYTES:
            raise ValueError("it is too large")
        return _read(json.loads(raw))
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"{source.shown}/{MANIFEST} can't be used: {error}",
            "Publish again, or with a newer peftmark if that wrote it.",
        ) from error


def _read(tree: Any) -> tuple[str, dict[str, Listed]]:
    """A manifest's content.

    Raises:
        ValueError: it is none of ours, or names what no results folder has.
    """
    if not isinstance(tree, dict) or tree.get("peftmark_results") != FORMAT:
        raise ValueError(f"it is no manifest of format {FORMAT}")
    suite, files = tree.get("suite"), tree.get("files")
    if not isinstance(suite, str) or not SUITE_NAME.fullmatch(suite):
        raise ValueError(f"{quoted(suite)} is no name of a suite")
    if not isinstance(files, dict) or not 0 < len(files) <= MOST_FILES:
        raise ValueError(f"it must list from 1 to {plural(MOST_FILES, 'file')}")
    return suite, {name: _entry(name, facts) for name, facts in files.items()}


def _entry(name: str, facts: Any) -> Listed:
    if not _is_ours(name):
        raise ValueError(f"{quoted(name)} is no file of a results folder")
    digest, size = (
        (facts.get("sha256"), facts.get("bytes")) if isinstance(facts, dict) else (None, None)
    )
    if not isinstance(digest, str) or not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise ValueError(f"{quoted(name)} has no SHA-256")
    if not isinstance(size, int) or isinstance(size, bool) or size < 0:
        raise ValueError(f"{quoted(name)} has no size")
    return Listed(digest, size)


def _is_ours(name: str) -> bool:
    """Whether a name is one that publishing gives: these can't leave a folder."""
    folder, _, base = name.rpartition("/")
    kinds = {"parts": PART_NAME, "logs": LOG_NAME}
    return name == DERIVED or (folder in kinds and bool(kinds[folder].fullmatch(base)))

"""Baselines: accepted runs as text that a reviewer reads, one line a cell, task and seed.

A file is JSON lines: a header with the SHA-256 of all else in it and of all that follows, then the
environments, then the configuration of each cell on each task with its runs. Only `accept` writes
one. Ends of lines are not part of it: what an editor or git makes of them changes nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from peftmark.catalog.methods import Cell, cell_title
from peftmark.core.errors import Exit, UserError
from peftmark.core.files import write_all
from peftmark.gate.run_lines import Line
from peftmark.gate.snapshot import Accepted, Snapshot
from peftmark.record.job import Environment

FORMAT = 2
"""Of format 1 the hash covers the lines alone, not the header."""
MOST_BYTES = 256 * 2**20
_LINE = TypeAdapter(Line)
_SHARED = ("config", "environment", "rounds", "finished_at")
"""Fields of a line that its own text leaves out: they stand above it, or belong to one machine's
times, which no baseline can be compared with later."""


def path_of(folder: Path, suite: str, machine: str, pinned: bool) -> Path:
    """Where a baseline is kept: `<folder>/<suite>/<machine class>.jsonl`, or `.release.jsonl`."""
    return folder / suite / f"{machine}{'.release' if pinned else ''}.jsonl"


def pinned_beside(path: Path) -> Path:
    """The pinned baseline that stands beside a moving one."""
    return path.with_name(f"{path.name.removesuffix('.jsonl')}.release.jsonl")


# --- text ---------------------------------------------------------------------------------------


def text_of(snapshot: Snapshot) -> str:
    """A baseline's file; the same lines give the same text."""
    assert snapshot.accepted is not None
    body = "".join(f"{_json(item)}\n" for item in _items(snapshot.lines))
    header = {
        "peftmark_baseline": FORMAT,
        "suite": snapshot.suite,
        "suite_version": snapshot.suite_version,
        "profile": snapshot.profile,
        "model": snapshot.model,
        "machine": snapshot.machine,
        "accepted_at": snapshot.accepted.at,
        "reason": snapshot.accepted.reason,
        "commit": snapshot.accepted.commit,
        "pinned": snapshot.accepted.pinned,
        "earlier": [[a.at, a.reason, a.commit] for a in snapshot.accepted.earlier],
        "finished_at": snapshot.finished_at,
        "runs": len(snapshot.lines),
    }
    return f"{_json(header | {'sha256': _digest(header, body.encode())})}\n{body}"


def _digest(header: dict[str, Any], body: bytes) -> str:
    """SHA-256 of a baseline's lines, from format 2 on under the rest of its header."""
    above = f"{_json({k: v for k, v in header.items() if k != 'sha256'})}\n".encode()
    told = above if header["peftmark_baseline"] != 1 else b""
    return hashlib.sha256(told + body).hexdigest()


def _items(lines: Sequence[Line]) -> Iterator[dict[str, Any]]:
    environments: list[Environment] = []
    for line in lines:
        if line.environment not in environments:
            environments.append(line.environment)
    for number, environment in enumerate(environments):
        yield {"environment": number, **vars(environment)}
    above: tuple[Any, ...] | None = None
    for line in lines:
        shared = (line.cell, line.task, line.config)
        if shared != above:
            above = shared
            title = cell_title(*line.cell)
            yield {"title": title, **line.cell.stored, "task": line.task, "config": line.config}
        own = {k: v for k, v in asdict(line).items() if k not in (*_SHARED, "cell", "task")}
        yield {"seed": line.seed, "by": environments.index(line.environment), **own}


def _json(item: Any) -> str:
    return json.dumps(item, separators=(", ", ": "), ensure_ascii=False, allow_nan=False)


def read(path: Path) -> Snapshot:
    """A baseline.

    Raises:
        UserError: no such file (not comparable), a damaged one, or one from a newer peftmark.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise missing(path) from None
    except OSError as error:
        raise UserError(f"{path} can't be read: {error.strerror}", "Check the path.") from error
    head, _, body = raw.replace(b"\r\n", b"\n").partition(b"\n")
    if body and not body.endswith(b"\n"):
        body += b"\n"
    try:
        header = json.loads(head)
        version = header["peftmark_baseline"]
        digest = _digest(header, body)
    except (ValueError, KeyError, TypeError):
        raise _corrupt(path, "its first line is no header of a baseline") from None
    if isinstance(version, int) and version > FORMAT:
        raise _corrupt(path, f"it was written by a newer peftmark (format {version})")
    if (
        version not in range(1, FORMAT + 1)
        or len(raw) > MOST_BYTES
        or digest != header.get("sha256")
    ):
        raise _corrupt(path, "its lines are not the ones that were accepted (SHA-256 differs)")
    try:
        lines = tuple(_lines(body.decode(), str(header["finished_at"])))
        if len(lines) != header["runs"]:
            raise ValueError(f"{len(lines)} runs where {header['runs']} belong")
        return Snapshot(
            where=str(path),
            suite=str(header["suite"]),
            suite_version=int(header["suite_version"]),
            profile=str(header["profile"]),
            model=str(header["model"]),
            lines=lines,
            planned=tuple(line.key for line in lines),
            accepted=_accepted(header),
        )
    except (ValueError, KeyError, TypeError, IndexError) as error:
        what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise _corrupt(path, f"a line is not one of a baseline ({what[:200]})") from error


def _accepted(header: dict[str, Any]) -> Accepted:
    pinned = header["pinned"] is True
    earlier = [Accepted(str(at), str(why), str(by), pinned) for at, why, by in header["earlier"]]
    at, reason, commit = (str(header[name]) for name in ("accepted_at", "reason", "commit"))
    return Accepted(at, reason, commit, pinned, tuple(earlier))


def _lines(text: str, finished_at: str) -> Iterator[Line]:
    environments: list[Environment] = []
    above: dict[str, Any] = {}
    for row in text.split("\n")[:-1]:
        item = json.loads(row)
        if "environment" in item:
            del item["environment"]
            environments.append(Environment(**item))
        elif "config" in item:
            names = ("method", "rank", "quantization", "variant")
            cell = Cell(*(item[name] for name in names))
            above = {"cell": cell, "task": item["task"], "config": item["config"]}
        else:
            made_by = environments[item.pop("by")]
            rest = {"environment": vars(made_by), "finished_at": finished_at}
            line = _LINE.validate_python({**item, **above, **rest})
            yield replace(line, cell=above["cell"], environment=made_by)


def missing(path: Path) -> UserError:
    """The error of a baseline that isn't there."""
    return UserError(
        f"there is no baseline {path}",
        "Accept one: peftmark baseline accept --from results/SUITE --reason TEXT.",
        code=Exit.NOT_COMPARABLE,
    )


def _corrupt(path: Path, why: str) -> UserError:
    return UserError(
        f"the baseline {path} is damaged: {why}",
        "Restore it from version control, or accept a new one. Nothing was compared.",
        code=Exit.CORRUPT,
    )


# --- accepting ----------------------------------------------------------------------------------


def refusals(snapshot: Snapshot, before: Snapshot | None) -> list[str]:
    """Why these runs can't become a baseline, a sentence each; none if they can.

    Args:
        before: the baseline that they would replace.
    """
    found = []
    lines = snapshot.by_key
    if failed := [line for line in snapshot.lines if not line.ok]:
        named = ", ".join(f"{name_of(x)} ({x.status})" for x in failed[:3])
        found.append(f"{len(failed)} runs are not ok: {named}")
    if absent := [key for key in snapshot.planned if key not in lines]:
        found.append(f"{len(absent)} of {len(snapshot.planned)} planned runs have no result")
    if snapshot.waiting:
        found.append(f"{snapshot.waiting} runs wait for trials of learning rates")
    if without := [line for line in snapshot.lines if line.ok and line.value is None]:
        found.append(f"{len(without)} runs have no score: {name_of(without[0])}")
    if snapshot.repeat:
        found.append(f"the run that is made twice is not the same: {snapshot.repeat}")
    made = {json.dumps(asdict(line.environment), sort_keys=True) for line in snapshot.lines}
    if len(made) > 1:
        found.append(f"the runs were made by {len(made)} different states of code or machine")
    if any(line.environment.dirty for line in snapshot.lines):
        found.append("the checkout that made them had uncommitted changes")
    if before is not None and before.profile != snapshot.profile:
        found.append(f"{before.where} is of profile {before.profile}; delete it to start again")
    elif before is not None:
        found += _fewer_seeds(snapshot, before)
    return found


def _fewer_seeds(snapshot: Snapshot, before: Snapshot) -> Iterator[str]:
    seeds: dict[tuple[Cell, str], list[int]] = {}
    for side, lines in enumerate((before.lines, snapshot.lines)):
        for line in lines:
            seeds.setdefault((line.cell, line.task), [0, 0])[side] += 1
    for (cell, task), (old, new) in seeds.items():
        if new < old:
            text = f"{cell_title(*cell)} on {task} has {new} seeds, the baseline {old}"
            yield text if new else f"{text}; delete the file to start again without it"


def name_of(line: Line) -> str:
    """A run's name for people."""
    return f"{cell_title(*line.cell)} on {line.task}, seed {line.seed}"


def accepted(snapshot: Snapshot, reason: str, pinned: bool, before: Snapshot | None) -> Snapshot:
    """The snapshot as a baseline that is accepted now, in place of another."""
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    old = before.accepted if before is not None else None
    earlier = (*old.earlier, replace(old, earlier=())) if old is not None else ()
    commit = snapshot.lines[0].environment.commit or "" if snapshot.lines else ""
    return replace(snapshot, accepted=Accepted(now, reason, commit, pinned, earlier))


def write(path: Path, snapshot: Snapshot) -> None:
    """Write a baseline whole or not at all.

    Raises:
        StoreError: it can't be written; the one before stays as it was.
    """
    write_all({path: text_of(snapshot)})

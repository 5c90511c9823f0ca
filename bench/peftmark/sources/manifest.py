"""`MANIFEST.json` of a mirror: which files belong to which model, task and profile, with hashes.

It holds no times and is sorted, so the same content gives the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationError

from peftmark.core.errors import AssetError
from peftmark.core.files import refuse_special
from peftmark.core.hashes import sha256_file
from peftmark.core.strict import Strict

MANIFEST = "MANIFEST.json"


def _inside(name: str) -> str:
    if name.startswith("/") or ".." in name.split("/"):
        raise ValueError("a path that leads out of the mirror")
    return name


class FileEntry(Strict):
    """A file of the mirror: its size and the SHA-256 of its content."""

    bytes: int
    sha256: str


class AssetEntry(Strict):
    """A model or a task.

    Attributes:
        identity: SHA-256 of the weights, or the fingerprint of the rows
            (`peftmark.sources.task_data`).
        pinned: what the identity stands for elsewhere: repository and revision of a model, the
            identity of a task as it enters jobs.
        source: where the files came from, for people.
        files: paths below the mirror.
    """

    identity: str
    pinned: str
    source: str
    files: list[Annotated[str, AfterValidator(_inside)]]


class ProfileEntry(Strict):
    """A profile whose model and tasks are all there, with the suite's version at that time."""

    suite_version: int
    peftmark: str
    model: str
    tasks: list[str]


class Manifest(Strict):
    """What `MANIFEST.json` holds; `suites` is suite name -> profile name -> entry."""

    format: Literal[1] = 1
    files: dict[str, FileEntry] = Field(default_factory=dict)
    models: dict[str, AssetEntry] = Field(default_factory=dict)
    tasks: dict[str, AssetEntry] = Field(default_factory=dict)
    suites: dict[str, dict[str, ProfileEntry]] = Field(default_factory=dict)

    def assets(self, kind: str) -> dict[str, AssetEntry]:
        """The entries of one kind, `model` or `task`."""
        return self.models if kind == "model" else self.tasks


def read_manifest(mirror: Path) -> Manifest | None:
    """The manifest of a mirror; None where there is none.

    Raises:
        AssetError: the file can't be read, or is not such a manifest.
    """
    path = mirror / MANIFEST
    refuse_special(path)
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = error.strerror or str(error)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        reason = f"{place}: {first['msg']}" if place else first["msg"]
    raise AssetError(
        f"{path} is not a manifest of this peftmark: {reason}",
        "Copy the mirror again, or delete that file and fetch again: files that are whole stay.",
    )


def check_mirror(mirror: Path, models: Iterable[str], tasks: Iterable[str]) -> None:
    """Hold the files of models and of tasks against the manifest, as far as it lists them.

    Loading checks weights and rows; this also finds a damaged tokenizer or configuration.

    Raises:
        AssetError: a file is missing or has another content.
    """
    manifest = read_manifest(mirror)
    if manifest is None:
        return
    entries = [
        *(manifest.models.get(model) for model in models),
        *(manifest.tasks.get(task) for task in tasks),
    ]
    for name in dict.fromkeys(n for entry in entries if entry for n in entry.files):
        if fault := fault_of(mirror / name, manifest.files.get(name)):
            raise AssetError(
                f"{mirror / name} is not what was fetched: {fault}",
                f"Copy the mirror again or fetch it again; if the change is meant, delete "
                f"{mirror / MANIFEST}.",
            )


def fault_of(path: Path, expected: FileEntry | None) -> str:
    """What is wrong with a file in a few words; empty if it is as listed."""
    if expected is None:
        return f"{MANIFEST} has no hash of it"
    refuse_special(path)
    if not path.is_file():
        return "it is missing"
    found = sha256_file(path)
    return "" if found == expected.sha256 else f"SHA-256 is {found}, expected {expected.sha256}"

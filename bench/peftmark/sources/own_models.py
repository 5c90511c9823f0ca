"""Models of the user's own as workers find them: a note in the cache, under the model's identity.

Workers know the identity, which is a hash over all files that are read, and not where they lie. The
files stay where they are; they are verified on every load.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftmark.catalog.models import Model
from peftmark.core.errors import AssetError
from peftmark.core.sealed import sealed, unsealed
from peftmark.core.shown import plain
from peftmark.sources.cache_folder import keep_text
from peftmark.sources.model_folder import (
    Located,
    file_hashes,
    files_read,
    listing_sha256,
    only,
    refuse_redirects,
)


def own_model_note(cache: Path, identity: str) -> Path:
    """Where it stands in which folder a model of the user's own is."""
    return cache / "own-models" / f"{identity}.json"


def keep_own_model(
    model: Model, folder: Path, hashes: Mapping[str, str], source: str, cache: Path
) -> None:
    """Note for workers where a model's files are.

    Raises:
        AssetError: the cache is full, or can't be written.
    """
    note = {"folder": str(folder.absolute()), "source": source, "files": dict(hashes)}
    path = own_model_note(cache, model.identity)
    keep_text(cache, path, sealed(note), f"a note of model {model.key}")


def own_model_files(model: Model, cache: Path) -> Located:
    """The folder with the files of a model of the user's own, and with no others.

    Raises:
        AssetError: it isn't known here, or its files are not those that stand for it.
    """
    path = own_model_note(cache, model.identity)
    try:
        note: dict[str, Any] = unsealed(path.read_text(encoding="utf-8"))
        folder, source = Path(note["folder"]), str(note["source"])
        expected = {str(name): str(digest) for name, digest in note["files"].items()}
    except OSError as error:
        raise AssetError(
            f"model {model.key}: {path} can't be read: {error.strerror or error}",
            "Run the suite again from where the model is. On another machine, share the cache and "
            "the model's folder, under the same path: PEFTMARK_CACHE names the cache.",
        ) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise AssetError(
            f"model {model.key}: {path} is damaged", "Delete it and run the suite again."
        ) from error
    verify(model, folder, expected)
    return Located(only(folder, sorted(expected), cache), source)


def verify(model: Model, folder: Path, expected: Mapping[str, str]) -> None:
    """Hold a folder's files against those that stand for a model.

    Raises:
        AssetError: with the first file that is missing, new or another.
    """
    remedy = "Plan the suite again: its jobs then name the model as it is now."
    if not folder.is_dir():
        raise AssetError(
            f"model {model.key}: there is no folder {folder} any more",
            "Put the model back, or name its new folder in the suite.",
        )
    refuse_redirects(folder)
    found = file_hashes(folder, files_read(folder))
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            how = (
                "is missing"
                if name not in found
                else "is new"
                if name not in expected
                else f"has changed: SHA-256 is {found[name]}, it was {expected[name]}"
            )
            raise AssetError(f"model {model.key}: {folder / plain(name)} {how}", remedy)
    if listing_sha256(found) != model.identity:
        raise AssetError(f"model {model.key}: {folder} is not the job's model", remedy)

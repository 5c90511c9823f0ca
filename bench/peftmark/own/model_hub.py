"""Models of the hub at a pinned commit, for those that no catalogue knows.

A login is the hub library's own affair (`hf auth login`, HF_TOKEN): nothing of it is read, kept or
shown here.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path

from peftmark.core.errors import AssetError, StoreError
from peftmark.core.files import write_all
from peftmark.core.sealed import sealed, unsealed
from peftmark.core.shown import plain
from peftmark.sources.cache_folder import default_cache
from peftmark.sources.hub import (
    hub_reachable,
    hub_reason,
    quiet_hub,
    refuse_full_hub_cache,
    snapshot,
)
from peftmark.sources.model_folder import (
    ADAPTER,
    BESIDE,
    CONFIG,
    INDEX,
    WEIGHTS,
    blob_fault,
    refuse_redirects,
)

PATTERNS = (CONFIG, INDEX, "*.safetensors", *BESIDE)
"""What is asked for; folders inside of the repository are not."""
SPARE = 1_000_000_000
"""Bytes of the disk that a download leaves free."""


def hub_folder(hub: str) -> Path:
    """The folder of the hub's own cache with a model's files, fetched where they are not there.

    Which files belong to it is noted once all of them are there: of a cache that other programs
    filled nobody knows what it lacks, and with a part of its files it would be another model.

    Args:
        hub: `owner/name@<40 hex>`.

    Raises:
        AssetError: the hub can't be reached, has no such model, wants a login or a licence, the
            disk is too small, or the configuration is one that is refused, as of weights that are
            quantised already; told before anything large is fetched.
    """
    repository, _, revision = hub.partition("@")
    note = default_cache() / "own-models" / "hub" / f"{hub.replace('/', '--')}.json"
    folder = _cached(repository, revision)
    if folder is not None and _whole(folder, note):
        _check_blobs(folder, repository)
        return folder
    reachable, why = hub_reachable()
    if not reachable:
        part = ""
        if folder is not None:
            part = f"; {folder} may hold a part of its files alone"
        remedy = "Go online once; the files and the list of them are kept."
        if folder is not None:
            remedy += " Or name that folder itself, as path: then its files are the model."
        raise AssetError(f"model {repository}: {why}{part}", remedy)
    sizes = _sizes(repository, revision)
    _check_room(repository, sizes)
    try:
        # The smallest first: a wall of a licence is met before the weights.
        for names in ([CONFIG], sorted(sizes)):
            folder = snapshot(repository, revision, names, local=False)
            refuse_redirects(folder)
    except AssetError:
        raise
    except Exception as error:  # many kinds, from HTTP status to a file that came short
        refuse_full_hub_cache(error, repository)
        raise _refused(repository, revision, error) from error
    assert folder is not None
    _check_blobs(folder, repository)
    with suppress(StoreError):  # without it the hub is asked again
        write_all({note: sealed(sorted(sizes))})
    return folder


def _cached(repository: str, revision: str) -> Path | None:
    """The folder of the hub's own cache, whatever else it holds; None without a configuration."""
    try:
        return snapshot(repository, revision, [CONFIG], local=True)
    except FileNotFoundError:
        return None


def hub_config(hub: str) -> Path:
    """The configuration of a model alone, of `owner/name` with or without a revision.

    Raises:
        AssetError: the hub can't be reached, has no such model, or wants a login or a licence.
    """
    from huggingface_hub import hf_hub_download

    repository, _, revision = hub.partition("@")
    wanted = revision or "main"
    try:
        with quiet_hub():
            return Path(hf_hub_download(repository, CONFIG, revision=wanted, etag_timeout=5))
    except Exception as error:  # many kinds, from HTTP status to a name that can't be one
        raise _refused(repository, wanted, error) from error


def _whole(folder: Path, note: Path) -> bool:
    """Whether every file is there that the hub said belongs to the model."""
    try:
        names = unsealed(note.read_text(encoding="utf-8"))
        return bool(names) and all((folder / str(name)).is_file() for name in names)
    except (OSError, ValueError, TypeError):
        return False


def _check_blobs(folder: Path, repository: str) -> None:
    """Hold files against the hashes that the hub's cache names them by: a damaged one would make
    another model of it."""
    for path in sorted(folder.iterdir()):
        expected, found = blob_fault(path) if path.is_file() else ("", "")
        if found != expected:
            raise AssetError(
                f"model {repository}: {path.resolve()} is damaged: its hash is {found}, expected "
                f"{expected}",
                f"Delete {path.resolve()} and try again: it is fetched again.",
            )


def _sizes(repository: str, revision: str) -> dict[str, int]:
    """File -> bytes of what would be fetched.

    Raises:
        AssetError: the repository can't be seen, or holds an adapter or no safetensors.
    """
    from huggingface_hub import HfApi

    try:
        with quiet_hub():
            info = HfApi().model_info(repository, revision=revision, files_metadata=True)
    except Exception as error:  # many kinds, from HTTP status to a name that can't be one
        raise _refused(repository, revision, error) from error
    there = {one.rfilename: one.size or 0 for one in info.siblings or ()}
    if ADAPTER in there:
        raise AssetError(
            f"model {repository} is an adapter ({ADAPTER}), or has one beside its weights",
            "Name the model that it was trained on.",
        )
    sizes = {
        name: size
        for name, size in there.items()
        if "/" not in name and any(fnmatch(name, pattern) for pattern in PATTERNS)
    }
    if WEIGHTS in sizes:  # shards beside it would not be read
        shards = [n for n in sizes if n.endswith(".safetensors") and n != WEIGHTS]
        sizes = {n: size for n, size in sizes.items() if n not in (*shards, INDEX)}
    if not any(name.endswith(".safetensors") for name in sizes):
        raise AssetError(
            f"model {repository} at {revision[:12]} has no weights as safetensors",
            "Take a commit that has them, or convert a copy of yours with save_pretrained.",
        )
    return sizes


def _check_room(repository: str, sizes: Mapping[str, int]) -> None:
    """Refuse a download that the disk can't hold."""
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE).absolute()
    there = next(path for path in (cache, *cache.parents) if path.exists())
    needed, free = sum(sizes.values()), shutil.disk_usage(there).free
    if needed + SPARE > free:
        raise AssetError(
            f"model {repository} takes {needed / 1e9:,.1f} GB, and {there} has {free / 1e9:,.1f} "
            "GB free; nothing was fetched",
            "Free some space, or name another folder with HF_HUB_CACHE.",
        )


def _refused(repository: str, revision: str, error: Exception) -> AssetError:
    kind = type(error).__name__
    status = getattr(getattr(error, "response", None), "status_code", None)
    if kind == "GatedRepoError" or status == 403:
        return AssetError(
            f"model {repository} is behind a licence that your login has not accepted",
            f"Accept it on the model's page, log in with `hf auth login`, and try again. "
            f"Nothing of {repository} was fetched.",
        )
    if kind == "RepositoryNotFoundError" or status == 401:
        return AssetError(
            f"model {repository} is not there, or is private and you are not logged in",
            "Check the name; of a private one, log in with `hf auth login` first.",
        )
    return AssetError(
        f"model {plain(hub_reason(error, repository, revision))}",
        "Check name and commit, and the network.",
    )

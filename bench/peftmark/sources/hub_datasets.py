"""Splits of a data set of the hub at a pinned commit, as Parquet files of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from peftmark.core.errors import AssetError
from peftmark.core.files import write_all
from peftmark.core.hashes import sha256_file
from peftmark.core.sealed import sealed, unsealed
from peftmark.sources.cache_folder import cache_error, fetching, out_of_room
from peftmark.sources.hub import hub_reachable, hub_reason, quiet_hub, sweep_partials
from peftmark.sources.pypi import Unavailable


def fetch_splits(
    repository: str,
    revision: str,
    config: str | None,
    files: Mapping[Path, str],
    cache: Path,
    describe: Callable[[Any], dict[str, Any]] = lambda rows: {},
) -> None:
    """Fetch splits of a data set, each put in place whole.

    Args:
        files: file -> the split that it is to hold; all in one folder of the cache.
        cache: our folder for fetched files.
        describe: what to note of the rows beside their hash (`notes_of`), as JSON.

    Raises:
        Unavailable: the hub can't be reached, or has no such data set; says why.
        AssetError: the cache is full.
    """
    reachable, why = hub_reachable()
    if not reachable:
        raise Unavailable(why)
    import datasets

    bars = datasets.are_progress_bars_disabled()
    level = datasets.utils.logging.get_verbosity()
    folder = next(iter(files)).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        sweep_partials(repository, "dataset")
        datasets.disable_progress_bars()
        datasets.utils.logging.set_verbosity_error()
        with quiet_hub(), fetching(cache) as scratch:
            for file, split in files.items():
                rows = datasets.load_dataset(
                    repository, config, revision=revision, split=split, cache_dir=str(scratch)
                )
                part = scratch / file.name
                rows.to_parquet(str(part))
                # Put in place before the rows, which count only with it.
                notes = {**describe(rows), "sha256": sha256_file(part)}
                write_all({file.with_suffix(".json"): sealed(notes)})
                part.replace(file)
    except Exception as error:  # many kinds, from HTTP status to a file that came short
        if (full := out_of_room(error)) is not None:
            raise cache_error(cache, full, f"data set {repository}") from error
        raise Unavailable(hub_reason(error, repository, revision)) from error
    finally:
        datasets.utils.logging.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()


def notes_of(file: Path) -> dict[str, Any] | None:
    """What was noted of a file that was fetched; None if it isn't there, or not what was written.
    Parquet's own checksums cover neither all of a file nor every writer's."""
    try:
        notes: dict[str, Any] = unsealed(file.with_suffix(".json").read_text(encoding="utf-8"))
        return notes if notes["sha256"] == sha256_file(file) else None
    except (OSError, AssetError, ValueError, KeyError, TypeError):
        return None

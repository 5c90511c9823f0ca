"""Data sets of the hub at a pinned commit, kept in our cache as Parquet."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peftmark.core.errors import AssetError
from peftmark.core.hashes import sha256_file
from peftmark.own.table import Table
from peftmark.own.tables import class_names, read_table, with_names
from peftmark.sources.assets import hub_reachable, hub_reason, quiet_hub


def hub_splits(hub: str, config: str | None, splits: tuple[str, ...], cache: Path) -> list[Table]:
    """The splits of a data set, in the order asked for.

    The library's own offline fallback takes "the latest cached version" whatever the revision, so
    the pinned copy is ours; it is checked by hash, and fetched again if it is damaged.

    Args:
        hub: `owner/name@<40 hex>`.
        cache: our folder for fetched files.

    Raises:
        AssetError: there is no copy, and the hub can't be reached or has no such data set.
    """
    repository, _, revision = hub.partition("@")
    folder = cache / "own-hub" / repository.replace("/", "--") / revision / (config or "")
    files = {split: folder / f"{split}.parquet" for split in splits}
    wanted = {split: file for split, file in files.items() if not _whole(file)}
    if wanted:
        reachable, why = hub_reachable()
        if not reachable:
            raise AssetError(f"data set {repository}: {why}", "Go online once; a copy is kept.")
        _fetch(repository, revision, config, wanted)
    return [_read(f"{repository}, {split}", file) for split, file in files.items()]


def _notes(file: Path) -> Path:
    return file.with_suffix(".json")


def _whole(file: Path) -> bool:
    """Whether a copy is there, and is what was written."""
    try:
        notes = json.loads(_notes(file).read_text(encoding="utf-8"))
        return bool(notes["sha256"] == sha256_file(file))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _read(name: str, file: Path) -> Table:
    table = read_table(file)
    classes = json.loads(_notes(file).read_text(encoding="utf-8"))["classes"]
    return Table(name, with_names(table.columns, classes), table.lines, table.unit)


def _fetch(repository: str, revision: str, config: str | None, files: Mapping[str, Path]) -> None:
    import datasets

    bars = datasets.are_progress_bars_disabled()
    level = datasets.utils.logging.get_verbosity()
    folder = next(iter(files.values())).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        datasets.disable_progress_bars()
        datasets.utils.logging.set_verbosity_error()
        with quiet_hub(), tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
            for split, file in files.items():
                rows = datasets.load_dataset(
                    repository, config, revision=revision, split=split, cache_dir=scratch
                )
                _keep(rows, Path(scratch) / file.name, file)
    except Exception as error:  # many kinds, from HTTP status to a file that came short
        raise AssetError(
            f"data set {repository}: {hub_reason(error, repository, revision)}",
            "Check name, commit, config and splits; a data set behind a login needs it.",
        ) from error
    finally:
        datasets.utils.logging.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()


def _keep(rows: Any, part: Path, file: Path) -> None:
    """Put a split in place: first what it says of itself, then the rows."""
    rows.to_parquet(str(part))
    notes = {"classes": class_names(rows), "sha256": sha256_file(part)}
    beside = part.with_suffix(".json")
    beside.write_text(json.dumps(notes), encoding="utf-8")
    beside.replace(_notes(file))
    part.replace(file)

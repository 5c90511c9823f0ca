"""Splits of a data set of the hub at a pinned commit, as Parquet files of ours."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from peftmark.sources.assets import hub_reachable, hub_reason, quiet_hub
from peftmark.sources.pypi import Unavailable


def fetch_splits(
    repository: str,
    revision: str,
    config: str | None,
    files: Mapping[Path, str],
    describe: Callable[[Any, Path], None] = lambda rows, part: None,
) -> None:
    """Fetch splits of a data set, each put in place whole.

    Args:
        files: file -> the split that it is to hold; all in one folder.
        describe: is given the rows and the file that they were written to, before that is put in
            place.

    Raises:
        Unavailable: the hub can't be reached, or has no such data set; says why.
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
        datasets.disable_progress_bars()
        datasets.utils.logging.set_verbosity_error()
        with quiet_hub(), tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder) as scratch:
            for file, split in files.items():
                rows = datasets.load_dataset(
                    repository, config, revision=revision, split=split, cache_dir=scratch
                )
                part = Path(scratch) / file.name
                rows.to_parquet(str(part))
                describe(rows, part)
                part.replace(file)
    except Exception as error:  # many kinds, from HTTP status to a file that came short
        raise Unavailable(hub_reason(error, repository, revision)) from error
    finally:
        datasets.utils.logging.set_verbosity(level)
        if not bars:
            datasets.enable_progress_bars()

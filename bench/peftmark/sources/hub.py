"""The hub, through its own library: whether it answers, files of a model at a commit, and what is
said where that fails. What it fetches lies in its own cache (HF_HUB_CACHE)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from peftmark.core.errors import AssetError
from peftmark.core.shown import without_secrets
from peftmark.sources.cache_folder import is_held, out_of_room
from peftmark.sources.pypi import one_line


@contextmanager
def quiet_hub() -> Iterator[None]:
    """Keep the hub library's progress bars and log lines off the terminal for a while."""
    from huggingface_hub.utils import logging as hub_logging
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    level, bars = hub_logging.get_verbosity(), not are_progress_bars_disabled()
    hub_logging.set_verbosity(logging.ERROR)
    if bars:
        disable_progress_bars()
    try:
        yield
    finally:
        hub_logging.set_verbosity(level)
        if bars:
            enable_progress_bars()


def hub_reachable(timeout: float = 3.0) -> tuple[bool, str]:
    """Whether the configured hub answers at all.

    Args:
        timeout: seconds to wait for a connection, and again for the answer.

    Returns:
        (True, "") or (False, the reason in one line). In offline mode nothing is contacted.
    """
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return False, "offline mode is on (HF_HUB_OFFLINE)"
    endpoint = without_secrets(constants.ENDPOINT)
    try:
        answer = get_session().head(constants.ENDPOINT, timeout=timeout)
    except Exception as error:  # the HTTP library's errors are not part of the hub's interface
        return False, f"{endpoint} can't be reached: {one_line(error)}"
    if answer.status_code >= 500:
        return False, f"{endpoint} answers with HTTP status {answer.status_code}"
    return True, ""


def hub_reason(error: Exception, repository: str, revision: str) -> str:
    """Why the hub's library failed, in one line that names repository and revision."""
    kind = type(error).__name__
    # The `datasets` library tells a missing revision only in its text.
    if kind == "RevisionNotFoundError" or f"Revision '{revision}' doesn't exist" in str(error):
        return f"{repository} has no revision {revision}"
    if kind in ("RepositoryNotFoundError", "GatedRepoError", "DatasetNotFoundError"):
        return f"{repository} does not exist there or needs a login ({kind})"
    return f"{repository} at {revision[:12]}: {one_line(error)}"


def snapshot(repository: str, revision: str, names: Sequence[str], *, local: bool) -> Path:
    """The folder of the hub library's own cache with these files of a model at a commit.

    Args:
        local: whether the hub is left alone, and what the cache lacks is lacking.
    """
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with quiet_hub():
        if not local:
            sweep_partials(repository, "model")
            # One by one, and here: the library's threads outlast Ctrl-C by the files they fetch.
            for name in names:
                try:
                    hf_hub_download(repository, name, revision=revision, etag_timeout=5)
                except LocalEntryNotFoundError:
                    raise
                except EntryNotFoundError:  # whoever asked looks for what is lacking
                    continue
        folder = snapshot_download(
            repository, revision=revision, allow_patterns=list(names), local_files_only=True
        )
    return Path(folder)


def sweep_partials(repository: str, kind: str) -> None:
    """Remove what killed processes left of files of a repository in the hub library's cache: it
    never goes on with them. A file that a living process fetches is locked.

    Args:
        kind: "model" or "dataset".
    """
    from huggingface_hub import constants

    cache = Path(constants.HF_HUB_CACHE)
    name = f"{kind}s--{repository.replace('/', '--')}"
    for part in (cache / name / "blobs").glob(f"*.{'[0-9a-f]' * 8}.incomplete"):
        if not is_held(cache / ".locks" / name / f"{part.name.split('.')[0]}.lock"):
            with suppress(OSError):
                part.unlink()


def refuse_full_hub_cache(error: Exception, repository: str) -> None:
    """Name a full disk below the hub library's cache as that.

    Raises:
        AssetError: that is what the error comes from.
    """
    from huggingface_hub import constants

    if out_of_room(error) is not None:
        raise AssetError(
            f"the hub's cache {constants.HF_HUB_CACHE} is full: there is no room for {repository}",
            "Free some space there, or name another folder with HF_HUB_CACHE.",
        ) from error

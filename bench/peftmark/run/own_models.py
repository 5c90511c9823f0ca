"""Models of the user's own for a run: read from their files, or as earlier rows have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftmark.core.errors import StoreError
from peftmark.core.files import write_all
from peftmark.core.hashes import known_hashes, learn_hashes
from peftmark.core.sealed import sealed, unsealed
from peftmark.record.job import Record
from peftmark.sources.cache_folder import default_cache
from peftmark.sources.own_models import keep_own_model, own_model_note
from peftmark.suite.expand import recorded_models
from peftmark.suite.load import Suite

if TYPE_CHECKING:
    from peftmark.own.model import OwnFiles


def read_own_models(
    suite: Suite, profile: str, records: Mapping[str, Record] | None = None
) -> tuple[Suite, dict[str, OwnFiles]]:
    """The suite with its own models known, and the files of those that were read: what the suite
    knows already isn't read again.

    Args:
        records: rows that tell the models without their files; None to read the files.

    Raises:
        UserError: a model that can't be read; or settings that don't fit it.
    """
    names = [name for name in suite.own_models(profile) if name not in suite.models]
    if not names:
        return suite, {}
    seen = recorded_models(suite, profile, records or {})
    with _remembered(default_cache()):
        files = {name: _read(suite, name) for name in names if name not in seen}
    return suite.with_models(seen | {name: found.model for name, found in files.items()}), files


def _read(suite: Suite, name: str) -> OwnFiles:
    from peftmark.own.model import read_own_model

    return read_own_model(name, suite.file.models[name], suite.places_of("model", name))


def keep_own_models(files: Mapping[str, OwnFiles], cache: Path) -> None:
    """Note for workers where the models are, each after every weight of it was read once.

    Raises:
        UserError: a weight is no number; or the cache can't be written.
    """
    from peftmark.own.model import check_values

    for found in files.values():
        # Of these very bytes it is known already where there is a note.
        if not own_model_note(cache, found.model.identity).is_file():
            check_values(found)
        keep_own_model(found.model, found.folder, found.hashes, found.source, cache)


def shapes_of(files: Mapping[str, OwnFiles]) -> dict[str, Mapping[str, Any]]:
    """Model -> its configuration."""
    return {name: found.config for name, found in files.items()}


@contextmanager
def _remembered(cache: Path) -> Iterator[None]:
    """Hashes of an earlier plan, so that the next one answers at once; of files whose stamp is
    still the same. A run reads every file in full again (`peftmark.run.runner.fetch`)."""
    path, before = cache / "own-models" / "hashes.json", known_hashes()
    with suppress(OSError, ValueError, TypeError, AttributeError):
        noted = unsealed(path.read_text(encoding="utf-8"))
        learn_hashes({name: one for name, one in noted.items() if name not in before})
    learnt = known_hashes()
    yield
    if (found := known_hashes()) != learnt:
        found = {name: one for name, one in found.items() if Path(name).is_file()}
        with suppress(StoreError, OSError):
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_all({path: sealed(found)})

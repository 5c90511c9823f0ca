"""A folder anywhere that fsspec reaches: a disk, an object store, a data set on the Hub.

What went wrong is told in our own words. An error's own text is never shown: services put signed
addresses and keys into it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from peftmark.core.errors import UserError
from peftmark.core.shown import without_secrets

CHUNK = 1 << 20
PACKAGES = {
    "s3": "s3fs",
    "s3a": "s3fs",
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "az": "adlfs",
}
"""Protocol -> the package that fsspec wants for it."""


@dataclass(frozen=True)
class Remote:
    """An open place.

    Attributes:
        fs: fsspec's file system.
        path: of the folder in it.
        shown: the URL without what only its owner may know.
    """

    fs: Any
    path: str
    shown: str

    def at(self, name: str) -> str:
        """The path of a file in the folder."""
        return f"{self.path.rstrip('/')}/{name}"

    @property
    def local(self) -> Path | None:
        """The folder, where it is one of this machine."""
        return Path(self.path) if "file" in _protocols(self.fs) else None

    def read(self, name: str, most: int) -> bytes | None:
        """A file's bytes; None if there is none.

        Args:
            most: bytes; one more is read of a file that is larger.
        """
        with _told(self, "read"):
            try:
                with self.fs.open(self.at(name), "rb") as file:
                    content: bytes = file.read(most + 1)
                    return content
            except FileNotFoundError:
                return None

    def chunks(self, name: str) -> Iterator[bytes]:
        """A file's bytes, a piece at a time."""
        with _told(self, "read"), self.fs.open(self.at(name), "rb") as file:
            while piece := file.read(CHUNK):
                yield piece

    def sizes(self) -> dict[str, int]:
        """Files below the folder, by name -> bytes; none where there is no such folder yet."""
        with _told(self, "read"):
            self.fs.invalidate_cache()
            try:
                found = self.fs.find(self.path, detail=True)
            except FileNotFoundError:
                return {}
        start = self.path.strip("/") + "/"
        names = {path.lstrip("/").removeprefix(start): facts for path, facts in found.items()}
        return {name: int(facts.get("size") or 0) for name, facts in names.items()}

    def write(self, files: Mapping[str, Path | bytes], gone: Sequence[str], message: str) -> None:
        """Write files in their order, then remove some; the last one vouches for the others.

        Args:
            gone: names that are not needed any more.
            message: of the commit, where the place keeps versions.
        """
        with _told(self, "written"):
            if "hf" in _protocols(self.fs):
                place = self.fs.resolve_path(self.path)
                if hasattr(place, "repo_type"):  # a bucket there keeps no versions
                    _commit(self.fs, place, files, gone, message)
                    return
            for name, content in files.items():
                if self.local is not None:
                    self.fs.makedirs(self.fs._parent(self.at(name)), exist_ok=True)
                self.fs.pipe_file(self.at(name), _bytes(content))
            for name in gone:
                with suppress(FileNotFoundError):
                    self.fs.rm_file(self.at(name))


def open_remote(url: str) -> Remote:
    """A place by its URL, or by the path of a folder.

    Raises:
        UserError: nothing here can reach it.
    """
    from fsspec.core import url_to_fs

    shown = shown_url(url)
    protocol = url.partition("://")[0] if "://" in url else "file"
    if protocol == "file" and "://" in url and set("?#") & set(url):
        raise UserError(
            f"{shown}: in a file:// URL the path ends at ? and #",
            "Give the folder as a path, without file://.",
        )
    try:
        fs, path = url_to_fs(url)
    except ImportError as error:
        package = PACKAGES.get(protocol, "a further package")
        raise UserError(
            f"{shown}: {protocol}:// needs {package}, which is not installed",
            f"Install it: pip install {package}." if protocol in PACKAGES else "See fsspec's docs.",
        ) from error
    except Exception as error:
        raise UserError(
            f"{shown} is no place that can be reached ({type(error).__name__})",
            "Give a folder, file:///path, s3://bucket/path, hf://datasets/owner/name/path, or what "
            "else fsspec knows.",
        ) from None
    return Remote(fs, path, shown)


def shown_url(url: str) -> str:
    """A URL for messages: without user, password and query, which may hold keys."""
    bare = without_secrets(url.partition("?")[0].partition("#")[0] if "://" in url else url)
    return "".join(c if c.isprintable() else "?" for c in bare)


def _protocols(fs: Any) -> tuple[str, ...]:
    known: str | tuple[str, ...] = fs.protocol
    return (known,) if isinstance(known, str) else tuple(known)


def _bytes(content: Path | bytes) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()


def _commit(
    fs: Any,
    place: Any,
    files: Mapping[str, Path | bytes],
    gone: Sequence[str],
    message: str,
) -> None:
    """All at once: a repository of the Hub takes one commit, or nothing.

    Args:
        place: the folder of a repository, as the Hub's file system resolves it.
    """
    from huggingface_hub import (
        CommitOperationAdd,
        CommitOperationCopy,
        CommitOperationDelete,
        HfApi,
    )

    below = f"{place.path_in_repo}/" if place.path_in_repo else ""
    operations: list[CommitOperationAdd | CommitOperationCopy | CommitOperationDelete] = [
        *(CommitOperationAdd(f"{below}{name}", content) for name, content in files.items()),
        *(CommitOperationDelete(f"{below}{name}") for name in gone),
    ]
    HfApi(endpoint=fs.endpoint, token=fs.token).create_commit(
        place.repo_id,
        operations,
        commit_message=message,
        repo_type=place.repo_type,
        revision=place.revision,
    )


REMEDIES = {
    401: "Log in as the service's own tools want it (for the Hub: hf auth login).",
    403: "Ask for the right to write there, or name another place.",
    404: "Correct the URL, or make it first (Hub: hf repo create NAME --repo-type dataset).",
}


@contextmanager
def _told(remote: Remote, done: str) -> Iterator[None]:
    """Turn what a file system raises into one message of ours.

    Args:
        done: "read" or "written".
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if isinstance(error, PermissionError) or status in (401, 403):
            code, why = status or 403, "there is no permission"
        elif isinstance(error, FileNotFoundError) or status == 404:
            code, why = 404, "there is no such place"
        else:
            code, why = 0, _why(error, status)
        raise UserError(
            f"{remote.shown} can't be {done}: {why}",
            REMEDIES.get(code, "Try again, or name another place."),
        ) from None


def _why(error: Exception, status: object) -> str:
    """What is known of an error without its text: its kind, and what a system or a server says."""
    if status is not None:
        return f"the server answered {status}"
    said = error.strerror if isinstance(error, OSError) and isinstance(error.errno, int) else ""
    return f"{type(error).__name__}{f', {said}' if said else ''}"

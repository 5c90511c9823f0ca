"""The models and rows that `make gpu-report` needs, for a machine that can download nothing."""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from peftmark.catalog.models import MODELS
from peftmark.catalog.origins import Package
from peftmark.catalog.tasks import TASKS
from peftmark.core.errors import UserError
from peftmark.sources.assets import default_cache
from peftmark.sources.pypi import Unavailable, package_files
from peftmark.suite.load import load_suite, needed_tasks

PROFILES = (("perf", "offline"), ("smoke", "offline"), ("glue", "gpu-offline"))
"""What the parts run."""
PIECE = "assets.tar"
MIB = 2**20


@dataclass(frozen=True)
class Needed:
    """A package that parts read.

    Attributes:
        what: the model or task, for people.
    """

    what: str
    package: Package

    @property
    def folder(self) -> str:
        """Where it lies below the cache."""
        return f"packages/{self.package.name}-{self.package.version}"

    @property
    def there(self) -> bool:
        """Whether this machine's cache has it; it is checked when it is read."""
        folder = default_cache() / self.folder
        return all((folder / name).is_file() for name, _ in self.package.files)

    def size(self, cache: Path) -> int:
        """Bytes of its files."""
        return sum((cache / self.folder / name).stat().st_size for name, _ in self.package.files)


def needed(with_mpnet: bool) -> list[Needed]:
    """What the parts read: a package each.

    Args:
        with_mpnet: with the base that suite `glue` has; without, MiniLM takes its place.
    """
    models = ["minilm-l6"] + ["mpnet-base"] * with_mpnet
    found = [Needed(f"model {name}", MODELS[name].packages[0]) for name in models]
    tasks = (
        task
        for suite, profile in PROFILES
        for task in needed_tasks(load_suite(suite).profiles[profile])
    )
    for task in dict.fromkeys(tasks):
        package = TASKS[task].package
        assert package is not None, f"the parts run tasks from packages, and {task} is in none"
        found.append(Needed(f"task {task}", package))
    return found


def bring(to: str | None, with_mpnet: bool, piece_mib: float, say: Callable[[str], Any]) -> None:
    """List what is needed; with a folder put it there, as pieces of an archive.

    Args:
        piece_mib: most MiB a piece.
        say: is told a line at a time.

    Raises:
        UserError: something can't be had, or the folder is not empty.
    """
    wanted, cache = needed(with_mpnet), default_cache()
    if to is None:
        for one in wanted:
            size = f"{one.size(cache):,} bytes" if one.there else "not in the cache yet"
            say(f"{one.what}: {one.package.name} {one.package.version}, {size}")
        say("--assets DIR puts them into a folder, fetching what is not in the cache.")
        return
    folder = Path(to)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder", "Name another one with --assets.")
    total = sum(_collect(one, folder, say) for one in wanted)
    written = pieces(folder, int(piece_mib * MIB))
    shutil.rmtree(folder / "packages")
    say(f"{total:,} bytes in {len(written)} pieces: {', '.join(map(str, written))}")
    say(f"There: cat {PIECE}.* | tar -xf - -C CACHE, and PEFTMARK_CACHE=CACHE for gpu-report.")


def _collect(one: Needed, folder: Path, say: Callable[[str], Any]) -> int:
    """Put a package into the folder, from the cache where it lies there; its bytes."""
    cache = default_cache()
    for name, _ in one.package.files if one.there else ():
        target = folder / one.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(cache / one.folder / name, target)
    try:
        package_files(one.package, folder)  # checks what was copied, and fetches what wasn't
    except Unavailable as reason:
        raise UserError(f"{one.what}: {reason}", "Check the network access to PyPI.") from reason
    size = one.size(folder)
    say(f"{one.what}: {one.package.name} {one.package.version}, {size:,} bytes")
    return size


def pieces(folder: Path, most: int) -> list[Path]:
    """Write the folder's packages as an archive in pieces, each of so many bytes at most."""
    with (
        closing(_Pieces(folder, most)) as target,
        tarfile.open(fileobj=cast(Any, target), mode="w|") as archive,
    ):
        for path in sorted((folder / "packages").rglob("*")):
            if path.is_file() and not path.name.endswith(".lock"):
                archive.add(path, str(path.relative_to(folder)))
    return target.paths


class _Pieces:
    """A stream that goes into one file after the other."""

    def __init__(self, folder: Path, most: int) -> None:
        self._folder, self._most = folder, most
        self._file: Any = None
        self._room = 0
        self.paths: list[Path] = []

    def write(self, content: bytes) -> int:
        """Append bytes."""
        rest = memoryview(content)
        while rest:
            if not self._room:
                self.close()
                self.paths.append(self._folder / f"{PIECE}.{len(self.paths):02}")
                self._file, self._room = self.paths[-1].open("wb"), self._most
            part, rest = rest[: self._room], rest[self._room :]
            self._file.write(part)
            self._room -= len(part)
        return len(content)

    def close(self) -> None:
        """End the last file."""
        if self._file is not None:
            self._file.close()

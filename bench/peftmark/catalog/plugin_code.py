"""The code of a plug-in as it is installed: its files, their hash, and what it depends on.

Hashed are all files of the package that an entry point names, as its distribution lists them or,
where that doesn't list the package (an editable installation), as they lie in the package's folder.
What it depends on is not hashed; versions say what was there.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path

from peftmark.catalog.own_metric import on_path
from peftmark.core.hashes import known_sha256

_SKIPPED = ("__pycache__",)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def files_of(distribution: metadata.Distribution, module: str) -> Mapping[str, Path]:
    """Name -> path of every file that is hashed, sorted by name.

    Args:
        module: the one that an entry point names; it is looked for and not imported.
    """
    home = on_path(module.split("."))
    if home is None:
        return {}
    listed = {
        str(entry): Path(str(distribution.locate_file(entry)))
        for entry in distribution.files or ()
        if ".." not in entry.parts and not entry.parts[0].endswith((".dist-info", ".egg-info"))
    }
    found = {name: path for name, path in listed.items() if _counts(Path(name)) and path.is_file()}
    if not any(path.samefile(home) for path in found.values()):
        found = dict(_below(home, module))
    return dict(sorted(found.items()))


def _below(home: Path, module: str) -> Iterator[tuple[str, Path]]:
    """The files of the folder of a module's top package, or a module that is one file."""
    depth = module.count(".") + (home.name == "__init__.py")
    if not depth:
        yield home.name, home
        return
    top = home.parents[depth - 1]
    for path in top.rglob("*"):
        name = path.relative_to(top.parent)
        if path.is_file() and _counts(name):
            yield name.as_posix(), path


def _counts(name: Path) -> bool:
    """Whether a file says anything of what runs."""
    hidden = any(part.startswith(".") or part in _SKIPPED for part in name.parts)
    return not hidden and name.suffix not in (".pyc", ".pth")


def code_hash(files: Mapping[str, Path]) -> str:
    """First 16 hex digits of a SHA-256 over names and contents; a file is read again only when its
    stamp has changed."""
    digest = hashlib.sha256()
    for name, path in files.items():
        digest.update(f"{name}\0{known_sha256(path)}\n".encode())
    return digest.hexdigest()[:16]


def versions_of(distribution: metadata.Distribution) -> dict[str, str]:
    """Version of a distribution and of each that it says it needs, as far as they are there."""
    names = [distribution.name]
    for needed in distribution.requires or ():
        match = _NAME.match(needed)
        if match is not None and "extra ==" not in needed:
            names.append(match[0])
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found

"""Where files come from, as plain data: a repository on the hub, a package on PyPI."""

from __future__ import annotations

from dataclasses import dataclass

SOURCES = ("mirror", "hub", "package")


@dataclass(frozen=True)
class Slice:
    """A stretch of a zip archive that lies in a distribution of its own.

    Attributes:
        name: distribution name.
        sha256: hash of the wheel.
        member: path of the stretch inside the wheel.
    """

    name: str
    sha256: str
    member: str


@dataclass(frozen=True)
class Package:
    """Files inside a distribution on PyPI that is read and never imported.

    Attributes:
        name: distribution name; of several, what theirs begin with.
        version: exact version.
        sha256: hash of the wheel, or of the archive that the slices make.
        root: folder inside the wheel or archive that holds the files.
        files: (path below root, SHA-256) of every file that is read.
        slices: of an archive too large for one distribution, its parts in order, all of the same
            version; empty where the files lie in the wheel itself.
    """

    name: str
    version: str
    sha256: str
    root: str
    files: tuple[tuple[str, str], ...]
    slices: tuple[Slice, ...] = ()


@dataclass(frozen=True)
class Hub:
    """A repository on the model hub at a pinned commit.

    Attributes:
        revision: 40 hexadecimal digits; branch names move and are refused.
        config: configuration (subset) name of a data set.
        train: name of the training split of a data set.
        eval: name of the evaluation split of a data set.
    """

    repository: str
    revision: str
    config: str | None = None
    train: str = "train"
    eval: str = "validation"

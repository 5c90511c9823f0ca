"""What a job left behind, as text: so it comes home from a node with the job's answer."""

from __future__ import annotations

import base64
import os
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

LARGEST = 512 * 2**20
"""Bytes that a node sends home at most: an answer is one text in memory, on both sides, and in
Ray's store between them. What is larger (full fine-tuning of a model) is not kept."""


def packed(folder: Path) -> dict[str, str]:
    """The files of a folder by their names in it; empty if it isn't there.

    Raises:
        ValueError: they are too large.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    size = sum(file.stat().st_size for file in files)
    if size > LARGEST:
        raise ValueError(
            f"it weighs {size / 2**20:,.0f} MiB, and a node sends {LARGEST // 2**20} MiB at most"
        )
    return {
        file.relative_to(folder).as_posix(): base64.b64encode(file.read_bytes()).decode("ascii")
        for file in files
    }


def unpack(files: Mapping[str, str], folder: Path) -> None:
    """Write files into a folder that isn't there, all or none.

    Raises:
        OSError: they can't be written.
        ValueError: a name that leads out of the folder.
    """
    part = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    for name, content in files.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"a node sent a file {name!r}")
        (part / path).parent.mkdir(parents=True, exist_ok=True)
        (part / path).write_bytes(base64.b64decode(content))
    os.replace(part, folder)

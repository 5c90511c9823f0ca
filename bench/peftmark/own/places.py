"""Where files and folders of one's own lie: one way to look for what a suite or an option names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from peftmark.core.errors import AssetError
from peftmark.core.files import refuse_special
from peftmark.core.shown import plain

REMEDY = "A path is looked for in the working directory and beside the suite's file: fix it."


def find(name: str, places: Sequence[Path], folder: bool = False) -> Path:
    """The file or folder of a name, looked for in the folders in order; ~ is the user's own.

    Args:
        folder: whether it has to be a folder.

    Raises:
        AssetError: it is in none of them; all are named. Or it is neither file nor folder.
    """
    candidates = dict.fromkeys(place / Path(name).expanduser() for place in places)
    for path in candidates:
        refuse_special(path)
        if path.is_dir() if folder else path.exists():
            return path
    looked = " nor ".join(plain(str(path)) for path in candidates)
    raise AssetError(f"there is no {'folder' if folder else 'file'} {looked}", REMEDY)

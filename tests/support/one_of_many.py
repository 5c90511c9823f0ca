"""A process that makes a thing beside others, or waits for them; it loads no torch."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from peftmark.lab import cache as kept_things
from peftmark.lab.cache import keep
from waiting import PATIENCE, announce_locks, wait_for

MANY = 4


def one_of_many(cache: Path, lined_up: Path, queue: Any, together: Any) -> None:
    """Tell how often this process made the thing; whoever makes it waits for all to ask for it."""
    made = []
    announce_locks(kept_things.fcntl, lined_up)
    all_ask = partial(wait_for, lambda: len(list(lined_up.iterdir())) == MANY)

    def make(folder: Path) -> dict[str, Any]:
        made.append(folder)
        all_ask()
        (folder / "file").write_text("content")
        return {}

    together.wait(PATIENCE)
    keep(cache, "things", {}, make)
    queue.put(len(made))

"""What stored rows say of plug-ins, for reading them where a plug-in isn't installed any more.

A job carries the catalogue row of every plug-in that it uses (`peftmark.record.plugin`). Whoever
reads stored rows notes it here, and a name that no table has is looked up here.
"""

from __future__ import annotations

from typing import Any, Literal

Kind = Literal["quantization", "metric", "method", "model", "task"]
"""What a plug-in may add, in the order they are loaded: a method names quantizations."""

_SEEN: dict[tuple[Kind, str], Any] = {}


def note(kind: Kind, key: str, row: Any) -> None:
    """Keep the row of a plug-in, in place of what was kept before."""
    _SEEN[kind, key] = row


def seen(kind: Kind, key: str) -> Any | None:
    """The row of a plug-in as stored rows have it; None if none has one."""
    return _SEEN.get((kind, key))


def forget() -> None:
    """Know nothing of earlier rows, as in a fresh process."""
    _SEEN.clear()

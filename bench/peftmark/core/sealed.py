"""JSON that carries the SHA-256 of its own bytes, for what is kept in caches: a bit that flips
anywhere makes it nothing, and never another value."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def sealed(value: Any) -> str:
    """A value as JSON, below a line with the SHA-256 of what follows it."""
    body = json.dumps(value, sort_keys=True) + "\n"
    return f"{_digest(body)}\n{body}"


def unsealed(text: str) -> Any:
    """The value of a sealed text.

    Raises:
        ValueError: it isn't what was sealed.
    """
    digest, _, body = text.partition("\n")
    if digest != _digest(body):
        raise ValueError("the SHA-256 is not the one it was written with")
    return json.loads(body)


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode("utf-8", "surrogatepass")).hexdigest()

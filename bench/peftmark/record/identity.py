"""What of a job its identity hashes, and how later fields leave old identities as they are.

A field's metadata says how it stands in the text that is hashed: under another name (`named`), only
where it differs from its default (`LATER`: the default is what every job before it did), or not at
all (`BESIDE`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

LATER: Mapping[str, Any] = {"hashed": "unless default"}
"""Metadata of a field that came later: at its default it is left out, so that ids stay."""
BESIDE: Mapping[str, Any] = {"hashed": "never"}
"""Metadata of a field that changes nothing of what a job does."""
_ALWAYS = object()


def named(key: str) -> Mapping[str, Any]:
    """Metadata of a field that stands under another name in the text."""
    return {"key": key}


def hashed(value: object) -> dict[str, Any]:
    """The fields of a dataclass that its identity is made of, one level deep."""
    return {
        key: found
        for name, key, left_out_at in _rules_of(type(value))
        if (found := getattr(value, name)) != left_out_at
    }


_rules: dict[type, tuple[tuple[str, str, Any], ...]] = {}


def _rules_of(kind: type) -> tuple[tuple[str, str, Any], ...]:
    """As `_find_rules`, found once a type: plans have thousands of jobs."""
    if kind not in _rules:
        _rules[kind] = _find_rules(kind)
    return _rules[kind]


def _find_rules(kind: type) -> tuple[tuple[str, str, Any], ...]:
    """(field, key, value at which it is left out) of each field that may be hashed."""
    found = []
    for field in fields(kind):
        how = field.metadata.get("hashed", "always")
        if how == "never":
            continue
        default = field.default
        if default is MISSING and field.default_factory is not MISSING:
            default = field.default_factory()
        left_out_at = default if how == "unless default" else _ALWAYS
        found.append((field.name, field.metadata.get("key", field.name), left_out_at))
    return tuple(found)


def identity_of(text: str) -> str:
    """First 16 hex digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]

"""Faults of a suite's file in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import ValidationError


def fault_lines(error: ValidationError) -> Iterator[str]:
    """Each fault of a file as one line: path, value found, values allowed."""
    for item in error.errors(include_url=False):
        path = ""
        for part in item["loc"]:
            if part == "[key]":
                continue
            path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
        found = "" if item["type"] == "missing" else f"found {short(item['input'])}; "
        message = item["msg"].removeprefix("Value error, ")
        if item["type"] == "extra_forbidden":
            found, message = "", "unknown key"
        if isinstance(item["input"], str) and "number" in message:
            message += " (write it without quotes)"
        yield f"{path or 'file'}: {found}{message[:1].lower()}{message[1:]}"


def short(value: Any) -> str:
    """A value as it stands in a message, cut at 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."

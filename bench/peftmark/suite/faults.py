"""Faults of a suite's file in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from peftmark.core.errors import SuiteError
from peftmark.core.shown import plain, quoted

MAPPING = "a mapping is needed: key: value"
LIST = "a list is needed, such as [a, b]"
IN_WORDS = {
    "dict_type": MAPPING,
    "mapping_type": MAPPING,
    "model_type": MAPPING,
    "model_attributes_type": MAPPING,
    "list_type": LIST,
    "tuple_type": LIST,
}
"""Type of fault -> what is needed, where pydantic's own words are of Python and not of YAML."""


def refused(path: Path, faults: Sequence[str], remedy: str) -> SuiteError:
    """The error of a file with faults, a line each."""
    count = "one fault" if len(faults) == 1 else f"{len(faults)} faults"
    lines = "\n".join(f"  {fault}" for fault in faults)
    return SuiteError(f"{path}: {count}:\n{lines}", remedy)


def fault_lines(error: ValidationError) -> Iterator[str]:
    """Each fault of a file as one line: path, value found, values allowed."""
    for item in error.errors(include_url=False):
        path = ""
        of_key = item["loc"][-1:] == ("[key]",)
        for part in item["loc"]:
            if part == "[key]":
                continue
            path += (
                f"[{part}]"
                if isinstance(part, int) and not of_key
                else f".{part}"
                if path
                else str(part)
            )
        found = "" if item["type"] == "missing" else f"found {quoted(item['input'])}; "
        message = item["msg"].removeprefix("Value error, ")
        message = IN_WORDS.get(item["type"], message)
        if item["type"] == "extra_forbidden":
            found, message = "", "unknown key"
        elif item["type"] == "too_short":
            least = item.get("ctx", {}).get("min_length", 1)
            message = f"at least {least} {'is' if least == 1 else 'are'} needed"
        elif of_key and item["type"] == "string_type":
            message = "a name is a word; write it in quotes if it is meant as one"
        elif item["type"] == "own_task":
            found = ""  # It is the whole task: the message says which of its keys
        if isinstance(item["input"], str) and "number" in message:
            message += " (write it without quotes)"
        yield f"{plain(path) or 'file'}: {found}{message[:1].lower()}{message[1:]}"
